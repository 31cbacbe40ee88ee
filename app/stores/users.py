"""What is asked about users as a whole: their sessions, what is kept of them, and the service's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions as redis_errors

from app.models import Identity
from app.redis_client import Keys, RedisGate, Script
from app.stores.index import SessionIndex, may_be_opening, name_key, user_key
from app.stores.limits import TOMBSTONE_MS
from app.stores.sessions import SessionRecord, SessionStore
from app.utils import now_ms

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many index entries and sessions a clean-up removed; ``more``: call again."""

    expired_sessions: int
    expired_users: int
    orphaned_sessions: int
    inactive_sessions: int
    more: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """``found``: how many sessions of ``users`` are left, ``sessions`` among them; ``more_users``: how many
    users of that name were not looked at."""

    sessions: list[SessionRecord]
    found: int
    users: list[str]
    more_users: int


class UserStore:
    def __init__(self, redis: RedisGate, keys: Keys, sessions: SessionStore) -> None:
        self._redis = redis
        self._keys = keys
        self._sessions = sessions
        self._index: SessionIndex = sessions.index
        self._erase = Script("session_erase")
        self._forget = Script("index_forget_user")

    async def _users(self, identity: Identity, user_id: str) -> list[str]:
        """The caller's own user of that name; for an admin all of that name in the root."""
        if identity.admin:
            return await self._index.users_named(identity.owner, user_id)
        return [user_key(identity.owner, user_id)]

    async def sessions(self, identity: Identity, user_id: str, limit: int) -> list[SessionRecord]:
        """Live sessions, newest activity first."""
        ids = await self._index.live(await self._users(identity, user_id))
        records = [r for r in await self._records(ids) if r is not None and identity.may_see(r.owner)]
        live = [
            r for r in records if r.status(self._sessions.limits.inactive * 1000) in ("active", "inactive")
        ]
        live.sort(key=lambda record: record.number(b"activity"), reverse=True)
        return live[:limit]

    async def kept(self, identity: Identity, user_id: str, limit: int) -> Kept:
        """Sessions of which anything is left, terminated ones too. However many there are, ``limit`` of them
        and ``limit`` users are looked at."""
        everyone = await self._users(identity, user_id)
        users, now, found = everyone[:limit], now_ms(), 0
        owned: list[tuple[str, str]] = []
        for user in users:
            key = self._keys.kept_sessions(user)
            count, ids = await self._redis.pipeline(
                [("ZCOUNT", key, now, "+inf"), ("ZREVRANGEBYSCORE", key, "+inf", now, "LIMIT", 0, limit)]
            )
            found += int(count)
            owned += [(session_id.decode(), user) for session_id in ids[: limit - len(owned)]]
        sessions = []
        records = await self._records([session_id for session_id, _ in owned])
        for (session_id, user), record in zip(owned, records, strict=True):
            if record is None:
                await self._index.forget_kept(session_id, user)
                found -= 1
            elif identity.may_see(record.owner):
                sessions.append(record)
        return Kept(sessions, found, users, len(everyone) - len(users))

    async def forget_users(self, identity: Identity, user_id: str, users: Sequence[str]) -> None:
        """Takes those of whom nothing is left out of the indexes of users."""
        keys, name = self._keys, name_key(identity.owner, user_id)
        for user in users:
            await self._redis.run(
                self._forget, [keys.kept_sessions(user), keys.all_users, keys.namesakes(name)], [user]
            )

    async def erase(self, session: SessionRecord) -> int:
        """Deletes all keys of a session; returns how many chats went with it."""
        keys, session_id, user = self._keys, session.session_id, session.text(b"user")
        # In portions: a session that lived long may have used more keys than one script call can name.
        while used := await self._redis.command("SPOP", keys.keys_used(session_id), _AT_ONCE):
            await self._redis.command("DEL", *used)
        erased = await self._redis.run(
            self._erase,
            [
                *(keys.session(session_id), keys.chats(session_id), keys.order(session_id)),
                *(keys.queue(session_id), keys.keys_used(session_id), keys.erased(session_id)),
            ],
            [keys.run_prefix(session_id), keys.log_prefix(session_id), TOMBSTONE_MS],
        )
        if key := session.text(b"idempotency"):
            await self._redis.command("DEL", self._keys.session_idempotency(key))
        await self._index.forget(session_id, user)
        await self._index.forget_kept(session_id, user)
        return int(erased)

    async def _records(self, ids: Sequence[str]) -> list[SessionRecord | None]:
        if not ids:
            return []
        replies = await self._redis.pipeline([("HGETALL", self._keys.session(sid)) for sid in ids])
        return [_record(sid, reply) for sid, reply in zip(ids, replies, strict=True)]

    # -- the service's numbers ---------------------------------------------------------------------------

    async def counts(self) -> dict[str, Any]:
        """From indexes alone: it costs the same however many sessions there are."""
        sessions, users = await self._index.counts()
        shards = self._keys.shards
        replies = await self._redis.pipeline(
            [
                ("ZCARD", name(shard))
                for name in (self._keys.leases, self._keys.queued, self._keys.waiting)
                for shard in shards
            ]
        )
        numbers = [0 if isinstance(reply, redis_errors.RedisError) else int(reply) for reply in replies]
        size = len(shards)
        leases, queued, waiting = (sum(numbers[i * size : (i + 1) * size]) for i in range(3))
        running = max(0, leases - waiting)
        return {
            "sessions": sessions,
            "users": users,
            "chats": {"processing": running, "pending": queued, "requires_action": waiting},
            "leases": leases,
        }

    async def memory(self) -> dict[str, int | str | None]:
        """``used_memory`` and ``maxmemory`` in bytes, of all servers together; None where they do not say."""
        try:
            infos = await self._redis.on_each("INFO", "memory")
        except redis_errors.ResponseError:
            infos = []
        names = ("used_memory", "used_memory_peak", "maxmemory")
        known = {name: [info[name] for info in infos if name in info] for name in names}
        return {name: sum(values) if values else None for name, values in known.items()}

    async def clean_up(self, limit: int) -> Cleaned:
        """At most ``limit`` of each: index entries whose time is up, entries without a session, and sessions
        idle for longer than COZE_USER_INACTIVE_TIMEOUT."""
        sessions, users, oldest = await self._index.prune(limit)
        orphaned = inactive = 0
        records = await self._records([session_id for session_id, _ in oldest.sessions])
        for (session_id, entered), record in zip(oldest.sessions, records, strict=True):
            if record is None:
                if may_be_opening(entered, oldest.now):
                    continue  # else it would live outside the limits
                await self._index.forget(session_id, "")
                orphaned += 1
                continue
            status = record.status(self._sessions.limits.inactive * 1000)
            if status == "inactive":
                if await self._sessions.end_idle(session_id, "inactive") == b"busy":
                    continue
                inactive += 1
            elif status in ("terminated", "expired"):
                orphaned += 1
            else:
                continue
            await self._index.forget(session_id, record.text(b"user"))
        more = max(sessions, users, orphaned + inactive) >= limit
        return Cleaned(sessions, users, orphaned, inactive, more)


def _record(session_id: str, reply: Any) -> SessionRecord | None:
    if isinstance(reply, dict):  # a cluster's client makes one; the wire has a flat list
        reply = [part for pair in reply.items() for part in pair]
    return SessionRecord(session_id, reply) if isinstance(reply, list) and reply else None
