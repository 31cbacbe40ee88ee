"""One chat, from the POST to its end: stream or poll, repair what was cut, cancel, and write the end."""

import asyncio
import contextlib
import itertools
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import msgspec
from attrs import define
from loguru import logger

from app.coze.client import CozeClient
from app.coze.codes import NOT_FOUND
from app.coze.fold import DELTA
from app.coze.stream import CozeStream, SSEEvent
from app.coze.wire import ENDED, ChatRequest, ChatState, EnterMessage
from app.exceptions import CozeApiError, CozeBusy, CozeTimeout, InternalError, ServiceError, UpstreamError
from app.models.chats import OUR_META_KEY
from app.observing.metrics import Metrics
from app.stores.event_log import LogWriter
from app.stores.log_entries import pack
from app.stores.open_log import ChatEnd
from app.stores.usage import usage_of_end
from app.tasks.drafts import Prompt
from app.tasks.frames import close_chat, end_frames
from app.tasks.job import GiveUp, Job
from app.utils.signals import InterruptWhen, until

_BUSY_SECONDS: Final = 10.0
"""How long a 4016 is retried: no other chat of the session runs, so one is just being cancelled, or another
session speaks in the same conversation."""
_BUSY_PAUSE: Final = 0.25
"""Seconds before it is asked again; twice as long each time, since nearly always the first try is enough."""
_LONGEST_BUSY_PAUSE: Final = 2.0
_AFTER_END_SECONDS: Final = 2.0
"""How long we read on after a terminal event for what may follow it (audio, done)."""
_CANCEL_SECONDS: Final = 5.0
_SEARCH_TRIES: Final = 3
_SUBMIT_AGAIN: Final = 3
_MOST_META: Final = 16
"""Pairs of meta_data that Coze takes. Who has as many is not given ours."""
_CLOCK_MARGIN: Final = 300
"""Seconds by which Coze's clock and ours may differ."""
_REPAIR_PAUSE: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


@define(eq=False, repr=False, kw_only=True)
class Runner:
    """Runs chats to their end. It keeps nothing of its own: a job holds all of a chat's state."""

    _coze: CozeClient
    _writer: LogWriter
    _use_stream: bool
    _chat_timeout: float
    _max_log_bytes: int
    _user_id_scope: Literal["root", "owner", "none"]
    _metrics: Metrics

    def _user_at_coze(self, owner: str, user_id: str) -> str:
        root, _, person = owner.partition("|")
        person = person.replace("%", "%25").replace(":", "%3A")  # else ("a", "b:c") would be ("a:b", "c")
        scopes = {"root": f"{root}:", "owner": f"{root}|{person}:", "none": ""}
        return scopes[self._user_id_scope] + user_id

    async def run(self, job: Job) -> None:
        """Ends when the chat has an end, in whatever way; the end is then on its way to Redis.

        Broad on purpose: a fault of ours must end the chat as failed, never leave it "processing".
        """
        try:
            if await self._is_cancelled_before_its_answer(job):
                await self._cancel(job)
            elif job.fold.error is not None:  # told by an event, not by a failed call
                self._coze_of(job).answer_failed(job.fold.error)
                self._metrics.upstream_error(job.fold.error)
        except ServiceError as error:
            self._fail(job, error)
        except Exception:  # noqa: BLE001  # the runner's last resort
            logger.opt(exception=True).error("chat {} broke", job.chat.chat_id)
            self._fail(job, InternalError())
        self._note_unreadable(job)
        await self.finish(job)
        if job.timed_out and not await self._is_fenced(job):
            # Coze must give the conversation free, or the session's next message would meet 4016. The caller
            # has its answer by then.
            await self.cancel_at_coze(job)

    def _note_unreadable(self, job: Job) -> None:
        reader = job.fold.reader
        if reader.mended:
            self._metrics.unreadable.labels("event").inc(reader.mended)
            logger.warning("{} events from Coze were readable in part only", reader.mended)
        if reader.lost:
            self._metrics.unreadable.labels("lost_event").inc(reader.lost)
            logger.warning("{} events from Coze were not readable", reader.lost)

    @staticmethod
    async def _is_fenced(job: Job) -> bool:
        """Whether another process owns the chat: one that was stopped past the deadline learns of it from
        Redis' answer to its end, and must not cancel what the new owner still waits for."""
        log = job.log
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await until(lambda: log.state != "open", log.settled)
        return log.state == "fenced"

    async def _is_cancelled_before_its_answer(self, job: Job) -> bool:
        if job.cancelled:  # in the queue, say: nothing is begun
            return True
        try:
            async with InterruptWhen(lambda: job.cancelled, job.changed) as scope:
                await self._answer(job)
        except ServiceError:  # of what was broken off: the cancel counts
            if not scope.expired():
                raise
        return scope.expired()

    async def finish(self, job: Job) -> None:
        """Hands the last frames and the final record to the writer; of one that is over, its packed log."""
        halves = (
            job.fold.end_halves()
        )  # what was broken off or cancelled has no end of Coze's that tells them
        close_chat(job.chat, job.fold, "")
        frames = [*halves, *end_frames(job.chat, job.fold, job.request_id)]
        job.chat.metadata["last_event_id"] = f"{job.log.epoch}-{job.log.last + len(frames)}"
        record = job.chat.model_dump_json().encode()
        waiting = job.chat.status == "requires_action"
        end = ChatEnd(record, len(frames), waiting, usage_of_end(job.chat.usage))
        if not waiting:
            packed = await pack(job.log.entries(frames))
            end = replace(end, packed=packed, brief=[job.fold.snapshot_frame(), *frames])
        self._writer.finish(job.log, frames, end)

    @staticmethod
    def _fail(job: Job, error: ServiceError) -> None:
        fold = job.fold
        if fold.status == "completed" and fold.error is None:
            return  # all of the answer is here; what failed came after it
        fold.error = error  # type: ignore[assignment]  # what ends a chat need not come from Coze
        fold.status = "failed"

    # -- the answer ------------------------------------------------------------------------------------

    async def _answer(self, job: Job) -> None:
        """Leaves the outcome in ``job.fold``; raises ``UpstreamError`` where there is none."""
        try:
            async with self._coze.chat_deadline(self._chat_timeout):
                if isinstance(job.start, GiveUp):
                    raise job.start.error
                repaired = await self._ask_and_repair(job, ask=not job.at_coze)
                for _ in range(_SUBMIT_AGAIN):
                    if not repaired or not job.waits_for_what_it_has:
                        break
                    # They never reached Coze: their call broke, or the owner who had them died before it.
                    job.fold.reopen()
                    repaired = await self._ask_and_repair(job, ask=True)
        except CozeTimeout as error:
            if not error.maybe_started:
                raise
            if not _is_over(job):
                job.timed_out = True
                raise

    async def _ask_and_repair(self, job: Job, *, ask: bool) -> bool:
        """Whether the outcome is what Coze has stored, since no stream brought it."""
        cause: UpstreamError | None = None
        try:
            if ask:
                await self._ask(job)
        except UpstreamError as error:
            if not error.maybe_started and (not job.ids_known or job.tool_outputs is not None):
                raise
            cause = error
        if _is_over(job):
            await self._look_for_an_answer(job)
            return False
        await self._repair(job, cause)
        return True

    async def _look_for_an_answer(self, job: Job) -> None:
        """Of a chat whose stream brought its end and no answer at all: what Coze has stored counts."""
        fold, coze = job.fold, self._coze_of(job)
        conversation, chat_id = fold.conversation_id, fold.coze_chat_id
        if fold.status != "completed" or fold.error or fold.answers() or not job.session.auto_save_history:
            return
        if not conversation or not chat_id:
            return
        try:
            chat = await coze.retrieve_chat(conversation, chat_id)
            messages = await coze.list_messages(conversation, chat_id)
        except UpstreamError as error:
            logger.warning("chat {} has no answer in its stream: {}", job.chat.chat_id, error.message)
            return
        said = any(each.type == "answer" and (each.content or each.reasoning_content) for each in messages)
        if said and chat.status == "completed":
            logger.warning("chat {} has no answer in its stream, but one is stored", job.chat.chat_id)
            self._writer.append(job.log, fold.adopt(messages, chat))
            job.chat.recovered = True

    def _coze_of(self, job: Job) -> CozeClient:
        """The client for this chat: a conversation belongs to the credential that made it."""
        if job.coze is None:
            job.coze = self._coze.using(job.credential, job.session.owner)
        return job.coze

    async def _ask(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _BUSY_SECONDS
        job.at_coze, job.trim_at = True, self._max_log_bytes
        pause, last = _BUSY_PAUSE, False
        while True:
            try:
                if job.tool_outputs is not None or self._use_stream or not job.keeps_history:
                    await self._stream(job)
                else:
                    chat = await self._coze_of(job).create_chat(self._request(job))
                    await self._adopt_and_poll(job, chat)
            except CozeBusy as error:
                left = give_up - loop.time()
                if job.ids_known or error.coze_code is None or last or left <= 0:
                    raise
                # Whoever has no retries left waits for the end: a cancelled chat has gone by then, too.
                last = not self._coze_of(job).may_ask_again() or left <= pause
                self._metrics.retries.inc()
                await asyncio.sleep(left if last else pause)
                pause = min(2 * pause, _LONGEST_BUSY_PAUSE)
            else:
                return

    async def _stream(self, job: Job) -> None:
        async with self._open_stream(job) as stream:
            job.fold.logid = stream.logid
            if stream.chat is not None:
                await self._adopt_and_poll(job, stream.chat)
                return
            stream.take = partial(self._fold, job)
            async for events in stream:
                if not self._fold(job, stream, events):
                    break
            await stream.finish()

    def _fold(self, job: Job, stream: CozeStream, events: list[SSEEvent]) -> bool:
        """False: nothing that may still come changes the outcome."""
        fold, log = job.fold, job.log
        if frames := fold.feed_all(events):
            self._writer.append(log, frames)
        if job.first_delta is None and any(event.name == DELTA for event in events):
            job.first_delta = time.perf_counter() - job.begun
        if not job.ids_known and fold.coze_chat_id:
            self._learn(job)
        if log.size > job.trim_at:
            self._trim(job)
        if fold.status in ENDED:
            stream.idle_timeout = _AFTER_END_SECONDS
        return not fold.settled

    def _request(self, job: Job) -> ChatRequest:
        """What is POSTed to Coze. The session's opening messages go along until Coze has them.

        Coze remembers things per user: the same user id of two roots must not be one user there, nor that of
        two persons where the setting says so.
        """
        session, prompt = job.session, job.prompt
        if prompt.passed is not None:
            return self._passed_on(job, prompt)
        opening = msgspec.convert(session.opening_messages, list[EnterMessage])
        return ChatRequest(
            bot_id=session.bot_id,
            user_id=self._user_at_coze(session.owner, session.user_id),
            messages=[*opening, *prompt.messages],
            conversation_id=session.conversation_id,
            auto_save_history=session.auto_save_history,
            custom_variables=prompt.custom_variables,
            meta_data={**prompt.meta_data, OUR_META_KEY: job.chat.chat_id},
            parameters=prompt.parameters,
        )

    def _passed_on(self, job: Job, prompt: Prompt) -> ChatRequest:
        """A body of Coze's own API, unread but for whom and what it names."""
        user_id, meta = str(prompt.field("user_id") or ""), prompt.field("meta_data")
        passed: dict[str, object] = {**(prompt.passed or {}), "user_id": user_id}
        if user_id:
            passed["user_id"] = self._user_at_coze(job.session.owner, user_id)
        if meta is None or (isinstance(meta, dict) and len(meta) < _MOST_META):
            passed["meta_data"] = {**(meta or {}), OUR_META_KEY: job.chat.chat_id}
        return ChatRequest(
            bot_id=job.session.bot_id,
            user_id=user_id,
            messages=[],
            conversation_id=job.session.conversation_id,
            auto_save_history=job.keeps_history,
            passed=passed,
        )

    def _open_stream(self, job: Job) -> AbstractAsyncContextManager[CozeStream]:
        if job.tool_outputs is None:
            return self._coze_of(job).stream_chat(self._request(job))
        fold = job.fold
        return self._coze_of(job).stream_tool_outputs(
            fold.conversation_id or "", fold.coze_chat_id or "", job.tool_outputs
        )

    def _trim(self, job: Job) -> None:
        """A long log gives way to a snapshot of the answer so far."""
        snapshot = job.fold.snapshot_frame()
        job.trim_at = max(self._max_log_bytes, 2 * len(snapshot))
        self._writer.snapshot(job.log, snapshot)

    async def _adopt_and_poll(self, job: Job, chat: ChatState) -> None:
        """Of a chat that Coze has made without streaming it."""
        job.fold.coze_chat_id, job.fold.conversation_id = chat.id, chat.conversation_id
        job.fold.logid = chat.logid or job.fold.logid
        self._learn(job)
        await self._poll(job)

    def _learn(self, job: Job) -> None:
        """Coze's ids are known now: whoever has to take the chat over must find them in Redis."""
        job.ids_known = True
        job.changed.notify()
        self._writer.commit_ids(
            job.log,
            job.fold.coze_chat_id or "",
            job.fold.conversation_id or "",
            self._coze_of(job).credential,
        )

    async def _poll(self, job: Job) -> bool:
        """Waits for the chat's end at Coze and takes over what Coze has stored. False: that has no answer yet
        (``Fold.lacks_answer``), and nothing is over."""
        fold = job.fold
        conversation, chat_id = fold.conversation_id or "", fold.coze_chat_id or ""
        chat = await self._coze_of(job).poll_chat(conversation, chat_id)
        messages = []
        if chat.status in ("completed", "canceled"):
            messages = await self._coze_of(job).stored_answer(conversation, chat_id)
        fold.logid = chat.logid or fold.logid
        if fold.lacks_answer(messages, chat):
            fold.usage = chat.usage or fold.usage  # it is paid for, whether the answer is found or not
            return False
        self._writer.append(job.log, fold.adopt(messages, chat))
        return True

    # -- repair ----------------------------------------------------------------------------------------

    async def _repair(self, job: Job, cause: UpstreamError | None) -> None:
        """A stream that ended without a terminal event is a cut stream: Coze's stored answer decides.

        Goes on until the chat's deadline: only when Coze itself has failed does the chat fail. What Coze does
        not know, chat or answer, is asked for a few times more, since it may not be stored yet.
        """
        if not job.keeps_history:
            raise cause or CozeApiError(
                "The stream from Coze was cut, and with auto_save_history=false Coze keeps no answer",
                logid=job.fold.logid,
                retryable=True,
            )
        why = cause.message if cause is not None else "taken over" if job.start.at_coze else "no end"
        logger.warning("repairing chat {}: {}", job.chat.chat_id, why)
        not_there = 0
        for attempt in itertools.count():
            try:
                if not job.ids_known and not await self._find(job):
                    break
                if await self._poll(job):
                    job.chat.recovered = True
                    return
                reason: UpstreamError = CozeApiError(
                    "Coze has completed this chat and shows no answer, and what was streamed may not be all",
                    logid=job.fold.logid,
                )
            except UpstreamError as error:
                if not error.retryable and error.coze_code not in NOT_FOUND:
                    raise
                reason = error
            if not reason.retryable:  # Coze answers, and does not have it
                not_there += 1
                if not_there > _SEARCH_TRIES:
                    raise reason
            await asyncio.sleep(_REPAIR_PAUSE[min(attempt, len(_REPAIR_PAUSE) - 1)])
        # Where no conversation is known there is nowhere to look: it may have begun, and may be paid for.
        raise cause or CozeApiError(
            "Coze has told nothing of this chat",
            logid=job.fold.logid,
            retryable=job.conversation_id is not None,
        )

    async def _find(self, job: Job) -> bool:
        """Looks for a chat at Coze whose id never reached us, by our own id in its ``meta_data``.

        False where Coze has said, several times, that there is none, and at once where no conversation is
        known in which to look. While Coze cannot be asked it raises ``UpstreamError``.
        """
        conversation = job.conversation_id
        for attempt in range(_SEARCH_TRIES if conversation else 0):
            if attempt:
                await asyncio.sleep(1.0)
            found = await self._coze_of(job).find_chat(
                conversation or "",
                meta_key=OUR_META_KEY,
                meta_value=job.chat.chat_id,
                created_after=job.created_at - _CLOCK_MARGIN,
            )
            if found is not None:
                job.fold.coze_chat_id, job.fold.conversation_id = found.id, conversation
                self._learn(job)
                return True
        return False

    # -- cancelling --------------------------------------------------------------------------------------

    async def _cancel(self, job: Job) -> None:
        """Ends the chat as cancelled, unless Coze had finished it before: then its answer counts."""
        fold = job.fold
        if _is_over(job):
            return
        if not job.at_coze:  # it has nothing to cancel, or what waits for tool outputs, which it cannot
            fold.status = "canceled"
            return
        if await self.cancel_at_coze(job) == "completed":
            with contextlib.suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(_CANCEL_SECONDS):
                    if await self._poll(job):
                        job.chat.recovered = True
                        return
        fold.status, fold.error, fold.final_data = "canceled", None, None

    async def cancel_at_coze(self, job: Job) -> str:
        """Best effort within a few seconds; returns Coze's status of the chat, "" where it is unknown."""
        fold = job.fold
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                if not job.ids_known and not await self._find(job):
                    return ""
                chat = await self._coze_of(job).cancel_chat(
                    fold.conversation_id or "", fold.coze_chat_id or ""
                )
        except (UpstreamError, TimeoutError) as error:
            logger.warning("chat {} was not cancelled at Coze: {}", job.chat.chat_id, type(error).__name__)
            return ""
        fold.usage = chat.usage or fold.usage
        return chat.status


def _is_over(job: Job) -> bool:
    return job.fold.error is not None or job.fold.status in ENDED
