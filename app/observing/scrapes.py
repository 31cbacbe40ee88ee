"""The page that Prometheus reads: made at most once in a few seconds, however often it is asked for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import define, field

from app.observing.metrics import Metrics

FRESH_SECONDS: Final = 2.0
"""Less than any interval at which one scrapes."""
_MOST_KINDS: Final = 8


@define(eq=False, repr=False)
class MetricsPages:
    """``queued``: asks how many chats are queued, for which Redis has to be asked. ``ticks``: a clock in
    seconds that only goes forward."""

    _metrics: Metrics
    _queued: Callable[[], Awaitable[float]]
    _ticks: Callable[[], float] = time.monotonic
    _lock: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _pages: dict[str, tuple[bytes, str]] = field(init=False, factory=dict)
    _made_at: float = field(init=False, default=0.0)
    fresh_seconds: float = field(init=False, default=FRESH_SECONDS)

    async def get(self, accept: str) -> tuple[bytes, str]:
        """Text and content type, as ``Metrics.render``. Made in a thread: with several workers there are
        files to read."""
        kind = self._metrics.content_type(accept)
        async with self._lock:  # who comes meanwhile gets the same page
            if not self._pages or self._ticks() - self._made_at >= self.fresh_seconds:
                self._pages.clear()
                self._metrics.queued.set(await self._queued())
                self._made_at = self._ticks()
            if kind not in self._pages:
                if len(self._pages) >= _MOST_KINDS:
                    self._pages.clear()
                self._pages[kind] = await asyncio.to_thread(self._metrics.render, accept)
            return self._pages[kind]
