"""The chats that this process owns: start, supervise, take over, cancel, hand over."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Final

from loguru import logger

from app.exceptions import InternalError, Overloaded, RedisUnavailable, ServiceError, SessionExpired
from app.metrics import Metrics
from app.signals import Signal, first_of
from app.stopping import end_tasks
from app.stores.conversations import ConversationStore
from app.stores.event_log import LogWriter
from app.stores.leases import Claim, LeaseStore, RunState
from app.stores.log_reader import LogReader
from app.stores.sessions import SessionRecord, SessionStore
from app.tasks.frames import fold_frames
from app.tasks.job import Job, claimed_job
from app.tasks.runner import Runner
from app.tracing import Span, Tracing

_FENCED_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 2.0
_CLAIM_SECONDS: Final = 2.0
_RELEASE_SECONDS: Final = 3.0


class RunningChats:
    """Every task is named, kept and awaited; each chat of ours has exactly one."""

    def __init__(
        self,
        *,
        runner: Runner,
        writer: LogWriter,
        leases: LeaseStore,
        reader: LogReader,
        metrics: Metrics,
        tracing: Tracing,
        conversations: ConversationStore,
        sessions: SessionStore,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._conversations = conversations
        self._sessions = sessions
        self._runner = runner
        self._writer = writer
        self._leases = leases
        self._reader = reader
        self._jobs: dict[str, Job] = {}
        self._chat_tasks: dict[str, asyncio.Task[None]] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._claims = 0
        """Chats that are just being claimed, and will be among the jobs in a moment."""
        self.handing_over = False
        self.idle = Signal()
        self.idle.set()
        self.busy = asyncio.Event()
        """The opposite of ``idle``."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def leaving(self) -> bool:
        """This process is about to end: it takes no further chats, queued ones and others' included."""
        return self.handing_over or self._writer.draining

    def get(self, chat_id: str) -> Job | None:
        return self._jobs.get(chat_id)

    def held(self) -> list[tuple[str, int]]:
        """(chat id, epoch) of every lease that this process must renew."""
        return [(job.log.chat_id, job.log.epoch) for job in self._jobs.values() if job.log.state != "fenced"]

    # -- starting ----------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        chat_id = job.log.chat_id
        self._jobs[chat_id] = job
        self._metrics.running_chats.set(len(self._jobs))
        self._look_idle()
        self._chat_tasks[chat_id] = self.spawn(self._supervise(job), f"chat:{chat_id}")

    async def start_claimed(self, claim: Claim, *, request_id: str = "") -> Job:
        """Starts what was claimed; the new epoch opens with a snapshot of what the log tells so far."""
        job = claimed_job(claim)
        job.request_id = request_id
        if not claim.unowned:
            job.log.earlier = await self._reader.whole(claim.chat_id)
            job.resume_from(fold_frames(f for entry in job.log.earlier for f in entry.frames))
            self._writer.append(job.log, [job.fold.snapshot_frame()])
        if claim.kind == "exhausted":
            job.give_up = InternalError("The chat was begun too often without an end")
        elif claim.kind == "expired":
            job.give_up = SessionExpired()
        self.start(job)
        return job

    async def take_over(
        self,
        chat_id: str,
        session_id: str,
        *,
        epoch: int | None = None,
        force: bool = False,
        expect: RunState | None = None,
    ) -> Job | None:
        """Claims the chat and goes on with it; None where it is not to be had, or this process gives away
        what it has."""
        if self.handing_over:
            return None
        with self.claiming():
            claim = await self._leases.claim(chat_id, session_id, epoch=epoch, force=force, expect=expect)
            if claim is None:
                return None
            logger.warning("chat {} {} in epoch {}", chat_id, claim.kind, claim.epoch)
            if claim.kind in ("claimed", "exhausted") and expect is None:
                self._metrics.takeover()
            return await self.start_claimed(claim)

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        """For the time from a claim until its chat runs here: whoever empties this process waits for it."""
        self._claims += 1
        self._look_idle()
        try:
            yield
        finally:
            self._claims -= 1
            self._look_idle()

    def _look_idle(self) -> None:
        if self._jobs or self._claims:
            self.idle.clear()
            self.busy.set()
        else:
            self.busy.clear()
            self.idle.set()

    async def _supervise(self, job: Job) -> None:
        """Runs the chat, stays until its end is in Redis, then starts what that made ready."""
        chat_id = job.log.chat_id
        try:
            with logger.contextualize(fields=job.log_fields), self._tracing.span("chat") as span:
                await self._run_unless_fenced(job)
                if job.log.state != "fenced":
                    self._report(job, span)
                await job.log.settled.wait()
                await self._until_written(job)
                if job.log.index_due:
                    self.spawn(self.keep_indexed(job.session), f"index:{job.log.session_id}")
                if self._conversations.is_due(job.session):
                    self.spawn(self._keep_conversation(job), f"conversation:{job.log.session_id}")
            await self._start_follower(job)
        finally:
            if self._jobs.get(chat_id) is job:
                del self._jobs[chat_id], self._chat_tasks[chat_id]
            self._metrics.running_chats.set(len(self._jobs))
            self._look_idle()

    async def _start_follower(self, job: Job) -> None:
        """The next of the queue. Until it runs here the chat before it is still among the jobs: a drain that
        begins in between waits for it."""
        log = job.log
        if log.next_chat is None or log.next_is_free:
            return
        with contextlib.suppress(RedisUnavailable, Overloaded):  # its lease runs out, somebody claims it
            await self.take_over(log.next_chat, log.session_id, force=True, expect="ready")

    async def keep_indexed(self, session: SessionRecord) -> None:
        """The session lives longer than the indexes know."""
        with contextlib.suppress(ServiceError):
            await self._sessions.renew_index(session)

    async def _keep_conversation(self, job: Job) -> None:
        """Here for the first chat of a conversation that Coze made with it, and about once a day after that.
        A chat's end is always reached, by this process or by another one."""
        session, log = job.session, job.log
        conversation, credential = session.conversation_id, session.credential
        if conversation is None:
            conversation = job.fold.conversation_id
            credential = log.known_ids[2] if log.known_ids is not None else job.credential
        if conversation is not None and log.state == "committed":
            with contextlib.suppress(ServiceError):
                await self._conversations.remember_again(session, conversation, credential)

    def _report(self, job: Job, span: Span) -> None:
        """How the chat ended, for whoever watches."""
        chat, bot, seconds = job.chat, job.session.bot_id, time.perf_counter() - job.begun
        logger.bind(
            bot_id=bot,
            duration_ms=round(seconds * 1000, 1),
            first_delta_ms=None if job.first_delta is None else round(job.first_delta * 1000, 1),
            tokens=chat.usage.token_count if chat.usage else None,
            recovered=chat.recovered or None,
            error=chat.error.code if chat.error else None,
            coze_code=chat.error.coze_code if chat.error else None,
        ).info("chat ended: {}", chat.status)
        self._metrics.chat_ended(chat.status, bot, seconds, recovered=chat.recovered)
        if job.first_delta is not None:
            self._metrics.first_delta(job.first_delta)
        if chat.usage is not None and chat.status != "requires_action":  # counted when it is over
            self._metrics.tokens(bot, read=chat.usage.input_count, written=chat.usage.output_count)
        span.set({f"coze.{name}": value for name, value in job.log_fields().items() if name != "user_id"})
        span.set({"coze.bot_id": bot, "coze.outcome": chat.status, "coze.recovered": chat.recovered})
        if chat.error is not None:
            span.fail(chat.error.code)

    async def _run_unless_fenced(self, job: Job) -> None:
        run = asyncio.create_task(self._runner.run(job), name=f"run:{job.log.chat_id}")
        try:
            await first_of(job.log.settled, task=run)
            if job.log.state == "fenced" and not run.done():
                await self._leave(job, run)
            await asyncio.wait([run])  # not run itself: a cancel of ours must not look like the end of run
        finally:
            await end_tasks([run])
        if not run.cancelled():
            run.result()

    async def _leave(self, job: Job, run: "asyncio.Task[None]") -> None:
        """Fenced: stops quietly. A Coze chat that the new owner does not know of is cancelled there.

        Our POST may be under way: only when it has told its id can it be compared.
        """
        logger.warning("chat {} is owned by another process now", job.log.chat_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FENCED_SECONDS):
                while not job.ids_known and not run.done():  # noqa: ASYNC110  # rare, and bounded
                    await asyncio.sleep(0.05)
        await end_tasks([run])
        if job.ids_known:
            with contextlib.suppress(ServiceError):
                _, known = await self._leases.run_ids(job.log.chat_id)
                if known != (job.fold.coze_chat_id or ""):
                    await self._runner.cancel_at_coze(job)

    @staticmethod
    async def _until_written(job: Job) -> None:
        bell = asyncio.Event()
        job.log.wakers[bell] = None
        try:
            while job.log.state == "unsaved":
                await bell.wait()
                bell.clear()
        finally:
            job.log.wakers.pop(bell, None)

    def look_again(self, job: Job) -> None:
        """Its lease is gone: has Redis lost data, or somebody claimed the chat?"""
        self._writer.verify(job.log)

    # -- leaving -----------------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Stops what still runs, commits what it has produced, and gives its leases away. Each step has its
        time: whatever hangs, the process gets to its end."""
        self.handing_over = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_SECONDS):
                while self._claims:  # noqa: ASYNC110  # what was claimed has to be given away, too
                    await asyncio.sleep(0.01)
        jobs = list(self._jobs.values())
        await end_tasks(self._chat_tasks.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._writer.backlog:  # noqa: ASYNC110  # once in a process' life
                    await asyncio.sleep(0.01)
        held = [(job.log.chat_id, job.log.epoch) for job in jobs if job.log.state == "open"]
        held += [
            (log.next_chat, 1)  # made ready, and not claimed any more
            for log in (job.log for job in jobs)
            if log.next_chat is not None and not log.next_is_free and log.next_chat not in self._jobs
        ]
        if held:
            logger.info("handing over {} chats", len(held))
            with contextlib.suppress(RedisUnavailable, Overloaded, TimeoutError):
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._leases.release(held)

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that is neither lost nor fails in silence."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._collect)
        return task

    def _collect(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("task {} broke", task.get_name())
