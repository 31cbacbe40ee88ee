"""The operations that routes offer, in terms of the stores and of the chats that run in this process."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from loguru import logger

from app.coze import CozeClient
from app.exceptions import RedisUnavailable, ServiceError, SessionNotFound, ShuttingDown, ValidationFailed
from app.models import (
    TERMINAL_STATUSES,
    Chat,
    CreateSession,
    Cursor,
    Identity,
    SendMessage,
    UserMessage,
)
from app.stores.chats import ChatStore, NewChat, status_of
from app.stores.event_log import LogWriter, NextChat
from app.stores.sessions import SessionRecord, SessionStore
from app.tasks.feed import LocalFeed
from app.tasks.frames import chat_frame
from app.tasks.job import Job, make_job
from app.tasks.runner import Runner
from app.utils import is_session_id, iso, new_chat_id, new_session_id

_POLL_ELSEWHERE: Final = 0.5
_OPENING_WAIT: Final = 5.0
_CANCEL_WAIT: Final = 6.0
_SETTLED_STATUSES: Final = TERMINAL_STATUSES | {"requires_action"}


@dataclass(frozen=True, slots=True)
class TaskOptions:
    default_bot_id: str
    max_message_length: int
    drain_seconds: float


class TaskService:
    """Sessions and chats. A task owns each upstream; a request only reads."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        chats: ChatStore,
        writer: LogWriter,
        coze: CozeClient,
        runner: Runner,
        options: TaskOptions,
    ) -> None:
        self._sessions = sessions
        self._chats = chats
        self._writer = writer
        self._coze = coze
        self._runner = runner
        self._options = options
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._conversations: dict[str, asyncio.Task[None]] = {}
        self.draining = asyncio.Event()
        """Set when this process is about to end; open streams watch it."""

    # -- sessions ----------------------------------------------------------------------------------------

    async def create_session(self, identity: Identity, body: CreateSession) -> dict[str, Any]:
        self._refuse_while_draining()
        session_id = new_session_id()
        messages = [m.model_dump(exclude_none=True) for m in body.additional_messages or []]
        session = await self._sessions.open(
            session_id,
            identity,
            user_id=body.user_id,
            bot_id=body.bot_id or self._options.default_bot_id,
            auto_save_history=body.auto_save_history,
            additional_messages=messages,
            metadata=body.meta_data or {},
        )
        if body.auto_save_history:
            task = self._spawn(self._open_conversation(session), f"conversation:{session_id}")
            self._conversations[session_id] = task
            task.add_done_callback(lambda _: self._conversations.pop(session_id, None))
        return session.view(self._sessions.limits)

    async def _open_conversation(self, session: SessionRecord) -> None:
        """Best effort: without it, Coze makes a conversation with the first chat."""
        try:
            conversation = await self._coze.create_conversation(bot_id=session.bot_id)
            await self._sessions.set_conversation(session.session_id, conversation)
        except ServiceError as error:
            logger.info("no conversation for {} yet: {}", session.session_id, error.code)

    async def get_session(self, identity: Identity, session_id: str, history: int) -> dict[str, Any]:
        session, records, index_due = await self._sessions.read(session_id, identity, history=history)
        if index_due:
            self._spawn(self._keep_indexed(session), f"index:{session_id}")
        return session.view(self._sessions.limits, records)

    async def _keep_indexed(self, session: SessionRecord) -> None:
        with contextlib.suppress(ServiceError):
            await self._sessions.keep_indexed(session)

    async def list_chats(
        self, identity: Identity, session_id: str, *, limit: int, before: str
    ) -> tuple[list[bytes], bool]:
        return await self._sessions.page(session_id, identity, limit=limit, before=before)

    async def end_session(self, identity: Identity, session_id: str) -> dict[str, Any]:
        """Terminates the session; a chat that runs in it is cancelled first, at Coze too."""
        ended = await self._sessions.end(session_id, identity)
        if ended.running is not None:
            await self._cancel_here(ended.running)
        return ended.session.view(self._sessions.limits)

    # -- chats -------------------------------------------------------------------------------------------

    async def send(self, identity: Identity, session_id: str, body: SendMessage, request_id: str) -> str:
        """Creates the chat and starts it; returns its id."""
        self._refuse_while_draining()
        self._check_length(body.message)
        # Our own background call: the first message goes to the conversation that is being made.
        if (opening := self._conversations.get(session_id)) is not None:
            await asyncio.wait({opening}, timeout=_OPENING_WAIT)
        new = self._new_chat(session_id, body)
        created = await self._chats.create(new, identity)
        run = [b"epoch", b"1", b"request", new.request]
        self._start(make_job(created.session, new.record, run, new.first_frame, request_id))
        return created.chat_id

    def _check_length(self, message: str) -> None:
        limit = self._options.max_message_length
        if len(message) > limit:
            fault = {"field": "message", "message": f"at most {limit} characters, {len(message)} given"}
            raise ValidationFailed("The message is too long", details={"fields": [fault]})

    @staticmethod
    def _new_chat(session_id: str, body: SendMessage) -> NewChat:
        if not is_session_id(session_id):
            raise SessionNotFound
        moment, chat_id = iso(), new_chat_id(session_id)
        metadata = body.meta_data or {}
        chat = Chat(
            chat_id=chat_id,
            session_id=session_id,
            status="processing",
            user_message=UserMessage(
                content=body.message, timestamp=moment, message_id=f"msg_{chat_id[-20:]}", metadata=metadata
            ),
            created_at=moment,
            updated_at=moment,
        )
        request = body.model_dump_json(exclude={"stream"}, exclude_none=True).encode()
        return NewChat(chat_id, session_id, chat.model_dump_json().encode(), chat_frame(chat), request)

    def _start(self, job: Job) -> None:
        self._jobs[job.chat.chat_id] = job
        self._spawn(self._supervise(job), f"chat:{job.chat.chat_id}")

    async def _supervise(self, job: Job) -> None:
        """Runs the chat, stays until its end is in Redis, then starts what that took from the queue."""
        try:
            with logger.contextualize(chat_id=job.chat.chat_id, session_id=job.chat.session_id):
                await self._runner.run(job)
                logger.info("chat {}: {}", job.chat.status, job.chat.chat_id)
                await job.log.settled.wait()
                await self._until_written(job)
        finally:
            self._jobs.pop(job.chat.chat_id, None)
        if (following := job.log.next_chat) is not None:
            self._start_next(following)

    @staticmethod
    async def _until_written(job: Job) -> None:
        bell = asyncio.Event()
        job.log.wakers.add(bell)
        try:
            while job.log.state == "unsaved":
                await bell.wait()
                bell.clear()
        finally:
            job.log.wakers.discard(bell)

    def _start_next(self, following: NextChat) -> None:
        logger.debug("next in the queue: {}", following.chat_id)

    async def result(self, identity: Identity, chat_id: str, wait: float) -> bytes:
        """The chat's JSON as it stands, or as soon as it is over, or after ``wait`` seconds."""
        record = await self._chats.record(chat_id, identity)
        if wait <= 0 or status_of(record) in _SETTLED_STATUSES:
            return record
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while status_of(record) not in _SETTLED_STATUSES:
                    await self._next_news(chat_id)
                    record = await self._chats.record(chat_id, identity)
        return record

    async def _next_news(self, chat_id: str) -> None:
        job = self._jobs.get(chat_id)
        if job is None:
            await asyncio.sleep(_POLL_ELSEWHERE)
            return
        await job.log.settled.wait()
        if job.log.state == "unsaved":
            raise RedisUnavailable

    async def answer(self, identity: Identity, chat_id: str, wait: float) -> bytes:
        """Like ``result`` for the caller who has just created the chat; knows unsaved ends, too."""
        job = self._jobs.get(chat_id)
        if job is not None and wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await job.log.settled.wait()
        if job is not None and job.log.end is not None and job.log.settled.is_set():
            return job.log.end.record
        return await self._chats.record(chat_id, identity)

    def follow(self, chat_id: str, after: Cursor) -> LocalFeed:
        """A reader of a chat that runs here."""
        return LocalFeed(self._jobs[chat_id].log, after)

    async def _cancel_here(self, chat_id: str) -> bool:
        """Cancels a chat that runs in this process and waits until its end is settled."""
        job = self._jobs.get(chat_id)
        if job is None:
            return False
        job.cancelled.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_WAIT):
                await job.log.settled.wait()
        return True

    # -- the process -------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A named task that is kept, so that it is neither lost nor its exception silent."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._collect)
        return task

    def _collect(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("task {} broke", task.get_name())

    def _refuse_while_draining(self) -> None:
        if self.draining.is_set():
            raise ShuttingDown

    @property
    def running(self) -> int:
        return len(self._jobs)

    async def drain(self) -> None:
        """Running chats get ``drain_seconds``; what is left ends as failed, and may be tried again."""
        self.draining.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_seconds):
                while self._jobs:
                    await asyncio.wait(
                        {asyncio.ensure_future(j.log.settled.wait()) for j in self._jobs.values()}
                    )
                    await asyncio.sleep(0)
        await self.stop()

    async def stop(self) -> None:
        """Cancels and awaits every task."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
