"""Reading a chat: its frames from a place on, then its end, whoever runs it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from dataclasses import field as data_field
from typing import Any, Final

import msgspec
from attrs import define, field

from app.exceptions import Overloaded, RedisUnavailable
from app.models import Cursor
from app.models.chats import SETTLED_STATUSES, Chat
from app.models.records import head_of
from app.stores.log_entries import PIECE_BYTES, Entry, Page
from app.stores.log_reader import LogReader
from app.stores.open_log import OpenLog
from app.tasks.frames import ends_reading, is_snapshot, stored_frames
from app.utils.signals import FEW, Wakeup


class Batch(msgspec.Struct, frozen=True, gc=False):
    """``frames[i]`` has the id ``<epoch>-<first + i>``. No frames: nothing new, the reader was woken."""

    epoch: int
    first: int
    frames: list[bytes]
    made: dict[Hashable, Any] | None = None
    """Where very many bring this same batch: what the first of them made of it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The chat's record once reading is over. ``resumable`` False: Redis is away and does not have it."""

    record: bytes
    resumable: bool = True
    made: dict[Hashable, Any] = data_field(default_factory=dict, compare=False, repr=False)
    """What the first of its readers made of it."""


_NOTHING: Final = Batch(0, 0, [])
_MOST_FRAMES: Final = 256
"""In one batch from memory, where they are not more than ``PIECE_BYTES``: about a millisecond, too."""
_MOST_SHARED: Final = 4
"""Places in a log from which many read on; who has fallen behind makes its own."""
_AWAY_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 5.0
"""How long a reader that waits for Redis trusts that there is still somebody to write more."""


@define(eq=False, repr=False)
class Reader:
    """One reading of a chat: an async iterator of ``Batch``, and of an ``Ending`` at last.

    It reads from memory while the chat runs in this process, by frame number, so that a slow reader costs
    nothing; else from Redis, by its own place. Where the chat goes to another process, so does the reading.
    Of what is long it brings pieces, by turns with other readers.

    Args:
        chat_id: the chat.
        after: the place behind which reading begins.
        local: the chat's log, if it runs here.
        logs: reads from Redis.
        record: the chat's record from Redis.
        owner: who reads.
        only_end: frames are of no interest, and do not wake it. It may still bring some.
    """

    _chat_id: str
    last: Cursor = field(alias="after")
    """Id of what was read last."""
    _local: Callable[[], OpenLog | None] = field(kw_only=True)
    _logs: LogReader = field(kw_only=True)
    _record: Callable[[], Awaitable[bytes]] = field(kw_only=True)
    _owner: str = field(kw_only=True)
    _only_end: bool = field(kw_only=True, default=False)
    take: Callable[[Batch], bool] | None = field(init=False, default=None)
    """Takes news from memory in the turn of whoever brings them, while the iterator waits; False: it cannot
    now. Waking a task for each delta takes longer than all that is done with it."""
    _wakeup: Wakeup = field(init=False, factory=Wakeup)
    _woken: bool = field(init=False, default=False)
    _waiting: bool = field(init=False, default=False)
    """The iterator waits for the log in memory, and has nothing in hand."""
    _over: bool = field(init=False, default=False)
    _log: OpenLog | None = field(init=False, default=None)
    """Where it reads from memory."""
    _stop_listening: Callable[[], object] | None = field(init=False, default=None)
    _page: Page | None = field(init=False, default=None)
    """What was read from Redis and has not been brought yet."""
    _has_more: bool = field(init=False, default=False)
    """Of what is in memory a piece was brought, and there was more."""
    _at_end: bool = field(init=False, default=False)
    _skipping: bool = field(init=False, default=False)
    _looked_at: float = field(init=False, default=0.0)

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Batch | Ending:
        """What there is, as soon as there is something; a batch without frames after ``wake``.

        Raises:
            ServiceError: the chat is gone, or no longer the caller's. While Redis is away it waits.
        """
        if self._over:
            raise StopAsyncIteration
        if self._has_more:
            await self._turn()
        while True:
            self._wakeup.clear()  # before looking: what comes meanwhile sets it again
            if self._log is None or self._log.state == "fenced":
                self._attach()
            found = self._from_memory(self._log) if self._log is not None else await self._from_redis()
            if found is not None:
                self._over = isinstance(found, Ending)
                return found
            if self._woken:
                self._woken = False
                return _NOTHING
            if self._log is not None:
                self._waiting = True
                try:
                    await self._wakeup.wait()
                finally:
                    self._waiting = False
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._wakeup.wait()

    async def _turn(self) -> None:
        await self._logs.turn(self._owner)

    def wake(self) -> None:
        """Whoever iterates gets a batch soon, if one without frames."""
        self._woken = True
        self._wakeup.set()

    def close(self) -> None:
        """Ends listening; iterate no further."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    # -- from memory ---------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Goes on from memory where the chat runs here, and has not been left for another owner."""
        log = self._local()
        if log is not None and (log.state == "fenced" or self.last.epoch > log.epoch or self._skipping):
            log = None
        if log is None and self._log is None:
            return
        self.close()
        self._log, self._page, self._at_end, self._has_more = log, None, False, False
        if log is not None:
            news = log.settled if self._only_end else log.grown
            self._stop_listening = news.watch(self._look, self._logs.portions)

    def _look(self) -> None:
        """The log has grown, or its state has changed."""
        log = self._log
        if not self._waiting or log is None or log.state != "open":
            self._wakeup.set()
        elif (batch := self._unread_in(log)) is not None:
            if self.take is not None and self.take(batch):
                self._brought(batch, log)
                if not self._has_more:
                    return
            self._wakeup.set()

    def _unread_in(self, log: OpenLog) -> Batch | None:
        # A place in an earlier epoch is before the snapshot that opened this one.
        place = self.last.frame if self.last.epoch == log.epoch else 0
        if place >= log.visible:
            return None
        if len(log.grown) > FEW:
            return _shared_batch(log, place)
        if log.visible - place == 1 and place >= log.first - 1:  # nearly always: one more
            return Batch(log.epoch, log.visible, [log.frames[place - log.first + 1]])
        return _batch(log, place)

    def _brought(self, batch: Batch, log: OpenLog) -> None:
        self.last = Cursor(batch.epoch, batch.first + len(batch.frames) - 1)
        self._has_more = self.last.frame < log.visible

    def _from_memory(self, log: OpenLog) -> Batch | Ending | None:
        if (batch := self._unread_in(log)) is not None:
            self._brought(batch, log)
            return batch
        if log.state == "open" or log.end is None:
            return None
        self.last = Cursor(log.epoch, log.last)
        return Ending(log.end.record, log.state == "committed", log.made)

    # -- from Redis ----------------------------------------------------------------------------------------

    async def _from_redis(self) -> Batch | Ending | None:
        """While Redis is away there is nothing: the reader waits, it is not sent away."""
        try:
            while True:
                if self._page is None:
                    self._page = await self._next_page()
                if self._page is None:
                    return await self._at_the_end()
                if (entry := await self._page.next(self._turn)) is None:
                    self._page = None
                elif (batch := self._unread(entry)) is not None:
                    return batch
        except (RedisUnavailable, Overloaded):
            await asyncio.sleep(_AWAY_SECONDS)
            self._wakeup.set()
        return None

    async def _next_page(self) -> Page | None:
        if self._stop_listening is not None:
            return await self._logs.newest(self._chat_id, self.last, self._owner)
        return await self._logs.after(self._chat_id, self.last, self._owner)

    def _unread(self, entry: Entry) -> Batch | None:
        """The frames of an entry that this reader does not have."""
        first, frames = entry.first, entry.frames
        expected = self.last.frame + 1 if entry.epoch == self.last.epoch else 1
        last = Cursor(entry.epoch, max(0, first + len(frames) - 1))
        if last <= self.last:
            return None
        if first < expected:
            first, frames = expected, frames[expected - first :]
        elif first > expected:
            # Its place was trimmed away: a snapshot stands for what is missing.
            self._skipping = True
        while self._skipping and frames:
            if is_snapshot(frames[0]):
                self._skipping = False
                break
            first, frames = first + 1, frames[1:]
        self.last = last
        self._at_end = bool(frames) and ends_reading(frames[-1])
        return Batch(entry.epoch, first, frames) if frames else None

    async def _at_the_end(self) -> Batch | Ending | None:
        """Nothing more in the log: it is over, or gone, or more is to come.

        A log can be gone while a slow client held this reader up, so the record is looked at now and then.
        """
        now = asyncio.get_running_loop().time()
        if self._stop_listening is None or self._at_end or now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            record = await self._record()
            if head_of(record).status in SETTLED_STATUSES:
                # The end may have come between the look at the log and this one: then it is in the log now.
                self._page = None if self._at_end else await self._next_page()
                if self._page is None:
                    return self._end_of(record)
                self._wakeup.set()
                return None
        if self._stop_listening is None:
            self._stop_listening = self._logs.listen(self._chat_id, self.last, self._wakeup.set)
            self._wakeup.set()  # something may have come before it listened
        return None

    def _end_of(self, record: bytes) -> Batch | Ending:
        """The log has expired where it does not hold the end: a snapshot and the end, made of the record,
        stand for it. Who had everything up to the end gets only what is missing of that, so that no id comes
        twice."""
        chat = Chat.model_validate_json(record)
        end = Cursor.parse(chat.metadata.get("last_event_id", "")) or self.last
        frames = stored_frames(chat)
        if self.last.epoch > end.epoch:
            # Redis has lost the claim that began this epoch, and the owner before has ended the chat.
            end = Cursor(self.last.epoch, self.last.frame + (0 if self._at_end else len(frames)))
        if self._at_end or self.last >= end:
            self.last = end
            return Ending(record)
        first = max(1, end.frame - len(frames) + 1)
        if self.last.epoch == end.epoch and self.last.frame >= first:
            first, frames = self.last.frame + 1, frames[self.last.frame + 1 - first :]
        self.last, self._at_end = end, True
        return Batch(end.epoch, first, frames)


def _batch(log: OpenLog, place: int, made: dict[Hashable, Any] | None = None) -> Batch:
    first = max(place + 1, log.first)
    frames = log.since(first - 1, min(log.visible, first - 1 + _MOST_FRAMES))
    return Batch(log.epoch, first, _piece(frames), made)


def _shared_batch(log: OpenLog, place: int) -> Batch:
    """The same one for all who have read up to ``place``."""
    key = place, log.visible
    batch: Batch | None = log.made.get(key)
    if batch is None:
        if len(log.made) >= _MOST_SHARED:
            return _batch(log, place)
        batch = log.made[key] = _batch(log, place, {})
    return batch


def _piece(frames: list[bytes]) -> list[bytes]:
    """The first of them, as many as are no longer than a piece, at least one."""
    size = 0
    for number, each in enumerate(frames):
        size += len(each)
        if size > PIECE_BYTES and number:
            return frames[:number]
    return frames
