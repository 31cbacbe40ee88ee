"""What is asked about users as a whole: their sessions, what is kept of them, and the service's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis import exceptions as redis_errors

from app.models import Identity
from app.models.operating import CleanedUp
from app.redis_client import Fields, Key, Keys, Number, RedisGate, Texts
from app.stores.index import SessionIndex, may_be_opening, name_key, user_key
from app.stores.large_reads import SMALL_BYTES, LargeReads
from app.stores.scripts import index_forget_user, session_erase
from app.stores.sessions import SessionRecord, SessionStore
from app.utils import now_ms

_AT_ONCE: Final = 500
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
    """``found``: how many sessions of ``users`` are left, ``sessions`` among them; ``more_users``: how many
    users of that name were not looked at."""

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

    async def _users(self, identity: Identity, user_id: str) -> list[str]:
        """The caller's own user of that name; for an admin all of that name in the root."""
        if identity.admin:
            return await self._index.users_named(identity.owner, user_id)
        return [user_key(identity.owner, user_id)]

    async def sessions(self, identity: Identity, user_id: str, limit: int) -> list[SessionRecord]:
        """Live sessions, newest activity first. Those past ``MOST_WHOLE_BYTES`` are without opening messages
        and metadata. Raises ``Overloaded``, see ``LargeReads``."""
        ids = await self._index.live(await self._users(identity, user_id))
        if len(ids) <= _WHOLE_AT_ONCE and await self._size_of_texts(ids) <= SMALL_BYTES:
            return await self._newest(identity, ids, limit)
        async with self._large.taken(identity.owner):
            return await self._newest(identity, ids, limit)

    async def _size_of_texts(self, ids: Sequence[str]) -> int:
        """Bytes of what may be long."""
        keys = [self._keys.session(session_id) for session_id in ids]
        lengths = [Number("HSTRLEN", key, field) for key in keys for field in ("messages", "metadata")]
        return sum(await self._redis.pipeline(lengths))

    async def _newest(self, identity: Identity, ids: Sequence[str], limit: int) -> list[SessionRecord]:
        live = await self._live(identity, ids)
        live.sort(key=lambda record: record.number(b"activity"), reverse=True)
        shown, size = [record.session_id for record in live[:limit]], 0
        found: list[SessionRecord | None] = []
        while len(found) < len(shown) and size < MOST_WHOLE_BYTES:
            some = await self._whole(shown[len(found) : len(found) + _WHOLE_AT_ONCE])
            size += sum(record.size for record in some if record is not None)
            found += some
        found += await self._records(shown[len(found) :])
        return [record for record in found if record is not None]

    async def ids_in_conversation(self, identity: Identity, user_id: str, conversation_id: str) -> list[str]:
        """The caller's own live sessions of that user that go on with a conversation."""
        ids = await self._index.live([user_key(identity.owner, user_id)])
        live = await self._live(identity, ids)
        return [record.session_id for record in live if record.conversation_id == conversation_id]

    async def _live(self, identity: Identity, ids: Sequence[str]) -> list[SessionRecord]:
        """Those that are, with no more than ``_BRIEFLY`` of each."""
        records = await self._records(ids, _BRIEFLY)
        inactive = self._sessions.limits.inactive
        mine = (record for record in records if record is not None and identity.may_see(record.owner))
        return [record for record in mine if record.status(inactive) in ("active", "inactive")]

    async def remaining(self, identity: Identity, user_id: str, limit: int) -> Remaining:
        """Sessions of which anything is left, terminated ones too. However many there are, ``limit`` of them
        and ``limit`` users are looked at."""
        everyone = await self._users(identity, user_id)
        users, now = everyone[:limit], now_ms()
        keys = [self._keys.remaining_sessions(user) for user in users]
        found = sum(await self._redis.pipeline([Number("ZCOUNT", key, now, "+inf") for key in keys]))
        newest = await self._redis.pipeline(
            [Texts("ZREVRANGEBYSCORE", key, "+inf", now, "LIMIT", 0, limit) for key in keys]
        )
        owned = [
            (session_id.decode(), user) for user, ids in zip(users, newest, strict=True) for session_id in ids
        ][:limit]
        sessions = []
        records = await self._records([session_id for session_id, _ in owned])
        for (session_id, user), record in zip(owned, records, strict=True):
            if record is None:
                await self._index.remove_erased(session_id, user)
                found -= 1
            elif identity.may_see(record.owner):
                sessions.append(record)
        return Remaining(sessions, found, users, len(everyone) - len(users))

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
        some = Texts("SPOP", at.used, _AT_ONCE)
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
        for begin in range(0, len(ids), _AT_ONCE):
            some = ids[begin : begin + _AT_ONCE]
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
        leases, queued, waiting = [
            sum(await self._redis.pipeline([Number("ZCARD", key(s)) for s in self._keys.shards]))
            for key in (self._keys.leases, self._keys.queued, self._keys.waiting)
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
