"""The chats that this process owns: start, supervise, take over, cancel, hand over."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from typing import Final

from attrs import define, field
from loguru import logger

from app.coze.fold import Fold
from app.exceptions import Overloaded, RedisUnavailable, ServiceError
from app.observing.metrics import Metrics
from app.observing.tracing import Span, Tracing
from app.stores.conversations import ConversationStore
from app.stores.event_log import LogWriter
from app.stores.failures import FailureStore
from app.stores.index import user_key
from app.stores.leases import Claim, LeaseStore, RunState
from app.stores.log_reader import LogReader
from app.stores.open_log import OpenLog, Origin
from app.stores.sessions import SessionRecord, SessionStore
from app.stores.usage import UsageStore
from app.tasks.drafts import Draft
from app.tasks.frames import fold_frames
from app.tasks.job import Fresh, Job, Start, claimed_job, fields_while_it_is_there, start_of
from app.tasks.places import Places
from app.tasks.runner import Runner
from app.utils.signals import InterruptWhen, Notifier, until
from app.utils.stopping import end_tasks

_FENCED_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 2.0
_CLAIM_SECONDS: Final = 2.0
_RELEASE_SECONDS: Final = 3.0
_OWNER_ANSWERS_WITHIN: Final = 1.0
_CANCEL_SECONDS: Final = 10.0


@define(eq=False, repr=False, kw_only=True)
class RunningChats:
    """Starts and supervises chats, takes over, cancels and hands over. Each chat of ours has one task, which
    is named, kept and awaited."""

    places: Places
    _runner: Runner
    _writer: LogWriter
    _leases: LeaseStore
    _logs: LogReader
    _metrics: Metrics
    _tracing: Tracing
    _conversations: ConversationStore
    _failures: FailureStore
    _sessions: SessionStore
    _usage: UsageStore
    _jobs: dict[str, Job] = field(init=False, factory=dict)
    _chat_tasks: dict[str, asyncio.Task[None]] = field(init=False, factory=dict)
    _tasks: dict[asyncio.Task[None], None] = field(init=False, factory=dict)
    _claims: int = field(init=False, default=0)
    """Chats that are just being claimed, and will be among the jobs in a moment."""
    handing_over: bool = field(init=False, default=False)
    changed: Notifier = field(init=False, factory=Notifier)
    """A chat, or the claim of one, has begun or ended."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def idle(self) -> bool:
        return not self._jobs and not self._claims

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

    def start_new(self, session: SessionRecord, draft: Draft, request_id: str) -> Job:
        """The chat was just created here: epoch 1, frame 1 committed."""
        chat, prompt, new = draft
        run = [b"epoch", b"1", b"sid", session.session_id.encode(), b"request", new.request]
        log = OpenLog(
            chat_id=chat.chat_id,
            session_id=session.session_id,
            epoch=1,
            origin=Origin(session, new.record, run),
            frames=[new.first_frame],
            visible=1,
            committed=1,
        )
        credential = session.credential or prompt.credential
        job = Job(chat, session, log, Fresh(), request_id, credential=credential)
        self.start(job)
        return job

    def start(self, job: Job) -> None:
        chat_id = job.log.chat_id
        self._jobs[chat_id] = job
        owner, size = job.session.owner, sum(map(len, job.log.origin.run))
        place = self.places.hold(owner, size)
        place.also(self._usage.hold(owner, user_key(owner, job.session.user_id), size))
        task = self._chat_tasks[chat_id] = self.spawn(self._supervise(job), f"chat:{chat_id}")
        task.add_done_callback(lambda _: place.give_back())
        self._jobs_changed()

    def _jobs_changed(self) -> None:
        self._metrics.running_chats.set(len(self._jobs))
        self.changed.notify()

    async def start_claimed(self, claim: Claim, *, start: Start | None = None, request_id: str = "") -> Job:
        """Starts what was claimed; the new epoch opens with a snapshot of what the log tells so far."""
        job = claimed_job(claim, start or start_of(claim), request_id)
        if not claim.unowned:
            fold = Fold(keeps_all=job.session.serves_conversation)
            async for entry in self._logs.whole(claim.chat_id):
                job.log.earlier.append(entry)
                fold_frames(entry.frames, fold)
            job.resume_from(fold)
            self._writer.append(job.log, [job.fold.snapshot_frame()])
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
        start: Start | None = None,
    ) -> Job | None:
        """Claims the chat (see ``LeaseStore.claim``) and goes on with it; as ``start`` says where the caller
        knows more than the claim tells. None: it is not to be had, or this process gives its chats away."""
        if self.handing_over:
            return None
        with self.claiming():
            claim = await self._leases.claim(chat_id, session_id, epoch=epoch, force=force, expect=expect)
            if claim is None:
                return None
            logger.warning("chat {} {} in epoch {}", chat_id, claim.kind, claim.epoch)
            if claim.kind in ("claimed", "exhausted") and expect is None:
                self._metrics.takeovers.inc()
            return await self.start_claimed(claim, start=start)

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        """For the time from a claim until its chat runs here: whoever empties this process waits for it."""
        self._claims += 1
        self.changed.notify()
        try:
            yield
        finally:
            self._claims -= 1
            self.changed.notify()

    async def _supervise(self, job: Job) -> None:
        """Runs the chat, stays until its end is in Redis, then starts what that made ready."""
        log = job.log
        try:
            with (
                logger.contextualize(fields=fields_while_it_is_there(job)),
                self._tracing.span("chat") as span,
            ):
                await self._run_while_it_is_ours(job, span)
                await until(lambda: log.state not in ("open", "unsaved"), log.settled)
                if log.index_due:
                    self.move_in_indexes(job.session)
                if log.state == "committed" and self._conversations.is_due(job.session):
                    # A chat's end is always reached, by this process or by another one.
                    recording = self.record_conversation(job.session, job)
                    self.spawn(recording, f"conversation:{log.session_id}")
                if log.state == "committed" and job.chat.status == "failed":
                    self.spawn(self._note_failure(job), f"failure:{log.chat_id}")
            await self._start_follower(job)
        finally:
            if self._jobs.get(log.chat_id) is job:
                del self._jobs[log.chat_id], self._chat_tasks[log.chat_id]
            self._jobs_changed()

    async def _run_while_it_is_ours(self, job: Job, span: Span) -> None:
        """Fenced: stops quietly. A Coze chat that the new owner does not know of is cancelled there."""
        log = job.log
        stop = log.settled.watch(lambda: self._leave_if_fenced(job))
        try:
            async with InterruptWhen(lambda: job.leaves == "now", job.changed):
                await self._run(job, span)
        finally:
            stop()
        if job.leaves is not None:
            job.leaves = "now"
            job.changed.notify()
            await self._cancel_what_is_unknown(job)

    async def _run(self, job: Job, span: Span) -> None:
        await self._runner.run(job)
        if job.fold.error is not None:
            # Its frames have the job, which has the error: what was asked, megabytes of it, would stay until
            # the next full collection of garbage, and that may be hours away.
            job.fold.error.__traceback__ = None
        if job.log.state != "fenced":
            self._report(job, span)

    async def _start_follower(self, job: Job) -> None:
        """The next of the queue. Until it runs here the chat before it is still among the jobs: a drain that
        begins in between waits for it."""
        log = job.log
        if log.next_chat is None or log.next_is_free:
            return
        with contextlib.suppress(RedisUnavailable, Overloaded):  # its lease runs out, somebody claims it
            await self.take_over(log.next_chat, log.session_id, force=True, expect="ready")

    # -- what a session's activity moves -------------------------------------------------------------------

    def move_in_indexes(self, session: SessionRecord) -> None:
        """In the background: the session lives longer than the indexes know."""
        self.spawn(self._move_in_indexes(session), f"index:{session.session_id}")

    async def _move_in_indexes(self, session: SessionRecord) -> None:
        with contextlib.suppress(ServiceError):
            await self._sessions.renew_index(session)

    async def record_conversation(self, session: SessionRecord, job: Job | None = None) -> None:
        """Writes down whose the session's conversation is, for the first time and then now and again (see
        ``ConversationStore.is_due``): whoever is shown its id can come back with it.
        ``job``: a chat that has just ended in it, with which Coze may have made it."""
        if not self._conversations.is_due(session):
            return
        conversation, credential = session.conversation_id, session.credential
        if conversation is None and job is not None:
            ids = job.log.known_ids
            conversation = job.fold.conversation_id
            credential = ids[2] if ids is not None else job.credential
        if conversation is not None:
            with contextlib.suppress(ServiceError):
                await self._conversations.remember_again(session, conversation, credential)

    async def _note_failure(self, job: Job) -> None:
        with contextlib.suppress(ServiceError):
            await self._failures.note(job.session, job.chat)

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
        self._metrics.chat_ended(
            chat.status, bot, seconds, recovered=chat.recovered, characters=len(chat.content)
        )
        if job.first_delta is not None:
            self._metrics.first_delta.observe(job.first_delta)
        if chat.usage is not None and chat.status != "requires_action":  # counted when it is over
            self._metrics.tokens(bot, read=chat.usage.input_count, written=chat.usage.output_count)
        span.set({f"coze.{name}": value for name, value in job.log_fields().items() if name != "user_id"})
        span.set({"coze.bot_id": bot, "coze.outcome": chat.status, "coze.recovered": chat.recovered})
        if chat.error is not None:
            span.fail(chat.error.code)

    def _leave_if_fenced(self, job: Job) -> None:
        if job.log.state == "fenced" and job.leaves is None:
            logger.warning("chat {} is owned by another process now", job.log.chat_id)
            job.leaves = "soon"
            self.spawn(self._leave(job), f"leave:{job.log.chat_id}")

    @staticmethod
    async def _leave(job: Job) -> None:
        """Our POST may be under way: only when it has told its id can it be compared."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FENCED_SECONDS):
                await until(lambda: job.ids_known or job.leaves == "now", job.changed)
        job.leaves = "now"
        job.changed.notify()

    async def _cancel_what_is_unknown(self, job: Job) -> None:
        if job.ids_known:
            with contextlib.suppress(ServiceError):
                _, known = await self._leases.run_ids(job.log.chat_id)
                if known != (job.fold.coze_chat_id or ""):
                    await self._runner.cancel_at_coze(job)

    def lease_is_gone(self, job: Job) -> None:
        """Has Redis lost data, or somebody claimed the chat? The writer finds out."""
        self._writer.verify(job.log)

    # -- cancelling --------------------------------------------------------------------------------------

    async def cancel(self, chat_id: str, session_id: str) -> Job | None:
        """Cancels a chat wherever it is: running here or elsewhere, queued, or waiting for tool outputs.
        Returns its job where it ended here, and after a stated time even if it has not ended."""
        job = self.get(chat_id)
        if job is None:
            ticket = await self._leases.cancel(chat_id, session_id)
            if ticket.state == "gone":
                return None
            if ticket.state == "started":
                if ticket.process:
                    await self._leases.notify_owner(ticket.process, chat_id)
                if await self.ended_within(chat_id, _OWNER_ANSWERS_WITHIN):
                    return None
                job = await self.take_over(chat_id, session_id, force=True)
            else:
                job = await self.take_over(chat_id, session_id, force=True, expect=ticket.state)
        if job is None:
            await self.ended_within(chat_id, _CANCEL_SECONDS)
            return None
        job.cancel()
        log = job.log
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await until(lambda: log.state != "open", log.settled)
        return job

    async def ended_within(self, chat_id: str, seconds: float) -> bool:
        """Whether the chat, which another process runs, is over in that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self._leases.run_ids(chat_id))[0]:  # noqa: ASYNC110  # another process' event
                    await asyncio.sleep(0.03)
                return True
        return False

    # -- leaving -----------------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Stops what still runs, commits what it has produced, and gives its leases away. Each step has its
        time: whatever hangs, the process gets to its end."""
        self.handing_over = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_SECONDS):
                # What was claimed has to be given away, too.
                await until(lambda: not self._claims, self.changed)
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
            # A refusal must not end the process before its time: the leases then run out by themselves.
            await asyncio.wait({self.spawn(self._release(held), "hand over")}, timeout=_RELEASE_SECONDS)

    async def _release(self, held: list[tuple[str, int]]) -> None:
        with contextlib.suppress(RedisUnavailable, Overloaded):
            await self._leases.release(held)

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    def spawn(self, work: Coroutine[object, None, None], name: str) -> asyncio.Task[None]:
        """A task that is neither lost nor fails in silence."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._collect)
        return task

    def _collect(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("task {} broke", task.get_name())
