"""OpenAI's chat completions: what clients send, and the shapes of what they get (OpenAI's API reference).

Sampling parameters (temperature, max_completion_tokens, stop, ...) and ``tools`` that the client does not
demand are the bot's own affair at Coze: they are read over. What would change the meaning of the answer and
cannot be done is refused. docs/openai.md has the list.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, ValidationInfo, field_validator, model_validator

from app.doors.openai.values import (
    MOST_PARTS,
    ClearContent,
    ClearMessages,
    ClearObject,
    ClearText,
    ClearTexts,
    Count,
    Flag,
)
from app.models.documented import Body, Documented, example

SESSION_KEY: Final = "session_id"
"""Key in ``metadata`` that names a session of ours."""
MAX_MESSAGES: Final = 10_000
_ANY: Final = ("required", "any")
_FORMS: Final = ("text", "json_object", "json_schema")

Part = dict[str, JsonValue]


_IfSet: Final = Field(exclude_if=lambda value: value is None)
"""What is not there does not count for an Idempotency-Key either: replicas of the version before do not know
these fields."""


class DialogMessage(Body):
    """A message of the conversation so far; the last one is what the bot is asked."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """Who said it. What `system` and `developer` say goes along as a message of the user's."""
    content: Annotated[str | Annotated[list[Part], Field(max_length=MOST_PARTS)] | None, ClearContent] = None
    """A text, or parts; of an earlier message those that cannot be sent are passed over."""
    tool_call_id: Annotated[Annotated[str, StringConstraints(max_length=2000)] | None, ClearText] = None
    """With the role `tool`: the call that it answers."""
    tool_calls: JsonValue = None
    """With the role `assistant`: the calls of the completion before, as they came."""
    name: Annotated[JsonValue, _IfSet] = None
    """With the role `function`: the function that it answers."""
    function_call: Annotated[JsonValue, _IfSet] = None
    """The older form of `tool_calls`."""


class StreamOptions(Body):
    """What a stream is to hold."""

    include_usage: Flag | None = None
    """Whether a last chunk tells the tokens."""


class ChatCompletionRequest(Body):
    """OpenAI's request for a chat completion. Sampling parameters and what is not named here are ignored."""

    model_config = example(
        {"model": "coze", "messages": [{"role": "user", "content": "你好"}], "stream": False}
    )

    MOST_VALUES: ClassVar[int] = 50_000  # 10,000 messages, some with parts and tool calls

    model: Annotated[str, StringConstraints(min_length=1, max_length=200), ClearText]
    """A name in COZE_BOTS."""
    messages: Annotated[list[DialogMessage], Field(min_length=1), ClearMessages]
    """The conversation so far."""
    stream: Flag | None = None
    """Whether the answer is to come as server-sent events."""
    stream_options: Annotated[StreamOptions | None, ClearObject] = None
    """What a stream is to hold."""
    user: Annotated[Annotated[str, StringConstraints(max_length=128)] | None, ClearText] = None
    """Whose message it is: the user at Coze. Without it, the person or the key's name."""
    metadata: Annotated[Annotated[dict[str, str], Field(max_length=16)] | None, ClearTexts] = None
    """`session_id` goes on with a session of ours; the rest is sent to Coze as `meta_data`."""
    n: Count | None = None
    """1; more is refused."""
    logprobs: Flag | None = None
    """False; true is refused."""
    tool_choice: JsonValue = None
    """`required`, a named function and `allowed_tools` demand a call; with `auto` and `none` tools are
    ignored."""
    tools: Annotated[JsonValue, _IfSet] = None
    """The functions of which one may be demanded by `tool_choice`."""
    function_call: Annotated[JsonValue, _IfSet] = None
    """The older form of `tool_choice`."""
    functions: Annotated[JsonValue, _IfSet] = None
    """The older form of `tools`."""
    response_format: JsonValue = None
    """`text`, `json_object` or `json_schema`; best effort, since Coze cannot be told."""

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

    @field_validator("tool_choice", "function_call")
    @classmethod
    def _choice_is_understood(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        if value is None or value in ("auto", "none"):
            return value
        if info.field_name == "function_call":
            understood = isinstance(value, dict) and isinstance(value.get("name"), str)
        elif isinstance(value, dict):
            kind = value.get("type")
            understood = kind in ("auto", "none") or _demanded_by(value) is not None
        else:
            understood = value in _ANY
        if not understood:
            raise ValueError("must be auto, none or required, or name one function")
        return value

    @field_validator("response_format")
    @classmethod
    def _form_is_understood(cls, value: JsonValue) -> JsonValue:
        if value is None or (value.get("type") if isinstance(value, dict) else value) in _FORMS:
            return value
        raise ValueError("must have the type text, json_object or json_schema")

    @model_validator(mode="after")
    def _only_demanded_tools_count(self) -> Self:
        """What the client merely offers is the bot's affair, and changes nothing."""
        if self.demanded_functions is None:
            self.tools = self.functions = None
            self.function_call = None
        return self

    @property
    def is_legacy_call(self) -> bool:
        """Demanded by ``function_call``, from before there was ``tool_choice``."""
        return isinstance(self.function_call, dict)

    @property
    def demanded_functions(self) -> list[Any] | None:
        """The tools of which one is to be called, as they came; None where none is demanded."""
        if isinstance(self.function_call, dict):
            return _named(self.functions, {self.function_call["name"]})
        choice = self.tool_choice
        if isinstance(choice, str) and choice in _ANY:
            return self.tools if isinstance(self.tools, list) else []
        names = _demanded_by(choice) if isinstance(choice, dict) else None
        return _named(self.tools, names) if names else None

    @property
    def session_id(self) -> str | None:
        return (self.metadata or {}).get(SESSION_KEY)

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def _demanded_by(choice: dict[str, Any]) -> set[str] | None:
    """The names of which one is to be called; empty where the choice is the bot's. None: not understood."""
    match choice:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return {name}
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": list()}}:
            return set()
        case {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": list(tools)}}:
            return {name for tool in tools if isinstance(tool, dict) for name in _demanded_by(tool) or ()}
    return None


def _named(tools: Any, names: set[Any]) -> list[Any]:
    return [tool for tool in tools if _name_of(tool) in names] if isinstance(tools, list) else []


def _name_of(tool: Any) -> Any:
    given = tool.get("function", tool) if isinstance(tool, dict) else None
    name = given.get("name") if isinstance(given, dict) else None
    return name if isinstance(name, str) else None


# -- answers ---------------------------------------------------------------------------------------------


class CompletionUsage(Documented):
    """Tokens, as Coze counted them."""

    prompt_tokens: int
    """Tokens that the bot read."""
    completion_tokens: int
    """Tokens that the bot wrote."""
    total_tokens: int
    """Both together."""


class CompletionMessage(Documented):
    """What the bot answers."""

    role: Literal["assistant"] = "assistant"
    """Always `assistant`."""
    content: str | None
    """The answer's text; null beside a refusal or a call that was demanded."""
    reasoning_content: str | None = None
    """The bot's thoughts, where it tells them."""
    refusal: str | None = None
    """Why there is no answer in the form that was asked for."""
    tool_calls: list[dict[str, Any]] | None = None
    """The functions that are to be called, each with `id`, `type` and `function`."""
    function_call: dict[str, str] | None = None
    """The function that is to be called, `name` and `arguments`, where it was demanded in the older form."""


class CompletionChoice(Documented):
    """The one answer."""

    index: Literal[0] = 0
    """Always 0."""
    message: CompletionMessage
    """What the bot answers."""
    logprobs: None = None
    """Always null."""
    finish_reason: Literal["stop", "tool_calls", "function_call"]
    """`stop`, or what is to be called before the bot goes on."""


class ChatCompletion(Documented):
    """A bot's answer, as OpenAI's clients read it."""

    id: str
    """`chatcmpl-` and the chat's id, behind which `-` and a number stand where tool outputs were answered."""
    object: Literal["chat.completion"] = "chat.completion"
    """Always `chat.completion`."""
    created: int
    """When the chat was created: unix seconds."""
    model: str
    """The bot's name in COZE_BOTS."""
    choices: list[CompletionChoice]
    """Always one."""
    usage: CompletionUsage | None
    """Tokens that it took; null where Coze told none."""
    system_fingerprint: None = None
    """Always null."""


class BotModel(Documented):
    """A bot, as OpenAI's clients see a model."""

    id: str
    """Its name in COZE_BOTS."""
    object: Literal["model"] = "model"
    """Always `model`."""
    created: int
    """When the service was started: unix seconds."""
    owned_by: Literal["coze"] = "coze"
    """Always `coze`."""


class BotModels(Documented):
    """The bots of COZE_BOTS."""

    object: Literal["list"] = "list"
    """Always `list`."""
    data: list[BotModel]
    """The bots."""


class OpenAIErrorBody(Documented):
    """What went wrong."""

    message: str
    """What went wrong, in words."""
    type: str
    """The kind of failure, in OpenAI's words."""
    param: str | None
    """The field that is wrong, where it is one."""
    code: str | None
    """Which failure it is; programs decide by it."""


class OpenAIError(Documented):
    """Every failure that OpenAI's clients see."""

    error: OpenAIErrorBody
    """What went wrong."""
