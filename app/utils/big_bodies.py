"""What the large bodies of a process share: room, and the processor."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, TypeVar

from app.utils.fair_turns import FairTurns

_P = ParamSpec("_P")
_T = TypeVar("_T")
MOST_BYTES: Final = 256 * 1024 * 1024
SMALL_BYTES: Final = 64 * 1024
"""What is no longer has room always: messages are not refused because of others' pictures."""


class BigBodies:
    """Room for bodies of more than ``SMALL_BYTES``, from their first byte until nobody has what was made of
    them, and the turns of those that take long to work on, some smaller ones among them."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._turns = FairTurns()
        self._short_turns = FairTurns()
        self._left = most
        self._kept: dict[int, Room] = {}

    @contextlib.contextmanager
    def room(self, owner: str) -> Iterator["Room"]:
        """For one body of this caller's, given back at the end unless it is kept."""
        room = Room(self, owner)
        try:
            yield room
        finally:
            if not room.kept:
                room.hold(0)

    def take(self, size: int) -> bool:
        """Less than nothing gives back."""
        if size > max(self._left, 0):
            return False
        self._left -= size
        return True

    async def work(self, owner: str, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> _T:
        """What ``function`` returns, one at a time, so that only one body takes more than its room.

        In a thread: between any two steps of it the event loop goes on. No step of it may be long, also where
        it is written in C, since those keep the processor's lock.
        """
        async with self._turns.taken(owner):
            return await asyncio.to_thread(function, *args, **more)

    async def work_briefly(
        self, owner: str, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """As ``work``, for what takes milliseconds and next to no memory: it waits for its like alone, and
        not for bodies of megabytes."""
        async with self._short_turns.taken(owner):
            return await asyncio.to_thread(function, *args, **more)

    async def work_on(
        self, body: object, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """As ``work`` or ``work_briefly`` where ``body`` is kept; else at once."""
        room = self._kept.get(id(body))
        if room is None:
            return function(*args, **more)
        work = self.work if room.is_large else self.work_briefly
        return await work(room.owner, function, *args, **more)

    def keep(self, room: "Room", body: object) -> None:
        """``room`` stays taken for as long as there is ``body``, which is worked on by turns."""
        room.kept = True
        self._kept[id(body)] = room
        loop = asyncio.get_running_loop()

        def gone() -> None:  # in whichever thread lets go of it last
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._give_back, id_of_body, room)

        id_of_body = id(body)
        weakref.finalize(body, gone).atexit = False

    def _give_back(self, id_of_body: int, room: "Room") -> None:
        if self._kept.get(id_of_body) is room:  # another body may be in its place already
            del self._kept[id_of_body]
        room.hold(0)


class Room:
    kept = False

    def __init__(self, bodies: BigBodies, owner: str) -> None:
        self.owner = owner
        self._bodies = bodies
        self._taken = 0

    @property
    def is_large(self) -> bool:
        return self._taken > 0

    def hold(self, size: int) -> bool:
        """From now on ``size`` bytes; False, and as before, where all bodies together would have too many."""
        size = size if size > SMALL_BYTES else 0
        if not self._bodies.take(size - self._taken):
            return False
        self._taken = size
        return True
