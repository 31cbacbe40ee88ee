"""What bodies that arrive share: room, by owner and root, and turns for what takes long with one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field

from app.tasks.places import Places


@define(eq=False, repr=False)
class ArrivingBodies:
    """``room``: a place for each body and for each 64 KiB of it, from its first byte until it is read."""

    room: Places
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _queues: dict[str, "_Queue"] = field(init=False, factory=dict)
    """By owner, of those who wait or have the turn."""

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """For whoever works on a body long enough for others to notice, one at a time. Each owner waits in a
        queue of his own, so that nobody stands behind all that another one has sent."""
        queue = self._queues.setdefault(owner, _Queue())
        queue.length += 1
        try:
            async with queue.lock, self._turn:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[owner]


@define(eq=False, repr=False)
class _Queue:
    lock: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    length: int = 0
