"""The conversations that a user has had, as a list that outlives sessions: look, rename, delete."""

from attrs import define

from app.coze.codes import NOT_FOUND
from app.exceptions import UpstreamError
from app.models import Identity
from app.models.bodies import UpdateSession
from app.stores.conversations import ConversationStore
from app.stores.index import user_key
from app.stores.users import UserStore
from app.tasks.asking import CozeForCallers
from app.tasks.sessions import SessionService


@define(eq=False, repr=False)
class UserConversations:
    """Of a caller's own user, an admin's too: what others of that name have is theirs to go on with. Methods
    about one conversation raise ``ConversationNotFound``."""

    _conversations: ConversationStore
    _users: UserStore
    _sessions: SessionService
    _coze: CozeForCallers

    async def page(
        self, identity: Identity, user_id: str, *, limit: int, before: str
    ) -> tuple[list[dict[str, object]], bool]:
        """Those that somebody has spoken in, the last used first, and whether more follow."""
        return await self._conversations.page(identity, user_id, limit=limit, before=before)

    async def rename(
        self, identity: Identity, user_id: str, conversation_id: str, title: str
    ) -> dict[str, object]:
        """Also in the sessions that go on with it at the moment."""
        renamed = await self._conversations.rename(identity.owner, user_id, conversation_id, title)
        for session_id in await self._users.ids_in_conversation(identity, user_id, conversation_id):
            await self._sessions.change(identity, session_id, UpdateSession(title=title))
        return renamed

    async def delete(
        self, identity: Identity, user_id: str, conversation_id: str
    ) -> tuple[dict[str, object], str | None]:
        """Ends the sessions that go on with it, deletes it at Coze, and forgets it: in this order, so that
        what failed can be repeated. Returns it, and Coze's logid.

        Raises ``RateLimited``, ``UpstreamError``.
        """
        conversation = await self._conversations.find(identity, user_id, conversation_id)
        user = user_key(identity.owner, user_id)
        coze = await self._coze.for_user(identity.owner, user, conversation.credential)
        for session_id in await self._users.ids_in_conversation(identity, user_id, conversation_id):
            await self._sessions.end(identity, session_id)
        logid = None
        try:
            logid = (await coze.delete_conversation(conversation_id)).logid
        except UpstreamError as error:
            if error.coze_code not in NOT_FOUND:
                raise
        await self._conversations.delete(identity, user_id, conversation_id)
        return {"conversation_id": conversation_id, "deleted": True}, logid
