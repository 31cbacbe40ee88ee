"""A session's keys in Redis, and how long each of them lives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.support import RedisServer

PREFIX = "lifetimes:"
"""Apart from services that other tests share on this Redis, which have other settings."""
OTHERWISE = (
    *(":idem:", ":used:", ":bell:", ":usage:", ":owners:", ":queued", ":waiting"),
    *("inbox:", "rate:", "{index}", ":conversation"),
)
"""Keys with times of their own, which have nothing to do with how long a session lives."""
SLACK_MS = 1000
"""Keys are looked at one after the other, and a session is renewed a moment after a chat in it was made."""


@dataclass
class Lives:
    """What Redis holds at one moment. All in milliseconds; ``session``: until its end."""

    session: int
    keys: dict[str, int]
    leases: dict[str, float] = field(default_factory=dict)
    """Milliseconds until each entry is due."""


def lives(redis: RedisServer, session_id: str) -> Lives:
    """Of the one session that there is in this Redis."""
    with redis.client() as client:
        seconds, microseconds = client.time()  # type: ignore[misc]
        now = seconds * 1000 + microseconds // 1000
        [name] = client.scan_iter(f"*:session:{session_id}", count=1000)
        ends = int(client.hget(name, "expires") or 0)  # type: ignore[arg-type]
        names = [key.decode() for key in client.scan_iter(count=1000)]
        found = {
            key: int(client.pttl(key))  # type: ignore[arg-type]
            for key in names
            if not any(part in key for part in OTHERWISE)
        }
        due: dict[str, float] = {
            member.decode(): score - now
            for key in names
            if key.endswith(":leases")
            for member, score in client.zrange(key, 0, -1, withscores=True)
        }
    # Of a key that has gone meanwhile (-2) there is nothing to say; one without a time to live is -1.
    return Lives(ends - now, {key: left for key, left in found.items() if left != -2}, due)


def too_short(found: Lives, over: list[str]) -> dict[str, int]:
    """Keys that go before their session; leases, before the last of them is due. ``over``: chats that have
    ended, whose logs have their own time."""
    last_due = max(found.leases.values(), default=0)
    return {
        key: left
        for key, left in found.keys.items()
        if left < (last_due if key.endswith(":leases") else found.session) - SLACK_MS
        and not any(key.endswith(f":log:{chat_id}") for chat_id in over)
    }


def expired(chat: dict[str, Any]) -> bool:
    """Whether the chat ended with its session."""
    return chat["status"] == "failed" and chat["error"]["code"] == "COZE_SESSION_EXPIRED"
