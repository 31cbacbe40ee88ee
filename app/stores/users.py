"""What is asked about users as a whole: their sessions, what is kept of them, and the service's numbers."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from redis import exceptions as redis_errors

from app.models import Identity
from app.models.operating import CleanedUp
from app.redis_client import Fields, Key, Keys, Number, RedisGate, Texts
from app.stores.index import SessionIndex, may_be_opening, name_key, user_key
from app.stores.large_reads import SMALL_BYTES, LargeReads
from app.stores.portions import AT_ONCE
from app.stores.scripts import index_forget_user, session_erase
from app.stores.sessions import SessionRecord, SessionStore
from app.utils import now_ms

_MOST_LISTED: Final = 10_000
"""Sessions, and users of one name: of more, those of whom something happened last are looked at."""
_WHOLE_AT_ONCE: Final = 20
MOST_WHOLE_BYTES: Final = 1 << 20
"""Of sessions in a list; past it they are read without what may be long."""
_BRIEFLY: Final = ("owner", "status", "expires", "activity", "running", "conversation_id")
_ALL_BUT_LONG: Final = (
    *_BRIEFLY,
    *("user_id", "user", "title", "bot_id", "credential", "auto_save", "single"),
    *("created", "updated", "count", "idempotency"),
)
"""Without the opening messages and ``metadata``, which hold up to 100 KiB."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """``found``: how many sessions of ``users`` are left, ``sessions`` among them, and those that are being
    opened; ``more_users``: how many users of that name were not looked at."""

    sessions: list[SessionRecord]
    found: int
    users: list[str]
    more_users: int


class UserStore:
    def __init__(
        self, redis: RedisGate, keys: Keys, sessions: SessionStore, large: LargeReads | None = None
    ) -> None:
        self._large = large or LargeReads()
        self._redis = redis
        self._keys = keys
        self._sessions = sessions
        self._index: SessionIndex = sessions.index

    async def sessions(self, identity: Identity, user_id: str, limit: int) -> list[SessionRecord]:
        """Live sessions, newest activity first; an admin's of all users of that name in the root. Those past
        ``MOST_WHOLE_BYTES`` are without opening messages and metadata, and no more than ``_MOST_LISTED`` are
        looked at. Raises ``Overloaded``, see ``LargeReads``."""
        few, are_all = await self._newest_ids(identity, user_id, _WHOLE_AT_ONCE)
        if are_all and await self._size_of_texts(few) <= SMALL_BYTES:
            return await self._newest(identity, few, limit)
        async with self._large.taken(identity.owner):
            ids, _ = await self._newest_ids(identity, user_id, _MOST_LISTED)
            return await self._newest(identity, ids, limit)

    async def _newest_ids(self, identity: Identity, user_id: str, most: int) -> tuple[list[str], bool]:
        """At most ``most`` sessions of at most ``most`` users, and whether there are no others."""
        users = [user_key(identity.owner, user_id)]
        if identity.admin:
            users = await self._index.newest_named(identity.owner, user_id, most + 1)
        ids = await self._index.newest(users[:most], most + 1)
        return ids[:most], len(users) <= most and len(ids) <= most

    async def _size_of_texts(self, ids: Sequence[str]) -> int:
        """Bytes of what may be long."""
        keys = [self._keys.session(session_id) for session_id in ids]
        lengths = [Number("HSTRLEN", key, field) for key in keys for field in ("messages", "metadata")]
        return sum(await self._redis.pipeline(lengths))

    async def _newest(self, identity: Identity, ids: Sequence[str], limit: int) -> list[SessionRecord]:
        active = [
            (record.number(b"activity"), record.session_id)
            async for some in self._live(identity, ids)
            for record in some
        ]
        active.sort(key=lambda found: found[0], reverse=True)
        shown, size = [session_id for _, session_id in active[:limit]], 0
        found: list[SessionRecord | None] = []
        while len(found) < len(shown) and size < MOST_WHOLE_BYTES:
            some = await self._whole(shown[len(found) : len(found) + _WHOLE_AT_ONCE])
            size += sum(record.size for record in some if record is not None)
            found += some
        found += await self._records(shown[len(found) :])
        return [record for record in found if record is not None]

    async def ids_in_conversation(self, identity: Identity, user_id: str, conversation_id: str) -> list[str]:
        """The caller's own live sessions of that user that go on with a conversation."""
        found: dict[str, None] = {}
        async for ids in self._index.all_live(user_key(identity.owner, user_id)):
            async for some in self._live(identity, ids):
                of_it = (record for record in some if record.conversation_id == conversation_id)
                found |= dict.fromkeys(record.session_id for record in of_it)
        return [*found]

    async def _live(self, identity: Identity, ids: Sequence[str]) -> AsyncIterator[list[SessionRecord]]:
        """Those that are, with no more than ``_BRIEFLY`` of each, in portions."""
        inactive = self._sessions.limits.inactive
        for begin in range(0, len(ids), AT_ONCE):
            records = await self._records(ids[begin : begin + AT_ONCE], _BRIEFLY)
            mine = (record for record in records if record is not None and identity.may_see(record.owner))
            yield [record for record in mine if record.status(inactive) in ("active", "inactive")]

    async def remaining(self, identity: Identity, user_id: str, limit: int) -> Remaining:
        """Sessions of which anything is left, terminated ones too. However many there are, ``limit`` of them
        and ``limit`` users are looked at."""
        users, count, now = [user_key(identity.owner, user_id)], 1, now_ms()
        if identity.admin:
            users, count = await self._index.users_named(identity.owner, user_id, limit)
        keys = [self._keys.remaining_sessions(user) for user in users]
        found = sum(await self._redis.pipeline([Number("ZCOUNT", key, now, "+inf") for key in keys]))
        # Those first that were entered first: what is being opened now is in nobody's way.
        oldest = await self._redis.pipeline(
            [Texts("ZRANGEBYSCORE", key, now, "+inf", "LIMIT", 0, limit) for key in keys]
        )
        owned = [
            (session_id.decode(), user) for user, ids in zip(users, oldest, strict=True) for session_id in ids
        ][:limit]
        sessions, unwritten = [], dict[str, list[str]]()
        records = await self._records([session_id for session_id, _ in owned])
        for (session_id, user), record in zip(owned, records, strict=True):
            if record is None:
                unwritten.setdefault(user, []).append(session_id)
            elif identity.may_see(record.owner):
                sessions.append(record)
        for user, ids in unwritten.items():
            found -= len(ids) - await self._index.remove_unwritten(ids, user)
        return Remaining(sessions, found, users, max(0, count - len(users)))

    async def forget_users(self, identity: Identity, user_id: str, users: Sequence[str]) -> None:
        """Takes those of whom nothing is left out of the indexes of users."""
        keys, name = self._keys, name_key(identity.owner, user_id)
        for user in users:  # an admin's may have other owners, whose sessions took them along when they ended
            await self._redis.run(
                index_forget_user(
                    held=self._index.held(identity.owner, user),
                    remaining_sessions=keys.remaining_sessions(user),
                    users_by_name=keys.users_by_name(name),
                    user=user,
                )
            )

    async def erase(self, session: SessionRecord) -> int:
        """Deletes all keys of a session; returns how many chats went with it."""
        keys, session_id, user = self._keys, session.session_id, session.text(b"user")
        # In portions: a session that lived long may have used more keys than one script call can name.
        at = keys.of_session(session_id)
        some = Texts("SPOP", at.used, AT_ONCE)
        while used := await self._redis.run(some):
            first, *others = (Key(name.decode()) for name in used)
            await self._redis.run(Number("DEL", first, *others))
        erased = await self._redis.run(session_erase(at=at))
        if digest := session.text(b"idempotency"):
            await self._redis.run(Number("DEL", keys.session_idempotency(digest)))
        await self._index.remove(session_id, session.owner, user)
        await self._index.remove_erased(session_id, user)
        return erased

    async def _whole(self, ids: Sequence[str]) -> list[SessionRecord | None]:
        replies = await self._redis.pipeline(
            [Texts("HGETALL", self._keys.session(session_id)) for session_id in ids]
        )
        found = zip(ids, replies, strict=True)
        return [SessionRecord(session_id, reply) if reply else None for session_id, reply in found]

    async def _records(
        self, ids: Sequence[str], fields: Sequence[str] = _ALL_BUT_LONG
    ) -> list[SessionRecord | None]:
        """With no more than ``fields`` of each; None where there is no such session any more."""
        records: list[SessionRecord | None] = []
        for begin in range(0, len(ids), AT_ONCE):
            some = ids[begin : begin + AT_ONCE]
            replies = await self._redis.pipeline(
                [Fields("HMGET", self._keys.session(session_id), *fields) for session_id in some]
            )
            for session_id, values in zip(some, replies, strict=True):
                known = zip(fields, values, strict=True)
                flat = [part for name, value in known if value is not None for part in (name.encode(), value)]
                records.append(SessionRecord(session_id, flat) if flat else None)
        return records

    # -- the service's numbers ---------------------------------------------------------------------------

    async def counts(self) -> dict[str, object]:
        """Sessions, users, chats by status without those that are over, and leases (of chats that run or
        wait). From indexes alone: it costs the same however many sessions there are."""
        sessions, users = await self._index.counts()
        now, keys = now_ms(), self._keys
        leases = sum(await self._redis.pipeline([Number("ZCARD", keys.leases(s)) for s in keys.shards]))
        queued, waiting = [
            sum(await self._redis.pipeline([Number("ZCOUNT", key(s), now, "+inf") for s in keys.shards]))
            for key in (keys.queued, keys.waiting)
        ]
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
            infos = await self._redis.info("memory")
        except redis_errors.ResponseError:
            infos = []
        names = ("used_memory", "used_memory_peak", "maxmemory")
        known = {name: [int(info[name]) for info in infos if name in info] for name in names}
        return {name: sum(values) if values else None for name, values in known.items()}

    async def clean_up(self, limit: int) -> CleanedUp:
        """Removes at most ``limit`` of each: index entries whose time is up, entries without a session, and
        sessions idle for longer than COZE_USER_INACTIVE_TIMEOUT. Returns how many; ``more``: call again."""
        sessions, users, now, oldest = await self._index.prune(limit)
        orphaned = inactive = 0
        records = await self._records([session_id for session_id, _ in oldest])
        for (session_id, entered), record in zip(oldest, records, strict=True):
            if record is None:
                if may_be_opening(entered, now):
                    continue  # else it would live outside the limits
                await self._index.remove(session_id, "", "")
                orphaned += 1
                continue
            status = record.status(self._sessions.limits.inactive)
            if status == "inactive":
                if await self._sessions.end_idle(session_id, "inactive") == b"busy":
                    continue
                inactive += 1
            elif status in ("terminated", "expired"):
                orphaned += 1
            else:
                continue
            await self._index.remove(session_id, record.owner, record.text(b"user"))
        more = max(sessions, users, orphaned + inactive) >= limit
        return CleanedUp(
            expired_sessions=sessions,
            expired_users=users,
            orphaned_sessions=orphaned,
            inactive_sessions=inactive,
            more=more,
        )
