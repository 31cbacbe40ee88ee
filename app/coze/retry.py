"""How often and when a failed request is sent again."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

BURST: Final = 50
"""Retries that all callers of a process together may have at once."""
RATIO: Final = 0.2
_FILLS_IN: Final = 60.0
"""Seconds."""

MAX_HONOURED_RETRY_AFTER: Final = 10
"""Seconds. A server that asks for more patience than this is not asked again; the caller is told."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0


Bounds = Callable[[str], Sequence[tuple[str | None, int]]]
"""For whom a retry of an owner counts (himself, his root, all together), and how many each may have at
once."""


def _all_together(_owner: str) -> list[tuple[str | None, int]]:
    return [("", BURST)]


class RetryBudget:
    """So that a dead Coze is not hit ``max_retries`` times as often, and nobody uses up the retries of all.

    Each for whom a call counts has a token bucket. A request brings ``RATIO`` of a token to each of them, a
    retry takes one of each, or is not made. A bucket also fills by itself, in a minute: who asks rarely would
    be without retries for days after an outage. Since all of them do, nobody can take more of what all have
    together than his own bucket holds. In the long run retries are at most a fifth of all requests, and
    ``BURST`` a minute.

    Calls without an owner have a bucket of their own.

    A bucket is kept from a retry until it is full again, and retries are bounded: so is what is kept.

    Args:
        bounds: see ``Bounds``.
        ticks: seconds of a clock that only goes forward.
    """

    def __init__(
        self, bounds: Bounds = _all_together, *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._bounds = bounds
        self._ticks = ticks
        self._buckets: dict[str | None, _Bucket] = {}
        """Those that are not full; the one that was taken of last comes last."""

    def __len__(self) -> int:
        return len(self._buckets)

    def deposit(self, owner: str) -> None:
        """Told of each request, before it is sent. ``owner``: "" where it is nobody's."""
        now = self._ticks()
        for whose, burst in self._of(owner):
            bucket = self._buckets.get(whose)
            if bucket is not None:
                self._buckets[whose] = bucket.later(now, burst, RATIO)

    def take(self, owner: str) -> bool:
        """Whether one more retry may be made now."""
        now = self._ticks()
        self._forget_full_ones(now)
        left = {
            whose: self._buckets.get(whose, _Bucket(burst, now, burst)).later(now, burst, -1)
            for whose, burst in self._of(owner)
        }
        if any(bucket.tokens < 0 for bucket in left.values()):
            return False
        for whose, bucket in left.items():
            self._buckets.pop(whose, None)
            self._buckets[whose] = bucket
        return True

    def _of(self, owner: str) -> Sequence[tuple[str | None, int]]:
        return self._bounds(owner) if owner else [(None, BURST)]

    def _forget_full_ones(self, now: float) -> None:
        while self._buckets:
            whose, bucket = next(iter(self._buckets.items()))
            if bucket.later(now, bucket.burst, 0).tokens < bucket.burst:
                return
            del self._buckets[whose]


class _Bucket(NamedTuple):
    tokens: float
    at: float
    burst: int

    def later(self, now: float, burst: int, change: float) -> "_Bucket":
        """What it holds now, with so many more."""
        grown = self.tokens + (now - self.at) * burst / _FILLS_IN
        return _Bucket(min(burst, grown + max(change, 0)) + min(change, 0), now, burst)


def pause_before(retry: int, retry_after: int | None, rng: random.Random) -> float | None:
    """How long to wait before a request is sent again: exponential, with full jitter, so uniform between 0
    and ``min(8, 0.5 * 2**retry)`` seconds.

    ``retry``: how often it was sent again before; ``retry_after``: seconds that the server asked for. Returns
    seconds; None where the server asked for too long a wait.
    """
    if retry_after is not None and retry_after > MAX_HONOURED_RETRY_AFTER:
        return None
    pause = rng.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**retry))
    return max(pause, float(retry_after or 0))
