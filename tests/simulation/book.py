"""What has been seen and done in a scenario: all that the oracle judges by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.clock import CLOCK
from tests.simulation.reading import Reading
from tests.simulation.scenario import Violation

TERMINAL = ("completed", "failed", "cancelled")
SETTLED = (*TERMINAL, "requires_action")
_TROUBLE_LASTS = 60.0
"""Seconds that a trouble may be felt after it is over: leases, gates, time-outs."""


@dataclass
class SeenChat:
    """A chat's record as a door showed it. ``resumable`` False: Redis did not have it yet. ``asked_at``: the
    record may be as old as that."""

    at: float
    door: str
    record: dict[str, Any]
    resumable: bool
    asked_at: float

    @property
    def status(self) -> str:
        return str(self.record["status"])


@dataclass
class SessionNote:
    """``alive_until``: it cannot have expired before that. ``over``: when somebody asked for its end."""

    label: str
    who: str
    user: str
    id: str = ""
    opened_at: float = 0.0
    alive_until: float = 0.0
    over: float | None = None
    single: bool = False
    conversation: str = ""
    chats: list[ChatNote] = field(default_factory=list)


@dataclass
class ChatNote:
    """``id`` is there once a client was told it: the chat is accepted. ``unsure``: it was sent, and nobody
    knows whether it arrived. ``cancel_at``: when its end was first asked for."""

    label: str
    session: SessionNote
    message: str
    on_busy: str
    key: str | None
    id: str = ""
    sent_at: float = 0.0
    accepted_at: float | None = None
    named_by_error: bool = False
    """The first that its client heard of it was an error, so it may have been there long before."""
    unsure: bool = False
    cancel_at: float | None = None
    bound: bool = False
    """Hanging up cancels it."""
    outputs_at: list[float] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=lambda: [Reading()])
    """The first is that of whoever sent it."""
    openai: list[tuple[str, str]] = field(default_factory=list)
    """(finish reason, content) as the OpenAI door gave them."""
    of_coze: bool = False
    """It was begun by a client of Coze's own API: its log holds what our readers are not shown."""
    coze: list[tuple[str, str]] = field(default_factory=list)
    """(status, content) as Coze's own door gave them."""
    seen: list[SeenChat] = field(default_factory=list)

    def see(
        self, door: str, record: dict[str, Any], *, resumable: bool = True, asked_at: float | None = None
    ) -> None:
        """``asked_at``: when the question was put (default: now)."""
        asked_at = CLOCK.now if asked_at is None else asked_at
        self.seen.append(SeenChat(CLOCK.now, door, record, resumable, asked_at))

    @property
    def last(self) -> SeenChat | None:
        return self.seen[-1] if self.seen else None

    @property
    def settled_at(self) -> float | None:
        """When somebody first saw it over."""
        times = [seen.at for seen in self.seen if seen.status in TERMINAL]
        return min(times) if times else None


@dataclass
class Loss:
    """Redis lost what was written after ``since`` when it came back ``at``."""

    since: float
    at: float


class Book:
    def __init__(self, trace: Callable[..., None]) -> None:
        self.sessions: dict[str, SessionNote] = {}
        self.chats: dict[str, ChatNote] = {}
        self.violations: list[Violation] = []
        self.losses: list[Loss] = []
        self.troubles: list[tuple[float, float, str]] = []
        """(from, until, kind): redis, replica, coze, odd; spoiled, evicted and late, which excuse nothing."""
        self.evicted: dict[str, float] = {}
        """Chats whose run Redis threw away while a process was at work on them, and when."""
        self.erased: dict[tuple[str, str], float] = {}
        self.maybe_opened: dict[tuple[str, str], int] = {}
        """Calls that may have opened a session of a user, and got no answer that says so."""
        self.trace = trace
        self.ignored: frozenset[str] = frozenset()

    def violated(self, rule: str, text: str) -> None:
        if rule in self.ignored:
            return
        self.trace("VIOLATED", rule, text)
        self.violations.append(Violation(rule, CLOCK.now, text))

    def trouble(self, kind: str, seconds: float = 0.0) -> None:
        self.troubles.append((CLOCK.now, CLOCK.now + seconds, kind))

    def troubled(self, *kinds: str, since: float | None = None, until: float | None = None) -> bool:
        """Whether there was such a trouble, with its aftermath, in this time (default: now)."""
        since = CLOCK.now if since is None else since
        until = CLOCK.now if until is None else until
        return any(
            (not kinds or kind in kinds) and begin <= until and end + _TROUBLE_LASTS >= since
            for begin, end, kind in self.troubles
        )

    def note_of(self, chat_id: str) -> ChatNote | None:
        return next((chat for chat in self.chats.values() if chat.id == chat_id), None)
