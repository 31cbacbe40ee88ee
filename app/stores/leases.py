"""Who owns which chat: leases, epochs, claims, and the inbox by which one process asks another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import orjson

from app.exceptions import IdempotencyKeyReused
from app.redis_client import Fields, Key, Keys, Number, RedisGate, Text, pairs
from app.stores.large_reads import SMALL_BYTES
from app.stores.policy import LogPolicy
from app.stores.scripts import (
    chat_cancel,
    chat_claim,
    lease_release,
    lease_renew,
    lease_scan,
    run_restore,
    signal_send,
)
from app.stores.sessions import IdempotencyKey, SessionRecord
from app.utils import now_ms, random_token, shard_of

MAX_CLAIMS: Final = 5
"""A chat that so many owners in a row could not finish is failed, not tried for ever."""

_SCAN_LIMIT: Final = 20
_INBOX_TTL_MS: Final = 60_000

ClaimKind = Literal["start", "claimed", "exhausted", "expired"]
RunState = Literal["queued", "ready", "started", "waiting"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A chat that this process owns from now on.

    ``start``: nobody has POSTed it yet. ``claimed``: its owner is gone (or it waited for tool outputs).
    ``exhausted``: claimed too often, it has to end. ``expired``: it waited until its session's end, for tool
    outputs or behind such a chat. ``before``: what it was doing.
    """

    kind: ClaimKind
    chat_id: str
    epoch: int
    run: list[bytes]
    session: SessionRecord
    record: bytes
    before: RunState

    @property
    def unowned(self) -> bool:
        """Nobody has owned it before: only its first frame is in the log."""
        return self.before in ("queued", "ready")


@dataclass(frozen=True, slots=True)
class SubmittedOutputs:
    """Outputs that a claim brings. They are kept with the run, so that they are not lost with their process.

    ``outputs``: as JSON. ``said``: how many characters of content and of reasoning the chat had before them.
    """

    outputs: bytes
    said: tuple[int, int] = (0, 0)
    key: IdempotencyKey | None = None
    notes: Mapping[str, str | None] = field(default_factory=dict)
    """For the ``metadata`` of the chat's record. None: what has this name there goes."""


@dataclass(frozen=True, slots=True)
class CancelTicket:
    """What a cancelled chat was doing. ``ready``: it was queued, and nobody has POSTed it."""

    state: Literal["gone", "ready", "started", "waiting"]
    epoch: int = 0
    process: str = ""


class LeaseStore:
    """``process`` is this process' name in leases and inboxes."""

    def __init__(self, redis: RedisGate, keys: Keys, policy: LogPolicy) -> None:
        self.process = random_token()
        self._redis = redis
        self._keys = keys
        self._policy = policy
        self._inbox_place = "0-0"
        self._scans = [lease_scan(leases=keys.leases(shard), limit=_SCAN_LIMIT) for shard in keys.shards]

    @property
    def lease_seconds(self) -> float:
        return self._policy.lease / 1000

    # -- leases ------------------------------------------------------------------------------------------

    async def renew(self, held: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Renews ``(chat id, epoch)`` leases; returns those that are gone, or whose chat has lost its run."""
        lost = await self._redis.pipeline(
            [
                lease_renew(
                    leases=key,
                    runs=self._keys.of_session(members[0].partition(":")[0]).runs,
                    lease=self._policy.lease,
                    members=members,
                )
                for key, members in self._members(held).items()
            ]
        )
        return [_split(member) for members in lost for member in members]

    def _members(self, held: Sequence[tuple[str, int]]) -> dict[Key, list[str]]:
        members: dict[Key, list[str]] = {}
        for chat_id, epoch in held:
            members.setdefault(self._keys.leases(shard_of(chat_id)), []).append(f"{chat_id}:{epoch}")
        return members

    async def expired(self) -> list[tuple[str, int]]:
        """Leases that have run out, of all shards, in one pipeline."""
        replies = await self._redis.pipeline(self._scans)
        return [_split(member) for members in replies for member in members]

    async def release(self, held: Sequence[tuple[str, int]]) -> None:
        """Hands chats over: their leases have run out from now on."""
        await self._redis.pipeline(
            [lease_release(leases=key, members=members) for key, members in self._members(held).items()]
        )

    async def drop(self, chat_id: str, epoch: int) -> None:
        """Takes a lease away whose chat is no more."""
        await self._redis.run(Number("ZREM", self._keys.leases(shard_of(chat_id)), f"{chat_id}:{epoch}"))

    async def claim(
        self,
        chat_id: str,
        session_id: str,
        *,
        epoch: int | None,
        force: bool = False,
        expect: RunState | None = None,
        outputs: SubmittedOutputs | None = None,
    ) -> Claim | None:
        """Makes this process the owner, or returns None: held by another, over, or not in that state.

        A chat that waits for tool outputs is claimed only with ``expect``, or where it has to end. ``force``
        does not wait for the lease to run out. Of two claims with one Idempotency-Key in ``outputs`` the
        second returns None.

        Raises ``IdempotencyKeyReused``.
        """
        at, key = self._keys.of_session(session_id), outputs.key if outputs is not None else None
        notes = outputs.notes if outputs is not None else {}
        # Without an Idempotency-Key the script found at none; in a Cluster any key has to be of the slot.
        used = self._keys.idempotency(session_id, key.digest(chat_id)) if key is not None else at.used
        processing = await self._processing(chat_id, notes) if expect == "waiting" else b""
        written = outputs.outputs if outputs is not None else b""
        kind, claimed, run, session, record, before = await self._redis.run(
            chat_claim(
                at=at,
                idempotency_key=used,
                chat=chat_id,
                epoch="" if epoch is None else str(epoch),
                process=self.process,
                policy=self._policy,
                force=force,
                expected=expect or "",
                max_claims=MAX_CLAIMS,
                record=processing,
                outputs=written,
                said="{} {}".format(*outputs.said) if outputs is not None else "",
                fingerprint=key.fingerprint if key is not None else "",
            ),
            alone=len(processing) + len(written) > SMALL_BYTES,
        )
        if kind == b"reused":
            raise IdempotencyKeyReused
        if kind == b"no":
            return None
        how, state = cast(ClaimKind, kind.decode()), cast(RunState, before.decode())
        session_now = SessionRecord(session_id, session)
        return Claim(how, chat_id, int(claimed), run, session_now, _noted(record, notes), state)

    async def _processing(self, chat_id: str, notes: Mapping[str, str | None]) -> bytes:
        """The record of a chat that waits, as that of one that goes on: replicas of the version before this
        one look for the status in there."""
        # It may be as long as an answer.
        record = await self._redis.run(Text("HGET", self._keys.chats(chat_id), chat_id), alone=True)
        if record is None:
            return b""
        return orjson.dumps(orjson.loads(_noted(record, notes)) | {"status": "processing"})

    async def session_of(self, chat_id: str) -> str | None:
        """The session of a chat that is not over."""
        session_id = await self._redis.run(Text("HGET", self._keys.run(chat_id), "sid"))
        return session_id.decode() if session_id else None

    async def restore(self, chat_id: str, epoch: int) -> str | None:
        """Makes a chat claimable whose run Redis has thrown away and whose owner is gone: what Coze has of it
        can still be found. Returns its session; None where it is over, or lost with its record."""
        record = await self._redis.run(Text("HGET", self._keys.chats(chat_id), chat_id))
        session_id = orjson.loads(record).get("session_id") if record else None
        if session_id is None:
            return None
        restored = await self._redis.run(
            run_restore(
                at=self._keys.of_session(session_id),
                chat=chat_id,
                epoch=str(epoch),
                session_id=session_id,
                request='{"message":""}',
                hold=self._policy.hold,
            )
        )
        return session_id if restored else None

    async def run_ids(self, chat_id: str) -> tuple[int, str]:
        """Epoch (0: the chat is over) and Coze's chat id, as the present owner committed them."""
        epoch, coze_chat_id = await self._redis.run(
            Fields("HMGET", self._keys.run(chat_id), "epoch", "coze_chat_id")
        )
        return int(epoch or 0), (coze_chat_id or b"").decode()

    async def ids_at_coze(self, chat_id: str) -> tuple[str, str, str]:
        """Coze's chat and conversation id of a chat that is not over, and whose they are there; empty where
        they are not known yet."""
        names = ("coze_chat_id", "conversation_id", "credential")
        found = await self._redis.run(Fields("HMGET", self._keys.run(chat_id), *names))
        chat, conversation, credential = ((value or b"").decode() for value in found)
        return chat, conversation, credential

    async def queued(self) -> int:
        """How many chats wait in their sessions' queues."""
        now, keys = now_ms(), self._keys
        counts = [Number("ZCOUNT", keys.queued(shard), now, "+inf") for shard in keys.shards]
        return sum(await self._redis.pipeline(counts))

    # -- cancelling over processes -----------------------------------------------------------------------

    async def cancel(self, chat_id: str, session_id: str) -> CancelTicket:
        """Sets the flag that every owner, present or future, obeys."""
        state, epoch, process = await self._redis.run(
            chat_cancel(at=self._keys.of_session(session_id), chat=chat_id, lease=self._policy.lease)
        )
        found = cast(Literal["gone", "ready", "started", "waiting"], state.decode())
        return CancelTicket(found, int(epoch or 0), process.decode())

    async def notify_owner(self, process: str, chat_id: str) -> None:
        """Asks the owner to look at the cancel flag."""
        key = self._keys.inbox(process)
        await self._redis.run(
            signal_send(signals=key, most=1000, ttl=_INBOX_TTL_MS, name="cancel", value=chat_id)
        )

    async def read_inbox(self, seconds: float) -> list[str]:
        """Chats that others ask this process to cancel; waits up to ``seconds`` for one."""
        streams = await self._redis.read_streams({self._keys.inbox(self.process): self._inbox_place}, seconds)
        chats = []
        for _, entries in streams:
            for entry_id, fields in entries:
                self._inbox_place = entry_id.decode()
                chats.append(dict(pairs(fields))[b"cancel"].decode())
        return chats


def _noted(record: bytes, notes: Mapping[str, str | None]) -> bytes:
    if not notes or not record:
        return record
    chat = orjson.loads(record)
    noted = {name: text for name, text in (chat["metadata"] | notes).items() if text is not None}
    return orjson.dumps(chat | {"metadata": noted})


def _split(member: bytes) -> tuple[str, int]:
    chat_id, epoch = member.decode().rsplit(":", 1)
    return chat_id, int(epoch)
