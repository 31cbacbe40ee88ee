"""What users think of an answer, handed on to Coze, which keeps it with the message."""

from collections.abc import Mapping

from attrs import define

from app.coze.codes import MESSAGE_NOT_FOUND, NOT_FOUND
from app.exceptions import ChatState, ConversationNotFound, UpstreamError
from app.models import Identity
from app.models.chats import Chat
from app.stores.chats import ChatStore
from app.stores.sessions import SessionStore
from app.tasks.asking import CozeForCallers


@define(eq=False, repr=False)
class FeedbackService:
    _chats: ChatStore
    _sessions: SessionStore
    _coze: CozeForCallers

    async def give(
        self, identity: Identity, chat_id: str, feedback: Mapping[str, object] | None
    ) -> tuple[dict[str, object], str | None]:
        """Puts the feedback in the place of the one before; None takes it back. Returns what now holds, and
        Coze's logid.

        Raises ``ChatNotFound``, ``ChatState`` where there is no answer that Coze keeps, ``RateLimited``, what
        reading a session raises, ``ConversationNotFound`` where Coze has it no longer, ``UpstreamError``.
        """
        chat = Chat.model_validate_json(await self._chats.record(chat_id, identity))
        session, _, _ = await self._sessions.read(chat.session_id, identity, history=0, touch=False)
        conversation = chat.metadata.get("conversation_id")
        if chat.assistant_message is None or conversation is None or not session.auto_save_history:
            raise ChatState("The chat has no answer that Coze keeps", details={"status": chat.status})
        coze = await self._coze.for_session(session)
        try:
            message_id = chat.assistant_message.message_id
            reply = await coze.give_feedback(conversation, message_id, feedback)
        except UpstreamError as error:
            if error.coze_code in NOT_FOUND | MESSAGE_NOT_FOUND:
                logid = {"logid": error.logid} if error.logid else None
                raise ConversationNotFound("Coze does not have this answer any more", details=logid) from None
            raise
        return {"chat_id": chat_id, **(feedback or {"feedback_type": None})}, reply.logid
