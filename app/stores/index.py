"""Indexes of sessions by user and over all: limits, lists, counts, clean-up.

They live outside the sessions' slots: written before, removed after, and every score is an expiry time,
so that what was forgotten leaves by itself.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from app.exceptions import SessionLimitReached
from app.observing.metrics import Metrics
from app.redis_client import ALL, HeldKeys, Key, Keys, Number, RedisGate, Texts, pairs
from app.stores.layers import LAYERS, NO_LIMITS, Limits
from app.stores.policy import SessionLimits
from app.stores.portions import AT_ONCE, portions
from app.stores.scripts import index_admit, index_drop, index_prune, index_single, index_unwritten
from app.utils import now_ms

_OF_EACH: Final = 20
_USERS_AT_ONCE: Final = AT_ONCE // _OF_EACH
"""In a list of sessions of many users: more of a user's come in portions of their own."""
OPENING_MS: Final = 60_000
"""What an index leads to is entered there and then written. Far longer than that takes, and it never is."""
_TOMBSTONE_MS: Final = 86_400_000
"""How long a session that is over is remembered, see ``prelude.lua``."""


class IndexedSessions(NamedTuple):
    """A user's sessions where the limits are reached: ids and when they were entered last (milliseconds by
    Redis' clock, as ``now``), least recently active first; activity of the last minute may not show.
    ``refusal``: what to tell him if none of them can go; ``limit``: the name of what is full."""

    now: int
    sessions: list[tuple[str, int]]
    refusal: SessionLimitReached
    limit: str


def _by_expiry(key: Key, now: int, first: int, most: int) -> Texts:
    return Texts("ZREVRANGEBYSCORE", key, "+inf", now, "LIMIT", first, most)


def may_be_opening(entered: int, now: int) -> bool:
    """Whether a session that is entered and has no hash is about to get one. The scripts of erasures ask the
    same, by a function of the same name. One that was entered ahead of its time is of replicas with longer
    lives."""
    return abs(now - entered) < OPENING_MS


def user_key(owner: str, user_id: str) -> str:
    """A user's name in the indexes: what callers write never becomes part of a key."""
    return digest_of(owner, user_id)


def name_key(owner: str, user_id: str) -> str:
    """The same user id within the owner's root, whoever in that root uses it."""
    return digest_of(owner.partition("|")[0], user_id)


@lru_cache(maxsize=4096)  # each message asks for its owner's and its root's several times
def owner_key(owner: str) -> str:
    """An owner's name, or a root's, where usage is counted and limits are kept."""
    return digest_of(owner)


class Whose(NamedTuple):
    """Whom a limit counts, from the narrowest layer up, by the names that keys have."""

    user: str
    owner: str
    root: str
    everybody: str = ALL


def whose(owner: str, user: str) -> Whose:
    """``user``: as the indexes name him."""
    return Whose(user, owner_key(owner), owner_key(owner.partition("|")[0]))


def digest_of(*parts: str) -> str:
    """A name in Redis for what callers write."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


class SessionIndex:
    def __init__(
        self, redis: RedisGate, keys: Keys, limits: SessionLimits, *, metrics: Metrics | None = None
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._metrics = metrics or Metrics()

    async def admit(
        self, session_id: str, owner: str, user_id: str, over: str = ""
    ) -> IndexedSessions | None:
        """Enters the session; where the limits are reached, the user's own sessions instead, of which one has
        to go. ``over``: one of them that has ended, which leaves in the same step.

        Raises:
            SessionLimitReached: the user has none that could go.
        """
        limits = self._limits
        verdict, now, layer, mine = await self._enter(
            session_id, owner, user_id, sessions=limits.sessions, users=limits.users, over=over
        )
        if verdict == b"ok":
            return None
        full = limits.users if verdict == b"users" else limits.sessions
        message, details = full.refusal(owner, layer)
        refusal = SessionLimitReached(message, details=details)
        if verdict == b"evict":
            return IndexedSessions(now, self._entered(mine), refusal, full.name)
        self._metrics.refused(full.name, LAYERS[layer])
        raise refusal

    def _entered(self, scored: list[bytes]) -> list[tuple[str, int]]:
        """Ids and when they were entered last, of ids and scores."""
        return [(member.decode(), int(float(score)) - self._limits.ttl) for member, score in pairs(scored)]

    async def renew(self, session_id: str, owner: str, user_id: str) -> None:
        """Moves the session's expiry to a full life from now."""
        await self._enter(session_id, owner, user_id, sessions=NO_LIMITS, users=NO_LIMITS)

    async def enter_single(self, session_id: str, owner: str, user_id: str) -> None:
        """Enters a session of a single chat where erasure found, and nowhere else."""
        keys, user = self._keys, user_key(owner, user_id)
        await self._redis.run(
            index_single(
                remaining_sessions=keys.remaining_sessions(user),
                users_by_name=keys.users_by_name(name_key(owner, user_id)),
                session_id=session_id,
                user=user,
                ttl=self._limits.ttl,
            )
        )

    async def _enter(
        self, session_id: str, owner: str, user_id: str, *, sessions: Limits, users: Limits, over: str = ""
    ) -> tuple[bytes, int, int, list[bytes]]:
        keys, user = self._keys, user_key(owner, user_id)
        return await self._redis.run(
            index_admit(
                held=self.held(owner, user),
                remaining_sessions=keys.remaining_sessions(user),
                users_by_name=keys.users_by_name(name_key(owner, user_id)),
                session_id=session_id,
                user=user,
                ttl=self._limits.ttl,
                most_sessions=[*sessions.numbers(owner)],
                most_users=[*users.numbers(owner)],
                over=over,
            )
        )

    def held(self, owner: str, user: str) -> HeldKeys:
        """Where the sessions of a user, as the indexes name him, and of his owner are entered."""
        mine = whose(owner, user)
        return self._keys.held(mine.user, mine.owner, mine.root)

    async def remove(self, session_id: str, owner: str, user: str) -> None:
        """Takes a session that is over out of the live indexes. Whose is not known any more ("") stays with
        its owner and its root until its time there is up."""
        await self._redis.run(index_drop(held=self.held(owner, user), session_id=session_id, user=user))

    async def remove_erased(self, session_id: str, user: str) -> None:
        """Takes a session of which nothing is left out of the last index."""
        await self._redis.run(Number("ZREM", self._keys.remaining_sessions(user), session_id))

    async def remove_unwritten(self, session_ids: Sequence[str], user: str) -> int:
        """The same for sessions that have no hash. Returns how many stay: they may be about to get one."""
        command = index_unwritten(
            index=self._keys.remaining_sessions(user),
            members=[*session_ids],
            life=self._limits.ttl + _TOMBSTONE_MS,
            opening=OPENING_MS,
        )
        return len(await self._redis.run(command))

    async def users_named(self, owner: str, user_id: str, most: int) -> tuple[list[str], int]:
        """Users of that name in the owner's root, for its admins: ``most`` of them, first those whose time is
        up first; and how many there are."""
        key, now = self._keys.users_by_name(name_key(owner, user_id)), now_ms()
        users = await self._redis.run(Texts("ZRANGEBYSCORE", key, now, "+inf", "LIMIT", 0, most))
        return [user.decode() for user in users], await self._redis.run(Number("ZCOUNT", key, now, "+inf"))

    async def newest_named(self, owner: str, user_id: str, most: int) -> list[str]:
        """The same, first those of whom something happened last."""
        return await self._newest(self._keys.users_by_name(name_key(owner, user_id)), 0, most, now_ms())

    async def newest(self, users: Sequence[str], most: int) -> list[str]:
        """Live sessions of these users: ``most`` of them, of each user those that live longest."""
        now, found = now_ms(), list[str]()
        for begin in range(0, len(users), _USERS_AT_ONCE):
            some = users[begin : begin + _USERS_AT_ONCE]
            keys = [self._keys.user_sessions(user) for user in some]
            replies = await self._redis.pipeline([_by_expiry(key, now, 0, _OF_EACH) for key in keys])
            for key, ids in zip(keys, replies, strict=True):
                found += (session_id.decode() for session_id in ids)
                if len(ids) == _OF_EACH and len(found) < most:
                    found += await self._newest(key, _OF_EACH, most - len(found), now)
            if len(found) >= most:
                break
        return [*dict.fromkeys(found)][:most]

    async def _newest(self, key: Key, first: int, most: int, now: int) -> list[str]:
        """``most`` members that live longest, behind the ``first`` of them, in portions. One that moves
        meanwhile comes once."""
        found: dict[str, None] = {}
        while len(found) < most:
            some = await self._redis.run(_by_expiry(key, now, first, min(AT_ONCE, most - len(found))))
            found |= dict.fromkeys(member.decode() for member in some)
            first += len(some)
            if len(some) < AT_ONCE:
                break
        return [*found]

    async def all_live(self, user: str) -> AsyncIterator[list[str]]:
        """All of a user's live sessions in any order, in portions."""
        now = now_ms()
        async for some in portions(self._redis, "ZSCAN", self._keys.user_sessions(user)):
            yield [session_id.decode() for session_id, expires in pairs(some) if float(expires) >= now]

    async def counts(self) -> tuple[int, int]:
        """Live sessions and users."""
        now, keys = now_ms(), self._keys
        sessions, users = await self._redis.pipeline(
            [Number("ZCOUNT", key, now, "+inf") for key in (keys.all_sessions, keys.all_users)]
        )
        return sessions, users

    async def prune(self, limit: int) -> tuple[int, int, int, list[tuple[str, int]]]:
        """Takes out at most ``limit`` sessions and users whose time is up; returns how many of each, the time
        by Redis' clock, and as many of the sessions that expire soonest, so of the least recently active
        ones, with the times when they were entered last."""
        sessions, users, now, oldest = await self._redis.run(
            index_prune(sessions=self._keys.all_sessions, users=self._keys.all_users, limit=limit)
        )
        return sessions, users, now, self._entered(oldest)
