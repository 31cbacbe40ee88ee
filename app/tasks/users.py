"""Operations on users as a whole."""

import asyncio
import contextlib
from typing import Final

from attrs import define

from app.coze.client import CozeClient
from app.exceptions import ServiceError, SessionNotFound
from app.models import Identity
from app.stores.conversations import ConversationStore
from app.stores.failures import FailureStore
from app.stores.files import FileStore
from app.stores.index import user_key
from app.stores.owned import Owned, OwnedStore
from app.stores.rates import RateStore
from app.stores.sessions import SessionRecord
from app.stores.usage import UsageStore
from app.stores.users import UserStore
from app.tasks.sessions import SessionService

_ERASED_PER_CALL: Final = 20
_CLEAR_SECONDS: Final = 5.0


@define(eq=False, repr=False, kw_only=True)
class UserService:
    _users: UserStore
    _files: FileStore
    _usage: UsageStore
    _rates: RateStore
    _conversations: ConversationStore
    _owned: OwnedStore
    _failures: FailureStore
    _sessions: SessionService
    _coze: CozeClient

    async def sessions(self, identity: Identity, user_id: str, limit: int) -> list[dict[str, object]]:
        records = await self._users.sessions(identity, user_id, limit)
        return [self._sessions.view(record) for record in records]

    async def erase(self, identity: Identity, user_id: str) -> dict[str, object]:
        """Erases a bounded number of the user's sessions; ``remaining`` above zero: call again.

        A chat that runs is cancelled first: its owner would write it again otherwise. Raises ``RateLimited``.
        """
        await self._rates.take("reports", identity.owner, user_key(identity.owner, user_id))
        left = await self._users.remaining(identity, user_id, _ERASED_PER_CALL)
        counts = await asyncio.gather(*(self._erase(identity, session) for session in left.sessions))
        done = [count for count in counts if count is not None]
        if left.sessions:
            await self._failures.forget(identity, {session.session_id for session in left.sessions})
        await self._users.forget_users(identity, user_id, left.users)
        more_conversations = False
        if left.found == len(done) and not left.more_users:
            # Nobody is left who could add to them.
            await self._usage.erase(identity, user_id)
            more_conversations = await self._conversations.forget(identity, user_id)
        more_owned = await self._erase_owned(identity, user_id)
        files, more_files = await self._files.erase(identity, user_id)
        more = more_conversations + more_files + more_owned
        return {
            "user_id": user_id,
            "erased_sessions": len(done),
            "erased_chats": sum(done),
            # More than one call erases of what is no session counts as one that is left, too: call again.
            "remaining_sessions": left.found - len(done) + left.more_users + more,
            "erased_files": files,
        }

    async def _erase(self, identity: Identity, session: SessionRecord) -> int | None:
        try:
            if not await self._sessions.end_for_erasure(identity, session.session_id):
                return None
        except SessionNotFound:  # another call erases the same user and was first
            return None
        if session.conversation_id is not None:
            await self._clear(identity, session.conversation_id, session.credential)
        return await self._users.erase(session)

    async def _erase_owned(self, identity: Identity, user_id: str) -> bool:
        """Conversations of Coze's own clients; returns whether there are more. What was said in one whose
        session is over is still known to the bot."""
        owned, more = await self._owned.of_user(identity, user_id, _ERASED_PER_CALL)
        await asyncio.gather(*(self._forget(identity, each) for each in owned))
        return more

    async def _forget(self, identity: Identity, owned: Owned) -> None:
        await self._clear(identity, owned.conversation_id, owned.credential)
        await self._owned.forget(owned)

    async def _clear(self, identity: Identity, conversation_id: str, credential: str) -> None:
        """The bot is made to forget what was said, if Coze can be asked in time."""
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_CLEAR_SECONDS):
                coze = self._coze.using(credential, identity.owner)
                await coze.clear_conversation(conversation_id)
