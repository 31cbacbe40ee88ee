"""The operations that routes offer, in terms of the stores and of the chats that run in this process."""

import asyncio
import contextlib
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson

from app.coze import CozeClient
from app.exceptions import (
    ChatState,
    Overloaded,
    RedisUnavailable,
    ServiceError,
    SessionExpired,
    ShuttingDown,
    ValidationFailed,
)
from app.models import (
    SETTLED_STATUSES,
    TERMINAL_STATUSES,
    Chat,
    CreateSession,
    Cursor,
    Identity,
    SendMessage,
    SubmitToolOutputs,
)
from app.signals import Signal, first_of
from app.stores.chats import ChatStore, status_of
from app.stores.conversations import ConversationStore
from app.stores.event_log import LogWriter
from app.stores.leases import LeaseStore, ToolOutputs
from app.stores.log_reader import LogReader
from app.stores.rates import RateStore
from app.stores.sessions import IdempotencyKey, SessionRecord, SessionStore
from app.stores.usage import UsageStore
from app.tasks.attachments import Attachments
from app.tasks.drafts import idempotency_of, new_chat, tool_call_ids
from app.tasks.feed import ChatFeed, RemoteFeed
from app.tasks.job import Job, new_job
from app.tasks.opening import SessionOpener
from app.tasks.running import RunningChats

_POLL_ELSEWHERE: Final = 0.2
_OWNER_ANSWERS_WITHIN, _CANCEL_WAIT = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class TaskOptions:
    default_bot_id: str
    max_message_length: int
    max_queued: int
    max_running: int
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class Started:
    """A chat to follow, and from where. ``said``: how many characters of content and of reasoning it had
    before the tool outputs with which it goes on."""

    chat_id: str
    after: Cursor
    said: tuple[int, int] | None = None


class TaskService:
    """Sessions and chats. A task owns each upstream; a request only reads."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        chats: ChatStore,
        rates: RateStore,
        usage: UsageStore,
        conversations: ConversationStore,
        attachments: Attachments,
        leases: LeaseStore,
        reader: LogReader,
        writer: LogWriter,
        running: RunningChats,
        coze: CozeClient,
        options: TaskOptions,
    ) -> None:
        self._sessions = sessions
        self._chats = chats
        self._rates = rates
        self._usage = usage
        self._conversations = conversations
        self._attachments = attachments
        self._leases = leases
        self._reader = reader
        self._writer = writer
        self._running = running
        self._options = options
        self._arriving = 0
        self._opener = SessionOpener(
            sessions=sessions,
            conversations=conversations,
            rates=rates,
            running=running,
            coze=coze,
            default_bot_id=options.default_bot_id,
        )
        self.draining = asyncio.Event()
        """Set when this process is about to end: nothing new is begun."""
        self.farewell = Signal()
        """Set when open streams have to go."""
        self._hurry = Signal()

    # -- sessions ----------------------------------------------------------------------------------------

    async def create_session(
        self, identity: Identity, body: CreateSession, idempotency_key: str | None
    ) -> dict[str, Any]:
        self._refuse_while_draining()
        return self.view(await self._opener.open(identity, body, idempotency_key))

    async def get_session(self, identity: Identity, session_id: str, history: int) -> dict[str, Any]:
        session, records, index_due = await self._sessions.read(session_id, identity, history=history)
        if index_due:
            self._running.spawn(self._running.keep_indexed(session), f"index:{session_id}")
        await self._keep_conversation(session)
        return session.view(self._sessions.limits, records)

    async def _keep_conversation(self, session: SessionRecord) -> None:
        """Whoever is shown a conversation's id can come back with it, even if its chat's process died."""
        if session.conversation_id is not None and self._conversations.is_due(session):
            with contextlib.suppress(ServiceError):
                await self._conversations.keep_of(session, session.conversation_id, session.credential)

    async def list_chats(
        self, identity: Identity, session_id: str, *, limit: int, before: str
    ) -> tuple[list[bytes], bool]:
        return await self._sessions.page(session_id, identity, limit=limit, before=before)

    async def end_session(self, identity: Identity, session_id: str) -> dict[str, Any]:
        """Terminates the session; what runs or waits in it is cancelled, at Coze too."""
        ended = await self._sessions.end(session_id, identity)
        open_chats = [*ended.queued, *([ended.running] if ended.running else [])]
        await asyncio.gather(*(self._cancel(chat_id, session_id) for chat_id in open_chats))
        return ended.session.view(self._sessions.limits)

    async def end_for_erasure(self, identity: Identity, session_id: str) -> bool:
        """Terminates the session; False while a chat in it is not over yet."""
        try:
            ended = await self._sessions.end(session_id, identity, "erased")
        except SessionExpired:
            return True
        open_chats = [*ended.queued, *([ended.running] if ended.running else [])]
        await asyncio.gather(*(self._cancel(chat_id, session_id) for chat_id in open_chats))
        return not ended.running or await self._ended_within(ended.running, 0.05)

    def view(self, session: SessionRecord) -> dict[str, Any]:
        return session.view(self._sessions.limits)

    # -- sending -----------------------------------------------------------------------------------------

    async def send(
        self,
        identity: Identity,
        session_id: str,
        body: SendMessage,
        *,
        request_id: str,
        idempotency_key: str | IdempotencyKey | None,
        paid: bool = False,
    ) -> Started:
        """Creates the chat and starts it, or puts it into the session's queue. ``paid``: it has its token."""
        self.check(body)
        self._arriving += 1  # a burst must not slip through while each of it waits for Redis
        try:
            if not paid:
                await self._rates.take_message(session_id, identity.may_see)
            return await self._create(identity, session_id, body, request_id, idempotency_key)
        finally:
            self._arriving -= 1

    async def _create(
        self,
        identity: Identity,
        session_id: str,
        body: SendMessage,
        request_id: str,
        idempotency_key: str | IdempotencyKey | None,
    ) -> Started:
        if self._usage.has_quota:
            await self._usage.check_quota(await self._rates.user_of(session_id, identity.may_see))
        await self.opened(session_id)
        files = await self._attachments.of(identity, session_id, body)
        chat, new = new_chat(session_id, body, files)
        if self._chats.away:
            raise RedisUnavailable
        try:
            created = await self._chats.create(
                new,
                identity,
                on_busy=body.on_busy,
                max_queued=self._options.max_queued,
                idempotency=idempotency_of(idempotency_key, body),
            )
        except RedisUnavailable:
            # Redis may have done it and only its answer be lost: then nobody would own the chat.
            abandoned = self._abandon(chat.chat_id, session_id, keyed=idempotency_key is not None)
            self._running.spawn(abandoned, f"abandon:{chat.chat_id}")
            raise
        if created.index_due:
            self._running.spawn(self._running.keep_indexed(created.session), f"index:{session_id}")
        if created.kind == "started":
            self._running.start(new_job(created.session, new, chat, request_id))
        for other in (created.displaced, created.in_the_way if body.on_busy == "interrupt" else None):
            if other is not None:
                self._running.spawn(self._make_way(other, session_id), f"cancel:{other}")
        return Started(created.chat_id, Cursor(0, 0))

    async def opened(self, session_id: str) -> None:
        """Returns once the conversation that is being made for the session here is there."""
        await self._opener.opened(session_id)

    def make_conversation(self, session: SessionRecord) -> None:
        """In the background; the session's first message waits for it."""
        self._opener.begin(session)

    async def _make_way(self, chat_id: str, session_id: str) -> None:
        """Nobody else remembers that this chat is to end: while Redis is away it is tried again."""
        while True:
            try:
                await self._cancel(chat_id, session_id)
                return
            except RedisUnavailable:
                await self._chats.wait_open()

    async def _abandon(self, chat_id: str, session_id: str, *, keyed: bool) -> None:
        """Nobody knows of it, so it is cancelled; but a caller with an Idempotency-Key repeats the call and
        is then led to this very chat, so it is begun (and if it was queued, it stays in the queue)."""
        await self._chats.wait_open()
        with contextlib.suppress(ServiceError):
            if keyed:
                job = await self._running.take_over(
                    chat_id, session_id, epoch=1, force=True, expect="started"
                )
                if job is not None:
                    job.taken_over = False  # only we could have sent it, and we have not
                return
            job = await self._running.take_over(chat_id, session_id, force=True)
            if job is not None:
                job.cancelled.set()

    def check(self, body: SendMessage) -> None:
        """Refuses what can be refused before anything is written."""
        self._refuse_while_draining()
        self._check_length(body.message)
        if self.running + self._arriving >= self._options.max_running:
            raise Overloaded(f"This process runs {self._options.max_running} chats already")

    def _check_length(self, message: str) -> None:
        limit = self._options.max_message_length
        if len(message) > limit:
            fault = {"field": "message", "message": f"at most {limit} characters, {len(message)} given"}
            raise ValidationFailed("The message is too long", details={"fields": [fault]})

    async def submit_tool_outputs(
        self,
        identity: Identity,
        chat_id: str,
        body: SubmitToolOutputs,
        request_id: str,
        idempotency_key: str | None = None,
    ) -> Started:
        """The chat goes on under its id, in its next epoch. Of two submissions one wins; whoever repeats one
        with its Idempotency-Key is led to what that began."""
        self._refuse_while_draining()
        chat = Chat.model_validate_json(await self._chats.record(chat_id, identity))
        key = idempotency_of(idempotency_key, body)
        if key is not None and (before := await self._chats.continuation(chat_id, chat.session_id, key)):
            return Started(chat_id, Cursor(before.epoch, 0), before.said)
        self._check_outputs(chat, body)
        said = len(chat.content), len(chat.reasoning_content)
        outputs = ToolOutputs(orjson.dumps([output.model_dump() for output in body.tool_outputs]), said, key)
        with self._running.claiming():
            claim = await self._leases.claim(
                chat_id, chat.session_id, epoch=None, force=True, expect="waiting", outputs=outputs
            )
            if claim is not None:
                await self._running.start_claimed(claim, request_id=request_id)
                return Started(chat_id, Cursor(claim.epoch, 0), said)
        if key is not None and (before := await self._chats.continuation(chat_id, chat.session_id, key)):
            return Started(chat_id, Cursor(before.epoch, 0), before.said)
        raise ChatState("Tool outputs have been submitted already")

    @staticmethod
    def _check_outputs(chat: Chat, body: SubmitToolOutputs) -> None:
        asked = tool_call_ids(chat.required_action)
        given = [output.tool_call_id for output in body.tool_outputs]
        if chat.status != "requires_action" or not asked:
            raise ChatState("The chat does not ask for tool outputs", details={"status": chat.status})
        if sorted(given) != sorted(asked):
            raise ChatState(
                "All of the chat's tool calls have to be answered in one call",
                details={"tool_call_ids": asked},
            )

    # -- reading -----------------------------------------------------------------------------------------

    async def result(self, identity: Identity, chat_id: str, wait: float) -> bytes:
        """The chat's JSON as it stands, or as soon as it is over, or after ``wait`` seconds."""
        record = await self._chats.record(chat_id, identity)
        if wait <= 0 or status_of(record) in SETTLED_STATUSES:
            return record
        return await self.answer(identity, chat_id, wait)

    async def answer(self, identity: Identity, chat_id: str, wait: float) -> bytes:
        """Waits for a chat of this or another process; knows an end that Redis does not have yet, too."""
        record: bytes | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(wait, 0.001)):
                while not self.farewell.is_set():
                    job = self._running.get(chat_id)
                    if job is not None:
                        await first_of(job.log.settled, self.farewell)
                        if job.log.end is not None and job.log.state != "fenced" and job.log.settled.is_set():
                            return job.log.end.record
                    record = await self._chats.record(chat_id, identity)
                    if status_of(record) in SETTLED_STATUSES:
                        return record
                    await asyncio.sleep(_POLL_ELSEWHERE)
        return record or await self._chats.record(chat_id, identity)

    async def follow(self, identity: Identity, chat_id: str, after: Cursor) -> ChatFeed:
        """A reader from just behind ``after``; raises where there is no such chat or place."""
        record = await self._chats.record(chat_id, identity)
        job = self._running.get(chat_id)
        epoch = job.log.epoch if job is not None else 0
        if after.epoch > epoch:
            # Not ours, or not any more: a process that was taken for dead may not know it yet.
            epoch = (await self._leases.run_ids(chat_id))[0]
        if epoch == 0:
            last = Cursor.parse(orjson.loads(record)["metadata"].get("last_event_id", "")) or Cursor(1, 0)
            epoch = last.epoch
        if after.epoch > epoch:
            fault = {"field": "Last-Event-ID", "message": "names an epoch that the chat has not reached"}
            raise ValidationFailed(details={"fields": [fault]})
        return self.feed(identity, Started(chat_id, after))

    def feed(self, identity: Identity, started: Started) -> ChatFeed:
        """A reader of a chat that the caller has just started."""
        chat_id, after = started.chat_id, started.after
        job = self._running.get(chat_id)
        ours = job is not None and job.log.state != "fenced" and after.epoch <= job.log.epoch

        def remote(place: Cursor, bell: asyncio.Event) -> RemoteFeed:
            record = partial(self._chats.record, chat_id, identity)
            return RemoteFeed(chat_id, self._reader, record, place, bell)

        return ChatFeed(job.log if job is not None and ours else None, remote, after)

    # -- cancelling --------------------------------------------------------------------------------------

    async def cancel(self, identity: Identity, chat_id: str) -> bytes:
        """Cancels here and at Coze; a chat that is over answers as it is."""
        record = await self._chats.record(chat_id, identity)
        if status_of(record) in TERMINAL_STATUSES:
            return record
        job = await self._cancel(chat_id, orjson.loads(record)["session_id"])
        if job is not None and job.log.end is not None and job.log.state != "fenced":
            return job.log.end.record
        return await self._chats.record(chat_id, identity)

    def let_go(self, identity: Identity, chat_id: str) -> None:
        """Its one reader has left for good: cancelled in the background, unless this process leaves, too."""
        if not self.draining.is_set():
            self._running.spawn(self._let_go(identity, chat_id), f"cancel:{chat_id}")

    async def _let_go(self, identity: Identity, chat_id: str) -> None:
        with contextlib.suppress(ServiceError):
            record = await self._chats.record(chat_id, identity)
            await self._make_way(chat_id, orjson.loads(record)["session_id"])

    async def _cancel(self, chat_id: str, session_id: str) -> Job | None:
        """Wherever the chat is: running here or elsewhere, queued, or waiting for tool outputs."""
        job = self._running.get(chat_id)
        if job is None:
            ticket = await self._leases.cancel(chat_id, session_id)
            if ticket.state == "gone":
                return None
            if ticket.state == "started":
                if ticket.process:
                    await self._leases.ring(ticket.process, chat_id)
                if await self._ended_within(chat_id, _OWNER_ANSWERS_WITHIN):
                    return None
                job = await self._running.take_over(chat_id, session_id, force=True)
            else:
                job = await self._running.take_over(chat_id, session_id, force=True, expect=ticket.state)
        if job is None:
            await self._ended_within(chat_id, _CANCEL_WAIT)
            return None
        job.cancelled.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_WAIT):
                await job.log.settled.wait()
        return job

    async def _ended_within(self, chat_id: str, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self._leases.run_ids(chat_id))[0]:  # noqa: ASYNC110  # another process' event
                    await asyncio.sleep(0.03)
                return True
        return False

    # -- the process -------------------------------------------------------------------------------------

    def _refuse_while_draining(self) -> None:
        if self.draining.is_set():
            raise ShuttingDown

    @property
    def running(self) -> int:
        return len(self._running)

    async def queued(self) -> float:
        """Messages that wait in queues, of all replicas; NaN while Redis is away."""
        try:
            return await self._leases.queued()
        except (RedisUnavailable, Overloaded):
            return math.nan

    async def drain(self) -> None:
        """Running chats get ``drain_seconds``; what is left is handed over, and open streams say goodbye.

        Called a second time, it does not wait for them.
        """
        if self.draining.is_set():  # asked again: whoever does so is in a hurry
            self._hurry.set()
            await self.farewell.wait()
            return
        self.draining.set()
        self._writer.draining = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.drain_seconds):
                    await first_of(self._running.idle, self._hurry)
            await self._running.hand_over()
        finally:
            self.farewell.set()  # or whoever asked again would wait for ever
