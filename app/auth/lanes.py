"""How many tokens are checked at the auth service at once, and how many may wait for that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

AT_ONCE: Final = 16
WAITING: Final = 256


class LaneFull(Exception):
    """No turn came in time."""


class Lane:
    """``timeout``: how long one waits for a turn, in seconds."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.inside = 0

    def leave(self) -> None:
        self.inside -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The time of a check. Raises ``LaneFull``."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise LaneFull from None
        try:
            yield
        finally:
            self._turns.release()


class Lanes:
    """One for each root, so that false tokens of one keep out nobody of another; and one for tokens that were
    accepted before and have to be asked about anew, which false ones never enter."""

    def __init__(self, roots: tuple[str, ...], timeout: float) -> None:
        self._known = Lane(timeout)
        self._of_root = {root: Lane(timeout) for root in roots}

    def enter(self, root: str, *, known: bool) -> Lane | None:
        """The lane of ``root``, to be left at the end; None where it is full. Counted at once, since many may
        come before the first of them is asked about.

        ``known``: the token has been accepted before.
        """
        lane = self._known if known else self._of_root[root]
        if not known and lane.inside >= AT_ONCE + WAITING:
            return None
        lane.inside += 1
        return lane
