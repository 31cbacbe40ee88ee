"""Chats: begun, gone on with, read, answered and cancelled."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson
from attrs import define, frozen

from app.exceptions import ChatState, Overloaded, RedisUnavailable, ServiceError, wrong_field
from app.models import Cursor, Identity
from app.models.bodies import CreateSession, Regenerate, SendMessage
from app.models.chats import SETTLED_STATUSES, TERMINAL_STATUSES, Chat
from app.stores.chats import ANY_CHAT, BusyPolicy, ChatStore, status_of
from app.stores.index import user_key
from app.stores.leases import LeaseStore, SubmittedOutputs
from app.stores.log_reader import LogReader
from app.stores.open_log import OpenLog
from app.stores.rates import Payer, RateStore
from app.stores.sessions import IdempotencyKey
from app.stores.usage import UsageStore
from app.tasks.drafts import NO_NOTES, Draft, Drafts, bytes_of, carries_files
from app.tasks.frames import tool_call_ids
from app.tasks.job import Fresh
from app.tasks.outputs import Outputs
from app.tasks.places import Place, Places
from app.tasks.reader import Ending, Reader
from app.tasks.running import RunningChats
from app.tasks.sessions import SessionService, idempotency_of
from app.tasks.shutdown import Shutdown
from app.utils.signals import InterruptWhen

__all__ = ["ANY_CHAT", "ChatService", "Sending", "Started"]

_SHORTEST_WAIT: Final = 0.001
_AGAIN_SECONDS: Final = 0.05
_ASKED_AGAIN: Final = {"file_id", "file_url", "type"}
"""Of an attachment, what a message says of it."""


@dataclass(frozen=True, slots=True)
class Started:
    """A chat to read, and behind which place. ``said``: how many characters of content and of reasoning it
    had before the tool outputs with which it goes on. ``log``: its log, where it was begun here and not
    queued: who is late to read it, and finds it over, need not ask Redis."""

    chat_id: str
    after: Cursor
    said: tuple[int, int] | None = None
    log: OpenLog | None = None


@frozen(kw_only=True)
class Sending:
    """How a message is sent, beside what it says.

    Attributes:
        request_id: for the log.
        idempotency_key: one that was used before leads to the chat of then.
        max_length: characters of the message, instead of the setting's.
        after: the chat that has to be the session's newest, or ``ANY_CHAT``; only with it a single session
            takes a second chat.
        notes: a door's, for the ``metadata`` of the chat's record.
    """

    request_id: str
    idempotency_key: str | IdempotencyKey | None = None
    max_length: int | None = None
    after: str = ""
    notes: Mapping[str, str] = NO_NOTES


@define(eq=False, repr=False, kw_only=True)
class ChatService:
    """What is done with chats. A task owns each upstream; a request only reads.

    ``streams``: places of whatever keeps a connection for long.
    ``max_length``: characters of a message; ``max_queued``: messages in a session's queue. Where a method
    raises ``ChatNotFound``, the chat may be somebody else's.
    """

    _sessions: SessionService
    _chats: ChatStore
    _rates: RateStore
    _usage: UsageStore
    _drafts: Drafts
    _leases: LeaseStore
    _logs: LogReader
    _running: RunningChats
    _streams: Places
    _shutdown: Shutdown
    _max_length: int
    _max_queued: int

    @property
    def running(self) -> int:
        """How many chats run here."""
        return len(self._running)

    async def queued(self) -> float:
        """Messages that wait in queues, of all replicas; NaN while Redis is away."""
        try:
            return await self._leases.queued()
        except (RedisUnavailable, Overloaded):
            return math.nan

    # -- sending -----------------------------------------------------------------------------------------

    async def send(self, identity: Identity, session_id: str, body: SendMessage, sending: Sending) -> Started:
        """Creates the chat and starts it, or puts it into the session's queue.

        Raises ``ValidationFailed``, ``FileNotFound``, ``IdempotencyKeyReused``, ``SessionNotFound`` and its
        kin, ``NotTheNewest``, ``SessionBusy``, ``ChatExpired``, ``RateLimited``, ``QuotaExceeded``,
        ``Overloaded``, ``ShuttingDown``, ``RedisUnavailable``.
        """
        with self._arrival(identity, body, sending) as place:
            payer = await self._rates.payer_of(session_id, identity.may_see)
            await self.charge(payer, place, bytes_of(body))
            await self._sessions.conversation_made(session_id)
            return await self._create(identity, place, session_id, body, sending)

    async def send_single(
        self,
        identity: Identity,
        who: CreateSession,
        body: SendMessage,
        sending: Sending,
        *,
        lasting: bool = False,
    ) -> Started:
        """A chat without a session of the caller's: it lives in one of its own that nobody has to open, and
        is recorded, taken over, cancelled and erased as any other. Arguments and errors as for ``send``.
        ``lasting``: the caller comes back for this very answer, without an Idempotency-Key, too.

        It takes a message's token, and only what got one writes anything.
        """
        with self._arrival(identity, body, sending) as place:
            payer = Payer(identity.owner, user_key(identity.owner, who.user_id))
            await self.charge(payer, place, bytes_of(body))
            key = idempotency_of(sending.idempotency_key, body)
            session_id = await self._sessions.create_single(
                identity, who, key, carries_files=carries_files(body), lasting=lasting
            )
            return await self._create(identity, place, session_id, body, sending)

    async def charge(self, payer: Payer, place: Place, size: int) -> None:
        """Takes what a message of so many bytes costs; until ``place`` is given back it counts as a chat that
        runs. Raises ``RateLimited``, ``QuotaExceeded``."""
        await self._rates.take("messages", *payer)
        place.also(await self._usage.charge(*payer, size))

    async def refuse_if_spent(self, identity: Identity, user_id: str | None) -> None:
        """Where a message has to be worked on before it is known whether it is taken: raises ``RateLimited``
        for who could not send it. ``user_id``: whose session it begins; None: it goes into one that there
        is, whose user pays."""
        user = None if user_id is None else user_key(identity.owner, user_id)
        await self._rates.look("messages", identity.owner, user)

    @contextlib.contextmanager
    def _arrival(self, identity: Identity, body: SendMessage, sending: Sending) -> Iterator[Place]:
        """Refuses what can be refused before anything is written. What is let in has a place from then on."""
        self._shutdown.refuse_if_begun()
        max_length = sending.max_length or self._max_length
        if len(body.message) > max_length:
            problem = f"at most {max_length} characters, {len(body.message)} given"
            raise wrong_field("message", problem, "The message is too long")
        with self._running.places.taken(identity.owner) as place:
            yield place

    async def _create(
        self, identity: Identity, place: Place, session_id: str, body: SendMessage, sending: Sending
    ) -> Started:
        draft = await self._drafts.of(identity, session_id, body, sending.notes)
        key = idempotency_of(sending.idempotency_key, body)
        return await self.enter(
            identity, place, draft, sending.request_id, on_busy=body.on_busy, key=key, after=sending.after
        )

    async def enter(
        self,
        identity: Identity,
        place: Place,
        draft: Draft,
        request_id: str,
        *,
        on_busy: BusyPolicy = "reject",
        key: IdempotencyKey | None = None,
        after: str = "",
    ) -> Started:
        """Creates the chat in Redis and starts it, or leaves it in its session's queue."""
        session_id = draft.new.session_id
        place.has(len(draft.new.request))
        if self._chats.away:
            raise RedisUnavailable
        try:
            created = await self._chats.create(
                draft.new,
                identity,
                on_busy=on_busy,
                max_queued=self._max_queued,
                idempotency=key,
                after=after,
            )
        except RedisUnavailable:
            # Redis may have done it and only its answer be lost: then nobody would own the chat.
            chat_id = draft.chat.chat_id
            claim = partial(self._claim_unconfirmed, chat_id, session_id, wanted=key is not None)
            self._in_background(claim, f"claim:{chat_id}")
            raise
        if created.index_due:
            self._running.move_in_indexes(created.session)
        log = None
        if created.kind == "started":
            log = self._running.start_new(created.session, draft, request_id).log
        for other in (created.displaced, created.in_the_way if on_busy == "interrupt" else None):
            if other is not None:
                self._in_background(partial(self._running.cancel, other, session_id), f"cancel:{other}")
        return Started(created.chat_id, Cursor(0, 0), log=log)

    async def _claim_unconfirmed(self, chat_id: str, session_id: str, *, wanted: bool) -> None:
        """Nobody knows of it, so it is cancelled; but a caller with an Idempotency-Key repeats the call and
        is then led to this very chat, so it is begun (and if it was queued, it stays in the queue)."""
        await self._chats.wait_open()
        if wanted:  # only we could have sent it, and we have not
            await self._running.take_over(
                chat_id, session_id, epoch=1, force=True, expect="started", start=Fresh()
            )
        elif (job := await self._running.take_over(chat_id, session_id, force=True)) is not None:
            job.cancel()

    def _in_background(self, step: Callable[[], Awaitable[object]], name: str) -> None:
        """Nobody else remembers that this is to be done: while Redis is away it is tried again."""
        self._running.spawn(self._despite_outages(step), name)

    async def _despite_outages(self, step: Callable[[], Awaitable[object]]) -> None:
        with contextlib.suppress(ServiceError):  # the chat or its session is gone, say
            while True:
                try:
                    await step()
                    return
                except (RedisUnavailable, Overloaded):
                    await asyncio.sleep(_AGAIN_SECONDS)  # it may be that only this command found it away
                    await self._chats.wait_open()

    async def submit_tool_outputs(
        self,
        identity: Identity,
        chat_id: str,
        outputs: Outputs,
        request_id: str,
        notes: Callable[[Chat, int], Mapping[str, str | None]] = lambda _chat, _epoch: NO_NOTES,
    ) -> Started:
        """The chat goes on under its id, in its next epoch. Of two submissions one wins; whoever repeats one
        with its Idempotency-Key is led to what that began. ``notes``: a door's, by the chat as it waits and
        the epoch in which it goes on, for the ``metadata`` of its record; None takes one out of it.

        They cost as much as a message, and take as much of rate and quota. A refusal leaves the chat waiting.

        Raises ``ChatState`` where the chat does not ask for these, ``ChatNotFound``,
        ``IdempotencyKeyReused``, ``RateLimited``, ``QuotaExceeded``, ``Overloaded``, ``ShuttingDown``,
        ``RedisUnavailable``.
        """
        self._shutdown.refuse_if_begun()
        chat = Chat.model_validate_json(await self._chats.record(chat_id, identity))
        key = outputs.key
        if key is not None and (before := await self._chats.continuation(chat_id, chat.session_id, key)):
            return Started(chat_id, Cursor(before.epoch, 0), before.said)
        _check_outputs(chat, outputs)
        payer = await self._rates.payer_of(chat.session_id, identity.may_see)
        said = len(chat.content), len(chat.reasoning_content)
        # Only as it was read: the record that says how it waited is written again with the claim.
        waits = Cursor.parse(chat.metadata.get("last_event_id", "")) or Cursor(1, 0)
        with self._running.places.taken(identity.owner) as place, self._running.claiming():
            place.has(len(outputs.written))
            await self.charge(payer, place, len(outputs.written))
            claim = await self._leases.claim(
                chat_id,
                chat.session_id,
                epoch=waits.epoch,
                force=True,
                expect="waiting",
                outputs=SubmittedOutputs(outputs.written, said, key, notes(chat, waits.epoch + 1)),
            )
            if claim is not None:
                job = await self._running.start_claimed(claim, request_id=request_id)
                return Started(chat_id, Cursor(claim.epoch, 0), said, job.log)
        if key is not None and (before := await self._chats.continuation(chat_id, chat.session_id, key)):
            return Started(chat_id, Cursor(before.epoch, 0), before.said)
        raise ChatState("Tool outputs have been submitted already")

    async def regenerate(
        self,
        identity: Identity,
        chat_id: str,
        body: Regenerate,
        request_id: str,
        idempotency_key: str | None = None,
    ) -> Started:
        """Asks the message of the session's newest chat once more, as a chat of its own; Coze keeps both.

        Raises what ``send`` raises, ``ChatNotFound``, and ``ChatState`` where the chat is not over.
        """
        chat = Chat.model_validate_json(await self._chats.record(chat_id, identity))
        if chat.status not in TERMINAL_STATUSES:
            raise ChatState("The chat is not over yet", details={"status": chat.status})
        message = chat.user_message
        attachments = [each.model_dump(include=_ASKED_AGAIN) for each in message.attachments or ()]
        again = SendMessage.model_validate(
            {
                "message": message.content,
                "attachments": attachments or None,
                "meta_data": message.metadata or None,
                "stream": body.stream,
            }
        )
        again.take_parameters(body)
        sending = Sending(
            request_id=request_id,
            idempotency_key=idempotency_of(idempotency_key, again, "regenerates", chat_id),
            after=chat_id,
            notes={"regenerates": chat_id},
        )
        return await self.send(identity, chat.session_id, again, sending)

    # -- reading -----------------------------------------------------------------------------------------

    async def follow(self, identity: Identity, chat_id: str, after: Cursor) -> Reader | None:
        """A reader from just behind ``after``; None for the id of ``done`` where nothing was added behind it.
        Raises ``ChatNotFound``, and ``ValidationFailed`` where there is no such place."""
        record = await self._chats.record(chat_id, identity)
        if status_of(record) in SETTLED_STATUSES:
            end = Cursor.parse(orjson.loads(record)["metadata"].get("last_event_id", ""))
            if end is not None and after == end.behind:
                return None
        log = self._log_of(Started(chat_id, after))
        epoch = log.epoch if log is not None else 0
        if after.epoch > epoch:
            # Not ours, or not any more: a process that was taken for dead may not know it yet.
            epoch = (await self._leases.run_ids(chat_id))[0]
        if epoch == 0:
            last = Cursor.parse(orjson.loads(record)["metadata"].get("last_event_id", "")) or Cursor(1, 0)
            epoch = last.epoch
        if after.epoch > epoch:
            raise wrong_field("Last-Event-ID", "names an epoch that the chat has not reached")
        return self.read(identity, Started(chat_id, after))

    def read(
        self, identity: Identity, started: Started, *, only_end: bool = False, committed: bool = False
    ) -> Reader:
        """A reader of a chat that the caller may see. ``only_end``: its frames are of no interest.
        ``committed``: only what Redis has, which no death of a process takes back, from its owner, too."""
        chat_id = started.chat_id
        return Reader(
            chat_id,
            started.after,
            local=(lambda: None) if committed else partial(self._log_of, started),
            logs=self._logs,
            record=partial(self._chats.record, chat_id, identity),
            owner=identity.owner,
            only_end=only_end,
        )

    def _log_of(self, started: Started) -> OpenLog | None:
        job, log = self._running.get(started.chat_id), started.log
        if job is not None:
            return job.log
        # One that is open may be somebody else's to write by now.
        return log if log is not None and log.state == "committed" else None

    async def result(self, identity: Identity, chat_id: str, wait: float) -> Ending:
        """The chat as it stands; with ``wait`` (seconds) as soon as it is over or waits for tools. Raises
        ``ChatNotFound``, ``Overloaded`` (see ``LargeReads``), and with ``wait`` what ``answer`` raises."""
        record = await self._chats.record(chat_id, identity)
        if wait <= 0 or status_of(record) in SETTLED_STATUSES:
            return Ending(record)
        return await self.answer(identity, chat_id, wait)

    async def begun(self, identity: Identity, chat_id: str) -> bytes:
        """The record of a chat that the caller has just begun. A refusal would come too late: where too much
        of his is read already, it waits. Raises ``ChatNotFound``, ``RedisUnavailable``."""
        while True:
            try:
                return await self._chats.record(chat_id, identity)
            except Overloaded:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def answer(
        self, identity: Identity, chat_id: str, wait: float, place: Place | None = None
    ) -> Ending:
        """The same for a chat that has just been begun; knows an end that Redis does not have yet, too, and
        does not wait where this process leaves.

        Who waits keeps a connection, as a stream does, and has a place among the open streams. ``place``:
        the one that was taken before the chat was begun, which it should be: a refusal here comes too late.
        Without one, one is taken. Raises ``RateLimited`` and ``Overloaded``.
        """
        with self._streams.taken_if(place is None and wait > 0, identity.owner):
            reader = self.read(identity, Started(chat_id, Cursor(0, 0)), only_end=True)
            leaving = InterruptWhen(lambda: self._shutdown.streams_end, self._shutdown.changed)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(wait, _SHORTEST_WAIT)), leaving:
                        async for found in reader:
                            if isinstance(found, Ending):
                                return found
            finally:
                reader.close()
        return Ending(await self._chats.record(chat_id, identity))

    # -- cancelling --------------------------------------------------------------------------------------

    async def cancel(self, identity: Identity, chat_id: str) -> Ending:
        """Cancels here and at Coze; a chat that is over answers as it is. Raises ``ChatNotFound``."""
        record = await self._chats.record(chat_id, identity)
        if status_of(record) in TERMINAL_STATUSES:
            return Ending(record)
        job = await self._running.cancel(chat_id, orjson.loads(record)["session_id"])
        if job is not None and job.log.end is not None and job.log.state != "fenced":
            return Ending(job.log.end.record, resumable=job.log.state == "committed")
        return Ending(await self._chats.record(chat_id, identity))

    async def forget(self, identity: Identity, chat_id: str, rest_of: Callable[[bytes], bytes]) -> None:
        """See ``ChatStore.forget``."""
        await self._chats.forget(chat_id, identity, rest_of)

    def cancel_in_background(self, identity: Identity, chat_id: str) -> None:
        """Its one reader has left for good. Not where this process leaves, too: then somebody else has it."""
        if not self._shutdown.begun:
            self._in_background(partial(self.cancel, identity, chat_id), f"cancel:{chat_id}")


def _check_outputs(chat: Chat, outputs: Outputs) -> None:
    asked = tool_call_ids(chat.required_action)
    if chat.status != "requires_action" or not asked:
        raise ChatState("The chat does not ask for tool outputs", details={"status": chat.status})
    if sorted(outputs.calls) != sorted(asked):
        raise ChatState(
            "All of the chat's tool calls have to be answered in one call",
            details={"tool_call_ids": asked},
        )
