"""A chat's event log: frames in the owner's memory, and in Redis by group commit.

One Redis stream per chat. An entry holds a batch of frames, its first frame's number (``n``) and has
the explicit id ``<epoch>-<last frame number>``. One writer per process gathers what all running chats
have produced and sends one pipeline a tick; a chat's end goes through the same writer with its last
frames. So however many chats run, Redis sees few commands, and order within a chat is kept.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from loguru import logger
from redis import exceptions as redis_errors

from app.exceptions import Overloaded, RedisUnavailable
from app.records import with_waits_until
from app.redis_client import Arg, Keys, RedisGate, Script
from app.stopping import end_tasks
from app.stores.limits import TOMBSTONE_MS
from app.stores.loops import forever
from app.stores.open_log import ChatEnd, LogPolicy, OpenLog
from app.stores.usage import usage_keys, usage_row

TICK_SECONDS: Final = 0.04
"""How long frames are gathered."""
SPACING_SECONDS: Final = 0.025
"""Between two pipelines, in the long run."""
_URGENT_AHEAD: Final = 4 * SPACING_SECONDS
"""By how much what is urgent may go before its time."""
_AT_A_TIME: Final = 50
_MAX_BATCH_BYTES: Final = 1 << 20
_MAX_PIPELINE_BYTES: Final = 4 << 20
"""A pipeline that has so much takes no further log."""
_STALE_ID: Final = "equal or smaller"


class LogWriter:
    """Group commit for all logs of this process."""

    def __init__(self, redis: RedisGate, keys: Keys, policy: LogPolicy) -> None:
        self._redis = redis
        self._keys = keys
        self._policy = policy
        self._end = Script("chat_end")
        self._ids = Script("chat_ids")
        self._rewrite = Script("log_rewrite")
        self._dirty: dict[str, OpenLog] = {}
        self._work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._due = 0.0
        """Loop time from which the next tick may be written."""
        self._task: asyncio.Task[None] | None = None
        self.draining = False
        self.pipelines = 0

    def start(self) -> None:
        self._task = asyncio.create_task(forever(self._round, self._redis), name="log-writer")

    async def stop(self) -> None:
        """Ends the writer; what could not be written stays with whoever takes the chats over."""
        if self._task is not None:
            await end_tasks([self._task])

    # -- what a chat's owner calls ---------------------------------------------------------------------

    def append(self, log: OpenLog, frames: Iterable[bytes]) -> None:
        """Shows frames to local readers at once and to Redis at the next tick."""
        if log.state == "fenced":
            return
        for frame in frames:
            log.frames.append(frame)
            log.size += len(frame)
        log.visible = log.last
        log.grown.notify()
        self._touch(log)

    def snapshot(self, log: OpenLog, frame: bytes) -> None:
        """A frame that replaces all before it: they leave memory now, and Redis once it is there."""
        log.first, log.frames, log.size = log.last + 1, [frame], len(frame)
        log.sent, log.trim, log.earlier = None, True, []
        log.committed = max(log.committed, log.first - 1)
        log.visible = log.last
        log.grown.notify()
        self._touch(log)

    def commit_ids(self, log: OpenLog, coze_chat_id: str, conversation_id: str, credential: str = "") -> None:
        """Not on the tick but at once: a takeover without them would have to search."""
        log.ids = log.known_ids = (coze_chat_id, conversation_id, credential)
        self._touch(log, urgent=True)

    def finish(self, log: OpenLog, frames: Iterable[bytes], end: ChatEnd) -> None:
        """The last frames and the end, in one script; ``log.settled`` calls when that is decided."""
        if log.state == "fenced":
            return
        log.frames.extend(frames)
        log.end = end
        self._touch(log, urgent=True)
        if self._redis.away:
            log.settle("unsaved")

    def look_again(self, log: OpenLog) -> None:
        """The lease is gone: the next tick finds out whether Redis lost data or somebody claimed the chat."""
        log.outages = -1
        self._touch(log)

    def drop(self, log: OpenLog) -> None:
        """Somebody else owns the chat now."""
        self._forget(log)
        log.settle("fenced")

    def _forget(self, log: OpenLog) -> None:
        if self._dirty.get(log.chat_id) is log:  # and not the log of a later epoch, begun here meanwhile
            del self._dirty[log.chat_id]

    def _touch(self, log: OpenLog, *, urgent: bool = False) -> None:
        if log.state == "fenced":
            return
        if log.outages is None:
            log.outages = self._redis.outages
        self._dirty[log.chat_id] = log
        self._work.set()
        if urgent:
            self._urgent.set()

    @property
    def backlog(self) -> int:
        return len(self._dirty)

    # -- the writer ------------------------------------------------------------------------------------

    async def _round(self) -> None:
        await self._work.wait()
        await self._pace()
        self._urgent.clear()
        try:
            await self._commit()
        except (RedisUnavailable, Overloaded):
            if await self._redis.found_away():
                for log in self._dirty.values():
                    if log.end is not None and log.state == "open":
                        log.settle("unsaved")
            raise
        if not self._dirty:
            self._work.clear()

    async def _pace(self) -> None:
        """However many chats run, at most 50 pipelines a second in the long run. What is urgent (an end that
        readers wait for, Coze's ids) may go a little ahead of that, and takes along what there is."""
        loop = asyncio.get_running_loop()
        if not self._urgent.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(self._due, loop.time() + TICK_SECONDS)):
                    await self._urgent.wait()
        if self._urgent.is_set():
            await asyncio.sleep(self._due - _URGENT_AHEAD - loop.time())
        self._due = max(self._due, loop.time()) + SPACING_SECONDS

    async def _commit(self) -> None:
        await self._look_at([log for log in self._dirty.values() if log.outages != self._redis.outages])
        logs: list[OpenLog] = []
        commands: list[tuple[Arg, ...]] = []
        handlers: list[tuple[OpenLog, str]] = []
        size = 0
        for number, log in enumerate(list(self._dirty.values()), 1):
            if size >= _MAX_PIPELINE_BYTES:
                break  # the others come first in the next one
            logs.append(log)
            for kind, command in self._commands(log):
                commands.append(command)
                handlers.append((log, kind))
                size += sum(len(part) for part in command if isinstance(part, bytes))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # the frames of hundreds of streams must not wait for all of this
        if commands:
            self.pipelines += 1
            replies = await self._redis.pipeline(commands)
            for number, ((log, kind), reply) in enumerate(zip(handlers, replies, strict=True), 1):
                await self._take(log, kind, reply)
                if number % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
        for log in logs:
            if self._is_clean(log):
                self._forget(log)
            elif self._dirty.get(log.chat_id) is log:  # behind those that have had no turn
                self._dirty[log.chat_id] = self._dirty.pop(log.chat_id)
        if any(log.end is not None for log in self._dirty.values()):
            self._urgent.set()

    @staticmethod
    def _is_clean(log: OpenLog) -> bool:
        unsent = log.sent is not None or log.committed < log.last or log.ids is not None
        return not unsent and (log.end is None or log.state == "committed")

    def _commands(self, log: OpenLog) -> list[tuple[str, tuple[Arg, ...]]]:
        """At most one XADD or one end per log and tick, with the ids in front of it."""
        commands: list[tuple[str, tuple[Arg, ...]]] = []
        if log.ids is not None:
            keys = [self._keys.run(log.chat_id), self._keys.session(log.session_id)]
            commands.append(("ids", self._ids.command(keys, [log.epoch, *log.ids])))
        if log.sent is None and log.end is not None:
            log.next_is_free = self.draining
            commands.append(("end", self._end_command(log, log.end)))
            return commands
        if log.sent is None and log.committed < log.last:
            log.sent = self._batch(log)
        if log.sent is not None:
            last, frames = log.sent
            fields = ("n", log.committed + 1, "f", frames)
            key = self._keys.log(log.chat_id)
            commands.append(("add", ("XADD", key, "NOMKSTREAM", f"{log.epoch}-{last}", *fields)))
            if log.trim:
                commands.append(("trim", ("XTRIM", key, "MINID", f"{log.epoch}-{log.first}")))
        return commands

    @staticmethod
    def _batch(log: OpenLog) -> tuple[int, bytes]:
        size = 0
        batch: list[bytes] = []
        for frame in log.since(log.committed):
            size += len(frame)
            if batch and size > _MAX_BATCH_BYTES:
                break
            batch.append(frame)
        return log.committed + len(batch), b"".join(batch)

    def _end_command(self, log: OpenLog, end: ChatEnd) -> tuple[Arg, ...]:
        keys, policy, session = self._keys, self._policy, log.origin.session
        frames = log.since(log.committed) if end.waiting else end.brief
        return self._end.command(
            [
                *(keys.session(log.session_id), keys.chats(log.chat_id), keys.order(log.session_id)),
                *(keys.run(log.chat_id), keys.leases_of(log.chat_id), keys.log(log.chat_id)),
                *(keys.queue(log.session_id), *usage_keys(keys, session, quota=policy.quota)),
            ],
            [
                *(log.chat_id, log.epoch, end.record, int(end.waiting)),
                *(log.last - len(frames) + 1, log.last, b"".join(frames), end.packed),
                *(policy.session_ttl, TOMBSTONE_MS, policy.hold, policy.log_ttl),
                *(policy.lease, int(self.draining), end.usage, usage_row(session), policy.usage_ttl),
            ],
        )

    # -- replies ---------------------------------------------------------------------------------------

    async def _take(self, log: OpenLog, kind: str, reply: Any) -> None:
        if log.state == "fenced":
            return
        if isinstance(reply, redis_errors.NoScriptError):
            await self._redis.load([self._end, self._ids])
        elif kind == "ids":
            self._take_ids(log, reply)
        elif kind == "add":
            await self._take_added(log, reply)
        elif kind == "end":
            await self._take_end(log, reply)

    def _take_ids(self, log: OpenLog, reply: Any) -> None:
        if isinstance(reply, Exception):
            logger.error("ids of {} were not stored: {}", log.chat_id, type(reply).__name__)
        log.ids = None

    async def _take_added(self, log: OpenLog, reply: Any) -> None:
        if log.sent is None:
            return
        if reply is None:  # NOMKSTREAM: the log is gone, Redis has lost data
            await self._write_again(log)
        elif isinstance(reply, redis_errors.ResponseError) and _STALE_ID in str(reply):
            await self._look_at([log])
        elif isinstance(reply, Exception):
            logger.error("log of {} was not written: {}", log.chat_id, reply)
        else:
            log.committed, log.sent, log.trim = log.sent[0], None, False

    async def _take_end(self, log: OpenLog, reply: Any) -> None:
        if isinstance(reply, Exception):
            logger.error("end of {} was not written: {}", log.chat_id, reply)
            return
        verdict = reply[0]
        if verdict == b"ok":
            log.committed = log.last
            log.next_chat, log.index_due = reply[1].decode() or None, bool(reply[3])
            if log.end is not None and log.end.waiting:
                log.end = replace(log.end, record=with_waits_until(log.end.record, int(reply[2])))
            log.settle("committed")
        elif verdict == b"fenced":
            self.drop(log)
        else:
            await self._write_again(log)

    async def _look_at(self, logs: Sequence[OpenLog]) -> None:
        """What does Redis really hold? After an outage, of all logs, or when it called our id too small."""
        for begin in range(0, len(logs), _AT_A_TIME):
            some = logs[begin : begin + _AT_A_TIME]
            outages = self._redis.outages
            newest = await self._redis.pipeline(
                [("XREVRANGE", self._keys.log(log.chat_id), "+", "-", "COUNT", 1) for log in some]
            )
            for log, entries in zip(some, newest, strict=True):
                log.outages = outages
                if isinstance(entries, Exception):
                    logger.error("log of {} was not read: {}", log.chat_id, type(entries).__name__)
                elif log.state != "fenced":
                    await self._compare(log, entries)

    async def _compare(self, log: OpenLog, entries: Sequence[Any]) -> None:
        """``entries``: the newest one that Redis holds, if any.

        Same epoch and not smaller than what was sent: it was stored, only the reply was lost. A greater
        epoch: fenced. Less than what was committed: Redis lost data, so it is written again.
        """
        log.ids = log.known_ids
        if not entries:
            await self._write_again(log)
            return
        epoch, frame = (int(part) for part in entries[0][0].split(b"-"))
        if epoch > log.epoch:
            self.drop(log)
        elif epoch < log.epoch or frame < log.committed:
            await self._write_again(log)
        elif log.sent is not None and frame >= log.sent[0]:
            log.committed, log.sent = log.sent[0], None

    async def _write_again(self, log: OpenLog) -> None:
        """The whole log from memory, but not the end's frames: those go with the end."""
        keys, policy, origin = self._keys, self._policy, log.origin
        last = log.last if log.end is None else log.last - log.end.frames
        session = origin.session.flat()
        reply = await self._redis.run(
            self._rewrite,
            [
                *(keys.session(log.session_id), keys.chats(log.chat_id), keys.order(log.session_id)),
                *(keys.run(log.chat_id), keys.leases_of(log.chat_id), keys.log(log.chat_id)),
                keys.erased(log.session_id),
            ],
            [
                *(log.chat_id, log.epoch, log.first, last, b"".join(log.since(0, last))),
                *(policy.lease, policy.session_ttl, TOMBSTONE_MS, policy.hold),
                *(origin.record, origin.session.owner, len(session)),
                *session,
                *origin.run,
            ],
        )
        if reply[0] == b"fenced":
            self.drop(log)
            return
        logger.warning("log of {} was written again: Redis had lost it", log.chat_id)
        log.committed, log.sent, log.trim = last, None, False
        log.ids = log.known_ids
