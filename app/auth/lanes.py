"""How many tokens are checked at the auth service at once, and how many may wait for that."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from app.auth.bounds import CannotAsk, NoAnswerInTime

AT_ONCE: Final = 16
WAITING: Final = 256
_TRY_EVERY: Final = 1.0
"""Seconds between two checks at a service that does not answer."""


def most_at_once(roots: int) -> int:
    """How many checks there may be at once for so many roots together."""
    return 2 * roots * AT_ONCE


class LaneFull(Exception):
    """No turn came in time, or the service does not answer at the moment."""


class Lane:
    """``timeout``: how long one waits for a turn, in seconds; ``ticks``: a clock that only goes forward.

    Where as many checks as there are turns, one after another, had no answer in time, the next ones would
    keep their callers waiting for the same: until there is an answer, one is asked about in a second, and the
    others are told at once.
    """

    def __init__(self, timeout: float, ticks: Callable[[], float]) -> None:
        self._timeout = timeout
        self._ticks = ticks
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._unanswered = 0
        self._next_try = 0.0
        self.inside = 0

    def leave(self) -> None:
        self.inside -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The time of a check, whose ``CannotAsk`` is to pass through here. Raises ``LaneFull``."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise LaneFull from None
        try:
            self._refuse_if_silent()
            yield
            self._unanswered = 0
        except NoAnswerInTime:
            self._unanswered += 1
            raise
        except CannotAsk:  # that was quick, so it keeps nobody waiting
            self._unanswered = 0
            raise
        finally:
            self._turns.release()

    def _refuse_if_silent(self) -> None:
        if self._unanswered < AT_ONCE:
            return
        now = self._ticks()
        if now < self._next_try:
            raise LaneFull
        self._next_try = now + _TRY_EVERY


class Lanes:
    """Two for each root, so that neither false tokens of one nor an auth service that hangs keep out anybody
    of another: one for tokens that were accepted before and have to be asked about anew, which false ones
    never enter, and one for all others."""

    def __init__(self, roots: tuple[str, ...], timeout: float, ticks: Callable[[], float]) -> None:
        self._known = {root: Lane(timeout, ticks) for root in roots}
        self._others = {root: Lane(timeout, ticks) for root in roots}

    def enter(self, root: str, *, known: bool) -> Lane | None:
        """The lane of ``root``, to be left at the end; None where it is full. Counted at once, since many may
        come before the first of them is asked about.

        ``known``: the token has been accepted before.
        """
        lane = self._known[root] if known else self._others[root]
        if not known and lane.inside >= AT_ONCE + WAITING:
            return None
        lane.inside += 1
        return lane
