"""What anybody may ask for without a token, and must cost next to nothing: made once in a while and kept."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from attrs import define, field

_T = TypeVar("_T")


@define(eq=False, repr=False)
class Kept(Generic[_T]):
    """What ``make`` has made, for ``seconds``. ``ticks``: a clock in seconds that only goes forward."""

    _make: Callable[[], Awaitable[_T]]
    seconds: float
    _ticks: Callable[[], float] = time.monotonic
    _lock: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _found: tuple[_T, float] | None = field(init=False, default=None)

    async def get(self) -> _T:
        """Who comes while it is made gets the same."""
        async with self._lock:
            if self._found is None or self._ticks() - self._found[1] >= self.seconds:
                asked_at = self._ticks()
                self._found = await self._make(), asked_at
            return self._found[0]
