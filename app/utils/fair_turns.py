"""Turns for what is done one at a time in a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field


@define(eq=False, repr=False)
class FairTurns:
    """Each owner waits in a queue of his own, so that nobody stands behind all that another one has sent."""

    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _queues: dict[str, "_Queue"] = field(init=False, factory=dict)
    """By owner, of those who wait or have the turn."""

    @asynccontextmanager
    async def taken(self, owner: str) -> AsyncIterator[None]:
        """For the block nobody else has it."""
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
