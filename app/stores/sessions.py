"""Sessions: a hash each, with indexes by user and over all for the limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from app.exceptions import (
    IdempotencyKeyReused,
    ServiceError,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
)
from app.models import Identity
from app.models.answers import SessionStatus
from app.models.records import as_it_stands, with_waits_until
from app.observing.metrics import Metrics
from app.redis_client import Arg, Command, Fields, Keys, Number, RedisGate, pairs
from app.stores.eviction import Eviction
from app.stores.index import SessionIndex, digest_of, user_key
from app.stores.large_reads import SMALL_BYTES, LargeReads
from app.stores.policy import SessionLimits
from app.stores.scripts import (
    idempotency_claim,
    session_change,
    session_conversation,
    session_end,
    session_open,
    session_page,
    session_read,
)
from app.utils import is_session_id, iso, now_ms

JsonObject = dict[str, object]

_AWAITING: Final = ("status", "auto_save", "single", "conversation_id", "running")
_GONE: Final[dict[bytes, type[ServiceError]]] = {
    b"none": SessionNotFound,
    b"terminated": SessionTerminated,
    b"expired": SessionExpired,
}


_FIELDS: Final = {
    name: name
    for name in (
        b"activity auto_save bot_id conversation_id count created credential ended expires idempotency "
        b"indexed kept messages metadata owner reason running seeded single status title updated user user_id"
    ).split()
}
"""Names in a session's hash. Each reply brings them anew, and each chat that runs keeps one."""


class SessionRecord:
    """A session's hash as Redis returned it (a flat list of fields and values)."""

    __slots__ = (
        *("_fields", "auto_save_history", "bot_id", "conversation_id", "credential", "owner", "running"),
        *("serves_conversation", "session_id", "single", "title", "user_id"),
    )

    def __init__(self, session_id: str, flat: Sequence[bytes]) -> None:
        self._fields = {_FIELDS.get(name, name): value for name, value in pairs(flat)}
        self.session_id = session_id
        self.owner = self.text(b"owner")
        self.user_id = self.text(b"user_id")
        self.title = self.text(b"title")
        """Empty before its first message."""
        self.bot_id = self.text(b"bot_id")
        self.conversation_id = self.text(b"conversation_id") or None
        self.credential = self.text(b"credential") if self.conversation_id is not None else ""
        """Whose the conversation is at Coze; empty where there is none, or only one can be meant."""
        self.auto_save_history = self.text(b"auto_save") == "1"
        self.single = b"single" in self._fields
        """It is there for one chat alone, or for Coze's clients: neither listed nor counted, and soon
        forgotten."""
        self.serves_conversation = self.text(b"single") == "conversation"
        """It is there for a conversation of Coze's own clients, who know their chats by Coze's ids."""
        self.running = self.text(b"running") or None

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return sum(map(len, self._fields.values()))

    def text(self, field: bytes) -> str:
        return self._fields.get(field, b"").decode()

    def number(self, field: bytes) -> int:
        return int(self._fields.get(field) or 0)

    @property
    def opening_messages(self) -> list[JsonObject]:
        """``additional_messages`` of the session; empty once Coze has them."""
        return [] if self._fields.get(b"seeded") else self.additional_messages

    @property
    def additional_messages(self) -> list[JsonObject]:
        messages: list[JsonObject] = orjson.loads(self._fields.get(b"messages") or b"[]")
        return messages

    def flat(self) -> list[bytes]:
        return [part for pair in self._fields.items() for part in pair]

    def status(self, inactive_ms: int) -> SessionStatus:
        if self._fields.get(b"status") == b"terminated":
            return "terminated"
        now = now_ms()
        if self.running is None and self.number(b"expires") < now:
            return "expired"
        return "inactive" if now - self.number(b"activity") > inactive_ms else "active"

    def view(self, limits: SessionLimits, history: Sequence[bytes] = ()) -> JsonObject:
        """The session object of the contract, ready for orjson."""
        return {
            "session_id": self.session_id,
            "user_id": self.user_id,
            "title": self.title or None,
            "status": self.status(limits.inactive),
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
        return digest_of(*scope, self.key)


@dataclass(frozen=True, slots=True)
class SessionEnd:
    session: SessionRecord
    running: str | None
    queued: list[str]


class SessionStore:
    """Raises ``SessionNotFound`` (also for what is somebody else's), ``SessionTerminated``,
    ``SessionExpired`` and ``RedisUnavailable`` everywhere."""

    def __init__(
        self,
        redis: RedisGate,
        keys: Keys,
        limits: SessionLimits,
        *,
        metrics: Metrics | None = None,
        large: LargeReads | None = None,
    ) -> None:
        metrics = metrics or Metrics()
        self._large = large or LargeReads()
        self._redis = redis
        self._keys = keys
        self.limits = limits
        self.index = SessionIndex(redis, keys, limits, metrics=metrics)
        self._eviction = Eviction(redis, keys, self.index, self.end_idle, metrics)

    async def open(
        self,
        session_id: str,
        identity: Identity,
        *,
        user_id: str,
        bot_id: str,
        auto_save_history: bool = True,
        additional_messages: Sequence[JsonObject] = (),
        metadata: Mapping[str, str] | None = None,
        idempotency: str = "",
        single: bool = False,
        serves_conversation: bool = False,
        conversation: tuple[str, str] | None = None,
        title: str = "",
    ) -> SessionRecord:
        """Creates a session; repeated with the same id it answers the same. ``idempotency``: digest of the
        Idempotency-Key, to be erased with it. ``single``: for one chat alone, within no limit.
        ``serves_conversation``: within none either, for any number of chats of one conversation.
        ``conversation``: id and credential of the one that it goes on with. ``title``: '' for that of its
        first message.

        The index is written first: what is forgotten there expires by itself, whereas a session that
        no index knows would escape the limits. Raises ``SessionLimitReached``, and ``SessionTerminated``
        where the same session was erased meanwhile.
        """
        if single or serves_conversation:
            await self.index.enter_single(session_id, identity.owner, user_id)
        else:
            await self._eviction.make_room(session_id, identity.owner, user_id)
        fields: dict[str, Arg] = {
            "user_id": user_id,
            "bot_id": bot_id,
            "user": user_key(identity.owner, user_id),
            "auto_save": "1" if auto_save_history else "0",
            "messages": orjson.dumps(list(additional_messages)),
            "metadata": orjson.dumps(metadata or {}),
            "idempotency": idempotency,
        }
        if title:
            fields["title"] = title
        if single or serves_conversation:
            fields["single"] = "conversation" if serves_conversation else "1"
        if conversation is not None:
            conversation_id, credential = conversation
            fields |= {"conversation_id": conversation_id, "credential": credential, "kept": now_ms()}
        flat = await self._redis.run(
            session_open(
                at=self._keys.of_session(session_id),
                session_ttl=self.limits.ttl,
                owner=identity.owner,
                fields=[part for pair in fields.items() for part in pair],
            )
        )
        if not flat:
            await self._leave_indexes(session_id, identity.owner, user_id)
            raise SessionTerminated
        return SessionRecord(session_id, flat)

    async def end_idle(self, session_id: str, reason: Literal["evicted", "inactive"] = "evicted") -> bytes:
        """Terminates the session unless a chat runs or waits in it; returns what it was before: ``busy``,
        ``active`` where this call has ended it, else how it was over already."""
        at = self._keys.of_session(session_id)
        before, *_ = await self._redis.run(
            session_end(at=at, mine="", admin_prefix="", idle_only=True, reason=reason)
        )
        return before

    async def claim_key(self, identity: Identity, key: IdempotencyKey, session_id: str, *scope: str) -> str:
        """The session that this Idempotency-Key stands for: ``session_id`` if it is new. In a ``scope`` of
        its own the same key means something else.

        Raises ``IdempotencyKeyReused``.
        """
        name = self._keys.session_idempotency(key.digest(identity.owner, *scope))
        how, chosen = await self._redis.run(
            idempotency_claim(key=name, fingerprint=key.fingerprint, session_id=session_id)
        )
        if how == b"reused":
            raise IdempotencyKeyReused
        return chosen.decode()

    async def forget_key(self, identity: Identity, key: IdempotencyKey) -> None:
        name = self._keys.session_idempotency(key.digest(identity.owner))
        await self._redis.run(Number("DEL", name))

    async def renew_index(self, session: SessionRecord) -> None:
        """Moves the session's expiry in the indexes to where its hash has it."""
        enter = self.index.enter_single if session.single else self.index.renew
        await enter(session.session_id, session.owner, session.user_id)
        at = self._keys.of_session(session.session_id)
        if await self._redis.run(Number("EXISTS", at.erased)):  # meanwhile
            await self._leave_indexes(session.session_id, session.owner, session.user_id)

    async def _leave_indexes(self, session_id: str, owner: str, user_id: str) -> None:
        """What was erased is not to count as a session that is being opened."""
        user = user_key(owner, user_id)
        await self.index.remove(session_id, owner, user)
        await self.index.remove_erased(session_id, user)

    async def read(
        self, session_id: str, identity: Identity, *, history: int, touch: bool = True
    ) -> tuple[SessionRecord, list[bytes], bool]:
        """The session, its newest ``history`` chat records, and whether its index entry is due. Raises
        ``Overloaded``, see ``LargeReads``."""
        _check(session_id)

        def command(
            small: int,
        ) -> Command[tuple[bytes, list[bytes], list[bytes | None], list[bytes], int, int]]:
            return session_read(
                at=self._keys.of_session(session_id),
                mine=identity.owner,
                admin_prefix=identity.admin_prefix,
                limit=history,
                small=small,
                touch=touch,
                session_ttl=self.limits.ttl,
                hold=self.limits.hold,
            )

        state, flat, records, runs, index_due, is_large = await self._redis.run(command(SMALL_BYTES))
        if is_large and state == b"active":
            async with self._large.taken(identity.owner):
                state, flat, records, runs, due, _ = await self._redis.run(command(0), alone=True)
            index_due = index_due or due
        raise_unless_active(state)
        return SessionRecord(session_id, flat), _standing(records, runs), bool(index_due)

    async def lifetimes(self, session_id: str, chat_ids: Sequence[str]) -> JsonObject:
        """Until when Redis keeps what there is of a session, if nothing happens any more."""
        keys = self._keys
        named = [keys.session(session_id), keys.chats(session_id), *map(keys.log, chat_ids)]
        lives = await self._redis.pipeline([Number("PTTL", key) for key in named])
        now = now_ms()
        session, chats, *logs = [iso(now + life) if life > 0 else None for life in lives]
        events = [
            {"chat_id": chat_id, "events_until": log} for chat_id, log in zip(chat_ids, logs, strict=True)
        ]
        return {"forgotten_at": session, "chats_until": chats, "events": events}

    async def change(
        self, session_id: str, identity: Identity, fields: dict[str, Arg]
    ) -> tuple[SessionRecord, bool]:
        """The session with these fields, and whether its index entry is due: that counts as activity."""
        _check(session_id)
        state, flat, index_due = await self._redis.run(
            session_change(
                at=self._keys.of_session(session_id),
                mine=identity.owner,
                admin_prefix=identity.admin_prefix,
                session_ttl=self.limits.ttl,
                hold=self.limits.hold,
                fields=[part for pair in fields.items() for part in pair],
            )
        )
        raise_unless_active(state)
        return SessionRecord(session_id, flat), bool(index_due)

    async def page(
        self, session_id: str, identity: Identity, *, limit: int, before: str
    ) -> tuple[list[bytes], bool]:
        """Chat records, newest first, older than ``before`` ("" = the newest), and whether more follow.
        Raises ``Overloaded``, see ``LargeReads``."""
        _check(session_id)

        def command(small: int) -> Command[tuple[bytes, list[bytes | None], list[bytes], int, bytes, int]]:
            return session_page(
                at=self._keys.of_session(session_id),
                mine=identity.owner,
                admin_prefix=identity.admin_prefix,
                limit=limit,
                small=small,
                before=before,
            )

        state, records, runs, more, expires, is_large = await self._redis.run(command(SMALL_BYTES))
        if is_large:
            async with self._large.taken(identity.owner):
                state, records, runs, more, expires, _ = await self._redis.run(command(0), alone=True)
        raise_unless_active(state)
        return [with_waits_until(each, int(expires)) for each in _standing(records, runs)], bool(more)

    async def end(
        self, session_id: str, identity: Identity, reason: Literal["deleted", "erased"] = "deleted"
    ) -> SessionEnd:
        """Terminates; a terminated session answers the same again."""
        _check(session_id)
        state, flat, running, queued = await self._redis.run(
            session_end(
                at=self._keys.of_session(session_id),
                mine=identity.owner,
                admin_prefix=identity.admin_prefix,
                idle_only=False,
                reason=reason,
            )
        )
        if state in (b"none", b"expired"):
            raise _GONE[state]
        session = SessionRecord(session_id, flat)
        await self.index.remove(session_id, session.owner, session.text(b"user"))
        return SessionEnd(session, running.decode() or None, [chat.decode() for chat in queued])

    async def awaits_conversation(self, session_id: str) -> bool:
        """Whether some process may be making a conversation for it."""
        fields = await self._redis.run(Fields("HMGET", self._keys.session(session_id), *_AWAITING))
        return list(fields) == [b"active", b"1", None, b"", b""]

    async def set_conversation(
        self, session_id: str, conversation_id: str, credential: str, remembered_at: int
    ) -> str | None:
        """The first conversation that is reported stays, and a chat that runs without one brings its own.

        Args:
            credential: whose it is at Coze.
            remembered_at: when its ownership was written down, in unix milliseconds.

        Returns:
            The conversation that holds, '' where it is still to come; None where the session is gone.
        """
        chosen = await self._redis.run(
            session_conversation(
                session=self._keys.session(session_id),
                conversation=conversation_id,
                credential=credential,
                remembered_at=str(remembered_at),
            )
        )
        return chosen.decode() if chosen is not None else None


def _standing(records: Sequence[bytes | None], states: Sequence[bytes]) -> list[bytes]:
    found = zip(records, states, strict=True)
    return [as_it_stands(record, state) for record, state in found if record is not None]


def _check(session_id: str) -> None:
    """A malformed id is an unknown one, and never becomes part of a key."""
    if not is_session_id(session_id):
        raise SessionNotFound


def raise_unless_active(state: bytes) -> None:
    """Turns a script's state of a session into the exception that tells it."""
    if state in _GONE:
        raise _GONE[state]
