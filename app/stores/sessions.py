"""Sessions: a hash each, with indexes by user and over all for the limits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from app.exceptions import (
    IdempotencyKeyReused,
    ServiceError,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
)
from app.models import Identity, SessionStatus
from app.records import with_waits_until
from app.redis_client import Keys, RedisGate, Script
from app.stores.eviction import Eviction
from app.stores.index import SessionIndex, user_key
from app.stores.limits import TOMBSTONE_MS, SessionLimits
from app.utils import is_session_id, iso, now_ms

IDEMPOTENCY_MS: Final = 24 * 3600 * 1000
_GONE: Final[dict[bytes, type[ServiceError]]] = {
    b"none": SessionNotFound,
    b"terminated": SessionTerminated,
    b"expired": SessionExpired,
}


class SessionRecord:
    """A session's hash as Redis returned it (a flat list of fields and values)."""

    __slots__ = ("_fields", "session_id")

    def __init__(self, session_id: str, flat: Sequence[bytes]) -> None:
        self.session_id = session_id
        self._fields = dict(zip(flat[::2], flat[1::2], strict=True))

    def text(self, field: bytes) -> str:
        return self._fields.get(field, b"").decode()

    def number(self, field: bytes) -> int:
        return int(self._fields.get(field) or 0)

    @property
    def owner(self) -> str:
        return self.text(b"owner")

    @property
    def user_id(self) -> str:
        return self.text(b"user_id")

    @property
    def bot_id(self) -> str:
        return self.text(b"bot_id")

    @property
    def conversation_id(self) -> str | None:
        return self.text(b"conversation_id") or None

    @property
    def credential(self) -> str:
        """Whose the conversation is at Coze; empty where there is none, or only one can be meant."""
        return self.text(b"credential") if self.conversation_id is not None else ""

    @property
    def auto_save_history(self) -> bool:
        return self._fields.get(b"auto_save") == b"1"

    @property
    def single(self) -> bool:
        """It is there for one chat alone: neither listed nor counted, and soon forgotten."""
        return b"single" in self._fields

    @property
    def opening_messages(self) -> list[dict[str, Any]]:
        """``additional_messages`` of the session; empty once Coze has them."""
        return [] if self._fields.get(b"seeded") else self.additional_messages

    @property
    def additional_messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = orjson.loads(self._fields.get(b"messages") or b"[]")
        return messages

    @property
    def running(self) -> str | None:
        return self.text(b"running") or None

    def flat(self) -> list[bytes]:
        return [part for pair in self._fields.items() for part in pair]

    def status(self, inactive_ms: int) -> SessionStatus:
        if self._fields.get(b"status") == b"terminated":
            return "terminated"
        now = now_ms()
        if self.running is None and self.number(b"expires") < now:
            return "expired"
        return "inactive" if now - self.number(b"activity") > inactive_ms else "active"

    def view(self, limits: SessionLimits, history: Sequence[bytes] = ()) -> dict[str, Any]:
        """The session object of the contract, ready for orjson."""
        return {
            "session_id": self.session_id,
            "user_id": self.user_id,
            "status": self.status(limits.inactive * 1000),
            "created_at": iso(self.number(b"created")),
            "updated_at": iso(self.number(b"updated")),
            "last_activity_at": iso(self.number(b"activity")),
            "expires_at": iso(self.number(b"expires")),
            "conversation_id": self.conversation_id,
            "context": {
                "bot_id": self.bot_id,
                "additional_messages": self.additional_messages,
                "auto_save_history": self.auto_save_history,
            },
            "metadata": orjson.loads(self._fields.get(b"metadata") or b"{}"),
            "chat_count": self.number(b"count"),
            "chat_history": [
                orjson.Fragment(with_waits_until(record, self.number(b"expires"))) for record in history
            ],
        }


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """``fingerprint``: hexadecimal digest of the request that came with the key."""

    key: str
    fingerprint: str

    def digest(self, *scope: str) -> str:
        """The key's name in Redis, within the scope of its owner."""
        return hashlib.sha256("\0".join((*scope, self.key)).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class SessionEnd:
    session: SessionRecord
    running: str | None
    queued: list[str]


class SessionStore:
    """Raises ``SessionNotFound`` (also for what is somebody else's), ``SessionTerminated``,
    ``SessionExpired`` and ``RedisUnavailable`` everywhere."""

    def __init__(self, redis: RedisGate, keys: Keys, limits: SessionLimits) -> None:
        self._redis = redis
        self._keys = keys
        self.limits = limits
        self.index = SessionIndex(redis, keys, limits)
        self._eviction = Eviction(redis, keys, self.index, self.end_idle)
        self._open = Script("session_open")
        self._read = Script("session_read")
        self._page = Script("session_page")
        self._end = Script("session_end")
        self._conversation = Script("session_conversation")
        self._idempotency = Script("idempotency")

    async def open(
        self,
        session_id: str,
        identity: Identity,
        *,
        user_id: str,
        bot_id: str,
        auto_save_history: bool,
        additional_messages: list[dict[str, Any]],
        metadata: dict[str, str],
        idempotency: str = "",
        single: bool = False,
        conversation: tuple[str, str] | None = None,
    ) -> SessionRecord:
        """Creates a session; repeated with the same id it answers the same. ``idempotency``: digest of the
        Idempotency-Key, to be erased with it. ``single``: for one chat alone, within no limit.
        ``conversation``: id and credential of the one that it goes on with.

        The index is written first: what is forgotten there expires by itself, whereas a session that
        no index knows would escape the limits. Raises ``SessionLimitReached``.
        """
        if single:
            await self.index.keep_single(session_id, identity.owner, user_id)
        else:
            await self._eviction.make_room(session_id, identity.owner, user_id)
        flat = await self._redis.run(
            self._open,
            [self._keys.session(session_id), self._keys.chats(session_id)],
            [
                *(self.limits.expire_ms, TOMBSTONE_MS, identity.owner),
                *("user_id", user_id, "bot_id", bot_id, "user", user_key(identity.owner, user_id)),
                *("auto_save", "1" if auto_save_history else "0"),
                *("messages", orjson.dumps(additional_messages), "metadata", orjson.dumps(metadata)),
                *("idempotency", idempotency, *(("single", "1") if single else ())),
                *(_held(*conversation) if conversation else ()),
            ],
        )
        return SessionRecord(session_id, flat)

    async def end_idle(self, session_id: str, reason: Literal["evicted", "inactive"] = "evicted") -> bytes:
        """Terminates the session unless a chat runs or waits in it; returns what it was before: ``busy``,
        ``active`` where this call has ended it, else how it was over already."""
        reply = await self._redis.run(
            self._end,
            self._end_keys(session_id),
            self._end_args(session_id, "", "", idle_only=True, reason=reason),
        )
        return bytes(reply[0])

    async def claim_key(self, identity: Identity, key: IdempotencyKey, session_id: str, *scope: str) -> str:
        """The session that this Idempotency-Key stands for: ``session_id`` if it is new. In a ``scope`` of
        its own the same key means something else.

        Raises ``IdempotencyKeyReused``.
        """
        reply = await self._redis.run(
            self._idempotency,
            [self._keys.session_idempotency(key.digest(identity.owner, *scope))],
            [key.fingerprint, session_id, IDEMPOTENCY_MS],
        )
        if reply[0] == b"reused":
            raise IdempotencyKeyReused
        return session_id if reply[0] == b"new" else str(reply[1].decode())

    async def forget_key(self, identity: Identity, key: IdempotencyKey) -> None:
        await self._redis.command("DEL", self._keys.session_idempotency(key.digest(identity.owner)))

    async def keep_indexed(self, session: SessionRecord) -> None:
        """Moves the session's expiry in the indexes to where its hash has it."""
        if session.single:
            await self.index.keep_single(session.session_id, session.owner, session.user_id)
            return
        await self.index.keep(session.session_id, session.owner, session.user_id)

    async def read(
        self, session_id: str, identity: Identity, *, history: int, touch: bool = True
    ) -> tuple[SessionRecord, list[bytes], bool]:
        """The session, its newest ``history`` chat records, and whether its index entry is due."""
        keys = self._keys
        _check(session_id)
        reply = await self._redis.run(
            self._read,
            [keys.session(session_id), keys.chats(session_id), keys.order(session_id)],
            [
                *(identity.owner, identity.admin_prefix, history, int(touch)),
                *(self.limits.expire_ms, TOMBSTONE_MS, self.limits.hold),
            ],
        )
        raise_unless_active(reply[0])
        return SessionRecord(session_id, reply[1]), [r for r in reply[2] if r is not None], bool(reply[3])

    async def page(
        self, session_id: str, identity: Identity, *, limit: int, before: str
    ) -> tuple[list[bytes], bool]:
        """Chat records, newest first, older than ``before`` ("" = the newest), and whether more follow."""
        keys = self._keys
        _check(session_id)
        reply = await self._redis.run(
            self._page,
            [keys.session(session_id), keys.chats(session_id), keys.order(session_id)],
            [identity.owner, identity.admin_prefix, limit, before],
        )
        raise_unless_active(reply[0])
        expires = int(reply[3])
        return [with_waits_until(r, expires) for r in reply[1] if r is not None], bool(reply[2])

    async def end(
        self, session_id: str, identity: Identity, reason: Literal["deleted", "erased"] = "deleted"
    ) -> SessionEnd:
        """Terminates; a terminated session answers the same again."""
        _check(session_id)
        reply = await self._redis.run(
            self._end,
            self._end_keys(session_id),
            self._end_args(session_id, identity.owner, identity.admin_prefix, idle_only=False, reason=reason),
        )
        if reply[0] in (b"none", b"expired"):
            raise _GONE[reply[0]]
        session = SessionRecord(session_id, reply[1])
        await self.index.forget(session_id, session.text(b"user"))
        return SessionEnd(session, reply[2].decode() or None, [chat.decode() for chat in reply[3]])

    def _end_keys(self, session_id: str) -> list[str]:
        keys = self._keys
        shard_leases = keys.leases_of(session_id)
        return [keys.session(session_id), keys.queue(session_id), shard_leases]

    def _end_args(
        self, session_id: str, mine: str, admin_prefix: str, *, idle_only: bool, reason: str
    ) -> list[str | bytes | int]:
        return [mine, admin_prefix, int(idle_only), reason, TOMBSTONE_MS, self._keys.run_prefix(session_id)]

    async def set_conversation(
        self, session_id: str, conversation_id: str, credential: str, kept: int
    ) -> str | None:
        """Keeps the first conversation that is reported, and whose it is; returns the one that holds, None
        where the session is gone. ``kept``: when its ownership was written down (milliseconds)."""
        key = self._keys.session(session_id)
        reply = await self._redis.run(self._conversation, [key], [conversation_id, credential, kept])
        return reply.decode() if reply is not None else None


def _held(conversation_id: str, credential: str) -> tuple[str | int, ...]:
    return "conversation_id", conversation_id, "credential", credential, "kept", now_ms()


def _check(session_id: str) -> None:
    """A malformed id is an unknown one, and never becomes part of a key."""
    if not is_session_id(session_id):
        raise SessionNotFound


def raise_unless_active(state: bytes) -> None:
    """Turns a script's state of a session into the exception that tells it."""
    if state in _GONE:
        raise _GONE[state]
