"""How many streams are open in this process, and whose."""

from collections import Counter
from collections.abc import Callable
from functools import partial

from app.exceptions import RateLimited
from app.observing.metrics import Metrics


class OpenStreams:
    """Counts the open streams of each caller in this process; ``most``: how many one may have."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most
        self._gauge = metrics.open_streams
        self._open: Counter[str] = Counter()

    def check(self, owner: str) -> None:
        """Raises ``RateLimited`` where the caller has as many open as may be; before anything is begun."""
        if self._open[owner] >= self._most:
            raise RateLimited(f"More than {self._most} streams are open", retry_after=5)

    def take(self, owner: str) -> Callable[[], None]:
        """One more; returns how to give it back."""
        self._count(owner, 1)
        return partial(self._count, owner, -1)

    def _count(self, owner: str, change: int) -> None:
        self._gauge.inc(change)
        self._open[owner] += change
        if not self._open[owner]:
            del self._open[owner]
