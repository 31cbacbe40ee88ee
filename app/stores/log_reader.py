"""Reading a chat's event log from Redis: what is there, and being told when there is more.

All readers of chats that run elsewhere share one blocking XREAD per shard, with a doorbell stream among
its keys: a new reader rings it, so that the read starts again with the new log in its list.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from app.exceptions import Overloaded, RedisUnavailable
from app.models import Cursor
from app.redis_client import Command, Key, Keys, RedisGate
from app.stopping import end_tasks
from app.stores.log_entries import Entry, read_entry
from app.stores.loops import forever
from app.utils import shard_of

_PAGE: Final = 50
_BLOCK_SECONDS: Final = 5.0
_BELL_TTL_MS: Final = 60_000


class LogReader:
    """Entries after a place, in order."""

    def __init__(self, redis: RedisGate, keys: Keys, process: str) -> None:
        self._redis = redis
        self._keys = keys
        self._process = process
        self._tails: dict[int, _ShardTail] = {}

    async def after(self, chat_id: str, place: Cursor) -> list[Entry]:
        """A page of entries that hold frames after ``place``; empty at the end of the log. Of a packed log it
        holds those before ``place``, too."""
        start = f"{place.epoch}-{place.frame + 1}"
        reply = await self._redis.run(
            Command[list[tuple[bytes, list[bytes]]]](
                "XRANGE", self._keys.log(chat_id), start, "+", "COUNT", _PAGE
            )
        )
        return [entry for entry_id, fields in reply for entry in read_entry(entry_id, fields)]

    async def whole(self, chat_id: str) -> list[Entry]:
        """Everything that the log holds."""
        entries: list[Entry] = []
        place = Cursor(0, 0)
        while page := await self.after(chat_id, place):
            entries += page
            last = page[-1]
            place = Cursor(last.epoch, max(0, last.first + len(last.frames) - 1))
        return entries

    def listen(self, chat_id: str, place: Cursor, ring: Callable[[], None]) -> Callable[[], None]:
        """Calls ``ring`` whenever the log grows past ``place``; returns how to stop that."""
        shard = shard_of(chat_id)
        tail = self._tails.get(shard)
        if tail is None:
            tail = self._tails[shard] = _ShardTail(self._redis, self._keys, shard, self._process)
        return tail.listen(self._keys.log(chat_id), place, ring)

    async def stop(self) -> None:
        await asyncio.gather(*(tail.stop() for tail in self._tails.values()))
        self._tails.clear()


class _ShardTail:
    """One blocking XREAD over all logs of a shard that somebody here follows."""

    def __init__(self, redis: RedisGate, keys: Keys, shard: int, process: str) -> None:
        self._redis = redis
        self._bell = keys.bell(shard, process)
        self._bell_place = "0-0"
        self._places: dict[Key, Cursor] = {}
        self._listeners: dict[Key, dict[Callable[[], None], None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._bell_task: asyncio.Task[None] | None = None
        self._ring_again = False
        self._interrupted = False
        """The last round did not get to its end: something may have been missed."""

    def listen(self, key: Key, place: Cursor, ring: Callable[[], None]) -> Callable[[], None]:
        # The earlier of two places: the newcomer must not miss what the others have had.
        self._places[key] = min(place, self._places.get(key, place))
        self._listeners.setdefault(key, {})[ring] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name=f"tail:{self._bell}")
        elif self._bell_task is None or self._bell_task.done():
            self._bell_task = asyncio.create_task(self._ring_bell())
        else:
            # What is under way may wake the read before this log is in its list.
            self._ring_again = True

        def stop() -> None:
            listeners = self._listeners.get(key)
            if listeners is not None:
                listeners.pop(ring, None)
                if not listeners:
                    del self._listeners[key], self._places[key]

        return stop

    async def _ring_bell(self) -> None:
        commands = [
            Command[object]("XADD", self._bell, "MAXLEN", 1, "*", "", ""),
            Command[object]("PEXPIRE", self._bell, _BELL_TTL_MS),
        ]
        with contextlib.suppress(RedisUnavailable, Overloaded):
            self._ring_again = True
            while self._ring_again:
                self._ring_again = False
                await self._redis.pipeline(commands)

    async def _follow(self) -> None:
        await forever(self._round, self._redis, wanted=lambda: bool(self._listeners))

    async def _round(self) -> None:
        if self._interrupted:
            # Whatever came meanwhile: everybody found for themselves.
            for listeners in list(self._listeners.values()):
                for ring in list(listeners):
                    ring()
        self._interrupted = True
        places = {key: str(place) for key, place in self._places.items()}
        streams = await self._redis.read_streams(
            {self._bell: self._bell_place, **places}, _BLOCK_SECONDS, count=10
        )
        for key_bytes, entries in streams:
            key, newest = Key(key_bytes.decode()), entries[-1][0].decode()
            if key == self._bell:
                self._bell_place = newest
            elif key in self._places:
                epoch, frame = newest.split("-")
                self._places[key] = max(self._places[key], Cursor(int(epoch), int(frame)))
                for ring in list(self._listeners[key]):
                    ring()
        self._interrupted = False

    async def stop(self) -> None:
        await end_tasks(task for task in (self._task, self._bell_task) if task is not None)
