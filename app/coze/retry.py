"""How often and when a failed request is sent again."""

import random
from typing import Final, Protocol

from app.exceptions import UpstreamError

MAX_HONOURED_RETRY_AFTER: Final = 10
"""Seconds. A server that asks for more patience than this is not asked again; the caller is told."""


class Uniform(Protocol):
    """The part of ``random.Random`` that is used."""

    def uniform(self, a: float, b: float) -> float: ...


class RetryBudget:
    """A token bucket per client, so that a dead Coze is not hit ``max_retries`` times as often.

    Each request brings ``ratio`` of a token, up to ``burst``; each retry takes one. In the long run retries
    are at most ``ratio`` of all requests.
    """

    def __init__(self, *, ratio: float = 0.2, burst: float = 20.0) -> None:
        self._ratio = ratio
        self._burst = burst
        self._tokens = burst

    def deposit(self) -> None:
        self._tokens = min(self._burst, self._tokens + self._ratio)

    def take(self) -> bool:
        """Whether one more retry may be made now."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Backoff:
    """Exponential, with full jitter: uniform between 0 and ``min(cap, first * 2**n)`` seconds."""

    def __init__(self, *, first: float = 0.5, cap: float = 8.0, rng: Uniform | None = None) -> None:
        self._first = first
        self._cap = cap
        self._rng = rng or random.SystemRandom()

    def delay(self, retry: int, error: UpstreamError, retry_after: int | None) -> float | None:
        """Seconds before retry number ``retry`` (from 0); None where the server asked for too long a wait."""
        if retry_after is not None and retry_after > MAX_HONOURED_RETRY_AFTER:
            return None
        pause = self._rng.uniform(0, min(self._cap, self._first * 2**retry))
        return max(pause, float(retry_after or 0))
