"""Chats: records in their session's hash, and the run of each chat that is not over."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from app.exceptions import (
    ChatExpired,
    ChatNotFound,
    ChatState,
    IdempotencyKeyReused,
    NotTheNewest,
    RedisUnavailable,
    ServiceError,
    SessionBusy,
)
from app.models import Identity
from app.models.records import as_it_stands, head_of, with_waits_until
from app.redis_client import Command, Keys, RedisGate, Text, pairs
from app.stores.large_reads import SMALL_BYTES, LargeReads
from app.stores.layers import PLACE_BYTES
from app.stores.policy import LogPolicy
from app.stores.scripts import chat_create, chat_forget, chat_read
from app.stores.sessions import IdempotencyKey, SessionRecord, raise_unless_active
from app.utils import is_chat_id

MAX_RECORDS: Final = 100
"""Of a session: older ones go when a new chat is created."""

ANY_CHAT: Final = "*"
"""In place of the chat that has to be the newest."""
BusyPolicy = Literal["reject", "interrupt", "enqueue"]


@dataclass(frozen=True, slots=True)
class NewChat:
    """A chat about to be created. ``request`` is what its owner will send to Coze, as JSON. Its log begins
    with ``first_frame``, or with ``queued_frame`` where another chat is in the way. ``title``: what a session
    that has none yet is called by it."""

    chat_id: str
    session_id: str
    record: bytes
    first_frame: bytes
    queued_frame: bytes
    request: bytes
    title: str = ""


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
    """Tool outputs were taken: the chat goes on in ``epoch``. ``said``: how many characters of content and of
    reasoning it had before."""

    epoch: int
    said: tuple[int, int]


class ChatStore:
    def __init__(
        self,
        redis: RedisGate,
        keys: Keys,
        policy: LogPolicy,
        process: str,
        large: LargeReads | None = None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._large = large or LargeReads()
        self._process = process
        self.policy = policy

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
        after: str = "",
    ) -> Created:
        """Creates the chat in one script; a creation whose answer was lost is repeated with the same id.

        ``after``: the chat that has to be the session's newest, ``ANY_CHAT`` whichever it is; without it a
        single session takes no second chat.

        Raises: SessionNotFound, SessionTerminated, SessionExpired, SessionBusy, IdempotencyKeyReused,
            ChatExpired, NotTheNewest, RedisUnavailable.
        """
        at = self._keys.of_session(chat.session_id)
        # Without an Idempotency-Key the script found at none; in a Cluster any key has to be of the slot.
        used = at.used
        if idempotency is not None:
            digest = idempotency.digest(identity.owner, chat.session_id)
            used = self._keys.idempotency(chat.session_id, digest)
        command = chat_create(
            at=at,
            idempotency_key=used,
            mine=identity.owner,
            admin_prefix=identity.admin_prefix,
            chat=chat.chat_id,
            record=chat.record,
            first_frame=chat.first_frame,
            queued_frame=chat.queued_frame,
            request=chat.request,
            title=chat.title,
            process=self._process,
            policy=self.policy,
            on_busy=on_busy,
            max_queued=max_queued,
            place_bytes=PLACE_BYTES,
            max_records=MAX_RECORDS,
            fingerprint=idempotency.fingerprint if idempotency is not None else "",
            after=after,
        )
        try:
            kind, other, flat, displaced, index_due = await self._redis.run(command)
        except RedisUnavailable:
            if self._redis.away:
                raise
            kind, other, flat, displaced, index_due = await self._redis.run(command)
        session = SessionRecord(chat.session_id, flat)
        if kind == b"same":
            return Created("same", other.decode(), session)
        if kind in (b"started", b"queued"):
            how: Literal["started", "queued"] = "started" if kind == b"started" else "queued"
            in_the_way = other.decode() or None
            return Created(
                how, chat.chat_id, session, in_the_way, displaced.decode() or None, bool(index_due)
            )
        raise _refusal(kind, other)

    async def record(self, chat_id: str, identity: Identity) -> bytes:
        """The chat as it stands, as JSON; ``ChatNotFound`` also for what is somebody else's. Raises
        ``Overloaded``, see ``LargeReads``."""
        async with self._stored(chat_id, identity) as (stored, state):
            record = as_it_stands(stored, state)
            head = head_of(record)
            if head.status != "requires_action":
                return record
            expires = await self._redis.run(Text("HGET", self._keys.session(head.session_id), "expires"))
            return with_waits_until(record, int(expires)) if expires is not None else record

    @asynccontextmanager
    async def _stored(self, chat_id: str, identity: Identity) -> AsyncIterator[tuple[bytes, bytes]]:
        """The record, and the state of the chat's run. Where the record is long the caller has a turn for the
        block. Raises ``ChatNotFound``, ``Overloaded``."""
        if not is_chat_id(chat_id):
            raise ChatNotFound

        def command(small: int) -> Command[tuple[bytes, bytes, int]]:
            return chat_read(
                chats=self._keys.chats(chat_id),
                run=self._keys.run(chat_id),
                chat=chat_id,
                mine=identity.owner,
                admin_prefix=identity.admin_prefix,
                small=small,
            )

        record, state, is_large = await self._redis.run(command(SMALL_BYTES))
        async with AsyncExitStack() as turn:
            if is_large:
                await turn.enter_async_context(self._large.taken(identity.owner))
                record, state, _ = await self._redis.run(command(0), alone=True)
            if not record:
                raise ChatNotFound
            yield record, state

    async def forget(self, chat_id: str, identity: Identity, rest_of: Callable[[bytes], bytes]) -> None:
        """Puts in the place of the record of a chat that is over, or waits for tool outputs, what ``rest_of``
        makes of it. Where that is nothing, record and log are deleted.

        Raises ``ChatNotFound``, ``ChatState`` where the chat is not over, ``Overloaded``.
        """
        done = b"changed"
        while done == b"changed":  # between the look at it and the script
            async with self._stored(chat_id, identity) as (record, _):
                command = chat_forget(
                    at=self._keys.of_session(head_of(record).session_id),
                    chat=chat_id,
                    record=record,
                    rest=rest_of(record),
                )
                done = await self._redis.run(command, alone=len(record) > SMALL_BYTES)
        if done == b"none":
            raise ChatNotFound
        if done == b"running":
            raise ChatState("The chat is not over yet")

    async def by_coze_id(self, session_id: str, coze_chat_id: str) -> str | None:
        """Our id of a chat of a session that serves a conversation; None where it is not kept (any more)."""
        key = self._keys.chats(session_id)
        found = await self._redis.run(Text("HGET", key, f"coze:{coze_chat_id}"))
        return found.decode() if found is not None else None

    async def continuation(self, chat_id: str, session_id: str, key: IdempotencyKey) -> Continuation | None:
        """What the tool outputs that came with this key led to; None where it is new.

        Raises ``IdempotencyKeyReused``.
        """
        used = await self._redis.run(Text("GET", self._keys.idempotency(session_id, key.digest(chat_id))))
        if used is None:
            return None
        fingerprint, epoch, content, reasoning = used.decode().split()
        if fingerprint != key.fingerprint:
            raise IdempotencyKeyReused
        return Continuation(int(epoch), (int(content), int(reasoning)))


_REFUSALS: Final[dict[bytes, type[ServiceError]]] = {
    b"reused": IdempotencyKeyReused,
    b"gone": ChatExpired,
    b"moved": NotTheNewest,
}


def _refusal(kind: bytes, other: bytes) -> ServiceError:
    """Why ``chat_create`` has created nothing; ``other``: the chat that is in the way."""
    raise_unless_active(kind)
    if (refusal := _REFUSALS.get(kind)) is not None:
        return refusal()
    message = "The session's queue is full" if kind == b"full" else None
    return SessionBusy(message, details={"chat_id": other.decode()})


def status_of(record: bytes) -> str:
    """The status in a chat's JSON."""
    return head_of(record).status


def run_field(run: Sequence[bytes], name: bytes) -> bytes:
    """A field of a run's hash as Redis returned it (flat); empty if it is not there."""
    return dict(pairs(run)).get(name, b"")
