"""What a reader of a chat holds: its place in the log, and a bell that rings when there is more.

A feed has ``take`` (what there is, or None), ``ending`` (set when what was taken last was the end), ``last``
(the id of what was taken last) and ``close``; ``ChatFeed`` also ``wait`` (sleeps until the bell rings).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from app.exceptions import Overloaded, RedisUnavailable
from app.models import SETTLED_STATUSES, Cursor
from app.stores.log_entries import Entry
from app.stores.log_reader import LogReader
from app.stores.open_log import OpenLog
from app.tasks.frames import ends_reading, is_snapshot, stored_frames


class Batch(NamedTuple):
    """``frames[i]`` has the id ``<epoch>-<first + i>``."""

    epoch: int
    first: int
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Ending:
    """The chat's record once reading is over. ``resumable`` False: Redis is away and does not have it."""

    record: bytes
    resumable: bool = True


RecordReader = Callable[[], Awaitable[bytes]]

_LOOK_SECONDS = 2.0
"""How long a reader that waits for more trusts that there is still somebody to write it."""


class LocalFeed:
    """Reads the frames of a chat that runs here, by index: a slow reader costs nothing."""

    def __init__(self, log: OpenLog, after: Cursor, bell: asyncio.Event) -> None:
        self._log = log
        # A place in an earlier epoch is before the snapshot that opened this one.
        self._place = after.frame if after.epoch == log.epoch else 0
        self._bell = bell
        self.last = after
        log.wakers[bell] = None

    @property
    def fenced(self) -> bool:
        """Somebody else owns the chat: what is left has to be read from Redis."""
        return self._log.state == "fenced"

    @property
    def ending(self) -> Ending | None:
        log = self._log
        if log.state in ("open", "fenced") or log.end is None or self._place < log.last:
            return None
        self.last = Cursor(log.epoch, log.last)
        return Ending(log.end.record, resumable=log.state == "committed")

    def take(self) -> Batch | None:
        log = self._log
        if self._place >= log.visible or log.state == "fenced":
            return None
        frames = log.since(self._place, log.visible)
        batch = Batch(log.epoch, log.visible - len(frames) + 1, frames)
        self._place = log.visible
        self.last = Cursor(log.epoch, self._place)
        return batch

    def close(self) -> None:
        self._log.wakers.pop(self._bell, None)


class RemoteFeed:
    """Reads a chat's frames from Redis, by its own place; the shard's tail only rings."""

    def __init__(
        self, chat_id: str, reader: LogReader, record: RecordReader, after: Cursor, bell: asyncio.Event
    ) -> None:
        self._chat_id = chat_id
        self._reader = reader
        self._record = record
        self._bell = bell
        self._pages: list[Entry] = []
        self._at_end = False
        self._skipping = False
        self._stop_listening: Callable[[], None] | None = None
        self._looked_at = 0.0
        self.last = after
        self.ending: Ending | None = None

    async def take(self) -> Batch | None:
        """While Redis is away there is nothing to take: the reader waits, it is not sent off."""
        try:
            while self.ending is None:
                if not self._pages:
                    self._pages = await self._reader.after(self._chat_id, self.last)
                if not self._pages:
                    return await self._at_the_end()
                batch = self._next(self._pages.pop(0))
                if batch is not None:
                    return batch
        except (RedisUnavailable, Overloaded):
            await asyncio.sleep(0.2)
            self._bell.set()
        return None

    def _next(self, entry: Entry) -> Batch | None:
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

    async def _at_the_end(self) -> Batch | None:
        """Nothing more in the log: it is over, or gone, or more is to come.

        A log can be gone while a slow client held this reader up, so the record is looked at now and then.
        """
        now = asyncio.get_running_loop().time()
        if self._stop_listening is None or self._at_end or now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            chat = orjson.loads(record := await self._record())
            if chat["status"] in SETTLED_STATUSES:
                # The end may have come between the look at the log and this one: then it is in the log now.
                self._pages = [] if self._at_end else await self._reader.after(self._chat_id, self.last)
                if not self._pages:
                    return self._finish(chat, record)
                self._bell.set()
                return None
        if self._stop_listening is None:
            self._stop_listening = self._reader.listen(self._chat_id, self.last, self._bell.set)
            # Something may have come before the tail listened.
            self._bell.set()
        return None

    def _finish(self, chat: dict[str, object], record: bytes) -> Batch | None:
        end = _last_event_id(chat)
        self.ending = Ending(record)
        if self._at_end or end is None or self.last >= end:
            self.last = end or self.last
            return None
        # The log has expired, the record has not: a snapshot and the end stand for it. Who had everything up
        # to the end gets only what is missing of that, so that no id comes twice.
        frames = stored_frames(record)
        first = max(1, end.frame - len(frames) + 1)
        if self.last.epoch == end.epoch and self.last.frame >= first:
            first, frames = self.last.frame + 1, frames[self.last.frame + 1 - first :]
        self.last = end
        return Batch(end.epoch, first, frames)

    def close(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None


class ChatFeed:
    """The one interface over both: from memory while the chat runs here, else from Redis."""

    def __init__(
        self,
        log: OpenLog | None,
        remote: Callable[[Cursor, asyncio.Event], RemoteFeed],
        after: Cursor,
    ) -> None:
        self._bell = asyncio.Event()
        self._remote = remote
        self._feed: LocalFeed | RemoteFeed = (
            LocalFeed(log, after, self._bell) if log is not None else remote(after, self._bell)
        )

    @property
    def last(self) -> Cursor:
        return self._feed.last

    @property
    def ending(self) -> Ending | None:
        return self._feed.ending

    async def take(self) -> Batch | None:
        feed = self._feed
        if isinstance(feed, RemoteFeed):
            return await feed.take()
        if feed.fenced:
            feed.close()
            self._feed = self._remote(feed.last, self._bell)
            return await self._feed.take()
        return feed.take()

    async def wait(self) -> None:
        await self._bell.wait()
        self._bell.clear()

    def wake(self) -> None:
        self._bell.set()

    def close(self) -> None:
        self._feed.close()


def _last_event_id(chat: dict[str, object]) -> Cursor | None:
    metadata = chat.get("metadata")
    return Cursor.parse(str(metadata.get("last_event_id", ""))) if isinstance(metadata, dict) else None
