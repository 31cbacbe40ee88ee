"""Bodies that take long to work on: their turns, and for how long each keeps its places."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, ParamSpec, TypeVar

from app.utils.fair_turns import FairTurns

_P = ParamSpec("_P")
_T = TypeVar("_T")
SMALL_BYTES: Final = 64 * 1024
"""What is no longer, and holds few values, waits for no turn."""


class BigBodies:
    """One is worked on at a time. Those that have been read go before those of the same root that have not:
    what was made of a body takes up to thirty times its bytes, so there are few of them at once. Brief ones,
    which take milliseconds and next to no memory, wait for their like alone, and not for megabytes."""

    def __init__(self) -> None:
        self._turns = FairTurns()
        self._brief_turns = FairTurns()
        self._owners: dict[int, tuple[str, FairTurns]] = {}
        """By the id of each body that takes turns, and in which."""

    def turn(self, owner: str, *, brief: bool) -> AbstractAsyncContextManager[None]:
        """For one that is to be read. Its work belongs into a thread: between any two steps of it the event
        loop goes on. No step may be long, also where it is written in C, since those keep the processor's
        lock."""
        return (self._brief_turns if brief else self._turns).taken(owner)

    async def work_briefly(
        self, owner: str, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """What ``function`` returns, in a thread, when a brief one of this owner's has its turn."""
        async with self.turn(owner, brief=True):
            return await asyncio.to_thread(function, *args, **more)

    async def work_on(
        self, body: object, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """What ``function`` returns: in a thread, when ``body`` has its turn, where it takes turns; else at
        once."""
        found = self._owners.get(id(body))
        if found is None:
            return function(*args, **more)
        owner, turns = found
        async with turns.taken(owner, first=True):
            return await asyncio.to_thread(function, *args, **more)

    def takes_turns(self, body: object, owner: str, *, brief: bool) -> None:
        """For as long as there is ``body``."""
        number, mine = id(body), (owner, self._brief_turns if brief else self._turns)
        self._owners[number] = mine

        def forget() -> None:
            if self._owners.get(number) is mine:  # another body may be in its place already
                del self._owners[number]

        when_gone(body, forget)


def when_gone(body: object, call: Callable[[], object]) -> None:
    """``call`` is called in this event loop once nobody has ``body`` any more."""
    loop = asyncio.get_running_loop()

    def gone() -> None:  # in whichever thread lets go of it last
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(call)

    weakref.finalize(body, gone).atexit = False
