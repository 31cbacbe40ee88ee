"""Token buckets in Redis: one for each kind of call and user, shared by all replicas."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

from app.exceptions import RateLimited, SessionNotFound
from app.redis_client import Fields, Keys, RedisGate
from app.stores.scripts import rate_take
from app.utils import is_session_id

RateKind = Literal["messages", "sessions", "files"]
_REMEMBERED: Final = 10_000


class RateStore:
    """``per_minute``: tokens for each kind; 0 switches it off."""

    def __init__(self, redis: RedisGate, keys: Keys, per_minute: dict[RateKind, int]) -> None:
        self._redis = redis
        self._keys = keys
        self._per_minute = per_minute
        self._users: OrderedDict[str, tuple[str, str]] = OrderedDict()

    async def take(self, kind: RateKind, user: str) -> None:
        """One token of the user's bucket. Raises ``RateLimited`` with ``Retry-After`` and ``RateLimit-*``."""
        rate = self._per_minute[kind]
        if rate == 0:
            return
        granted, remaining, wait_ms = await self._redis.run(
            rate_take(bucket=self._keys.rate(kind, user), per_minute=rate)
        )
        if not granted:
            seconds = max(1, math.ceil(wait_ms / 1000))
            raise RateLimited(
                f"More than {rate} {kind} a minute",
                retry_after=seconds,
                headers={
                    "RateLimit-Limit": str(rate),
                    "RateLimit-Remaining": str(remaining),
                    "RateLimit-Reset": str(seconds),
                },
            )

    async def take_message(self, session_id: str, owner_matches: Callable[[str], bool]) -> None:
        """A message's token, from the bucket of the session's user. Raises ``SessionNotFound``,
        ``RateLimited``."""
        await self.take("messages", await self.user_of(session_id, owner_matches))

    async def user_of(self, session_id: str, owner_matches: Callable[[str], bool]) -> str:
        """The session's user as the indexes name him.

        Who a session belongs to never changes, so it is asked once and remembered. A caller who may not
        see the session takes nothing and is told at once, after the same one question as for a session that
        does not exist: neither the memory here nor what a sender waits for next tells the two apart.

        Raises ``SessionNotFound``.
        """
        if not is_session_id(session_id):
            raise SessionNotFound
        known = self._users.get(session_id)
        if known is None or not owner_matches(known[0]):
            owner, user = await self._redis.run(
                Fields("HMGET", self._keys.session(session_id), "owner", "user")
            )
            if owner is None or user is None or not owner_matches(owner.decode()):
                raise SessionNotFound
            known = self._users[session_id] = (owner.decode(), user.decode())
            if len(self._users) > _REMEMBERED:
                self._users.popitem(last=False)
        return known[1]
