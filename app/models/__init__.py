"""The shapes of the contract: envelope, session, chat, request bodies; and who is asking."""

import re
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.models.bodies import (
    USER_ID_PATTERN,
    Attachment,
    CreateSession,
    EnterMessage,
    FileType,
    SendMessage,
    SubmitToolOutputs,
)
from app.utils import iso

__all__ = [
    "USER_ID_PATTERN",
    "Attachment",
    "CreateSession",
    "EnterMessage",
    "FileType",
    "SendMessage",
    "SubmitToolOutputs",
]  # of app.models.bodies

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

    @property
    def behind(self) -> "Cursor":
        """The id of ``done`` behind an end at this place. What is added later begins another epoch."""
        return Cursor(self.epoch, self.frame + 1)

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """None if ``text`` is not ``<digits>-<digits>`` of a sane length."""
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,12})", text)
        return cls(int(match[1]), int(match[2])) if match else None


# -- what requests and answers look like, for the documentation -----------------------------------------

_MOMENT: Final = "2026-11-22T18:40:33.115908+00:00"
_SESSION_ID: Final = "coze_session_1795372833115_7l4mgyuf3lw2iispuvavf"
_CHAT_ID: Final = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"


def _message(role: str, content: str, message_id: str) -> dict[str, Any]:
    message = {"role": role, "content": content, "timestamp": _MOMENT, "message_id": message_id}
    return {**message, "metadata": {}}


_CHAT_EXAMPLE: Final[dict[str, Any]] = {
    "chat_id": _CHAT_ID,
    "session_id": _SESSION_ID,
    "status": "completed",
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
    "completed_at": _MOMENT,
    "recovered": False,
    "user_message": _message("user", "你好", "msg_gwpw6mvfvekbqjatrh3n"),
    "assistant_message": _message("assistant", "你好！有什么可以帮你？", "7380000000000000007"),
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
_FILE_EXAMPLE: Final[dict[str, Any]] = {
    "file_id": "coze_file_1795372832906_7l4mgyuf3lw2iispuvavf",
    "file_name": "photo.png",
    "bytes": 152236,
    "type": "image",
    "mime": "image/png",
    "created_at": _MOMENT,
    "expires_at": _MOMENT,
}
_SESSION_EXAMPLE: Final[dict[str, Any]] = {
    "session_id": _SESSION_ID,
    "user_id": "u-1",
    "title": "周末去杭州",
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


class SentAttachment(BaseModel):
    """What went along with a message. ``file_name`` and ``mime`` of a file that was uploaded here."""

    type: FileType
    file_id: str | None = None
    file_url: str | None = None
    file_name: str | None = None
    mime: str | None = None


class UserMessage(BaseModel):
    """``attachments`` is only there where there are any."""

    role: Literal["user"] = "user"
    content: str
    timestamp: str
    message_id: str
    metadata: dict[str, str] = {}
    attachments: list[SentAttachment] | None = Field(default=None, exclude_if=lambda value: value is None)


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    timestamp: str
    message_id: str
    content_type: str = "text"
    """As Coze says: ``card`` and ``object_string`` are JSON; ``mixed`` where its answers differ in this."""
    metadata: dict[str, str] = {}


class Chat(BaseModel):
    """One message and its answer. ``status`` stands before everything that a caller wrote: scripts of the
    version before replace the first ``"status":"..."`` of the stored JSON."""

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
    waits_until: str | None = None
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
    title: str | None = None
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


class StoredFile(BaseModel):
    """A file that was uploaded here. ``bytes`` as they arrived; ``type`` and ``mime`` by its content."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FILE_EXAMPLE]})

    file_id: str
    file_name: str
    bytes: int
    type: FileType
    mime: str
    created_at: str
    expires_at: str


class SessionList(BaseModel):
    sessions: list[Session]


class Erased(BaseModel):
    user_id: str
    erased_sessions: int
    erased_chats: int
    remaining_sessions: int
    erased_files: int = 0


class HistoryMessage(BaseModel):
    """A message as Coze stored it. ``chat_id``: where the session still keeps its chat."""

    message_id: str
    role: str
    type: str
    content: str
    content_type: str
    reasoning_content: str = ""
    created_at: str | None = None
    chat_id: str | None = None
    meta_data: dict[str, str] = {}


class HistoryPage(BaseModel):
    """``after=last_id`` asks for the next page, ``before=first_id`` for the one before."""

    conversation_id: str | None
    messages: list[HistoryMessage]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


class ClearedContext(BaseModel):
    """``section_id``: Coze's name of the new context; None where there was no conversation yet."""

    session_id: str
    conversation_id: str | None = None
    section_id: str | None = None


class UsageSums(BaseModel):
    chats: int
    tokens: int
    input: int
    output: int


class UsageRow(UsageSums):
    """What it is not grouped by is null."""

    day: str | None = None
    bot_id: str | None = None
    user_id: str | None = None
    root: str | None = None


class UsageReport(BaseModel):
    since: str = Field(alias="from")
    to: str
    group_by: list[str]
    rows: list[UsageRow]
    total: UsageSums


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
