"""What anybody may ask for without a token, and must cost next to nothing: made once in a while and kept."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """What ``make`` has made, for ``seconds``. ``ticks``: a clock in seconds that only goes forward."""

    def __init__(
        self, make: Callable[[], Awaitable[_T]], seconds: float, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._ticks = ticks
        self._lock = asyncio.Lock()
        self._found: tuple[_T, float] | None = None
        self.seconds = seconds

    async def get(self) -> _T:
        """Who comes while it is made gets the same."""
        async with self._lock:
            if self._found is None or self._ticks() - self._found[1] >= self.seconds:
                asked_at = self._ticks()
                self._found = await self._make(), asked_at
            return self._found[0]
