"""Who owns which chat: leases, epochs, claims, and the inbox by which one process asks another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis import exceptions as redis_errors

from app.exceptions import IdempotencyKeyReused
from app.redis_client import Arg, Keys, RedisGate, Script
from app.stores.limits import TOMBSTONE_MS
from app.stores.open_log import LogPolicy
from app.stores.sessions import IDEMPOTENCY_MS, IdempotencyKey, SessionRecord
from app.utils import random_token, shard_of

MAX_CLAIMS: Final = 5
"""A chat that so many owners in a row could not finish is failed, not tried for ever."""

_SCAN_LIMIT: Final = 20
_INBOX_TTL_MS: Final = 60_000

ClaimKind = Literal["start", "claimed", "worn", "expired"]
RunState = Literal["queued", "ready", "started", "waiting"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A chat that this process owns from now on.

    ``start``: nobody has POSTed it yet. ``claimed``: its owner is gone (or it waited for tool outputs).
    ``worn``: claimed too often, it has to end. ``expired``: it waited until its session's end, for tool
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
class ToolOutputs:
    """Outputs that a claim brings. They are kept with the run, so that they are not lost with their process.

    ``outputs``: as JSON. ``said``: how many characters of content and of reasoning the chat had before them.
    """

    outputs: bytes
    said: tuple[int, int] = (0, 0)
    key: IdempotencyKey | None = None


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
        self._renew = Script("lease_renew")
        self._scan = Script("lease_scan")
        self._release = Script("lease_release")
        self._claim = Script("chat_claim")
        self._cancel = Script("chat_cancel")
        self._inbox_place = "0-0"

    @property
    def lease_seconds(self) -> float:
        return self._policy.lease / 1000

    # -- leases ------------------------------------------------------------------------------------------

    async def renew(self, held: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Renews ``(chat id, epoch)`` leases; returns those that are gone."""
        gone = await self._by_shard(self._renew, held, self._policy.lease)
        return [_split(member) for members in gone for member in members]

    async def _by_shard(self, script: Script, held: Sequence[tuple[str, int]], *args: Arg) -> list[Any]:
        """What the script says of these leases: it runs once a shard, and all of that is one pipeline."""
        members: dict[int, list[str]] = {}
        for chat_id, epoch in held:
            members.setdefault(shard_of(chat_id), []).append(f"{chat_id}:{epoch}")
        if not members:
            return []
        commands = [script.command([self._keys.leases(s)], [*args, *some]) for s, some in members.items()]
        replies = await self._redis.pipeline(commands)
        if any(isinstance(reply, redis_errors.NoScriptError) for reply in replies):
            await self._redis.load([script])
            replies = await self._redis.pipeline(commands)  # to do it twice changes nothing
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def expired(self) -> list[tuple[str, int]]:
        """Leases that have run out, of all shards, in one pipeline."""
        commands = [self._scan.command([self._keys.leases(s)], [_SCAN_LIMIT]) for s in self._keys.shards]
        replies = await self._redis.pipeline(commands)
        if any(isinstance(reply, redis_errors.NoScriptError) for reply in replies):
            await self._redis.load([self._scan])
            return []
        return [_split(member) for reply in replies if isinstance(reply, list) for member in reply]

    async def release(self, held: Sequence[tuple[str, int]]) -> None:
        """Hands chats over: their leases have run out from now on."""
        await self._by_shard(self._release, held)

    async def drop(self, chat_id: str, epoch: int) -> None:
        """Takes a lease away whose chat is no more."""
        await self._redis.command("ZREM", self._keys.leases_of(chat_id), f"{chat_id}:{epoch}")

    async def claim(
        self,
        chat_id: str,
        session_id: str,
        *,
        epoch: int | None,
        force: bool = False,
        expect: RunState | None = None,
        outputs: ToolOutputs | None = None,
    ) -> Claim | None:
        """Makes this process the owner, or returns None: held by another, over, or not in that state.

        A chat that waits for tool outputs is claimed only with ``expect``, or where it has to end. ``force``
        does not wait for the lease to run out. Of two claims with one Idempotency-Key in ``outputs`` the
        second returns None.

        Raises ``IdempotencyKeyReused``.
        """
        keys, policy = self._keys, self._policy
        key = outputs.key if outputs is not None else None
        # Without an Idempotency-Key the script looks at none; in a Cluster any key has to be of the slot.
        used = keys.idempotency(session_id, key.digest(chat_id)) if key else keys.keys_used(session_id)
        given, said = (outputs.outputs, "{} {}".format(*outputs.said)) if outputs is not None else (b"", "")
        reply = await self._redis.run(
            self._claim,
            [
                *(keys.session(session_id), keys.chats(chat_id), keys.run(chat_id)),
                *(keys.leases_of(chat_id), keys.log(chat_id), keys.keys_used(session_id), used),
            ],
            [
                *(chat_id, "" if epoch is None else epoch, self.process, policy.lease),
                *(policy.session_ttl, TOMBSTONE_MS, policy.hold, int(force), expect or "", MAX_CLAIMS),
                *(given, said, key.fingerprint if key else "", IDEMPOTENCY_MS),
            ],
        )
        kind = reply[0].decode()
        if kind == "reused":
            raise IdempotencyKeyReused
        if kind not in ("start", "claimed", "worn", "expired"):
            return None
        session = SessionRecord(session_id, reply[3])
        return Claim(kind, chat_id, int(reply[1]), reply[2], session, reply[4], reply[5].decode())

    async def session_of(self, chat_id: str) -> str | None:
        """The session of a chat that is not over."""
        session_id = await self._redis.command("HGET", self._keys.run(chat_id), "sid")
        return session_id.decode() if session_id else None

    async def run_ids(self, chat_id: str) -> tuple[int, str]:
        """Epoch (0: the chat is over) and Coze's chat id, as the present owner committed them."""
        epoch, coze_chat_id = await self._redis.command(
            "HMGET", self._keys.run(chat_id), "epoch", "coze_chat_id"
        )
        return int(epoch or 0), (coze_chat_id or b"").decode()

    async def queued(self) -> int:
        """How many chats wait in their sessions' queues."""
        replies = await self._redis.pipeline([("ZCARD", self._keys.queued(s)) for s in self._keys.shards])
        return sum(reply for reply in replies if isinstance(reply, int))

    # -- cancelling over processes -----------------------------------------------------------------------

    async def cancel(self, chat_id: str, session_id: str) -> CancelTicket:
        """Sets the flag that every owner, present or future, obeys."""
        reply = await self._redis.run(
            self._cancel,
            [self._keys.run(chat_id), self._keys.queue(session_id), self._keys.leases_of(chat_id)],
            [chat_id, self._policy.lease],
        )
        state = reply[0].decode()
        if state == "gone":
            return CancelTicket("gone")
        return CancelTicket(state, int(reply[1]), reply[2].decode())

    async def ring(self, process: str, chat_id: str) -> None:
        """Asks the owner to look at the cancel flag."""
        key = self._keys.inbox(process)
        await self._redis.pipeline(
            [("XADD", key, "MAXLEN", "~", 1000, "*", "cancel", chat_id), ("PEXPIRE", key, _INBOX_TTL_MS)]
        )

    async def read_inbox(self, seconds: float) -> list[str]:
        """Chats that others ask this process to cancel; waits up to ``seconds`` for one."""
        streams = await self._redis.read_streams({self._keys.inbox(self.process): self._inbox_place}, seconds)
        chats = []
        for _, entries in streams:
            for entry_id, fields in entries:
                self._inbox_place = entry_id.decode()
                chats.append(fields[b"cancel"].decode())
        return chats


def _split(member: bytes) -> tuple[str, int]:
    chat_id, epoch = member.decode().rsplit(":", 1)
    return chat_id, int(epoch)
