"""The shapes of the contract: envelope, session, chat, request bodies; and who is asking."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from app.utils import iso

TaskStatus = Literal["completed", "processing", "failed", "cancelled", "requires_action"]
ChatStatus = Literal["pending", "processing", "completed", "failed", "cancelled", "requires_action"]
SessionStatus = Literal["active", "inactive", "expired", "terminated"]

TERMINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})
SETTLED_STATUSES: Final = TERMINAL_STATUSES | {"requires_action"}
"""What ends a reading: over, or waiting for tool outputs."""
OUR_META_KEY: Final = "coze_fastapi_chat_id"
"""Key in Coze's ``meta_data`` under which our chat id goes along, so that a chat can be found again."""

# -- who is asking ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: the root domain, the person (None: the root itself) and whether an admin of that root."""

    root: str
    hty_id: str | None
    admin: bool = False

    @property
    def owner(self) -> str:
        """What sessions remember. Roles may change, so they are not part of it."""
        return f"{self.root}|{self.hty_id or ''}"

    @property
    def admin_prefix(self) -> str:
        """Prefix of the owners that an admin may see; empty for everybody else."""
        return f"{self.root}|" if self.admin else ""

    def may_see(self, owner: str) -> bool:
        return owner == self.owner or (self.admin and owner.startswith(self.admin_prefix))


# -- the event log's coordinates ------------------------------------------------------------------------


class Cursor(NamedTuple):
    """Position in a chat's event log; as SSE id and Redis stream id it reads ``<epoch>-<frame>``."""

    epoch: int
    frame: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.frame}"

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """None if ``text`` is not ``<digits>-<digits>`` of a sane length."""
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,12})", text)
        return cls(int(match[1]), int(match[2])) if match else None


# -- request bodies -------------------------------------------------------------------------------------

_MetaKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_MetaValue = Annotated[str, StringConstraints(min_length=1, max_length=512)]
MetaData = Annotated[dict[_MetaKey, _MetaValue], Field(max_length=15)]
USER_ID_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$"
"""Anything but control characters, line ends and changes of direction, which make a line read as another
one: it goes to Coze, into keys (hashed) and into logs."""
UserId = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN, min_length=1, max_length=128)]
BotId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


_MAX_DEPTH: Final = 64


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class EnterMessage(_Body):
    """A message of the conversation so far, as Coze's ``additional_messages`` takes it."""

    role: Literal["user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=100_000)] = ""
    content_type: Literal["text", "object_string"] = "text"
    type: Literal["question", "answer", "function_call", "tool_response", "tool_output"] | None = None
    meta_data: MetaData | None = None

    @model_validator(mode="after")
    def _question_is_the_users(self) -> "EnterMessage":
        if self.type == "question" and self.role != "user":
            raise ValueError("type question goes with role user")
        if self.content_type == "object_string":
            _check_objects(self.content)
        return self


def _check_json(value: JsonValue | dict[str, JsonValue]) -> None:
    """What every reader of JSON takes: 64-bit integers, finite numbers, nesting within bounds."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
                raise ValueError("integers have at most 64 bits")
            if isinstance(item, float) and not math.isfinite(item):
                raise ValueError("numbers must be finite")
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return
        level = inner
    raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def _check_objects(content: str) -> None:
    """A JSON array of objects; what it links to is https, and is never fetched by us."""
    try:
        objects = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ValueError("an object_string holds a JSON array") from None
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise ValueError("an object_string holds a JSON array of objects")
    for item in objects:
        url = item.get("file_url")
        if url is not None and not (isinstance(url, str) and url.lower().startswith("https://")):
            raise ValueError("file_url must be an https address")


AdditionalMessages = Annotated[list[EnterMessage], Field(max_length=99)]


class CreateSession(_Body):
    """Body of POST /coze/sessions."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={"examples": [{"user_id": "u-1", "meta_data": {"app": "web"}}]},
    )

    user_id: UserId
    bot_id: BotId | None = None
    additional_messages: AdditionalMessages | None = None
    auto_save_history: bool = True
    meta_data: MetaData | None = None


class SendMessage(_Body):
    """Body of POST /coze/sessions/{session_id}/messages."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={"examples": [{"message": "你好，介绍一下你自己", "stream": False}]},
    )

    message: Annotated[str, StringConstraints(min_length=1)]
    stream: bool = False
    additional_messages: AdditionalMessages | None = None
    custom_variables: Annotated[dict[str, str], Field(max_length=100)] | None = None
    meta_data: MetaData | None = None
    parameters: Annotated[dict[str, JsonValue], Field(max_length=100)] | None = None
    on_busy: Literal["reject", "interrupt", "enqueue"] = "reject"

    @model_validator(mode="after")
    def _says_something(self) -> "SendMessage":
        if not self.message.strip():
            raise ValueError("message must not be blank")
        _check_json(self.parameters)
        return self


class ToolOutput(_Body):
    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    output: Annotated[str, StringConstraints(max_length=500_000)]


class SubmitToolOutputs(_Body):
    """Body of POST /coze/chats/{chat_id}/tool_outputs: all outputs that the chat asks for, in one call."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={
            "examples": [{"tool_outputs": [{"tool_call_id": "Q0Q=", "output": '{"t":21}'}], "stream": False}]
        },
    )

    tool_outputs: Annotated[list[ToolOutput], Field(min_length=1, max_length=100)]
    stream: bool = False


_MOMENT: Final = "2026-11-22T18:40:33.115908+00:00"
_SESSION_ID: Final = "coze_session_1795372833115_7l4mgyuf3lw2iispuvavf"
_CHAT_ID: Final = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"
_CHAT_EXAMPLE: Final[dict[str, Any]] = {
    "chat_id": _CHAT_ID,
    "session_id": _SESSION_ID,
    "status": "completed",
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
    "completed_at": _MOMENT,
    "recovered": False,
    "user_message": {
        "role": "user",
        "content": "你好",
        "timestamp": _MOMENT,
        "message_id": "msg_gwpw6mvfvekbqjatrh3n",
        "metadata": {},
    },
    "assistant_message": {
        "role": "assistant",
        "content": "你好！有什么可以帮你？",
        "timestamp": _MOMENT,
        "message_id": "7380000000000000007",
        "metadata": {},
    },
    "content": "你好！有什么可以帮你？",
    "reasoning_content": "",
    "follow_up_questions": ["你能做什么？"],
    "usage": {"token_count": 30, "input_count": 20, "output_count": 10},
    "required_action": None,
    "error_message": None,
    "error": None,
    "metadata": {
        "coze_chat_id": "7380000000000000006",
        "conversation_id": "7380000000000000005",
        "logid": "20261122184033ABCDEF",
        "last_event_id": "1-9",
    },
}
_SESSION_EXAMPLE: Final[dict[str, Any]] = {
    "session_id": _SESSION_ID,
    "user_id": "u-1",
    "status": "active",
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
    "last_activity_at": _MOMENT,
    "expires_at": _MOMENT,
    "conversation_id": "7380000000000000005",
    "context": {"bot_id": "7380000000000000009", "additional_messages": [], "auto_save_history": True},
    "metadata": {"app": "web"},
    "chat_count": 0,
    "chat_history": [],
}


# -- answers ----------------------------------------------------------------------------------------------


class Usage(BaseModel):
    token_count: int = 0
    input_count: int = 0
    output_count: int = 0


class ErrorInfo(BaseModel):
    """Why a chat failed."""

    code: str
    message: str
    retryable: bool = False
    coze_code: int | None = None
    logid: str | None = None
    hint: str | None = None
    retry_after: int | None = None


class UserMessage(BaseModel):
    role: Literal["user"] = "user"
    content: str
    timestamp: str
    message_id: str
    metadata: dict[str, str] = {}


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    timestamp: str
    message_id: str
    metadata: dict[str, str] = {}


class Chat(BaseModel):
    """One message and its answer. ``status`` stands before everything that a caller wrote: the store's
    scripts replace the first ``"status":"..."`` of the stored JSON."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CHAT_EXAMPLE]})

    chat_id: str
    session_id: str
    status: ChatStatus
    created_at: str
    updated_at: str
    completed_at: str | None = None
    recovered: bool = False
    user_message: UserMessage
    assistant_message: AssistantMessage | None = None
    content: str = ""
    reasoning_content: str = ""
    follow_up_questions: list[str] = []
    usage: Usage | None = None
    required_action: dict[str, Any] | None = None
    error_message: str | None = None
    error: ErrorInfo | None = None
    metadata: dict[str, str] = {}


class SessionContext(BaseModel):
    bot_id: str
    additional_messages: list[dict[str, Any]] = []
    auto_save_history: bool = True


class Session(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION_EXAMPLE]})

    session_id: str
    user_id: str
    status: SessionStatus
    created_at: str
    updated_at: str
    last_activity_at: str
    expires_at: str
    conversation_id: str | None = None
    context: SessionContext
    metadata: dict[str, str] = {}
    chat_count: int = 0
    chat_history: list[Chat] = []


class ChatPage(BaseModel):
    """A page of a session's chats, newest first; ``next_before`` asks for the next one."""

    chats: list[Chat]
    has_more: bool
    next_before: str | None = None


class SessionList(BaseModel):
    sessions: list[Session]


class Erased(BaseModel):
    user_id: str
    erased_sessions: int
    erased_chats: int
    remaining_sessions: int


class CleanedUp(BaseModel):
    expired_sessions: int
    expired_users: int
    orphaned_sessions: int
    inactive_sessions: int
    more: bool


class Stats(BaseModel):
    """Counts of the whole service, from indexes; ``process`` and ``credentials`` (their states, never their
    values) are about the process that answers."""

    sessions: int
    users: int
    chats: dict[str, int]
    leases: int
    redis: dict[str, int | str | None]
    credentials: list[dict[str, int | str | None]]
    process: dict[str, int | bool]
    version: str
    uptime_seconds: int


_D = TypeVar("_D")


class TaskResult(BaseModel, Generic[_D]):
    success: bool = True
    timestamp: str
    message: str
    data: _D


class TaskData(BaseModel, Generic[_D]):
    task_id: str | None
    task_status: TaskStatus
    task_result: TaskResult[_D]


class SuccessEnvelope(BaseModel, Generic[_D]):
    """Every successful answer under /coze but health."""

    success: Literal[True] = True
    timestamp: str
    error: None = None
    data: TaskData[_D]


class ErrorBody(BaseModel):
    code: str
    message: str
    timestamp: str
    request_id: str
    retryable: bool
    details: dict[str, Any] = {}


class ErrorEnvelope(BaseModel):
    """Every failure under /coze."""

    success: Literal[False] = False
    timestamp: str
    data: None = None
    error: ErrorBody


def task_status_of(status: str) -> TaskStatus:
    """A chat's status as the envelope says it: ``pending`` is ``processing`` to a caller."""
    return "processing" if status == "pending" else status  # type: ignore[return-value]  # the rest is the same


def success_json(
    data: Any, *, message: str, task_id: str | None = None, status: TaskStatus = "completed"
) -> bytes:
    """The success envelope as JSON; ``data`` may hold ``orjson.Fragment`` for what is JSON already."""
    moment = iso()
    result = {"success": status != "failed", "timestamp": moment, "message": message, "data": data}
    return orjson.dumps(
        {
            "success": True,
            "timestamp": moment,
            "error": None,
            "data": {"task_id": task_id, "task_status": status, "task_result": result},
        }
    )


def plain_json(data: Any) -> bytes:
    """The outer envelope alone, as health answers it."""
    return orjson.dumps({"success": True, "timestamp": iso(), "error": None, "data": data})
