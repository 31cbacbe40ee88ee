"""How often and when a failed request is sent again."""

import random
from typing import Final

MAX_HONOURED_RETRY_AFTER: Final = 10
"""Seconds. A server that asks for more patience than this is not asked again; the caller is told."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0


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
