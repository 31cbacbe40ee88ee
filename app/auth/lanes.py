"""How many tokens are checked at the auth service at once, and how many may wait for that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

AT_ONCE: Final = 16
WAITING: Final = 256
_KNOWN: Final = ""
"""No root is called so."""


class LaneFull(Exception):
    """There is no place left, or none came free in time."""


class Lanes:
    """One for each root, so that false tokens of one keep out nobody of another; and one for tokens that were
    accepted before and have to be asked about anew, which false ones never enter."""

    def __init__(self, roots: tuple[str, ...], timeout: float) -> None:
        self._lanes = {name: asyncio.Semaphore(AT_ONCE) for name in (_KNOWN, *roots)}
        self._inside = dict.fromkeys(self._lanes, 0)
        self._timeout = timeout

    def is_full(self, root: str, *, known: bool) -> bool:
        """``known``: the token has been accepted before."""
        return not known and self._inside[root] >= AT_ONCE + WAITING

    @asynccontextmanager
    async def place(self, root: str, *, known: bool) -> AsyncIterator[None]:
        """One of the places; waits for it as long as a check may take. Raises ``LaneFull``."""
        name = _KNOWN if known else root
        lane = self._lanes[name]
        self._inside[name] += 1
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    await lane.acquire()
            except TimeoutError:
                raise LaneFull from None
            try:
                yield
            finally:
                lane.release()
        finally:
            self._inside[name] -= 1
