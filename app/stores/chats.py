"""Chats: records in their session's hash, and the run of each chat that is not over."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from app.exceptions import (
    ChatExpired,
    ChatNotFound,
    IdempotencyKeyReused,
    RedisUnavailable,
    SessionBusy,
)
from app.models import Identity
from app.records import head_of, with_waits_until
from app.redis_client import Keys, RedisGate, Script
from app.stores.limits import TOMBSTONE_MS
from app.stores.open_log import LogPolicy
from app.stores.sessions import (
    IDEMPOTENCY_MS,
    IdempotencyKey,
    SessionRecord,
    raise_unless_active,
)
from app.utils import is_chat_id

NEWEST_KEPT: Final = 100

BusyPolicy = Literal["reject", "interrupt", "enqueue"]


@dataclass(frozen=True, slots=True)
class NewChat:
    """A chat about to be created. ``request`` is what its owner will send to Coze, as JSON."""

    chat_id: str
    session_id: str
    record: bytes
    first_frame: bytes
    request: bytes

    @property
    def run_fields(self) -> list[str | bytes]:
        return ["request", self.request]


@dataclass(frozen=True, slots=True)
class Created:
    """``kind`` "same": the Idempotency-Key has made ``chat_id`` before."""

    kind: Literal["started", "queued", "same"]
    chat_id: str
    session: SessionRecord
    in_the_way: str | None = None
    displaced: str | None = None
    index_due: bool = False


class Continuation(NamedTuple):
    """Tool outputs were taken: the chat goes on in ``epoch``. Before that it had said so many characters."""

    epoch: int
    content: int
    reasoning: int

    @property
    def said(self) -> tuple[int, int]:
        return self.content, self.reasoning


class ChatStore:
    def __init__(self, redis: RedisGate, keys: Keys, policy: LogPolicy, process: str) -> None:
        self._redis = redis
        self._keys = keys
        self._process = process
        self.policy = policy
        self._create = Script("chat_create")

    @property
    def away(self) -> bool:
        """Redis is known to be away: nothing would be sent to it."""
        return self._redis.away

    async def wait_open(self) -> None:
        """Returns when Redis is there."""
        await self._redis.wait_open()

    async def create(
        self,
        chat: NewChat,
        identity: Identity,
        *,
        on_busy: BusyPolicy = "reject",
        max_queued: int = 0,
        idempotency: IdempotencyKey | None = None,
    ) -> Created:
        """Creates the chat in one script; a creation whose answer was lost is repeated with the same id.

        Raises: SessionNotFound, SessionTerminated, SessionExpired, SessionBusy, IdempotencyKeyReused,
            ChatExpired, RedisUnavailable.
        """
        try:
            reply = await self._create_once(chat, identity, on_busy, max_queued, idempotency)
        except RedisUnavailable:
            if self._redis.away:
                raise
            reply = await self._create_once(chat, identity, on_busy, max_queued, idempotency)
        kind: str = reply[0].decode()
        if kind == "same":
            return Created("same", reply[1].decode(), SessionRecord(chat.session_id, []))
        if kind in ("started", "queued"):
            session = SessionRecord(chat.session_id, reply[1])
            how: Literal["started", "queued"] = "started" if kind == "started" else "queued"
            in_the_way, displaced = reply[2].decode() or None, reply[3].decode() or None
            return Created(how, chat.chat_id, session, in_the_way, displaced, bool(reply[4]))
        raise_unless_active(reply[0])
        if kind == "reused":
            raise IdempotencyKeyReused
        if kind == "gone":
            raise ChatExpired
        message = "The session's queue is full" if kind == "full" else None
        raise SessionBusy(message, details={"chat_id": reply[1].decode()})

    async def _create_once(
        self,
        chat: NewChat,
        identity: Identity,
        on_busy: BusyPolicy,
        max_queued: int,
        idempotency: IdempotencyKey | None,
    ) -> list[Any]:
        keys, policy, session_id = self._keys, self.policy, chat.session_id
        # Without an Idempotency-Key the script looks at none; in a Cluster any key has to be of the slot.
        idempotency_key = keys.keys_used(session_id)
        if idempotency is not None:
            digest = idempotency.digest(identity.owner, session_id)
            idempotency_key = keys.idempotency(session_id, digest)
        reply: list[Any] = await self._redis.run(
            self._create,
            [
                *(keys.session(session_id), keys.chats(session_id), keys.order(session_id)),
                *(keys.run(chat.chat_id), keys.leases_of(session_id), keys.log(chat.chat_id)),
                *(keys.queue(session_id), keys.keys_used(session_id), idempotency_key),
            ],
            [
                *(identity.owner, identity.admin_prefix, chat.chat_id, chat.record, chat.first_frame),
                *(policy.lease, policy.session_ttl, TOMBSTONE_MS, policy.hold, on_busy, max_queued),
                *(idempotency.fingerprint if idempotency else "", IDEMPOTENCY_MS, NEWEST_KEPT, self._process),
                *chat.run_fields,
            ],
        )
        return reply

    async def record(self, chat_id: str, identity: Identity) -> bytes:
        """The chat as it stands, as JSON; ``ChatNotFound`` also for what is somebody else's."""
        if not is_chat_id(chat_id):
            raise ChatNotFound
        owner, record = await self._redis.command("HMGET", self._keys.chats(chat_id), "owner", chat_id)
        if owner is None or record is None or not identity.may_see(owner.decode()):
            raise ChatNotFound
        head = head_of(record)
        if head.status != "requires_action":
            return bytes(record)
        expires = await self._redis.command("HGET", self._keys.session(head.session_id), "expires")
        return with_waits_until(record, int(expires)) if expires is not None else bytes(record)

    async def continuation(self, chat_id: str, session_id: str, key: IdempotencyKey) -> Continuation | None:
        """What the tool outputs that came with this key led to; None where it is new.

        Raises ``IdempotencyKeyReused``.
        """
        used = await self._redis.command("GET", self._keys.idempotency(session_id, key.digest(chat_id)))
        if used is None:
            return None
        fingerprint, epoch, content, reasoning = used.decode().split()
        if fingerprint != key.fingerprint:
            raise IdempotencyKeyReused
        return Continuation(int(epoch), int(content), int(reasoning))


def status_of(record: bytes) -> str:
    """The status in a chat's JSON."""
    return head_of(record).status


def run_field(run: Sequence[bytes], name: bytes) -> bytes:
    """A field of a run's hash as Redis returned it (flat); empty if it is not there."""
    return dict(zip(run[::2], run[1::2], strict=True)).get(name, b"")
