"""OpenAI's chat completions: what clients send, and the shapes of what they get (OpenAI's API reference).

Sampling parameters (temperature, max_tokens, stop, ...) and ``tools`` are the bot's own affair at Coze: they
are read over. What would change the meaning of the answer is refused.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from app.doors.openai.values import (
    ClearContent,
    ClearMessages,
    ClearObject,
    ClearText,
    ClearTexts,
    Count,
    Flag,
)

SESSION_KEY: Final = "session_id"
"""Key in ``metadata`` that names a session of ours."""
MAX_MESSAGES: Final = 10_000

Part = dict[str, JsonValue]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class DialogMessage(_Body):
    """``content``: a text, or parts; of an earlier message those that cannot be sent are passed over."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str | Annotated[list[Part], Field(max_length=1000)] | None, ClearContent] = None
    tool_call_id: Annotated[Annotated[str, StringConstraints(max_length=2000)] | None, ClearText] = None
    tool_calls: JsonValue = None


class StreamOptions(_Body):
    include_usage: Flag | None = None


class ChatCompletionRequest(_Body):
    """Body of POST /coze/openai/v1/chat/completions."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={
            "examples": [
                {"model": "coze", "messages": [{"role": "user", "content": "你好"}], "stream": False}
            ]
        },
    )

    MOST_VALUES: ClassVar[int] = 50_000  # 10,000 messages, some with parts and tool calls

    model: Annotated[str, StringConstraints(min_length=1, max_length=200), ClearText]
    messages: Annotated[list[DialogMessage], Field(min_length=1), ClearMessages]
    stream: Flag | None = None
    stream_options: Annotated[StreamOptions | None, ClearObject] = None
    user: Annotated[Annotated[str, StringConstraints(max_length=128)] | None, ClearText] = None
    metadata: Annotated[Annotated[dict[str, str], Field(max_length=16)] | None, ClearTexts] = None
    n: Count | None = None
    logprobs: Flag | None = None
    tool_choice: JsonValue = None
    response_format: JsonValue = None

    @model_validator(mode="before")
    @classmethod
    def _metadata_by_our_own_name(cls, values: Any) -> Any:
        """``meta_data``, as our own API and Coze call it: never dropped in silence."""
        if not isinstance(values, dict) or values.get("meta_data") is None:
            return values
        if values.get("metadata") is not None:
            raise ValueError("metadata and meta_data are the same: give one of them")
        return {**values, "metadata": values["meta_data"]}

    @field_validator("n")
    @classmethod
    def _one_choice(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise ValueError("only one choice is made")
        return value

    @field_validator("logprobs")
    @classmethod
    def _no_logprobs(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("Coze gives no log probabilities")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _bots_choose_their_tools(cls, value: JsonValue) -> JsonValue:
        chosen = value.get("type") if isinstance(value, dict) else value
        if chosen not in (None, "auto", "none") or (chosen is None and value is not None):
            raise ValueError("which tools are used is set in the bot at Coze")
        return value

    @field_validator("response_format")
    @classmethod
    def _text_alone(cls, value: JsonValue) -> JsonValue:
        if value not in (None, "text") and not (isinstance(value, dict) and value.get("type") == "text"):
            raise ValueError("the form of the answer is set in the bot at Coze; only text can be asked for")
        return value

    @property
    def session_id(self) -> str | None:
        return (self.metadata or {}).get(SESSION_KEY)

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


# -- answers ---------------------------------------------------------------------------------------------


class CompletionUsage(BaseModel):
    """As Coze counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | None = None
    refusal: None = None
    tool_calls: list[dict[str, Any]] | None = None


class CompletionChoice(BaseModel):
    index: Literal[0] = 0
    message: CompletionMessage
    logprobs: None = None
    finish_reason: Literal["stop", "tool_calls"]


class ChatCompletion(BaseModel):
    """``id``: ``chatcmpl-`` and the chat's id. ``usage`` null: Coze has told none."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None
    system_fingerprint: None = None


class BotModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["coze"] = "coze"


class BotModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[BotModel]


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    error: OpenAIErrorBody
