"""The shapes of the contract: envelope, session, chat, request bodies; and who is asking."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from app.models.answers import (
    ChatPage,
    ClearedContext,
    Erased,
    Health,
    HistoryPage,
    Liveness,
    Readiness,
    ServiceInfo,
    Session,
    SessionList,
    SessionStatus,
    StoredFile,
    UsageReport,
)
from app.models.bodies import (
    USER_ID_PATTERN,
    Attachment,
    CreateSession,
    EnterMessage,
    FileType,
    SendMessage,
    SubmitToolOutputs,
)
from app.models.chats import (
    OUR_META_KEY,
    SETTLED_STATUSES,
    TERMINAL_STATUSES,
    AssistantMessage,
    Chat,
    ChatStatus,
    ErrorInfo,
    SentAttachment,
    TaskStatus,
    Usage,
    UserMessage,
)
from app.models.envelope import (
    ErrorEnvelope,
    PlainEnvelope,
    SuccessEnvelope,
    plain_json,
    success_json,
    task_status_of,
)
from app.models.operating import CleanedUp, FailureList, InspectedSession, Stats

__all__ = [
    "OUR_META_KEY",
    "SETTLED_STATUSES",
    "TERMINAL_STATUSES",
    "USER_ID_PATTERN",
    "AssistantMessage",
    "Attachment",
    "Chat",
    "ChatPage",
    "ChatStatus",
    "CleanedUp",
    "ClearedContext",
    "CreateSession",
    "Cursor",
    "EnterMessage",
    "Erased",
    "ErrorEnvelope",
    "ErrorInfo",
    "FailureList",
    "FileType",
    "Health",
    "HistoryPage",
    "Identity",
    "InspectedSession",
    "Liveness",
    "PlainEnvelope",
    "Readiness",
    "SendMessage",
    "SentAttachment",
    "ServiceInfo",
    "Session",
    "SessionList",
    "SessionStatus",
    "Stats",
    "StoredFile",
    "SubmitToolOutputs",
    "SuccessEnvelope",
    "TaskStatus",
    "Usage",
    "UsageReport",
    "UserMessage",
    "plain_json",
    "success_json",
    "task_status_of",
]

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
