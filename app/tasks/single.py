"""Chats without a session of the caller's: each lives in one of its own that nobody has to open."""

from typing import Final

from app.models import CreateSession, Identity, SendMessage
from app.stores.index import user_key
from app.stores.rates import RateStore
from app.stores.sessions import IdempotencyKey, SessionStore
from app.tasks.service import Started, TaskService
from app.utils import new_session_id

_SCOPE: Final = "single"


class SingleChats:
    """A chat here is as any other: recorded, taken over, cancelled, erased with its user. Its session takes
    no second one, is not listed, and neither counts against the limits nor makes another one go."""

    def __init__(self, *, tasks: TaskService, sessions: SessionStore, rates: RateStore) -> None:
        self._tasks = tasks
        self._sessions = sessions
        self._rates = rates

    async def begin(
        self,
        identity: Identity,
        who: CreateSession,
        body: SendMessage,
        *,
        request_id: str,
        idempotency_key: IdempotencyKey | None,
    ) -> Started:
        """Starts the chat; with an Idempotency-Key that was used before, leads to the chat it stands for.

        It takes a message's token, and only what got one writes anything. Raises what ``TaskService.send``
        raises.
        """
        self._tasks.check(body)
        await self._rates.take("messages", user_key(identity.owner, who.user_id))
        session_id, bot_id = new_session_id(), who.bot_id or ""
        if (key := idempotency_key) is not None:
            # A key that leads to a session without a chat (its process died here) gets its chat now.
            session_id = await self._sessions.claim_key(identity, key, session_id, _SCOPE)
        session = await self._sessions.open(
            session_id,
            identity,
            user_id=who.user_id,
            bot_id=bot_id,
            auto_save_history=True,
            additional_messages=[],
            metadata={},
            idempotency=key.digest(identity.owner, _SCOPE) if key is not None else "",
            single=True,
        )
        if key is not None and not _carries_files(body):
            # Whoever comes back wants this very answer. Should its owner die before Coze has told its ids,
            # only a conversation that is known can be searched for it. Without a key nobody comes back, and
            # Coze makes the conversation with the chat: one call less before the first word. With files it
            # does so, too: a conversation that is made beforehand may belong to another credential.
            self._tasks.make_conversation(session)
        return await self._tasks.send(
            identity, session_id, body, request_id=request_id, idempotency_key=key, paid=True
        )


def _carries_files(body: SendMessage) -> bool:
    return bool(body.attachments) or any(
        message.content_type == "object_string" for message in body.additional_messages or ()
    )
