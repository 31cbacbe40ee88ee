"""A running chat's log as its owner holds it, and what its end brings. No I/O."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.redis_client import Key
from app.stores.log_entries import Entry
from app.stores.sessions import SessionRecord
from app.utils.signals import Notifier

LogState = Literal["open", "committed", "unsaved", "fenced"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What is needed to write a chat again when Redis has lost everything."""

    session: SessionRecord
    record: bytes
    run: list[bytes]


@dataclass(frozen=True, slots=True)
class ChatEnd:
    """``record``: the final chat as JSON. ``frames``: how many of the log's frames belong to the end.
    ``waiting``: it waits for tool outputs and is not over. ``usage``: see ``usage_of_end``. Of a chat
    that is over ``packed`` is the whole log, and ``brief`` the frames that stand for it where that cannot be
    read."""

    record: bytes
    frames: int
    waiting: bool = False
    usage: str = "0 0 0"
    packed: bytes = b""
    brief: Sequence[bytes] = ()


@dataclass(slots=True, eq=False)
class OpenLog:
    """A running chat's log as its owner holds it.

    ``frames[i]`` is frame number ``first + i`` of ``epoch``; what a snapshot replaced is gone. Readers see
    those up to number ``visible``: the frames of the end stay hidden until the end is committed or Redis
    has been found away, so that a client's next message never meets its own last chat.
    """

    chat_id: str
    session_id: str
    epoch: int
    origin: Origin
    frames: list[bytes] = field(default_factory=list)
    first: int = 1
    size: int = 0
    """Bytes in ``frames``."""
    trim: bool = False
    """Redis still holds frames from before ``first``."""
    visible: int = 0
    committed: int = 0
    state: LogState = "open"
    end: ChatEnd | None = None
    earlier: list[Entry] = field(default_factory=list)
    """What former owners wrote, to be packed with the rest."""
    next_chat: str | None = None
    """The queued chat that the end made ready."""
    next_is_free: bool = False
    """Its lease has run out from the start, since this process drained: others claim it at once."""
    index_due: bool = False
    """The end made the session live longer than the indexes know."""
    grown: Notifier = field(default_factory=Notifier)
    """There is more to read, or ``state`` has changed."""
    settled: Notifier = field(default_factory=Notifier)
    """``state`` has changed: it is not "open" any more."""
    made: dict[Hashable, Any] = field(default_factory=dict)
    """What is the same for all readers, made by the first of them; of no use any more with the next news."""
    ids: tuple[str, str, str] | None = None
    """Coze's chat and conversation id and whose they are there, waiting to be committed."""
    known_ids: tuple[str, str, str] | None = None
    """The same for as long as the chat runs: what Redis has lost is committed again."""
    ids_stored: bool = False
    """They are in Redis."""
    sent: tuple[int, bytes] | None = None
    """A batch (last frame, frames) whose reply is not known: it is sent again unchanged."""
    key: Key | None = None
    """In Redis; worked out once."""
    outages: int | None = None
    """How often Redis had been away when it was last known what it holds; None: not written to yet, so it
    holds what the log began with."""

    @property
    def last(self) -> int:
        """Number of the newest frame."""
        return self.first + len(self.frames) - 1

    def entries(self, more: Sequence[bytes]) -> list[Entry]:
        """All that there is to read of it, with ``more`` frames at its end."""
        return [*self.earlier, Entry(self.epoch, self.first, [*self.frames, *more])]

    def since(self, number: int, until: int | None = None) -> list[bytes]:
        """Frames after ``number`` up to ``until`` (inclusive)."""
        gone = self.first - 1
        begin = number - gone if number > gone else 0
        if until is None:
            return self.frames[begin:]
        return self.frames[begin : until - gone if until > gone else 0]

    def add(self, frames: Sequence[bytes]) -> None:
        """Readers see them at once."""
        self.frames += frames
        for frame in frames:
            self.size += len(frame)
        self.visible = self.first + len(self.frames) - 1
        if self.made:
            self.made = {}
        self.grown.notify()

    def settle(self, state: LogState) -> None:
        """What readers were waiting for is known: the end is committed, unsaved, or somebody else's."""
        self.state = state
        if state != "fenced":
            self.visible = self.last
        self.made = {}
        self.settled.notify()
        self.grown.notify()
