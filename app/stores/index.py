"""Indexes of sessions by user and over all: limits, lists, counts, clean-up.

They live outside the sessions' slots: written before, removed after, and every score is an expiry time,
so that what was forgotten leaves by itself.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from app.exceptions import SessionLimitReached
from app.redis_client import Arg, Keys, RedisGate, Script
from app.stores.limits import TOMBSTONE_MS, SessionLimits
from app.utils import now_ms

_NO_LIMIT: Final = 1 << 40
_OPENING_MS: Final = 60_000
"""A session is entered here and then written. Far longer than that takes, and it never will be written."""


class Crowd(NamedTuple):
    """A user's sessions where the limits are reached: ids and when they were entered last (milliseconds by
    Redis' clock, as ``now``), least recently active first; activity of the last minute may not show."""

    now: int
    sessions: list[tuple[str, int]]


def may_be_opening(entered: int, now: int) -> bool:
    """Whether a session that is entered and has no hash is about to get one."""
    return now - entered < _OPENING_MS


def user_key(owner: str, user_id: str) -> str:
    """A user's name in the indexes: what callers write never becomes part of a key."""
    return _digest(owner, user_id)


def name_key(owner: str, user_id: str) -> str:
    """The same user id within the owner's root, whoever in that root uses it."""
    return _digest(owner.partition("|")[0], user_id)


def owner_key(owner: str) -> str:
    """An owner's name, or a root's, where usage is counted."""
    return _digest(owner)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


class SessionIndex:
    def __init__(self, redis: RedisGate, keys: Keys, limits: SessionLimits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._admit = Script("index_admit")
        self._drop = Script("index_drop")
        self._prune = Script("index_prune")
        self._keep = Script("index_keep")

    async def admit(self, session_id: str, owner: str, user_id: str, over: str = "") -> Crowd | None:
        """Enters the session; where the limits are reached, the user's own sessions instead, of which one has
        to go. ``over``: one of them that has ended, which leaves in the same step.

        Raises ``SessionLimitReached`` where the user has none that could go."""
        limits = self._limits
        verdict = await self._enter(
            session_id, owner, user_id, (limits.per_user, limits.total, limits.users), over
        )
        if verdict[0] == b"full":
            raise SessionLimitReached
        return None if verdict[0] == b"ok" else Crowd(int(verdict[1]), self._entered(verdict[2]))

    def _entered(self, scored: Sequence[Arg]) -> list[tuple[str, int]]:
        """Ids and when they were entered last, of ids and scores."""
        pairs = zip(scored[::2], scored[1::2], strict=True)
        return [(_text(member), int(float(score)) - self._limits.expire_ms) for member, score in pairs]

    async def keep(self, session_id: str, owner: str, user_id: str) -> None:
        """Moves the session's expiry to a full life from now."""
        await self._enter(session_id, owner, user_id, (_NO_LIMIT, _NO_LIMIT, _NO_LIMIT))

    async def keep_single(self, session_id: str, owner: str, user_id: str) -> None:
        """Enters a session of a single chat where erasure looks, and nowhere else."""
        keys, user = self._keys, user_key(owner, user_id)
        await self._redis.run(
            self._keep,
            [keys.kept_sessions(user), keys.namesakes(name_key(owner, user_id))],
            [session_id, user, self._limits.expire_ms + TOMBSTONE_MS],
        )

    async def _enter(
        self, session_id: str, owner: str, user_id: str, limits: tuple[int, int, int], over: str = ""
    ) -> list[Any]:
        keys, user = self._keys, user_key(owner, user_id)
        verdict: list[Any] = await self._redis.run(
            self._admit,
            [
                *(keys.user_sessions(user), keys.all_sessions, keys.all_users),
                *(keys.kept_sessions(user), keys.namesakes(name_key(owner, user_id))),
            ],
            [session_id, user, self._limits.expire_ms, TOMBSTONE_MS, *limits, over],
        )
        return verdict

    async def forget(self, session_id: str, user: str) -> None:
        """Takes a session that is over out of the live indexes."""
        keys = [self._keys.user_sessions(user), self._keys.all_sessions, self._keys.all_users]
        await self._redis.run(self._drop, keys, [session_id, user])

    async def forget_kept(self, session_id: str, user: str) -> None:
        """Takes a session of which nothing is left out of the last index."""
        await self._redis.command("ZREM", self._keys.kept_sessions(user), session_id)

    async def users_named(self, root: str, user_id: str) -> list[str]:
        """All users of that name in a root, for its admins."""
        key = self._keys.namesakes(name_key(root, user_id))
        return _texts(await self._redis.command("ZRANGEBYSCORE", key, now_ms(), "+inf"))

    async def live(self, users: Sequence[str]) -> list[str]:
        """Sessions of these users, the one that lives longest first."""
        return await self._of([self._keys.user_sessions(user) for user in users])

    async def _of(self, keys: Sequence[str]) -> list[str]:
        if not keys:
            return []
        now = now_ms()
        replies = await self._redis.pipeline([("ZREVRANGEBYSCORE", key, "+inf", now) for key in keys])
        return [session_id for reply in replies for session_id in _texts(reply)]

    async def counts(self) -> tuple[int, int]:
        """Live sessions and users."""
        now = now_ms()
        sessions, users = await self._redis.pipeline(
            [("ZCOUNT", key, now, "+inf") for key in (self._keys.all_sessions, self._keys.all_users)]
        )
        return int(sessions), int(users)

    async def prune(self, limit: int) -> tuple[int, int, Crowd]:
        """Takes out at most ``limit`` sessions and users whose time is up; returns how many of each, and as
        many of the sessions that expire soonest, so of the least recently active ones."""
        sessions, users, now, oldest = await self._redis.run(
            self._prune, [self._keys.all_sessions, self._keys.all_users], [limit]
        )
        return int(sessions), int(users), Crowd(int(now), self._entered(oldest))


def _text(item: Arg) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


def _texts(reply: Sequence[Arg]) -> list[str]:
    return [item.decode() for item in reply if isinstance(item, bytes)]
