"""Sessions: begun with a conversation at Coze, read, listed, ended."""

import asyncio
import contextlib
import hashlib
from typing import Final

import orjson
from attrs import define, field
from loguru import logger
from pydantic import BaseModel

from app.coze.client import CozeClient
from app.exceptions import ConversationNotFound, RedisUnavailable, ServiceError, SessionExpired, wrong_field
from app.models import Identity
from app.models.bodies import CreateSession, UpdateSession
from app.stores.conversations import Conversation, ConversationStore
from app.stores.index import user_key
from app.stores.rates import RateStore
from app.stores.sessions import IdempotencyKey, SessionEnd, SessionRecord, SessionStore
from app.tasks.running import RunningChats
from app.tasks.shutdown import Shutdown
from app.utils import age_of, new_id, now_ms

_LOOK_SECONDS: Final = 0.05
_CONVERSATION_SECONDS: Final = 5.0
"""How long a session's first message waits for the conversation that is being made."""
_ENDED_WITHIN: Final = 0.05
_SINGLE: Final = "single"
"""Idempotency-Keys of chats without a session have a scope of their own."""
_NONE: Final = Conversation("", "")


@define(eq=False, repr=False, kw_only=True)
class SessionService:
    """What is done with sessions. ``max_opening_bytes``: of a session's opening messages, which stay in Redis
    for as long as it lives. Raises what ``SessionStore`` raises."""

    _sessions: SessionStore
    _conversations: ConversationStore
    _rates: RateStore
    _running: RunningChats
    _shutdown: Shutdown
    _coze: CozeClient
    _default_bot_id: str
    _max_opening_bytes: int
    _making: dict[str, asyncio.Task[None]] = field(init=False, factory=dict)
    _made: set[str] = field(init=False, factory=set)
    """Sessions with whose conversation this process was done a moment ago: Redis need not be asked."""
    """By session id: the conversation that is being made for it."""

    async def create(
        self, identity: Identity, body: CreateSession, idempotency_key: str | None
    ) -> dict[str, object]:
        """Begins a session, with a new conversation or one that the user has had before.

        Raises ``ConversationNotFound`` where the body names one that this user has not had,
        ``IdempotencyKeyReused``, ``RateLimited``, ``SessionLimitReached``, ``ShuttingDown``,
        ``ValidationFailed``.
        """
        self._shutdown.refuse_if_begun()
        opening = [m.model_dump(exclude_none=True) for m in body.additional_messages or []]
        if len(orjson.dumps(opening)) > (most := self._max_opening_bytes):
            problem = f"opening messages have at most {most} bytes together (COZE_MAX_OPENING_BYTES)"
            raise wrong_field("additional_messages", problem)
        await self._rates.take("sessions", identity.owner, user_key(identity.owner, body.user_id))
        before = _NONE
        if body.conversation_id is not None:
            before = await self._conversations.use(identity, body.user_id, body.conversation_id)
        session_id = new_id("session")
        key = idempotency_of(idempotency_key, body)
        if key is not None:
            session_id = await self._sessions.claim_key(identity, key, session_id)
        try:
            session = await self._sessions.open(
                session_id,
                identity,
                user_id=body.user_id,
                bot_id=body.bot_id or before.bot_id or self._default_bot_id,
                auto_save_history=body.auto_save_history,
                additional_messages=opening,
                metadata=body.meta_data,
                idempotency=key.digest(identity.owner) if key is not None else "",
                conversation=(body.conversation_id, before.credential) if body.conversation_id else None,
                title=before.title,
            )
        except ServiceError:
            if key is not None:  # a refusal does not use the key up
                with contextlib.suppress(RedisUnavailable):
                    await self._sessions.forget_key(identity, key)
            raise
        if body.auto_save_history:
            self._make_conversation(session)
        return self.view(session)

    async def create_single(
        self,
        identity: Identity,
        who: CreateSession,
        key: IdempotencyKey | None,
        *,
        carries_files: bool,
        lasting: bool = False,
    ) -> str:
        """A session for one chat alone, of the user and the bot of ``who``: it takes a second one only from
        whoever names the first, is not listed, and neither counts against the limits nor makes another one
        go. Returns its id; with a ``key`` that was used before, that of then. ``carries_files``: files go
        along with the message. ``lasting``: see ``ChatService.send_single``."""
        session_id = new_id("session")
        if key is not None:
            # A key that leads to a session without a chat (its process died here) gets its chat now.
            session_id = await self._sessions.claim_key(identity, key, session_id, _SINGLE)
        session = await self._sessions.open(
            session_id,
            identity,
            user_id=who.user_id,
            bot_id=who.bot_id or "",
            idempotency=key.digest(identity.owner, _SINGLE) if key is not None else "",
            single=True,
        )
        if (key is not None or lasting) and not carries_files:
            # Whoever comes back wants this very answer. Should its owner die before Coze has told its ids,
            # only a conversation that is known can be searched for it. Without a key nobody comes back, and
            # Coze makes the conversation with the chat: one call less before the first word. With files it
            # does so, too: a conversation that is made beforehand may belong to another credential.
            self._make_conversation(session)
            await self.conversation_made(session_id)
        return session_id

    async def get(
        self, identity: Identity, session_id: str, history: int, *, touch: bool = True
    ) -> dict[str, object]:
        """The session with its newest ``history`` chats. Reading it makes it live on where ``touch``."""
        if touch:
            session, records = await self.use(identity, session_id, history)
        else:
            session, records, _ = await self._sessions.read(
                session_id, identity, history=history, touch=False
            )
        return session.view(self._sessions.limits, records)

    async def use(
        self, identity: Identity, session_id: str, history: int
    ) -> tuple[SessionRecord, list[bytes]]:
        """The session and its newest ``history`` chats. It lives on, and so does what has to live as long:
        its places in the indexes, and the record of its conversation."""
        session, records, index_due = await self._sessions.read(session_id, identity, history=history)
        if index_due:
            self._running.move_in_indexes(session)
        await self._running.record_conversation(session)
        return session, records

    async def inspect(self, identity: Identity, session_id: str, history: int) -> dict[str, object]:
        """The same with what is kept of it and until when. It is left as it is: looking is no activity."""
        session, records, _ = await self._sessions.read(session_id, identity, history=history, touch=False)
        chat_ids = [orjson.loads(record)["chat_id"] for record in records]
        lifetimes = await self._sessions.lifetimes(session_id, chat_ids)
        return session.view(self._sessions.limits, records) | {"lifetimes": lifetimes}

    async def change(self, identity: Identity, session_id: str, body: UpdateSession) -> dict[str, object]:
        """Renames the session, and with it its conversation, or gives it other metadata."""
        fields: dict[str, str | bytes | int] = {}
        if body.title is not None:
            fields["title"] = body.title
        if body.meta_data is not None:
            fields["metadata"] = orjson.dumps(body.meta_data)
        session, index_due = await self._sessions.change(session_id, identity, fields)
        if index_due:
            self._running.move_in_indexes(session)
        if body.title is not None and session.conversation_id is not None and not session.single:
            # The list of conversations has none that nobody has spoken in; it takes this title later.
            with contextlib.suppress(ConversationNotFound):
                await self._conversations.rename(
                    session.owner, session.user_id, session.conversation_id, body.title
                )
        return self.view(session)

    async def chats(
        self, identity: Identity, session_id: str, *, limit: int, before: str
    ) -> tuple[list[bytes], bool]:
        """Chat records, newest first, older than the chat ``before`` ("" = the newest), and whether more
        follow."""
        return await self._sessions.page(session_id, identity, limit=limit, before=before)

    async def end(self, identity: Identity, session_id: str) -> dict[str, object]:
        """Terminates the session; what runs or waits in it is cancelled, at Coze too."""
        ended = await self._sessions.end(session_id, identity)
        await self._cancel_all(ended)
        return self.view(ended.session)

    async def end_for_erasure(self, identity: Identity, session_id: str) -> bool:
        """Terminates the session; False while a chat in it is not over yet."""
        try:
            ended = await self._sessions.end(session_id, identity, "erased")
        except SessionExpired:
            return True
        await self._cancel_all(ended)
        return not ended.running or await self._running.ended_within(ended.running, _ENDED_WITHIN)

    async def _cancel_all(self, ended: SessionEnd) -> None:
        chats = [*ended.queued, *([ended.running] if ended.running else [])]
        session_id = ended.session.session_id
        await asyncio.gather(*(self._running.cancel(chat_id, session_id) for chat_id in chats))

    def view(self, session: SessionRecord) -> dict[str, object]:
        """The session object of the contract, without its chats."""
        return session.view(self._sessions.limits)

    # -- its conversation at Coze --------------------------------------------------------------------------

    async def with_conversation(self, identity: Identity, session_id: str) -> SessionRecord:
        """The session once it is known whose its conversation is; a stranger does not wait for that."""
        session, _, _ = await self._sessions.read(session_id, identity, history=0, touch=False)
        if session.conversation_id is None:
            await self.conversation_made(session_id)
            session, _, _ = await self._sessions.read(session_id, identity, history=0, touch=False)
        return session

    async def conversation_made(self, session_id: str) -> None:
        """Returns once the conversation that is being made for the session is there, or after a stated time:
        the first message goes to it. Where it is being made by another process, its age tells that."""
        if (making := self._making.get(session_id)) is not None:
            await asyncio.wait({making}, timeout=_CONVERSATION_SECONDS)
            return
        if session_id in self._made:
            return
        left = min(_CONVERSATION_SECONDS - age_of(session_id), _CONVERSATION_SECONDS)
        for _ in range(int(left / _LOOK_SECONDS)):
            if not await self._sessions.awaits_conversation(session_id):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _make_conversation(self, session: SessionRecord) -> None:
        """In the background, unless it is there or being made."""
        session_id = session.session_id
        if session.conversation_id is None and session_id not in self._making:
            making = self._running.spawn(self._conversation(session), f"conversation:{session_id}")
            self._making[session_id] = making
            making.add_done_callback(lambda _: self._done_with_conversation(session_id))

    def _done_with_conversation(self, session_id: str) -> None:
        self._making.pop(session_id, None)
        self._made.add(session_id)
        asyncio.get_running_loop().call_later(_CONVERSATION_SECONDS, self._made.discard, session_id)

    async def _conversation(self, session: SessionRecord) -> None:
        """Best effort: without it, Coze makes a conversation with the first chat.

        Whose it is is written first: whoever then reads it from the session can come back with it. What is
        there for a single chat is nothing to come back to.
        """
        try:
            coze = self._coze.using("", session.owner)
            conversation = await coze.create_conversation(bot_id=session.bot_id)
            if not session.single:
                await self._conversations.remember(session, conversation, coze.credential)
            held = await self._sessions.set_conversation(
                session.session_id, conversation, coze.credential, now_ms()
            )
            if held != conversation:
                await self._conversations.forget_one(session, conversation)
        except ServiceError as error:
            logger.info("no conversation for {} yet: {}", session.session_id, error.code)


def idempotency_of(key: str | IdempotencyKey | None, body: BaseModel, *more: str) -> IdempotencyKey | None:
    """An Idempotency-Key with the fingerprint of the call that came with it; one that has it keeps it.

    The fingerprint leaves ``stream`` out: a streamed repeat of a call that was not is the same call. A field
    that is new must not change it for bodies without that field: the version before may have seen the key.
    ``more``: what the call means besides its body.
    """
    if key is None or isinstance(key, IdempotencyKey):
        return key
    canonical = orjson.dumps(body.model_dump(mode="json", exclude={"stream"}), option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey(key, hashlib.sha256(b"\0".join([canonical, *map(str.encode, more)])).hexdigest())
