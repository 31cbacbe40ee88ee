"""Bodies of the Responses API: what clients send, and the shapes of what they get (OpenAI's API reference).

What is not among the fields is the bot's own affair at Coze and read over; docs/openai.md has the list.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from app.doors.openai.values import ClearObject, ClearText, ClearTexts, Flag
from app.models.documented import Body, Documented, example

_MAX_ID: Final = 200
_FORMATS: Final = ("text", "json_object", "json_schema")

Item = dict[str, JsonValue]
_Items = Annotated[list[Item], Field(min_length=1, max_length=10_000)]


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


class ResponseRequest(Body):
    """OpenAI's request for a response. Sampling parameters and what is not named here are ignored."""

    model_config = example({"model": "coze", "input": "你好", "stream": False})

    MOST_VALUES: ClassVar[int] = 50_000

    model: Annotated[str, StringConstraints(min_length=1, max_length=200), ClearText]
    """A name in COZE_BOTS."""
    input: Annotated[_Items, BeforeValidator(_as_items, json_schema_input_type=str | _Items)]
    """A text, or items: messages, function calls and their outputs. The last message is the question."""
    instructions: Annotated[
        Annotated[str, StringConstraints(max_length=100_000)] | None,
        BeforeValidator(_as_instructions),
        ClearText,
    ] = None
    """Goes along before the input, as a message of the user's."""
    stream: Flag | None = None
    """Whether the answer is to come as server-sent events."""
    background: Flag | None = None
    """Whether to answer at once, while the bot is at work."""
    store: Flag | None = None
    """Whether the response may be asked for later; `background` needs it."""
    previous_response_id: Annotated[str, StringConstraints(max_length=_MAX_ID)] | None = None
    """The response to go on from."""
    conversation: Annotated[
        Annotated[str, StringConstraints(max_length=_MAX_ID)] | None, BeforeValidator(_as_conversation)
    ] = None
    """The conversation to go on with: an id that a response has told."""
    metadata: Annotated[Annotated[dict[str, str], Field(max_length=16)] | None, ClearTexts] = None
    """Told with the response, and sent to Coze as `meta_data`. A `session_id` in it is no session here: see
    `conversation`."""
    user: Annotated[Annotated[str, StringConstraints(max_length=128)] | None, ClearText] = None
    """Whose message it is: the user at Coze. Without it, the person or the key's name."""
    text: Annotated[dict[str, JsonValue] | None, ClearObject, AfterValidator(_known_format)] = None
    """`format`: `text`, `json_object` or `json_schema`; best effort, since Coze cannot be told."""
    tools: list[JsonValue] | None = None
    """The functions of which one may be demanded by `tool_choice`."""
    tool_choice: JsonValue = None
    """`required`, a named function and `allowed_tools` demand a call; with others tools are ignored."""
    prompt: JsonValue = None
    """Stored prompts of OpenAI's: refused, the bot has its own."""


# -- answers ---------------------------------------------------------------------------------------------


class ResponseUsage(Documented):
    """Tokens, as Coze counted them; it tells no details."""

    input_tokens: int
    """Tokens that the bot read."""
    input_tokens_details: dict[str, int]
    """Always zeros."""
    output_tokens: int
    """Tokens that the bot wrote."""
    output_tokens_details: dict[str, int]
    """Always zeros."""
    total_tokens: int
    """Both together."""


class ResponseFailure(Documented):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    """Which failure it is, as OpenAI's clients know them."""
    message: str
    """What went wrong, with Coze's code and our advice."""


class ResponseObject(Documented):
    """A bot's answer, as OpenAI's clients read it. Fields that do not apply are null, or as OpenAI has them
    by default."""

    model_config = ConfigDict(extra="allow")

    id: str
    """Id of the response."""
    object: Literal["response"] = "response"
    """Always `response`."""
    created_at: int
    """When it was asked for: unix seconds."""
    completed_at: int | None
    """When it was complete: unix seconds; null where it is not."""
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    """How far it is; all but `queued` and `in_progress` are over."""
    background: bool
    """Whether it was asked for in background."""
    conversation: dict[str, str] | None
    """`id` of the conversation that it belongs to, if any."""
    error: ResponseFailure | None
    """Why it failed."""
    incomplete_details: dict[str, str] | None
    """Always null."""
    instructions: str | None
    """The instructions that came with it."""
    metadata: dict[str, str]
    """The metadata that came with it."""
    model: str
    """The bot's name in COZE_BOTS."""
    output: list[dict[str, Any]]
    """Items of the types `reasoning`, `message` and `function_call`."""
    parallel_tool_calls: bool
    """Always true."""
    previous_response_id: str | None
    """The response that it went on from."""
    store: bool
    """Whether it may be asked for later."""
    text: dict[str, Any]
    """The form that was asked for."""
    tool_choice: Any
    """The choice that came with it."""
    tools: list[Any]
    """The tools that came with it."""
    usage: ResponseUsage | None
    """Tokens that it took; null where Coze told none."""
    user: str | None
    """The user that came with it."""


class ResponseItems(Documented):
    """A page of a response's input."""

    object: Literal["list"] = "list"
    """Always `list`."""
    data: list[dict[str, Any]]
    """The items."""
    first_id: str
    """Id of the first of them; empty where there is none."""
    last_id: str
    """Id of the last of them, to ask for the next page with `after`."""
    has_more: bool
    """Whether more follow."""


class DeletedResponse(Documented):
    """A response that is no longer kept."""

    id: str
    """Id of the response."""
    object: Literal["response"] = "response"
    """Always `response`."""
    deleted: Literal[True] = True
    """Always true."""
