"""What routes answer inside of the envelope, but for chats."""

from typing import Any, Final, Literal

from pydantic import Field

from app.models.bodies import FileType
from app.models.chats import MOMENT, SESSION_ID, Chat
from app.models.documented import Answer, example

SessionStatus = Literal["active", "inactive", "expired", "terminated"]

_FILE_EXAMPLE: Final[dict[str, Any]] = {
    "file_id": "coze_file_1795372832906_7l4mgyuf3lw2iispuvavf",
    "file_name": "photo.png",
    "bytes": 152236,
    "type": "image",
    "mime": "image/png",
    "created_at": MOMENT,
    "expires_at": MOMENT,
}
SESSION_EXAMPLE: Final[dict[str, Any]] = {
    "session_id": SESSION_ID,
    "user_id": "u-1",
    "title": "周末去杭州",
    "status": "active",
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "last_activity_at": MOMENT,
    "expires_at": MOMENT,
    "conversation_id": "7380000000000000005",
    "context": {"bot_id": "7380000000000000009", "additional_messages": [], "auto_save_history": True},
    "metadata": {"app": "web"},
    "chat_count": 0,
    "chat_history": [],
}

# -- sessions and what is in them ---------------------------------------------------------------------------


class SessionContext(Answer):
    """What a session was opened with."""

    bot_id: str
    """The bot at Coze that answers."""
    additional_messages: list[dict[str, Any]] = Field(default_factory=list)
    """The conversation so far, as it was given when the session was opened."""
    auto_save_history: bool = True
    """Whether Coze keeps the conversation's messages."""


class Session(Answer):
    """One user with one bot; it ends after a time of silence."""

    model_config = example(SESSION_EXAMPLE)

    session_id: str
    """Our id of the session."""
    user_id: str
    """The user that it belongs to, as the caller names him."""
    title: str | None = None
    """The begin of its first message, or what it was called since; null before the first message."""
    status: SessionStatus
    """`inactive`: nothing happened for a while, and it still can go on; `expired` and `terminated` cannot."""
    created_at: str
    """When it was opened: UTC, ISO 8601."""
    updated_at: str
    """When it changed last: UTC, ISO 8601."""
    last_activity_at: str
    """When it was last used or looked at: UTC, ISO 8601."""
    expires_at: str
    """When it ends if nothing happens until then: UTC, ISO 8601."""
    conversation_id: str | None = None
    """Coze's conversation behind it; null at first, as it is made in the background."""
    context: SessionContext
    """What it was opened with."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """The `meta_data` that it was opened with."""
    chat_count: int = 0
    """How many chats it has had."""
    chat_history: list[Chat] = Field(default_factory=list)
    """Its newest chats, newest first."""


class SessionList(Answer):
    """A user's live sessions, newest activity first."""

    sessions: list[Session]
    """The sessions, without their chats."""


class ChatPage(Answer):
    """A page of a session's chats."""

    chats: list[Chat]
    """The chats, newest first."""
    has_more: bool
    """Whether older ones follow."""
    next_before: str | None = None
    """What to ask for as `before` to get the next page; null on the last one."""


class HistoryMessage(Answer):
    """A message as Coze stored it."""

    message_id: str
    """Coze's id of the message."""
    role: str
    """`user` or `assistant`."""
    type: str
    """`question` or `answer`."""
    content: str
    """What was said, by `content_type`."""
    content_type: str
    """`text`, or `object_string` (JSON) and others as Coze names them."""
    reasoning_content: str = ""
    """The bot's thoughts, where Coze keeps them."""
    created_at: str | None = None
    """When it was said: UTC, ISO 8601; null where Coze does not tell."""
    chat_id: str | None = None
    """Our chat that it belongs to, where the session still keeps that."""
    meta_data: dict[str, str] = Field(default_factory=dict)
    """What was sent along with it."""


class HistoryPage(Answer):
    """A page of a conversation's messages as Coze keeps them."""

    conversation_id: str | None
    """Coze's conversation; null where there is none yet."""
    messages: list[HistoryMessage]
    """The messages, in the order that was asked for."""
    has_more: bool
    """Whether more follow."""
    first_id: str | None = None
    """What to ask for as `before` to get the page before this one."""
    last_id: str | None = None
    """What to ask for as `after` to get the next page."""


class ClearedContext(Answer):
    """A conversation whose context begins anew."""

    session_id: str
    """The session."""
    conversation_id: str | None = None
    """Its conversation at Coze; null where there was none yet."""
    section_id: str | None = None
    """Coze's name of the new context; null where there was no conversation yet."""


# -- files, users, usage -------------------------------------------------------------------------------------


class StoredFile(Answer):
    """A file that was uploaded here."""

    model_config = example(_FILE_EXAMPLE)

    file_id: str
    """Our id of the file, for `attachments`."""
    file_name: str
    """Its name, cleaned, with the ending that fits its content."""
    bytes: int
    """Its size as it arrived."""
    type: FileType
    """What it is sent to Coze as, by its content."""
    mime: str
    """Its media type, by its content."""
    created_at: str
    """When it was uploaded: UTC, ISO 8601."""
    expires_at: str
    """When Coze deletes it: UTC, ISO 8601."""


class Erased(Answer):
    """What an erasure has done so far."""

    user_id: str
    """Whose data were erased."""
    erased_sessions: int
    """Sessions erased by this call."""
    erased_chats: int
    """Chats erased by this call."""
    remaining_sessions: int
    """What is left to be erased; repeat the call while it is above zero."""
    erased_files: int = 0
    """Files forgotten by this call; Coze itself deletes them when their time is up."""


class UsageSums(Answer):
    """Chats and tokens."""

    chats: int
    """Chats that ended."""
    tokens: int
    """Tokens of input and output together."""
    input: int
    """Tokens that bots read."""
    output: int
    """Tokens that bots wrote."""


class UsageRow(UsageSums):
    """The sums of one group. What it is not grouped by is null."""

    day: str | None = None
    """Day (UTC) on which the chats ended, as 2026-11-22."""
    bot_id: str | None = None
    """The bot that answered."""
    user_id: str | None = None
    """The user, as callers name him."""
    root: str | None = None
    """The caller's root domain."""


class UsageReport(Answer):
    """Chats and tokens of some days, by group."""

    since: str = Field(alias="from")
    """First day, as 2026-11-22."""
    to: str
    """Last day."""
    group_by: list[str]
    """What the rows are grouped by."""
    rows: list[UsageRow]
    """One for each group."""
    total: UsageSums
    """The sum of all rows."""


# -- the process that answers --------------------------------------------------------------------------------


class ServiceInfo(Answer):
    """What is listening here."""

    service: str
    """Always `coze-fastapi`."""
    version: str
    """The service's version."""
    status: str
    """Always `running`."""


class Liveness(Answer):
    """The process is up."""

    status: Literal["alive"]
    """Always `alive`."""
    service: str
    """Always `coze-api`."""


class Readiness(Answer):
    """The process would take traffic."""

    status: Literal["ready"]
    """Always `ready`."""
    service: str
    """Always `coze-api`."""


class Health(Answer):
    """The process is up and reaches Redis. Coze is never called for this."""

    status: Literal["healthy"]
    """Always `healthy`; what is not is a 503."""
    service: str
    """Always `coze-api`."""
    version: str
    """The service's version."""
    redis: Literal["connected"]
    """Always `connected`."""
    redis_mode: Literal["memory", "server"]
    """`memory`: sessions and chats live in this process alone and die with it."""
    running_chats: int
    """Chats that run in this process."""
    uptime_seconds: int
    """Seconds since the process started."""
