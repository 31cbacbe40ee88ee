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
from typing import Final, cast

from loguru import logger
from redis import exceptions as redis_errors

from app.exceptions import Overloaded, RedisUnavailable
from app.models.records import with_waits_until
from app.redis_client import Command, Keys, Number, RedisGate, Text
from app.stores.index import whose
from app.stores.loops import forever
from app.stores.open_log import ChatEnd, OpenLog
from app.stores.policy import LogPolicy
from app.stores.scripts import chat_end, chat_ids, log_rewrite
from app.stores.usage import usage_row
from app.utils import shard_of
from app.utils.stopping import end_tasks

TICK_SECONDS: Final = 0.08
"""How long frames are gathered."""
SPACING_SECONDS: Final = 0.025
"""Between two pipelines, in the long run."""
_URGENT_AHEAD: Final = 4 * SPACING_SECONDS
"""By how much what is urgent may go before its time."""
_AT_A_TIME: Final = 50
_MAX_BATCH_BYTES: Final = 1 << 20
_MAX_PIPELINE_BYTES: Final = 4 << 20
"""A pipeline that has so much takes no further log."""
_NO_LEASE: Final = -1
"""In place of the number of outages: a renewal did not find the lease."""
_STALE_ID: Final = "equal or smaller"


class LogWriter:
    """Group commit for all logs of this process."""

    def __init__(self, redis: RedisGate, keys: Keys, policy: LogPolicy) -> None:
        self._redis = redis
        self._keys = keys
        self._policy = policy
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

    def append(self, log: OpenLog, frames: Sequence[bytes]) -> None:
        """Shows frames to local readers at once and to Redis at the next tick."""
        if log.state == "fenced":
            return
        log.add(frames)
        if self._dirty.get(log.chat_id) is not log:
            self._mark(log)

    def snapshot(self, log: OpenLog, frame: bytes) -> None:
        """A frame that replaces all before it: they leave memory now, and Redis once it is there."""
        log.first, log.frames, log.size = log.last + 1, [frame], len(frame)
        log.sent, log.trim, log.earlier = None, True, []
        log.committed = max(log.committed, log.first - 1)
        log.visible, log.made = log.last, {}
        log.grown.notify()
        self._mark(log)

    def commit_ids(self, log: OpenLog, coze_chat_id: str, conversation_id: str, credential: str = "") -> None:
        """Not on the tick but at once: a takeover without them would have to search."""
        log.ids = log.known_ids = (coze_chat_id, conversation_id, credential)
        log.ids_stored = False
        self._mark(log, urgent=True)

    def finish(self, log: OpenLog, frames: Iterable[bytes], end: ChatEnd) -> None:
        """The last frames and the end, in one script; ``log.settled`` calls when that is decided."""
        if log.state == "fenced":
            return
        log.frames.extend(frames)
        log.end = end
        self._mark(log, urgent=True)
        if self._redis.away:
            log.settle("unsaved")

    def verify(self, log: OpenLog) -> None:
        """The lease is gone: the next tick finds out whether Redis lost data or somebody claimed the chat."""
        log.outages = _NO_LEASE
        self._mark(log)

    def drop(self, log: OpenLog) -> None:
        """Somebody else owns the chat now."""
        self._unmark(log)
        log.settle("fenced")

    def _unmark(self, log: OpenLog) -> None:
        if self._dirty.get(log.chat_id) is log:  # and not the log of a later epoch, begun here meanwhile
            del self._dirty[log.chat_id]

    def _mark(self, log: OpenLog, *, urgent: bool = False) -> None:
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
        await self._verify([log for log in self._dirty.values() if log.outages != self._redis.outages])
        logs: list[OpenLog] = []
        commands: list[Command[object]] = []
        asked: list[tuple[OpenLog, str]] = []
        size = 0
        for number, log in enumerate(list(self._dirty.values()), 1):
            if size >= _MAX_PIPELINE_BYTES:
                break  # the others come first in the next one
            logs.append(log)
            for kind, command in self._commands(log):
                commands.append(command)
                asked.append((log, kind))
            size += len(log.sent[1]) if log.sent is not None else 0
            size += len(log.end.record) + len(log.end.packed) if log.end is not None else 0
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # the frames of hundreds of streams must not wait for all of this
        if commands:
            self.pipelines += 1
            replies = await self._redis.attempt(commands)
            for number, ((log, kind), reply) in enumerate(zip(asked, replies, strict=True), 1):
                if kind != "add" or not isinstance(reply, bytes):
                    await self._handle(log, kind, reply)
                elif log.sent is not None and log.state != "fenced":
                    log.committed, log.sent, log.trim = log.sent[0], None, False
                if number % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
        for log in logs:
            if self._is_clean(log):
                self._unmark(log)
            elif self._dirty.get(log.chat_id) is log:  # behind those that have had no turn
                self._dirty[log.chat_id] = self._dirty.pop(log.chat_id)
        if any(log.end is not None for log in self._dirty.values()):
            self._urgent.set()

    @staticmethod
    def _is_clean(log: OpenLog) -> bool:
        unsent = log.sent is not None or log.committed < log.last or log.ids is not None
        return not unsent and (log.end is None or log.state == "committed")

    def _commands(self, log: OpenLog) -> list[tuple[str, Command[object]]]:
        """At most one XADD or one end per log and tick, with the ids in front of it."""
        commands: list[tuple[str, Command[object]]] = []
        if log.ids is not None:
            commands.append(("ids", self._ids_command(log, *log.ids)))
        if log.sent is None and log.end is not None:
            log.next_is_free = self.draining
            commands.append(("end", self._end_command(log, log.end)))
            return commands
        if log.sent is None and log.committed < log.last:
            log.sent = self._batch(log)
        if log.sent is not None:
            last, frames = log.sent
            key = log.key = log.key or self._keys.log(log.chat_id)
            entry_id = f"{log.epoch}-{last}"
            fields = ("n", log.committed + 1, "f", frames)
            commands.append(("add", Command("XADD", key, "NOMKSTREAM", entry_id, *fields)))
            if log.trim:
                commands.append(("trim", Command("XTRIM", key, "MINID", f"{log.epoch}-{log.first}")))
        return commands

    @staticmethod
    def _batch(log: OpenLog) -> tuple[int, bytes]:
        unsent = log.since(log.committed)
        if log.size <= _MAX_BATCH_BYTES:  # all that there is
            return log.last, b"".join(unsent)
        size = 0
        batch: list[bytes] = []
        for frame in unsent:
            size += len(frame)
            if batch and size > _MAX_BATCH_BYTES:
                break
            batch.append(frame)
        return log.committed + len(batch), b"".join(batch)

    def _ids_command(self, log: OpenLog, coze_chat: str, conversation: str, credential: str) -> Command[int]:
        return chat_ids(
            at=self._keys.of_session(log.session_id),
            chat=log.chat_id,
            epoch=str(log.epoch),
            coze_chat=coze_chat,
            conversation=conversation,
            credential=credential,
        )

    def _end_command(self, log: OpenLog, end: ChatEnd) -> Command[tuple[bytes, bytes, bytes, int]]:
        keys, session = self._keys, log.origin.session
        frames = log.since(log.committed) if end.waiting else end.brief
        shard, counted = shard_of(log.session_id), whose(session.owner, session.text(b"user"))
        return chat_end(
            at=keys.of_session(log.session_id),
            counted=keys.usage(shard, counted.owner, counted.root),
            spent=keys.spent(shard),
            spenders=[*counted],
            chat=log.chat_id,
            epoch=str(log.epoch),
            record=end.record,
            waiting=end.waiting,
            first_frame=str(log.last - len(frames) + 1),
            last_frame=str(log.last),
            frames=b"".join(frames),
            packed=end.packed,
            policy=self._policy,
            draining=self.draining,
            counts=end.usage,
            row=usage_row(session),
            session_known=bool(session.flat()),
        )

    # -- replies ---------------------------------------------------------------------------------------

    async def _handle(self, log: OpenLog, kind: str, reply: object) -> None:
        if log.state == "fenced":
            return
        if kind == "add" and log.sent is not None:
            await self._not_added(log, reply)
        elif isinstance(reply, Exception):
            self._not_written(log, kind, reply)
        elif kind == "end":
            await self._handle_end(log, cast("tuple[bytes, bytes, bytes, int]", reply))
        if kind == "ids" and not isinstance(reply, Exception):
            log.ids = None
            if reply:
                log.ids_stored = True
                log.grown.notify()

    def _not_written(self, log: OpenLog, kind: str, reply: Exception) -> None:
        """Tried again at the next tick; but readers do not wait for an end that Redis refuses."""
        self._redis.refused(f"{kind} of {log.chat_id}", reply)
        if log.end is not None and log.state == "open":
            log.settle("unsaved")

    async def _not_added(self, log: OpenLog, reply: object) -> None:
        if reply is None:  # NOMKSTREAM: the log is gone, Redis has lost data
            await self._write_again(log)
        elif isinstance(reply, redis_errors.ResponseError) and _STALE_ID in str(reply):
            await self._verify([log])
        elif isinstance(reply, Exception):
            self._not_written(log, kind="log", reply=reply)

    async def _handle_end(self, log: OpenLog, reply: tuple[bytes, bytes, bytes, int]) -> None:
        verdict, follower, expires, index_due = reply
        if verdict == b"ok":
            log.committed = log.last
            log.next_chat, log.index_due = follower.decode() or None, bool(index_due)
            if log.end is not None and log.end.waiting:
                log.end = replace(log.end, record=with_waits_until(log.end.record, int(expires)))
            log.settle("committed")
        elif verdict == b"fenced":
            self.drop(log)
        else:
            await self._write_again(log)

    async def _verify(self, logs: Sequence[OpenLog]) -> None:
        """What does Redis really hold? After an outage, of all logs, or when it called our id too small."""
        for begin in range(0, len(logs), _AT_A_TIME):
            some = logs[begin : begin + _AT_A_TIME]
            outages = self._redis.outages
            newest = await self._redis.attempt(
                [
                    Command[list[tuple[bytes, object]]](
                        "XREVRANGE", self._keys.log(log.chat_id), "+", "-", "COUNT", 1
                    )
                    for log in some
                ]
            )
            for log, entries in zip(some, newest, strict=True):
                leaseless, log.outages = log.outages == _NO_LEASE, outages
                if isinstance(entries, Exception):
                    logger.error("log of {} was not read: {}", log.chat_id, type(entries).__name__)
                elif log.state != "fenced":
                    await self._compare(log, entries, leaseless=leaseless)

    async def _compare(
        self, log: OpenLog, entries: Sequence[tuple[bytes, object]], *, leaseless: bool = False
    ) -> None:
        """``entries``: the newest one that Redis holds, if any. ``leaseless``: the chat may have no lease,
        so that nobody would take it over. Where it is still ours, it gets one.

        Same epoch and not smaller than what was sent: it was stored, only the reply was lost. A greater
        epoch: fenced. Less than what was committed: Redis lost data, so it is written again.
        """
        log.ids = log.known_ids
        if not entries:
            await self._write_again(log)
            return
        entry_id, _ = entries[0]
        epoch, frame = map(int, entry_id.split(b"-"))
        if epoch > log.epoch:
            self.drop(log)
        elif epoch < log.epoch or frame < log.committed or (leaseless and await self._is_forgotten(log)):
            await self._write_again(log)
        elif log.sent is not None and frame >= log.sent[0]:
            log.committed, log.sent = log.sent[0], None

    async def _is_forgotten(self, log: OpenLog) -> bool:
        """Whether lease or run is missing."""
        if log.end is not None:  # they go with the end
            return False
        leases = self._keys.leases(shard_of(log.chat_id))
        if await self._redis.run(Text("ZSCORE", leases, f"{log.chat_id}:{log.epoch}")) is None:
            return True
        return not await self._redis.run(Number("EXISTS", self._keys.run(log.chat_id)))

    async def _write_again(self, log: OpenLog) -> None:
        """The whole log from memory, but not the end's frames: those go with the end."""
        origin = log.origin
        last = log.last if log.end is None else log.last - log.end.frames
        verdict = await self._redis.run(
            log_rewrite(
                at=self._keys.of_session(log.session_id),
                chat=log.chat_id,
                epoch=str(log.epoch),
                first_frame=str(log.first),
                last_frame=str(last),
                frames=b"".join(log.since(0, last)),
                policy=self._policy,
                record=origin.record,
                owner=origin.session.owner,
                session_fields=origin.session.flat(),
                run_fields=origin.run,
            )
        )
        if verdict == b"fenced":
            self.drop(log)
            return
        logger.warning("log of {} was written again: Redis had lost it", log.chat_id)
        log.committed, log.sent, log.trim = last, None, False
        log.ids = log.known_ids
