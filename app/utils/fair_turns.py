"""Turns for what is done one at a time in a process, or a few at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field


class TooManyWait(Exception):
    """In this owner's queue; nobody else's."""


@define(eq=False, repr=False)
class Queues:
    """One for each owner, and so many turns at a time in each. ``most_waiting``: in one queue; 0: any
    number."""

    _most_waiting: int = 0
    _queues: dict[str, "_Queue"] = field(init=False, factory=dict)
    """By owner, of those who wait or have a turn."""

    @asynccontextmanager
    async def taken(self, owner: str, at_once: int = 1) -> AsyncIterator[None]:
        """For the block, a turn of this owner's. ``at_once``: the same in each call for an owner.

        Raises ``TooManyWait``, before anything is waited for.
        """
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = _Queue(asyncio.Semaphore(at_once))
        elif self._most_waiting and queue.length >= at_once + self._most_waiting:
            raise TooManyWait
        queue.length += 1
        try:
            async with queue.turns:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[owner]


@define(eq=False, repr=False)
class FairTurns:
    """Each owner waits in a queue of his own, and those of a root behind one another, so that nobody stands
    behind all that another one has sent, nor behind all the users of another root."""

    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _owners: Queues = field(init=False, factory=Queues)
    _roots: Queues = field(init=False, factory=Queues)

    @asynccontextmanager
    async def taken(self, owner: str) -> AsyncIterator[None]:
        """For the block nobody else has it."""
        root = owner.partition("|")[0]
        async with self._owners.taken(owner), self._roots.taken(root), self._turn:
            yield


@define(eq=False, repr=False)
class _Queue:
    turns: asyncio.Semaphore
    """Who came first has the first one."""
    length: int = 0
