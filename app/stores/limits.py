"""How long and how many: the numbers that sessions live by."""

from dataclasses import dataclass


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
