"""How sessions begin: a new conversation at Coze, or one that this user has had before."""

import asyncio
import contextlib
from typing import Final

from loguru import logger

from app.coze import CozeClient
from app.exceptions import RedisUnavailable, ServiceError
from app.models import CreateSession, Identity
from app.stores.conversations import Conversation, ConversationStore
from app.stores.index import user_key
from app.stores.rates import RateStore
from app.stores.sessions import SessionRecord, SessionStore
from app.tasks.drafts import idempotency_of
from app.tasks.running import RunningChats
from app.utils import new_session_id, now_ms

_OPENING_WAIT: Final = 5.0
_NONE: Final = Conversation("", "")


class SessionOpener:
    def __init__(
        self,
        *,
        sessions: SessionStore,
        conversations: ConversationStore,
        rates: RateStore,
        running: RunningChats,
        coze: CozeClient,
        default_bot_id: str,
    ) -> None:
        self._sessions = sessions
        self._conversations = conversations
        self._rates = rates
        self._running = running
        self._coze = coze
        self._default_bot_id = default_bot_id
        self._opening: dict[str, asyncio.Task[None]] = {}

    async def open(
        self, identity: Identity, body: CreateSession, idempotency_key: str | None
    ) -> SessionRecord:
        """Raises ``ConversationNotFound`` where the body names one that this user has not had."""
        await self._rates.take("sessions", user_key(identity.owner, body.user_id))
        before = _NONE
        if body.conversation_id is not None:
            before = await self._conversations.use(identity, body.user_id, body.conversation_id)
        session_id = new_session_id()
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
                additional_messages=[m.model_dump(exclude_none=True) for m in body.additional_messages or []],
                metadata=body.meta_data or {},
                idempotency=key.digest(identity.owner) if key is not None else "",
                conversation=(body.conversation_id, before.credential) if body.conversation_id else None,
            )
        except ServiceError:
            if key is not None:  # a refusal does not use the key up
                with contextlib.suppress(RedisUnavailable):
                    await self._sessions.forget_key(identity, key)
            raise
        if body.auto_save_history:
            self.begin(session)
        return session

    def begin(self, session: SessionRecord) -> None:
        """Has the session's conversation made in the background, unless it is there or being made."""
        session_id = session.session_id
        if session.conversation_id is None and session_id not in self._opening:
            task = self._running.spawn(self._make_conversation(session), f"conversation:{session_id}")
            self._opening[session_id] = task
            task.add_done_callback(lambda _: self._opening.pop(session_id, None))

    async def opened(self, session_id: str) -> None:
        """Our own background call: the first message goes to the conversation that is being made."""
        if (opening := self._opening.get(session_id)) is not None:
            await asyncio.wait({opening}, timeout=_OPENING_WAIT)

    async def _make_conversation(self, session: SessionRecord) -> None:
        """Best effort: without it, Coze makes a conversation with the first chat.

        Whose it is is written first: whoever then reads it from the session can come back with it. What is
        there for a single chat is nothing to come back to.
        """
        try:
            coze = self._coze.using("")
            conversation = await coze.create_conversation(bot_id=session.bot_id)
            if not session.single:
                await self._conversations.remember(session, conversation, coze.credential)
            held = await self._sessions.set_conversation(
                session.session_id, conversation, coze.credential, now_ms()
            )
            if held is None:
                await self._conversations.forget_one(session, conversation)
        except ServiceError as error:
            logger.info("no conversation for {} yet: {}", session.session_id, error.code)
