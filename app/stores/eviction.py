"""Room for a new session where its user has as many as may be: the least recently active idle one goes.

A newcomer ends a session first and then enters with its place: what is over leaves the indexes in the step in
which a newcomer enters, so the limits hold at any moment. Whoever finds that others were faster tries again;
only a user whose sessions are all busy is refused. An evictor that died between the two steps leaves a
session that is over, whose place is anybody's soon afterwards.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from attrs import define

from app.observing.metrics import Metrics
from app.redis_client import Fields, Keys, RedisGate
from app.stores.index import IndexedSessions, SessionIndex, may_be_opening

_AT_ONCE: Final = 100
_TIMEOUT_SECONDS: Final = 5.0
_EVICTOR_MS: Final = 3_000
"""How long an evicted session's place is left to whoever ended it: less than a newcomer waits, or the death
of an evictor would have the next one refused."""
_RETRY_SECONDS: Final = 0.01
_FIELDS: Final = ("status", "reason", "updated", "expires", "running", "activity")

Evictable = Literal["over", "contended", "busy", "idle"]
"""``contended``: somebody is just opening it, or has just evicted it."""


@define(eq=False, repr=False)
class Eviction:
    """``end_idle`` ends a session unless a chat runs or waits in it, and returns its state before: ``active``
    means that it was idle and this call has ended it."""

    _redis: RedisGate
    _keys: Keys
    _index: SessionIndex
    _end_idle: Callable[[str], Awaitable[bytes]]
    _metrics: Metrics

    async def make_room(self, session_id: str, owner: str, user_id: str) -> None:
        """Enters the session in the indexes. Only sessions of the same user can go for it: nobody can evict
        somebody else's. Raises ``SessionLimitReached``."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _TIMEOUT_SECONDS
        over = ""
        while (indexed := await self._index.admit(session_id, owner, user_id, over)) is not None:
            over, contended = await self._free_one(indexed)
            if loop.time() >= give_up or not (over or contended):
                self._metrics.refused(indexed.limit, indexed.refusal.details["layer"])
                raise indexed.refusal
            if not over:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _free_one(self, indexed: IndexedSessions) -> tuple[str, bool]:
        """A session that is over, ended for this if need be, or "" and whether others are at work."""
        contended = False
        for begin in range(0, len(indexed.sessions), _AT_ONCE):
            some = indexed.sessions[begin : begin + _AT_ONCE]
            states = await self._redis.pipeline(
                [Fields("HMGET", self._keys.session(s), *_FIELDS) for s, _ in some]
            )
            idle: list[tuple[int, str]] = []
            for (session_id, entered), state in zip(some, states, strict=True):
                found = _state_of(state, entered, indexed.now)
                if found == "over":
                    return session_id, contended
                contended |= found == "contended"
                if found == "idle":
                    idle.append((int(state[5] or 0), session_id))
            # The indexes hear of activity once a minute, the sessions know it.
            for _, session_id in sorted(idle):
                before = await self._end_idle(session_id)
                if before == b"active":
                    self._metrics.evictions.inc()
                    return session_id, contended
                contended |= before != b"busy"
        return "", contended


def _state_of(state: list[bytes | None], entered: int, now: int) -> Evictable:
    status, reason, updated, expires, running, _ = state
    if status is None:
        return "contended" if may_be_opening(entered, now) else "over"
    if status == b"terminated":
        evicted_now = reason == b"evicted" and now - int(updated or 0) < _EVICTOR_MS
        return "contended" if evicted_now else "over"
    if running:
        return "busy"
    return "over" if int(expires or 0) < now else "idle"
