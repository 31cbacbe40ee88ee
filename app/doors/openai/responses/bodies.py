"""Bodies of the Responses API: what clients send, and the shapes of what they get (OpenAI's API reference).

What is not among the fields is the bot's own affair at Coze and read over; docs/openai.md has the list.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

from app.doors.openai.values import ClearObject, ClearText, ClearTexts, Flag

_MAX_ID: Final = 200
_FORMATS: Final = ("text", "json_object", "json_schema")

Item = dict[str, JsonValue]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


def _as_items(value: Any) -> Any:
    """A text alone, or one item alone."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    return [value] if isinstance(value, dict) else value


def _as_conversation(value: Any) -> Any:
    return value.get("id", value) if isinstance(value, dict) else value


def _as_instructions(value: Any) -> Any:
    """A list of items is what a reusable prompt's instructions are told as; the texts of it count."""
    if not isinstance(value, list):
        return value
    texts = []
    for item in value:
        content = item.get("content") if isinstance(item, dict) else item
        parts = content if isinstance(content, list) else [content]
        texts += [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "\n\n".join(text for text in texts if isinstance(text, str))


def _known_format(value: dict[str, Any] | None) -> dict[str, Any] | None:
    form = (value or {}).get("format")
    if form is not None and (not isinstance(form, dict) or form.get("type") not in _FORMATS):
        raise ValueError("`format` must have the type text, json_object or json_schema")
    return value


class ResponseRequest(_Body):
    """Body of POST /coze/openai/v1/responses."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={"examples": [{"model": "coze", "input": "你好", "stream": False}]},
    )

    MOST_VALUES: ClassVar[int] = 50_000

    model: Annotated[str, StringConstraints(min_length=1, max_length=200), ClearText]
    input: Annotated[list[Item], Field(min_length=1, max_length=10_000), BeforeValidator(_as_items)]
    instructions: Annotated[
        Annotated[str, StringConstraints(max_length=100_000)] | None,
        BeforeValidator(_as_instructions),
        ClearText,
    ] = None
    stream: Flag | None = None
    background: Flag | None = None
    store: Flag | None = None
    previous_response_id: Annotated[str, StringConstraints(max_length=_MAX_ID)] | None = None
    conversation: Annotated[
        Annotated[str, StringConstraints(max_length=_MAX_ID)] | None, BeforeValidator(_as_conversation)
    ] = None
    metadata: Annotated[Annotated[dict[str, str], Field(max_length=16)] | None, ClearTexts] = None
    user: Annotated[Annotated[str, StringConstraints(max_length=128)] | None, ClearText] = None
    text: Annotated[dict[str, JsonValue] | None, ClearObject, AfterValidator(_known_format)] = None
    tools: list[JsonValue] | None = None
    tool_choice: JsonValue = None
    prompt: JsonValue = None


# -- answers ---------------------------------------------------------------------------------------------


class ResponseUsage(BaseModel):
    """As Coze counted; it tells no details."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseFailure(BaseModel):
    """``code``: as OpenAI's clients know them. ``message`` has Coze's code and our advice."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class ResponseObject(BaseModel):
    """``output``: items of the types ``reasoning``, ``message`` and ``function_call``. Fields of OpenAI's
    that do not apply are null, or as they are there by default."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    background: bool
    conversation: dict[str, str] | None
    error: ResponseFailure | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    text: dict[str, Any]
    tool_choice: Any
    tools: list[Any]
    usage: ResponseUsage | None
    user: str | None


class ResponseItems(BaseModel):
    """A page of a response's input."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True
