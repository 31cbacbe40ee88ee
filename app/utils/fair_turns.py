"""Turns for what is done one at a time in a process, or a few at a time."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from attrs import define, field

_T = TypeVar("_T")
_Lines = OrderedDict[str, deque[asyncio.Future[None]]]
"""By owner."""


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
    """One at a time. Those of different roots have their turns one after the other, and so have the owners in
    each root: nobody stands behind all that another one has sent, nor behind all the users of another root.
    """

    _is_taken: bool = field(init=False, default=False)
    _last: str = field(init=False, default="")
    """The owner who has the turn, or had it last."""
    _roots: "OrderedDict[str, _Root]" = field(init=False, factory=OrderedDict)
    """Of those who wait; whose turn is next stands in front."""

    @asynccontextmanager
    async def taken(self, owner: str, *, first: bool = False) -> AsyncIterator[None]:
        """For the block nobody else has it. ``first``: before all of the same root that are not."""
        if self._is_taken:
            await self._next_turn_of(owner, first)
        self._is_taken, self._last = True, owner
        try:
            yield
        finally:
            self._pass_on()

    async def _next_turn_of(self, owner: str, first: bool) -> None:
        name = owner.partition("|")[0]
        root = self._roots.setdefault(name, _Root())
        turn = root.put(owner, first)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                root.take_out(owner, first, turn)
                if not root:
                    self._roots.pop(name, None)
            else:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Who is next has it from now on: nobody comes in between."""
        while self._roots:
            name = _next_of(self._roots, self._last.partition("|")[0])
            root = self._roots[name]
            turn = root.take(self._last)
            if root:
                self._roots.move_to_end(name)
            else:
                del self._roots[name]
            if not turn.done():  # else it is being cancelled
                turn.set_result(None)
                return
        self._is_taken = False


class _Root:
    """Its owners who wait, each with a line: of those who go first, and of all others."""

    def __init__(self) -> None:
        self._first: _Lines = OrderedDict()
        self._others: _Lines = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._first or self._others)

    def put(self, owner: str, first: bool) -> "asyncio.Future[None]":
        turn = asyncio.get_running_loop().create_future()
        self._lines(first).setdefault(owner, deque()).append(turn)
        return turn

    def take(self, last: str) -> "asyncio.Future[None]":
        lines = self._first or self._others
        owner = _next_of(lines, last)
        turn = lines[owner].popleft()
        if lines[owner]:
            lines.move_to_end(owner)
        else:
            del lines[owner]
        return turn

    def take_out(self, owner: str, first: bool, turn: "asyncio.Future[None]") -> None:
        lines = self._lines(first)
        with contextlib.suppress(KeyError, ValueError):  # it was passed over
            lines[owner].remove(turn)
            if not lines[owner]:
                del lines[owner]

    def _lines(self, first: bool) -> _Lines:
        return self._first if first else self._others


def _next_of(lines: OrderedDict[str, _T], last: str) -> str:
    """Whoever stands in front, but not who has just had a turn while others wait."""
    if next(iter(lines)) == last:
        lines.move_to_end(last)
    return next(iter(lines))


@define(eq=False, repr=False)
class _Queue:
    turns: asyncio.Semaphore
    """Who came first has the first one."""
    length: int = 0
