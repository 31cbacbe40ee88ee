"""What the service answers, as frozen dataclasses. ``raw`` is the JSON, with what a newer service adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ._errors import service_error

if TYPE_CHECKING:
    from typing_extensions import Self

ChatStatus = Literal["pending", "processing", "completed", "failed", "cancelled", "requires_action"]
SessionStatus = Literal["active", "inactive", "expired", "terminated"]
Json = Mapping[str, Any]


class _SaidMessage(TypedDict):
    role: Literal["user", "assistant"]
    content: str


class EnterMessage(_SaidMessage, total=False):
    """A message of the conversation so far."""

    content_type: Literal["text", "object_string"]
    type: str
    meta_data: Mapping[str, str]


class Attachment(TypedDict, total=False):
    """Either ``file_id`` (of ``files.upload``) or an https ``file_url``, which needs ``type``."""

    file_id: str
    file_url: str
    type: Literal["image", "file", "audio"]


class SessionOptions(TypedDict, total=False):
    """What ``sessions.create`` takes besides the user. ``conversation_id``: one to go on with."""

    bot_id: str
    conversation_id: str
    additional_messages: list[EnterMessage]
    auto_save_history: bool
    meta_data: Mapping[str, str]
    idempotency_key: str


class MessageOptions(TypedDict, total=False):
    """What ``chats.send`` and ``chats.stream`` take besides the message."""

    additional_messages: list[EnterMessage]
    custom_variables: Mapping[str, str]
    meta_data: Mapping[str, str]
    parameters: Mapping[str, Any]
    on_busy: Literal["reject", "interrupt", "enqueue"]
    attachments: list[Attachment]
    idempotency_key: str


class RegenerateOptions(TypedDict, total=False):
    """What ``chats.regenerate`` and ``chats.stream_regenerated`` take: of a message's options these are not
    kept."""

    custom_variables: Mapping[str, str]
    parameters: Mapping[str, Any]
    idempotency_key: str


class Model:
    """Fields that an answer lacks keep their defaults; what it has besides is only in ``raw``."""

    @classmethod
    def parse(cls, data: Json) -> Self:
        readers: dict[str, Callable[[Any], Any]] = cls.readers()
        values: dict[str, Any] = {}
        for each in fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = data.get(each.name)
            if value is not None:
                values[each.name] = readers.get(each.name, _same)(value)
        if any(each.name == "raw" for each in fields(cls)):  # type: ignore[arg-type]
            values["raw"] = data
        return cls(**values)

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        """How fields are read that are not what JSON has."""
        return {}


def _same(value: Any) -> Any:
    return value


def _parse_all(model: type[Model]) -> Callable[[Any], Any]:
    return lambda items: tuple(model.parse(item) for item in items)


@dataclass(frozen=True)
class Usage(Model):
    """In tokens, as Coze counts them."""

    token_count: int = 0
    input_count: int = 0
    output_count: int = 0


@dataclass(frozen=True)
class ChatError(Model):
    """Why a chat failed."""

    code: str
    message: str = ""
    retryable: bool = False
    coze_code: int | None = None
    logid: str | None = None
    hint: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True)
class ToolCall:
    """What a bot asks for. ``arguments`` is JSON, as the bot wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Chat(Model):
    """One message and its answer."""

    chat_id: str
    session_id: str
    status: ChatStatus
    content: str = ""
    reasoning_content: str = ""
    follow_up_questions: tuple[str, ...] = ()
    usage: Usage | None = None
    error: ChatError | None = None
    recovered: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {
            "usage": Usage.parse,
            "error": ChatError.parse,
            "follow_up_questions": tuple,
            **dict.fromkeys(("created_at", "updated_at", "completed_at"), datetime.fromisoformat),
        }

    @property
    def settled(self) -> bool:
        """Over, or waiting for tool outputs."""
        return self.status not in ("pending", "processing")

    @property
    def user_message(self) -> str:
        return str((self.raw.get("user_message") or {}).get("content", ""))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """What ``requires_action`` waits for: answer all of them with ``chats.submit_tool_outputs``."""
        action = (self.raw.get("required_action") or {}).get("submit_tool_outputs") or {}
        return tuple(
            ToolCall(call["id"], call.get("function", {}).get("name", ""), call["function"]["arguments"])
            if call.get("function")
            else ToolCall(call["id"], "", "")
            for call in action.get("tool_calls", ())
        )

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event of its stream."""
        return self.metadata.get("last_event_id")

    def raise_for_error(self) -> Self:
        """Raises what made the chat fail, as ``chats.send`` does; else returns the chat."""
        if self.error is None or self.status != "failed":
            return self
        ids = {name: getattr(self.error, name) for name in ("coze_code", "logid", "hint")}
        details = {
            "chat_id": self.chat_id,
            **{name: value for name, value in ids.items() if value is not None},
        }
        body = {
            "code": self.error.code,
            "message": self.error.message,
            "retryable": self.error.retryable,
            "details": details,
        }
        raise service_error(body, retry_after=self.error.retry_after)


@dataclass(frozen=True)
class Session(Model):
    """A conversation of one user with one bot. ``chat_history``: its newest chats, newest last or first as
    the service sends them."""

    session_id: str
    user_id: str
    status: SessionStatus
    created_at: datetime | None = None
    updated_at: datetime | None = None
    last_activity_at: datetime | None = None
    expires_at: datetime | None = None
    conversation_id: str | None = None
    title: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    chat_count: int = 0
    chat_history: tuple[Chat, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        times = ("created_at", "updated_at", "last_activity_at", "expires_at")
        return {**dict.fromkeys(times, datetime.fromisoformat), "chat_history": _parse_all(Chat)}

    @property
    def bot_id(self) -> str:
        return str((self.raw.get("context") or {}).get("bot_id", ""))


@dataclass(frozen=True)
class ChatPage(Model):
    """Chats, newest first; ``chats.list(session_id, before=page.next_before)`` has the next page."""

    chats: tuple[Chat, ...] = ()
    has_more: bool = False
    next_before: str | None = None

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"chats": _parse_all(Chat)}


@dataclass(frozen=True)
class HistoryMessage(Model):
    """A message as Coze stored it. ``chat_id``: where the session still keeps its chat."""

    message_id: str
    role: str
    type: str
    content: str = ""
    content_type: str = "text"
    reasoning_content: str = ""
    created_at: datetime | None = None
    chat_id: str | None = None
    meta_data: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"created_at": datetime.fromisoformat}


@dataclass(frozen=True)
class HistoryPage(Model):
    """``after=page.last_id`` asks for the next page, ``before=page.first_id`` for the one before."""

    messages: tuple[HistoryMessage, ...] = ()
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None
    conversation_id: str | None = None

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"messages": _parse_all(HistoryMessage)}


@dataclass(frozen=True)
class ClearedContext(Model):
    """``section_id``: Coze's name of the new context; None where there was no conversation yet."""

    session_id: str
    conversation_id: str | None = None
    section_id: str | None = None


@dataclass(frozen=True)
class Conversation(Model):
    """One that a user has had at Coze: ``sessions.create(user_id, conversation_id=...)`` goes on with it."""

    conversation_id: str
    title: str | None = None
    bot_id: str = ""
    created_at: datetime | None = None
    last_used_at: datetime | None = None

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return dict.fromkeys(("created_at", "last_used_at"), datetime.fromisoformat)


@dataclass(frozen=True)
class ConversationPage(Model):
    """The last used first; ``conversations.list(user_id, before=page.next_before)`` has the next page."""

    conversations: tuple[Conversation, ...] = ()
    has_more: bool = False
    next_before: str | None = None

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"conversations": _parse_all(Conversation)}


@dataclass(frozen=True)
class Bot(Model):
    """``name`` is None while Coze does not describe the bot."""

    bot_id: str
    name: str | None = None
    description: str = ""
    icon_url: str | None = None
    opening_text: str = ""
    suggested_questions: tuple[str, ...] = ()

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"suggested_questions": tuple}


@dataclass(frozen=True)
class GivenFeedback(Model):
    """``feedback_type``: None once it was taken back."""

    chat_id: str
    feedback_type: str | None = None
    reason_types: tuple[str, ...] = ()
    comment: str = ""

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"reason_types": tuple}


@dataclass(frozen=True)
class StoredFile(Model):
    """``type`` and ``mime`` by its content."""

    file_id: str
    file_name: str
    bytes: int
    type: str
    mime: str
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return dict.fromkeys(("created_at", "expires_at"), datetime.fromisoformat)


@dataclass(frozen=True)
class UsageRow(Model):
    """Chats and tokens; what it is not grouped by is None."""

    chats: int = 0
    tokens: int = 0
    input: int = 0
    output: int = 0
    day: str | None = None
    bot_id: str | None = None
    user_id: str | None = None
    root: str | None = None


@dataclass(frozen=True)
class UsageReport(Model):
    """``since`` and ``to``: days (UTC), inclusive."""

    rows: tuple[UsageRow, ...] = ()
    total: UsageRow = field(default_factory=UsageRow)
    since: str = ""
    to: str = ""
    group_by: tuple[str, ...] = ()

    @classmethod
    def readers(cls) -> dict[str, Callable[[Any], Any]]:
        return {"rows": _parse_all(UsageRow), "total": UsageRow.parse, "group_by": tuple}


@dataclass(frozen=True)
class Erased(Model):
    """What was erased of a user, over all calls that it took."""

    user_id: str
    erased_sessions: int = 0
    erased_chats: int = 0
    remaining_sessions: int = 0
    erased_files: int = 0


@dataclass(frozen=True)
class Health(Model):
    status: str
    version: str = ""
    redis: str = ""
    redis_mode: str = ""
    running_chats: int = 0
    uptime_seconds: int = 0
    raw: Json = field(default_factory=dict, repr=False, compare=False)
