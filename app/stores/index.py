"""Indexes of sessions by user and over all: limits, lists, counts, clean-up.

They live outside the sessions' slots: written before, removed after, and every score is an expiry time,
so that what was forgotten leaves by itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from app.exceptions import SessionLimitReached
from app.redis_client import Keys, Number, RedisGate, Texts, pairs
from app.stores.limits import SessionLimits
from app.stores.scripts import index_admit, index_drop, index_prune, index_single
from app.utils import now_ms

_NO_LIMIT: Final = 1 << 40
_OPENING_MS: Final = 60_000
"""A session is entered here and then written. Far longer than that takes, and it never will be written."""


class IndexedSessions(NamedTuple):
    """A user's sessions where the limits are reached: ids and when they were entered last (milliseconds by
    Redis' clock, as ``now``), least recently active first; activity of the last minute may not show."""

    now: int
    sessions: list[tuple[str, int]]


def may_be_opening(entered: int, now: int) -> bool:
    """Whether a session that is entered and has no hash is about to get one."""
    return now - entered < _OPENING_MS


def user_key(owner: str, user_id: str) -> str:
    """A user's name in the indexes: what callers write never becomes part of a key."""
    return digest_of(owner, user_id)


def name_key(owner: str, user_id: str) -> str:
    """The same user id within the owner's root, whoever in that root uses it."""
    return digest_of(owner.partition("|")[0], user_id)


def owner_key(owner: str) -> str:
    """An owner's name, or a root's, where usage is counted."""
    return digest_of(owner)


def digest_of(*parts: str) -> str:
    """A name in Redis for what callers write."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


class SessionIndex:
    def __init__(self, redis: RedisGate, keys: Keys, limits: SessionLimits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits

    async def admit(
        self, session_id: str, owner: str, user_id: str, over: str = ""
    ) -> IndexedSessions | None:
        """Enters the session; where the limits are reached, the user's own sessions instead, of which one has
        to go. ``over``: one of them that has ended, which leaves in the same step.

        Raises:
            SessionLimitReached: the user has none that could go.
        """
        verdict, now, sessions = await self._enter(session_id, owner, user_id, self._limits, over)
        if verdict == b"full":
            raise SessionLimitReached
        return None if verdict == b"ok" else IndexedSessions(now, self._entered(sessions))

    def _entered(self, scored: list[bytes]) -> list[tuple[str, int]]:
        """Ids and when they were entered last, of ids and scores."""
        return [
            (member.decode(), int(float(score)) - self._limits.expire_ms) for member, score in pairs(scored)
        ]

    async def renew(self, session_id: str, owner: str, user_id: str) -> None:
        """Moves the session's expiry to a full life from now."""
        no_limits = replace(self._limits, per_user=_NO_LIMIT, total=_NO_LIMIT, users=_NO_LIMIT)
        await self._enter(session_id, owner, user_id, no_limits)

    async def enter_single(self, session_id: str, owner: str, user_id: str) -> None:
        """Enters a session of a single chat where erasure found, and nowhere else."""
        keys, user = self._keys, user_key(owner, user_id)
        await self._redis.run(
            index_single(
                remaining_sessions=keys.remaining_sessions(user),
                users_by_name=keys.users_by_name(name_key(owner, user_id)),
                session_id=session_id,
                user=user,
                ttl=self._limits.expire_ms,
            )
        )

    async def _enter(
        self, session_id: str, owner: str, user_id: str, limits: SessionLimits, over: str = ""
    ) -> tuple[bytes, int, list[bytes]]:
        keys, user = self._keys, user_key(owner, user_id)
        return await self._redis.run(
            index_admit(
                user_sessions=keys.user_sessions(user),
                sessions=keys.all_sessions,
                users=keys.all_users,
                remaining_sessions=keys.remaining_sessions(user),
                users_by_name=keys.users_by_name(name_key(owner, user_id)),
                session_id=session_id,
                user=user,
                ttl=limits.expire_ms,
                per_user=limits.per_user,
                total=limits.total,
                max_users=limits.users,
                over=over,
            )
        )

    async def remove(self, session_id: str, user: str) -> None:
        """Takes a session that is over out of the live indexes."""
        keys = self._keys
        await self._redis.run(
            index_drop(
                user_sessions=keys.user_sessions(user),
                sessions=keys.all_sessions,
                users=keys.all_users,
                session_id=session_id,
                user=user,
            )
        )

    async def remove_erased(self, session_id: str, user: str) -> None:
        """Takes a session of which nothing is left out of the last index."""
        await self._redis.run(Number("ZREM", self._keys.remaining_sessions(user), session_id))

    async def users_named(self, root: str, user_id: str) -> list[str]:
        """All users of that name in a root, for its admins."""
        key = self._keys.users_by_name(name_key(root, user_id))
        users = await self._redis.run(Texts("ZRANGEBYSCORE", key, now_ms(), "+inf"))
        return [user.decode() for user in users]

    async def live(self, users: Sequence[str]) -> list[str]:
        """Sessions of these users, the one that lives longest first."""
        now = now_ms()
        replies = await self._redis.pipeline(
            [Texts("ZREVRANGEBYSCORE", self._keys.user_sessions(user), "+inf", now) for user in users]
        )
        return [session_id.decode() for reply in replies for session_id in reply]

    async def counts(self) -> tuple[int, int]:
        """Live sessions and users."""
        now, keys = now_ms(), self._keys
        sessions, users = await self._redis.pipeline(
            [Number("ZCOUNT", key, now, "+inf") for key in (keys.all_sessions, keys.all_users)]
        )
        return sessions, users

    async def prune(self, limit: int) -> tuple[int, int, IndexedSessions]:
        """Takes out at most ``limit`` sessions and users whose time is up; returns how many of each, and as
        many of the sessions that expire soonest, so of the least recently active ones."""
        sessions, users, now, oldest = await self._redis.run(
            index_prune(sessions=self._keys.all_sessions, users=self._keys.all_users, limit=limit)
        )
        return sessions, users, IndexedSessions(now, self._entered(oldest))
