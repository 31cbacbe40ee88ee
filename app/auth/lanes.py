"""How many tokens are checked at the auth service at once, and how many may wait for that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

AT_ONCE: Final = 16
WAITING: Final = 256
_KNOWN: Final = ""
"""No root is called so."""


class LaneFull(Exception):
    """No turn came in time."""


class Lanes:
    """One for each root, so that false tokens of one keep out nobody of another; and one for tokens that were
    accepted before and have to be asked about anew, which false ones never enter."""

    def __init__(self, roots: tuple[str, ...], timeout: float) -> None:
        self._lanes = {name: asyncio.Semaphore(AT_ONCE) for name in (_KNOWN, *roots)}
        self._inside = dict.fromkeys(self._lanes, 0)
        self._timeout = timeout

    def enter(self, root: str, *, known: bool) -> "Place | None":
        """A place in the lane of ``root``, to be left at the end; None where there is none. Counted at once,
        since many may come before the first of them is asked about.

        ``known``: the token has been accepted before.
        """
        name = _KNOWN if known else root
        if not known and self._inside[name] >= AT_ONCE + WAITING:
            return None
        self._inside[name] += 1
        return Place(self, name)

    def leave(self, name: str) -> None:
        self._inside[name] -= 1

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Waits as long as a check may take. Raises ``LaneFull``."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._lanes[name].acquire()
        except TimeoutError:
            raise LaneFull from None
        try:
            yield
        finally:
            self._lanes[name].release()


@dataclass(frozen=True, slots=True)
class Place:
    lanes: Lanes
    name: str

    def leave(self) -> None:
        self.lanes.leave(self.name)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """The time of a check. Raises ``LaneFull``."""
        return self.lanes.turn(self.name)
