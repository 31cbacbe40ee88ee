"""A session's conversation as Coze keeps it: its stored messages, and a new context in it."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypedDict

import orjson

from app.coze.codes import MESSAGE_NOT_FOUND, NOT_FOUND
from app.coze.wire import Message, MessagePage
from app.exceptions import ConversationNotFound, SessionBusy, UpstreamError, wrong_field
from app.models import Identity
from app.models.chats import OUR_META_KEY
from app.tasks.asking import CozeForCallers
from app.tasks.sessions import SessionService
from app.utils import iso

_SHOWN: Final = frozenset({"question", "answer", "follow_up", ""})
"""Types of messages that people wrote or read; the rest is machinery."""
_CHATS_KEPT: Final = 100
_EMPTY: Final = MessagePage([])


class History(TypedDict):
    """A page of stored messages, as the contract has it."""

    conversation_id: str | None
    messages: list[dict[str, object]]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ConversationService:
    def __init__(self, *, sessions: SessionService, coze: CozeForCallers) -> None:
        self._sessions = sessions
        self._coze = coze

    async def history(
        self,
        identity: Identity,
        session_id: str,
        *,
        limit: int,
        order: Literal["asc", "desc"],
        before: str,
        after: str,
    ) -> tuple[History, str | None]:
        """One page in the order asked for, behind the message ``after`` or up to the message ``before``, and
        Coze's logid. What belongs to a chat that the session still keeps says so.

        Raises what reading a session raises, ``ConversationNotFound`` where Coze no longer has it,
        ``RateLimited`` and ``UpstreamError``.
        """
        if before and after:
            raise wrong_field("before", "goes without `after`")
        session, records = await self._sessions.use(identity, session_id, _CHATS_KEPT)
        page = _EMPTY
        if session.conversation_id is not None:
            coze = await self._coze.for_session(session)
            with _told_to_callers("before" if before else "after"):
                page = await coze.list_conversation_messages(
                    session.conversation_id, order=order, limit=limit, before_id=before, after_id=after
                )
        chats = _our_chats(records) if page.messages else {}
        history: History = {
            "messages": [_view(message, chats) for message in page.messages if message.type in _SHOWN],
            "has_more": page.has_more,
            "first_id": page.first_id if page.messages else None,
            "last_id": page.last_id if page.messages else None,
            "conversation_id": session.conversation_id,
        }
        return history, page.logid

    async def clear(self, identity: Identity, session_id: str) -> tuple[dict[str, str | None], str | None]:
        """Starts a new context: the bot forgets what was said, the messages stay. Clearing twice is clearing
        once. A chat that begins at the same moment may fall on either side.

        Raises ``SessionBusy`` and ``RateLimited``.
        """
        session, _ = await self._sessions.use(identity, session_id, 0)
        if session.running is not None:
            raise SessionBusy(details={"chat_id": session.running})
        section_id, logid = None, None
        if session.conversation_id is not None:
            coze = await self._coze.for_session(session)
            with _told_to_callers():
                section_id, logid = await coze.clear_conversation(session.conversation_id)
        view = {"session_id": session_id, "conversation_id": session.conversation_id}
        return view | {"section_id": section_id}, logid


@contextmanager
def _told_to_callers(field: str = "") -> Iterator[None]:
    """Coze's refusals that are about what the caller asked for."""
    try:
        yield
    except UpstreamError as error:
        failure: Exception = error
        if error.coze_code in NOT_FOUND:
            failure = ConversationNotFound(
                "Coze does not have this conversation any more",
                details={"logid": error.logid} if error.logid else None,
            )
        elif error.coze_code in MESSAGE_NOT_FOUND and field:
            failure = wrong_field(field, "is no message of this conversation")
        raise failure from None


def _our_chats(records: list[bytes]) -> dict[str, str]:
    """Coze's chat id -> ours, of the chats that the session keeps."""
    chats = {}
    for record in records:
        chat = orjson.loads(record)
        with contextlib.suppress(KeyError):
            chats[chat["metadata"]["coze_chat_id"]] = chat["chat_id"]
    return chats


def _view(message: Message, chats: dict[str, str]) -> dict[str, object]:
    return {
        "message_id": message.id,
        "role": message.role,
        "type": message.type or ("question" if message.role == "user" else "answer"),
        "content": message.content,
        "content_type": message.content_type or "text",
        "reasoning_content": message.reasoning_content,
        "created_at": None if message.created_at is None else iso(message.created_at * 1000),
        "chat_id": chats.get(message.chat_id),
        "meta_data": {
            key: value
            for key, value in message.meta_data.items()
            if key != OUR_META_KEY and isinstance(value, str)
        },
    }
