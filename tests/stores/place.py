"""All stores on one Redis, and what that Redis holds, in names and times that can be read.

``Place.dump()`` tells everything as a flat dict: ``"queue:S"`` is a key's time to live, ``"queue:S="`` what
it holds where it is a list, set or string, ``"session:S.running"`` a field of a hash, ``"leases.A:1"`` an
entry of a sorted set and ``"log:A#1-1"`` one of a stream. Sessions, chats and users go by the names that the
test gave them, times are milliseconds from now. ``Place.seen()`` tells what a step has changed, and so also
what it has not.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from fakeredis import FakeServer

from app.models import Identity
from app.redis_client import Command, Keys, RedisGate, pairs
from app.stores.chats import BusyPolicy, ChatStore, Created, NewChat
from app.stores.conversations import ConversationStore
from app.stores.event_log import LogWriter
from app.stores.failures import FailureStore
from app.stores.files import FileStore
from app.stores.index import SessionIndex, name_key, owner_key, user_key
from app.stores.large_reads import LargeReads
from app.stores.layers import Limit, Limits
from app.stores.leases import Claim, LeaseStore, RunState, SubmittedOutputs
from app.stores.open_log import ChatEnd, OpenLog, Origin
from app.stores.policy import LogPolicy, SessionLimits
from app.stores.rates import RateStore
from app.stores.replicas import ReplicaStore
from app.stores.sessions import IdempotencyKey, SessionRecord, SessionStore
from app.stores.usage import UsageStore
from app.stores.users import UserStore
from app.utils import group_of, new_chat_id, shard_of
from app.utils.signals import until

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
SESSION, TOMBSTONE, HOLD, LEASE = HOUR, DAY, 5 * MINUTE, 30 * SECOND
KEPT_RESULT, KEPT_USAGE = 2 * HOUR, 40 * DAY
"""How long an answer is kept, and a day's usage. All of these differ, so that no two can be mistaken."""

ME = Identity("r.example", "me")
STRANGER = Identity("r.example", "stranger")
ELSEWHERE = Identity("else.example", "elsewhere")
ADMIN = Identity("r.example", "admin", admin=True)
FOREIGN_ADMIN = Identity("else.example", "admin", admin=True)
NOON = 1_800_014_400_000
"""In milliseconds; twelve hours into a day."""
_MOMENT = "2027-01-15T12:00:00+00:00"
FOR_EVER = "for ever"
BOUND = 30.0
"""Seconds that nothing here takes unless it hangs."""
_FILED = 10**14
"""Is added to an expiry in sets by name, where the entry is in its user's own set, too."""
_TIME = re.compile(r"(?:10)?1[78]\d{11}")
_SLACK = 20 * SECOND


OF_SERVICES = b"coze:{index}:replicas"
"""Services of other tests that still run say now and then that they are there."""


class Near(int):
    """Milliseconds by a clock that goes on: equal to what is near it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and abs(int(self) - int(other)) < _SLACK

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


_CONTENT = {
    b"hash": ("HGETALL",),
    b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    b"stream": ("XRANGE", "-", "+"),
    b"list": ("LRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"string": ("GET",),
}


def _asking(name: bytes, kind: bytes) -> list[Command[Any]]:
    """The commands that tell how long a key lives and what it holds."""
    command, *options = _CONTENT[kind]
    return [Command("PTTL", name), Command(command, name, *options)]


class Clock:
    """The time of an embedded Redis, and of the stores beside it; it stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time", lambda: self.now / 1000)
        monkeypatch.setattr(time, "time_ns", lambda: self.now * 1_000_000)


def layers(what: str, **most: int) -> Limits:
    """Limits by layer (user, owner, root, service); what is not given has none."""
    return _changed(Limits(what), most)


def _changed(limits: Limits, most: dict[str, int]) -> Limits:
    changed = {layer: Limit(number, f"SETTING_OF_{layer.upper()}") for layer, number in most.items()}
    return replace(limits, **changed)


class Place:
    """``clock``: None where Redis is a real one, whose clock nobody moves."""

    def __init__(self, gate: RedisGate, server: FakeServer | None, clock: Clock | None) -> None:
        self.redis = gate
        self.clock = clock
        self._server = server
        self.keys = Keys("stores:")  # services that run beside take over what has their own prefix
        self.large = LargeReads()
        self.limits = SessionLimits(
            SESSION,
            600_000,
            sessions=layers("sessions", user=3, service=100),
            users=layers("active users", service=100),
            hold=HOLD,
        )
        self.policy = LogPolicy(LEASE, SESSION, KEPT_RESULT, HOLD, KEPT_USAGE)
        self.leases = LeaseStore(gate, self.keys, self.policy)
        self.process = self.leases.process
        self.conversations = ConversationStore(gate, self.keys, days=90)
        self.failures = FailureStore(gate, self.keys)
        self.replicas = ReplicaStore(gate, self.keys, self.process)
        self.files = FileStore(gate, self.keys, days=7)
        self.usage = UsageStore(gate, self.keys, days=40, large=self.large)
        self.with_rates(user=2)
        self._labels: dict[str, str] = {self.process: "me"}
        self._ids: dict[str, str] = {}
        self._sessions_of: dict[str, str] = {}
        self.with_limits()
        self._choose(self.policy)
        for identity in (ME, STRANGER, ADMIN, ELSEWHERE):
            self.name(owner_key(identity.owner), f"owner({identity.hty_id})")
            self.name(user_key(identity.owner, "u"), f"user({identity.hty_id})")
        self.name(name_key(ME.owner, "u"), "name(u)")
        self.name(owner_key(ME.root), "root")
        self.name(owner_key(ELSEWHERE.root), "root elsewhere")

    def _choose(self, policy: LogPolicy) -> None:
        self.policy = policy
        self.chats = ChatStore(self.redis, self.keys, policy, self.process, self.large)
        self.writer = LogWriter(self.redis, self.keys, policy)

    def with_rates(self, **layered: int) -> None:
        """Of messages and sessions a minute, by layer; files have none."""
        limits = layers("calls a minute", **layered)
        none = layers("files")
        self.rates = RateStore(
            self.redis,
            self.keys,
            {"messages": limits, "sessions": limits, "files": none, "calls": none, "reports": none},
        )

    def with_limits(self, *, expire: int | None = None, users: int | None = None, **sessions: int) -> None:
        """``sessions``: by layer; ``users``: of the whole service."""
        if expire is not None:
            self.limits = replace(self.limits, ttl=expire * 1000)
        if users is not None:
            self.with_users(service=users)
        self.limits = replace(self.limits, sessions=_changed(self.limits.sessions, sessions))
        self._open_sessions()

    def with_users(self, **users: int) -> None:
        """How many may have sessions, by layer."""
        self.limits = replace(self.limits, users=_changed(self.limits.users, users))
        self._open_sessions()

    def _open_sessions(self) -> None:
        self.sessions = SessionStore(self.redis, self.keys, self.limits, large=self.large)
        self.index = SessionIndex(self.redis, self.keys, self.limits)
        self.users = UserStore(self.redis, self.keys, self.sessions, self.large)

    async def with_quota(self) -> None:
        await self._with_policy(quota=True)

    async def with_usage_rows(self, most: int) -> None:
        """Of an owner's day in one shard."""
        await self._with_policy(usage_rows=most)

    async def _with_policy(self, **changed: Any) -> None:
        await self.writer.stop()
        self._choose(self.policy._replace(**changed))
        self.writer.start()

    # -- names -------------------------------------------------------------------------------------------

    def name(self, text: str, label: str) -> None:
        """What Redis calls ``text`` goes by ``label``."""
        self._labels[text] = label

    def sid(self, label: str) -> str:
        """The id of the session of that name. All live in one shard."""
        if label not in self._ids:
            session_id = f"coze_session_{NOON}_b{label.lower() * 20}"[:48]
            self._ids[label] = session_id
            self.name(session_id, label)
            self.name(group_of(session_id), f"({label})")
        return self._ids[label]

    def cid(self, label: str, session: str = "S") -> str:
        """The id of the chat of that name."""
        if label not in self._ids:
            chat_id = new_chat_id(self.sid(session))
            self._ids[label], self._sessions_of[label] = chat_id, session
            self.name(chat_id, label)
        return self._ids[label]

    def readable(self, text: bytes | str) -> str:
        found = text.decode() if isinstance(text, bytes) else text
        for word in sorted(self._labels, key=len, reverse=True):
            found = found.replace(word, self._labels[word])
        return re.sub(r"^stores:(\{\d\d\}:)?", "", found)

    # -- what Redis holds --------------------------------------------------------------------------------

    async def do(self, *parts: Any) -> Any:
        """The reply to a command with a key."""
        return await self.redis.run(Command(*parts))

    async def names(self) -> list[bytes]:
        [names] = await self.redis.on_each("KEYS", "*")
        return [name for name in names if name != OF_SERVICES]

    async def now(self) -> int:
        if self.clock is not None:
            return self.clock.now
        [[seconds, microseconds]] = await self.redis.on_each("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def dump(self) -> dict[str, Any]:
        names = sorted(await self.names())
        kinds = await self.redis.pipeline([Command("TYPE", name) for name in names])
        held = zip(names, kinds, strict=True)
        replies = iter(await self.redis.pipeline([part for each in held for part in _asking(*each)]))
        now, found = await self.now(), {}
        for name, kind in zip(names, kinds, strict=True):
            label = self.readable(name)
            found[label] = self._time_to_live(name, next(replies), now)
            content = next(replies)
            if kind in (b"hash", b"zset"):
                for member, value in pairs(content):
                    found[f"{label}.{self.readable(member)}"] = self._value(value, now)
            elif kind == b"stream":
                for entry_id, fields in content:
                    entry = {field.decode(): value for field, value in pairs(fields)}
                    found[f"{label}#{entry_id.decode()}"] = entry
            elif kind == b"string":
                found[f"{label}="] = self.readable(content)
            else:
                items = [self.readable(item) for item in content]
                found[f"{label}="] = sorted(items) if kind == b"set" else items
        return found

    def _time_to_live(self, name: bytes, left: int, now: int) -> int | str:
        if left == -1:
            return FOR_EVER
        if self._server is None:
            return Near(left)
        expires: float = self._server.dbs[0]._dict[name].expireat
        return round(expires * 1000) - now  # exact, whereas PTTL rounds down

    def _value(self, value: bytes, now: int) -> int | str:
        text = self.readable(value)
        if not _TIME.fullmatch(text):
            return text
        left = int(text) % _FILED - now
        return left if self.clock is not None else Near(left)

    @asynccontextmanager
    async def seen(self) -> AsyncIterator[dict[str, Any]]:
        """What is different afterwards; None: it is gone."""
        before, changes = await self.dump(), {}
        yield changes
        after = await self.dump()
        changes |= {
            name: after.get(name) for name in [*before, *after] if before.get(name) != after.get(name)
        }

    async def held(self, *starts: str) -> dict[str, Any]:
        """That part of the dump whose names begin so."""
        return {name: value for name, value in (await self.dump()).items() if name.startswith(starts)}

    async def age(self, ms: int) -> None:
        """All that is there gets older. A real Redis is told so: its times are moved into the past."""
        if self.clock is not None:
            self.clock.now += ms
            return
        for name in await self.names():
            left = await self.do("PTTL", name)
            kind = await self.do("TYPE", name)
            if kind == b"hash":
                for field, value in pairs(await self.do("HGETALL", name)):
                    if _TIME.fullmatch(value.decode()):
                        await self.do("HSET", name, field, int(value) - ms)
            if kind == b"zset":
                for member, score in pairs(await self.do("ZRANGE", name, 0, -1, "WITHSCORES")):
                    if float(score) > ms:
                        await self.do("ZADD", name, int(float(score)) - ms, member)
            await self.do("PEXPIRE", name, max(left - ms, 0))

    # -- steps -------------------------------------------------------------------------------------------

    async def open(
        self, session: str = "S", user: str = "u", owner: Identity = ME, **more: Any
    ) -> SessionRecord:
        values: dict[str, Any] = {"user_id": user, "bot_id": "bot", "auto_save_history": True}
        values |= {"additional_messages": [], "metadata": {}} | more
        return await self.sessions.open(self.sid(session), owner, **values)

    async def say(
        self,
        chat: str,
        session: str = "S",
        *,
        on_busy: BusyPolicy = "reject",
        who: Identity = ME,
        key: IdempotencyKey | None = None,
        max_queued: int = 5,
        request: bytes = b'{"message":"hello"}',
        after: str = "",
        title: str = "",
    ) -> Created:
        """Creates a chat of that name."""
        new = NewChat(
            self.cid(chat, session),
            self.sid(session),
            self.record(chat),
            self.frame("processing"),
            self.frame("pending"),
            request,
            title=title,
        )
        return await self.chats.create(
            new, who, on_busy=on_busy, max_queued=max_queued, idempotency=key, after=after
        )

    def record(self, chat: str, status: str = "processing") -> bytes:
        """What a caller wrote looks like a status, too."""
        session = self._sessions_of.get(chat, "S")
        head = f'"chat_id":"{self.cid(chat)}","session_id":"{self.sid(session)}","status":"{status}"'
        times = f'"created_at":"{_MOMENT}","updated_at":"{_MOMENT}"'
        said = (
            f'"content":"hello","timestamp":"{_MOMENT}","message_id":"m","metadata":{{"status":"processing"}}'
        )
        return f'{{{head},{times},"user_message":{{{said}}}}}'.encode()

    def shown(self, chat: str, status: str = "processing") -> str:
        """The same as the dump shows it."""
        return self.readable(self.record(chat, status))

    @staticmethod
    def frame(status: str) -> bytes:
        return f'data: {{"status":"{status}","text":"processing"}}\n\n'.encode()

    async def run(self, chat: str) -> dict[str, str]:
        """The fields of its run."""
        flat = await self.do("HGETALL", self.keys.run(self.cid(chat)))
        return {name.decode(): value.decode() for name, value in pairs(flat)}

    async def claim(
        self,
        chat: str,
        *,
        epoch: int | None = 1,
        force: bool = False,
        expect: RunState | None = None,
        outputs: SubmittedOutputs | None = None,
    ) -> Claim | None:
        session = self.sid(self._sessions_of[chat])
        return await self.leases.claim(
            self.cid(chat), session, epoch=epoch, force=force, expect=expect, outputs=outputs
        )

    async def log(self, chat: str, epoch: int = 1, frames: Sequence[bytes] = (b"1\n\n",)) -> OpenLog:
        """The chat's log as its owner holds it; its first frame is in Redis already."""
        session_id = self.sid(self._sessions_of[chat])
        flat = await self.do("HGETALL", self.keys.session(session_id))
        run = [part for pair in (await self.run(chat)).items() for part in pair]
        run = [part.encode() for part in run]
        origin = Origin(SessionRecord(session_id, flat), self.record(chat), run)
        log = OpenLog(self.cid(chat), session_id, epoch, origin, [*frames], committed=1)
        log.visible = log.last
        return log

    async def end(
        self,
        chat: str,
        status: str = "completed",
        *,
        epoch: int = 1,
        log: OpenLog | None = None,
        usage: str = "30 20 10",
        told: bytes = b"end\n\n",
    ) -> OpenLog:
        """Ends the chat as its owner does, or lets it wait for tool outputs; returns when that is decided."""
        log = log or await self.log(chat, epoch)
        waiting = status == "requires_action"
        packed, brief = (b"", ()) if waiting else (b"packed", (b"brief\n\n", told))
        end = ChatEnd(self.record(chat, status), 1, waiting, usage, packed, brief)
        self.writer.finish(log, [told], end)
        async with asyncio.timeout(BOUND):
            await until(lambda: log.state != "open", log.settled)
        return log

    async def written(self) -> None:
        """Returns when the writer has nothing left to do."""
        async with asyncio.timeout(BOUND):
            while self.writer.backlog:
                await asyncio.sleep(0.005)

    async def wait_for_tools(self, chat: str, epoch: int = 1) -> None:
        assert (await self.end(chat, "requires_action", epoch=epoch)).state == "committed"

    async def lose(self, chat: str) -> None:
        """Redis had to make room: run, log and records are gone."""
        chat_id = self.cid(chat)
        await self.do("DEL", self.keys.run(chat_id), self.keys.log(chat_id), self.keys.chats(chat_id))

    async def due(self) -> list[tuple[str, int]]:
        """Leases that have run out."""
        return await self.leases.expired()

    def leases_key(self) -> str:
        return self.keys.leases(shard_of(self.sid("S")))


def whole_life(
    *chats: str, runs: bool = False, waits: str = "", queued: Sequence[str] = ()
) -> dict[str, Any]:
    """What a session that has just been renewed shows: how long it and all that it needs lives from now, by
    the table of lifetimes. ``chats``: those that are not over; ``runs``: one of them does, or is to be
    started; ``waits``: the one that waits for tool outputs."""
    life = SESSION + (HOLD if runs else 0)
    longer = life + TOMBSTONE
    records = longer if chats else life
    shown: dict[str, Any] = {"session:S": longer, "chats:(S)": records, "order:S": records}
    shown |= {f"{kind}:{chat}": longer for chat in chats for kind in ("run", "log")}
    shown |= {"session:S.expires": life, "session:S.activity": 0}
    if queued:
        shown |= {"queue:S": longer, "queued": longer + DAY} | {f"queued.{chat}": longer for chat in queued}
    if waits:
        shown |= {"waiting": longer + DAY, f"waiting.{waits}": longer}
    return shown


async def commit_ids(at: Place, log: OpenLog, *ids: str) -> None:
    at.writer.commit_ids(log, *ids)
    await at.written()
