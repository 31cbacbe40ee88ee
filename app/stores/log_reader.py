"""Reading a chat's event log from Redis: what is there, and being told when there is more.

All readers of chats that run elsewhere share one blocking XREAD per shard, with a doorbell stream among
its keys: a new reader rings it, so that the read starts again with the new log in its list.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

from app.models import Cursor
from app.redis_client import Command, Key, Keys, RedisGate
from app.stores.large_reads import SMALL_BYTES, LargeReads
from app.stores.log_entries import Entry, Page
from app.stores.loops import forever
from app.stores.scripts import log_read, signal_send
from app.utils import shard_of
from app.utils.fair_turns import FairTurns
from app.utils.signals import Notifier, Portions
from app.utils.stopping import end_tasks

_PAGE: Final = 50
_BLOCK_SECONDS: Final = 5.0
_BELL_TTL_MS: Final = 60_000
_Stream = list[tuple[bytes, list[bytes]]]
"""Entries as Redis sends them."""
_LARGE: Final[_Stream] = [(b"", [])]
"""In place of what has to be read by turns."""
_Asked = tuple[str, Cursor, bool]
"""What is read: of which chat, behind which place, and whether by whoever has heard of news."""


class LogReader:
    """Entries after a place, in order."""

    def __init__(self, redis: RedisGate, keys: Keys, process: str, large: LargeReads | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._process = process
        self._large = large or LargeReads()
        self._pieces = FairTurns()
        self.portions = Portions()
        """In which very many readers hear of news, of whichever chats, from here or from memory."""
        self._under_way: dict[_Asked, asyncio.Future[_Stream | None]] = {}
        self._tails: dict[int, _ShardTail] = {}

    async def turn(self, owner: str) -> None:
        """Before a piece of a long log: one is read in a turn of the event loop, by turns of the owners."""
        async with self._pieces.taken(owner):
            await asyncio.sleep(0)

    async def after(self, chat_id: str, place: Cursor, owner: str) -> Page | None:
        """Entries that hold frames after ``place``, of which nobody knows how long they are; None at the end
        of the log. Of a packed log there are those before ``place``, too.

        ``owner``: who reads. Raises ``Overloaded``, see ``LargeReads``.
        """

        async def read() -> _Stream:
            reply, is_large = await self._redis.run(self._read(chat_id, place, SMALL_BYTES))
            return reply if not is_large else _LARGE

        reply = await self._once((chat_id, place, False), read, owner)
        if reply is _LARGE:
            async with self._large.taken(owner):
                reply, _ = await self._redis.run(self._read(chat_id, place, 0), alone=True)
        return Page(reply) if reply else None

    async def newest(self, chat_id: str, place: Cursor, owner: str) -> Page | None:
        """The same for whoever has heard that something was added: a short command, for what is short."""
        log = self._keys.log(chat_id)
        news = Command[_Stream]("XRANGE", log, _behind(place), "+", "COUNT", _PAGE)
        reply = await self._once((chat_id, place, True), partial(self._redis.run, news), owner)
        return Page(reply) if reply else None

    async def _once(self, asked: _Asked, read: Callable[[], Awaitable[_Stream]], owner: str) -> _Stream:
        """Who asks for the same while it is on its way gets the same: a thousand readers of one chat would
        each ask Redis, and keep a copy. They go on by turns. A reply without news may be older than what one
        has heard of: then he waits for the next one, which was asked for later than that."""
        for is_later in (False, True):
            if (other := self._under_way.get(asked)) is None:
                break
            found = await asyncio.shield(other)
            if found or (is_later and found is not None):
                await self.turn(owner)
                return found
        mine = self._under_way[asked] = asyncio.get_running_loop().create_future()
        try:
            reply = await read()
            mine.set_result(reply)
            return reply
        finally:
            if self._under_way.get(asked) is mine:  # else another began while this was on its way
                del self._under_way[asked]
            if not mine.done():  # it failed, or its reader left: each of the others sees for himself
                mine.set_result(None)

    async def whole(self, chat_id: str) -> AsyncIterator[Entry]:
        """Everything that the log holds, in pieces, between which the event loop goes on. It waits for no
        other reader: who asks for it has claimed the chat."""
        place = Cursor(0, 0)
        while True:
            reply, is_large = await self._redis.run(self._read(chat_id, place, SMALL_BYTES))
            if is_large:
                reply, _ = await self._redis.run(self._read(chat_id, place, 0), alone=True)
            if not reply:
                return
            page = Page(reply)
            while (entry := await page.next(_go_on)) is not None:
                place = Cursor(entry.epoch, max(0, entry.first + len(entry.frames) - 1))
                yield entry

    def _read(
        self, chat_id: str, place: Cursor, small: int
    ) -> Command[tuple[list[tuple[bytes, list[bytes]]], int]]:
        return log_read(log=self._keys.log(chat_id), start=_behind(place), most=_PAGE, small=small)

    def listen(self, chat_id: str, place: Cursor, ring: Callable[[], None]) -> Callable[[], None]:
        """Calls ``ring`` whenever the log grows past ``place``; returns how to stop that."""
        shard = shard_of(chat_id)
        tail = self._tails.get(shard)
        if tail is None:
            tail = self._tails[shard] = _ShardTail(
                self._redis, self._keys, shard, self._process, self.portions
            )
        return tail.listen(self._keys.log(chat_id), place, ring)

    async def stop(self) -> None:
        await asyncio.gather(*(tail.stop() for tail in self._tails.values()))
        self._tails.clear()


def _behind(place: Cursor) -> str:
    return f"{place.epoch}-{place.frame + 1}"


async def _go_on() -> None:
    await asyncio.sleep(0)


class _ShardTail:
    """One blocking XREAD over all logs of a shard that somebody here follows."""

    def __init__(self, redis: RedisGate, keys: Keys, shard: int, process: str, portions: Portions) -> None:
        self._redis = redis
        self._bell = keys.bell(shard, process)
        self._bell_place = "0-0"
        self._places: dict[Key, Cursor] = {}
        self._listeners: dict[Key, Notifier] = {}
        self._portions = portions
        self._task: asyncio.Task[None] | None = None
        self._listeners_changed = asyncio.Event()
        self._interrupted = False
        """The last round did not get to its end: something may have been missed."""

    def listen(self, key: Key, place: Cursor, ring: Callable[[], None]) -> Callable[[], None]:
        # The earlier of two places: the newcomer must not miss what the others have had.
        self._places[key] = min(place, self._places.get(key, place))
        listeners = self._listeners.setdefault(key, Notifier())
        stop_listening = listeners.watch(ring, self._portions)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name=f"tail:{self._bell}")
        else:
            self._listeners_changed.set()

        def stop() -> None:
            stop_listening()
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key], self._places[key]

        return stop

    async def _follow(self) -> None:
        while self._listeners:
            async with asyncio.TaskGroup() as group:
                waking = group.create_task(forever(self._wake_read, self._redis))
                await forever(self._read, self._redis, wanted=lambda: bool(self._listeners))
                waking.cancel()

    async def _wake_read(self) -> None:
        """The read that is under way does not know the newcomer's log: it has to begin again."""
        await self._listeners_changed.wait()
        self._listeners_changed.clear()  # before the bell: what comes while it is rung rings it once more
        await self._redis.run(signal_send(signals=self._bell, most=1, ttl=_BELL_TTL_MS, name="", value=""))

    async def _read(self) -> None:
        if self._interrupted:
            # Whatever came meanwhile: everybody looks for themselves.
            for key in list(self._listeners):
                self._notify(key)
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
                self._notify(key)
        self._interrupted = False

    def _notify(self, key: Key) -> None:
        if (listeners := self._listeners.get(key)) is not None:
            listeners.notify()

    async def stop(self) -> None:
        if self._task is not None:
            await end_tasks([self._task])
