"""A chat as this process runs it: what it begins with, and all of its state."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from weakref import WeakMethod

import msgspec

from app.coze.client import CozeClient
from app.coze.fold import Fold
from app.exceptions import ChatState, InternalError, ServiceError, SessionExpired
from app.models.chats import Chat
from app.stores.chats import run_field
from app.stores.leases import Claim
from app.stores.open_log import OpenLog, Origin
from app.stores.sessions import SessionRecord
from app.tasks.drafts import Prompt, keeps_history
from app.tasks.frames import chat_frame, tool_call_ids
from app.utils.signals import Notifier

_read_prompt: Final = msgspec.json.Decoder(Prompt).decode


class _Answered(msgspec.Struct):
    tool_call_id: str


_read_answered: Final = msgspec.json.Decoder(list[_Answered]).decode


# -- what a job begins with ------------------------------------------------------------------------------
# ``at_coze``: Coze may be at work on the chat already.


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody has sent the message to Coze: it is sent."""

    at_coze: bool = False


@dataclass(frozen=True, slots=True)
class Recover:
    """Somebody has sent the message, or may have: it is never sent again, what Coze has of it counts."""

    at_coze: bool = True


@dataclass(frozen=True, slots=True)
class ToolOutputs:
    """The chat goes on with these: as JSON, ``tool_call_id`` and ``output`` of each. Where a former owner may
    have handed them in (``at_coze``) Coze is looked at first, and gets them only if it still asks for these
    very calls."""

    outputs: bytes
    at_coze: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The chat ends at once, with this error."""

    error: ServiceError
    at_coze: bool


Start = Fresh | Recover | ToolOutputs | GiveUp


def start_of(claim: Claim) -> Start:
    """What there is to do with a chat that was claimed."""
    at_coze = claim.before == "started"
    if claim.kind == "exhausted":
        return GiveUp(InternalError("The chat was begun too often without an end"), at_coze)
    if claim.kind == "expired":
        return GiveUp(SessionExpired(), at_coze)
    if outputs := run_field(claim.run, b"tool_outputs"):
        return ToolOutputs(outputs, at_coze)
    if claim.before == "waiting":  # claimed to be cancelled: without outputs it cannot go on
        return GiveUp(ChatState("The chat waits for tool outputs"), at_coze)
    return Recover() if at_coze else Fresh()


# -- the job ---------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, weakref_slot=True)
class Job:
    """All of a chat's state while it runs here. Its task changes it; others only ``cancel`` it."""

    chat: Chat
    session: SessionRecord
    log: OpenLog
    start: Start
    request_id: str = ""
    fold: Fold = field(default_factory=Fold)
    changed: Notifier = field(default_factory=Notifier)
    """It was cancelled, its ids are known, or ``leaves`` has changed."""
    cancelled: bool = False
    leaves: Literal["soon", "now"] | None = None
    """Another process owns the chat: this one ends its work on it, once Coze has told its id."""
    ids_known: bool = False
    at_coze: bool = field(init=False)
    """Coze may be at work on it, or have been."""
    timed_out: bool = False
    """Its time is over here, while Coze may still be at work on it."""
    trim_at: int = 0
    """Bytes of log in memory past which a snapshot takes its place."""
    credential: str = ""
    """Whose the chat and its conversation are at Coze; empty where they are still to be made."""
    coze: CozeClient | None = None
    """The client that acts for that credential."""
    begun: float = field(default_factory=time.perf_counter)
    first_delta: float | None = None
    """Seconds from ``begun`` to the first delta of the answer."""

    def __post_init__(self) -> None:
        self.at_coze = self.start.at_coze
        self.fold.keeps_all = self.session.serves_conversation

    @property
    def prompt(self) -> Prompt:
        """Read anew by whoever sends it. While the chat runs it is there as bytes alone: as objects, what a
        caller writes takes up to thirty times as much, and the bytes are what its place is counted by."""
        return _read_prompt(run_field(self.log.origin.run, b"request"))

    def cancel(self) -> None:
        """Asks its task to end the chat as cancelled."""
        self.cancelled = True
        self.changed.notify()

    def log_fields(self) -> dict[str, str | None]:
        """What every log line about this chat carries, as far as it is known."""
        root, _, user = self.session.owner.partition("|")
        return {
            "chat_id": self.chat.chat_id,
            "session_id": self.session.session_id,
            "request_id": self.request_id,
            "root": root,
            "user": user,
            "user_id": self.session.user_id,
            "coze_chat_id": self.fold.coze_chat_id,
            "logid": self.fold.logid or (self.chat.error.logid if self.chat.error else None),
        }

    @property
    def created_at(self) -> int:
        """Unix seconds, by our clock."""
        return int(datetime.fromisoformat(self.chat.created_at).timestamp())

    @property
    def tool_outputs(self) -> bytes | None:
        return self.start.outputs if isinstance(self.start, ToolOutputs) else None

    @property
    def waits_for_what_it_has(self) -> bool:
        """Coze asks for the very tool outputs that are there."""
        if self.fold.status != "requires_action" or not self.tool_outputs:
            return False
        asked = tool_call_ids(self.fold.required_action)
        return sorted(asked) == sorted(each.tool_call_id for each in _read_answered(self.tool_outputs))

    @property
    def keeps_history(self) -> bool:
        """Coze stores the chat, so that it can be asked for."""
        return self.session.auto_save_history and keeps_history(self.chat)

    @property
    def conversation_id(self) -> str | None:
        return self.fold.conversation_id or self.session.conversation_id

    def resume_from(self, fold: Fold) -> None:
        """Goes on from what the log told; ids that were committed apart from it count, too."""
        fold.coze_chat_id = self.fold.coze_chat_id or fold.coze_chat_id
        fold.conversation_id = self.fold.conversation_id or fold.conversation_id
        self.fold = fold
        self.ids_known = bool(fold.coze_chat_id and fold.conversation_id)


def fields_while_it_is_there(job: Job) -> Callable[[], dict[str, str | None]]:
    """``log_fields``, for a context: connections and timers that begin in one keep it for longer than the
    chat lasts, and with the job would keep all that was asked and answered."""
    fields = WeakMethod(job.log_fields)

    def found() -> dict[str, str | None]:
        still = fields()
        return still() if still is not None else {}

    return found


def claimed_job(claim: Claim, start: Start, request_id: str = "") -> Job:
    """A chat that was claimed: from the queue (frame 1 is there), or from an owner that is gone."""
    chat = Chat.model_validate_json(claim.record)
    frames: list[bytes] = []
    if claim.unowned:
        chat.status = "pending"
        frames = [chat_frame(chat)]
    chat.status = "processing"
    log = OpenLog(
        chat_id=chat.chat_id,
        session_id=claim.session.session_id,
        epoch=claim.epoch,
        origin=Origin(claim.session, chat.model_dump_json().encode(), list(claim.run)),
        frames=frames,
        visible=len(frames),
        committed=len(frames),
    )
    prompt = _read_prompt(run_field(claim.run, b"request"))
    job = Job(chat, claim.session, log, start, request_id)
    job.cancelled = bool(run_field(claim.run, b"cancel"))
    job.fold.coze_chat_id = run_field(claim.run, b"coze_chat_id").decode() or None
    job.fold.conversation_id = run_field(claim.run, b"conversation_id").decode() or None
    mine = claim.session.credential or prompt.credential
    job.credential = run_field(claim.run, b"credential").decode() or mine
    return job
