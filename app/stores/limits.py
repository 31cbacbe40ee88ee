"""How long and how many: the numbers that sessions live by."""

from dataclasses import dataclass
from typing import Final

TOMBSTONE_MS: Final = 24 * 3600 * 1000
"""How long a session that is over is remembered, so that a late caller is told why it is gone."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """``expire`` and ``inactive`` in seconds; ``hold`` in milliseconds: what a running chat adds to
    the life of its session. The rest counts."""

    expire: int
    inactive: int
    per_user: int
    total: int
    users: int
    hold: int

    @property
    def expire_ms(self) -> int:
        return self.expire * 1000
