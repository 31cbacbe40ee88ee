"""What routes answer administrators."""

from typing import Any, Final, Literal

from app.models.answers import SESSION_EXAMPLE, Session
from app.models.chats import CHAT_ID, MOMENT, SESSION_ID
from app.models.documented import Answer, example

_LIFETIMES_EXAMPLE: Final = {
    "lifetimes": {
        "forgotten_at": MOMENT,
        "chats_until": MOMENT,
        "events": [{"chat_id": CHAT_ID, "events_until": MOMENT}],
    }
}
_FAILURE_EXAMPLE: Final[dict[str, Any]] = {
    "at": MOMENT,
    "chat_id": CHAT_ID,
    "session_id": SESSION_ID,
    "bot_id": "7380000000000000009",
    "code": "COZE_API_ERROR",
    "coze_code": 4101,
    "hint": "Check COZE_API_TOKEN",
    "logid": "20261122184033ABCDEF",
}


class CleanedUp(Answer):
    """What a clean-up has removed."""

    expired_sessions: int
    """Index entries of sessions whose time was up."""
    expired_users: int
    """Index entries of users without a session."""
    orphaned_sessions: int
    """Index entries whose session was gone."""
    inactive_sessions: int
    """Sessions that were ended since nothing had happened in them for long."""
    more: bool
    """Whether to call again."""


class RedisMemory(Answer):
    """Memory of all Redis servers together, in bytes; null where they do not say."""

    used_memory: int | None
    """What is used now."""
    used_memory_peak: int | None
    """The most that was ever used."""
    maxmemory: int | None
    """The most that may be used; 0: no limit."""


class CredentialState(Answer):
    """How one Coze credential is, never its value."""

    name: str
    """Its place in the settings and a fingerprint."""
    kind: str
    """`token`, `file` or `oauth`."""
    state: Literal["ready", "cooling", "refused"]
    """`cooling`: it rests for a while; `refused`: Coze does not take it."""
    cool_down_seconds: int
    """How long it still rests."""
    last_code: int | None
    """Coze's error code for which it rested last."""
    opened: int
    """Conversations that were opened with it."""
    expires_at: int | None
    """When it expires: unix seconds; null where that is not known."""


class ProcessState(Answer):
    """The process that answers."""

    running_chats: int
    """Chats that run in it."""
    draining: bool
    """Whether it is about to end."""


class Replica(Answer):
    """A process of the service, as it says of itself every 20 seconds."""

    process: str
    """Its name, made up when it starts."""
    version: str
    """The service's version."""
    started_at: str
    """When it started: UTC, ISO 8601."""
    seen_at: str
    """When it was last heard of: UTC, ISO 8601. One that ended is listed for a minute or two more."""
    running_chats: int
    """Chats that run in it."""
    open_streams: int
    """Streams, and waits for answers, that are open in it."""


class Stats(Answer):
    """Counts of the whole service; `process` and `credentials` are about the process that answers."""

    sessions: int
    """Live sessions."""
    users: int
    """Users with live sessions."""
    chats: dict[str, int]
    """Chats that are not over, by status."""
    leases: int
    """Chats that some process owns or has to take over."""
    redis: RedisMemory
    """What Redis needs."""
    credentials: list[CredentialState]
    """One for each Coze credential."""
    process: ProcessState
    """The process that answers."""
    replicas: list[Replica]
    """All processes, first the one that answers."""
    version: str
    """The service's version."""
    uptime_seconds: int
    """Seconds since the process started."""


class Failure(Answer):
    """A chat that failed; nothing of what was said, and not whose it was."""

    model_config = example(_FAILURE_EXAMPLE)

    at: str
    """When it ended: UTC, ISO 8601."""
    chat_id: str
    """Our id of the chat."""
    session_id: str
    """The session that it belongs to."""
    bot_id: str
    """The bot at Coze."""
    code: str
    """Error code, as the error envelope has it."""
    coze_code: int | None
    """Coze's own error number, where it told one."""
    hint: str | None
    """What the operator of the service can do about it."""
    logid: str | None
    """Coze's logid: tell it to Coze's support."""


class FailureList(Answer):
    """The newest chats of a root that failed."""

    failures: list[Failure]
    """Newest first."""


class EventsKept(Answer):
    """How long the events of a chat are kept."""

    chat_id: str
    """Our id of the chat."""
    events_until: str | None
    """Until when they can be read: UTC, ISO 8601; null where there are none any more."""


class Lifetimes(Answer):
    """Until when what there is of a session is kept, if nothing happens any more: UTC, ISO 8601."""

    forgotten_at: str | None
    """The session itself; after `expires_at` it only tells late callers why it is gone."""
    chats_until: str | None
    """The records of its chats; null where there are none."""
    events: list[EventsKept]
    """The events of the chats in `chat_history`."""


class InspectedSession(Session):
    """A session as an admin sees it."""

    model_config = example(SESSION_EXAMPLE | _LIFETIMES_EXAMPLE)

    lifetimes: Lifetimes
    """Until when what there is of it is kept."""
