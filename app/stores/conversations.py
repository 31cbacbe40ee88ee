"""Which conversations at Coze a user has had: kept far longer than sessions, so that a later one goes on.

A record says with which bot and in whose name a conversation was held; that there is one under the digest of
owner, user and conversation is the proof of ownership. It is written before a session shows the conversation
where we open it, and where Coze makes it with the first chat, at that chat's end or when the session is read.
"""

from typing import Final, NamedTuple

from app.exceptions import ConversationNotFound
from app.models import Identity
from app.redis_client import Key, Keys, Number, RedisGate
from app.stores.index import digest_of, name_key, user_key
from app.stores.scripts import (
    conversation_forget,
    conversation_remember,
    conversation_use,
    session_remembered,
)
from app.stores.sessions import SessionRecord
from app.utils import now_ms

_DAY_MS: Final = 86_400_000


class Conversation(NamedTuple):
    """``credential``: in whose name it was held at Coze; empty where only one can be meant."""

    bot_id: str
    credential: str


class ConversationStore:
    """``days``: how long a conversation is remembered after it was last used."""

    def __init__(self, redis: RedisGate, keys: Keys, *, days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl = days * _DAY_MS

    async def use(self, identity: Identity, user_id: str, conversation_id: str) -> Conversation:
        """The conversation, remembered for its full time from now on. Raises ``ConversationNotFound`` for one
        that this caller has not had with this user."""
        record, conversations = self._places(identity.owner, user_id, conversation_id)
        user = user_key(identity.owner, user_id)
        value = await self._redis.run(
            conversation_use(record=record, conversations=conversations, ttl=self._ttl, user=user)
        )
        if value is None:
            raise ConversationNotFound
        bot_id, _, credential = value.decode().partition(" ")
        return Conversation(bot_id, credential)

    @staticmethod
    def is_due(session: SessionRecord) -> bool:
        """The session's conversation has not been written down, or not for a day. One that is there for a
        single chat is none to come back to."""
        return not session.single and now_ms() - session.number(b"kept") > _DAY_MS

    async def remember(self, session: SessionRecord, conversation_id: str, credential: str) -> None:
        """Writes down whose the conversation is."""
        record, conversations = self._places(session.owner, session.user_id, conversation_id)
        user, value = session.text(b"user"), f"{session.bot_id} {credential}"
        await self._redis.run(
            conversation_remember(
                record=record, conversations=conversations, ttl=self._ttl, user=user, value=value
            )
        )

    async def remember_again(self, session: SessionRecord, conversation_id: str, credential: str) -> None:
        """The same for a conversation that the session has already; what was erased meanwhile stays so."""
        await self.remember(session, conversation_id, credential)
        key = self._keys.session(session.session_id)
        if not await self._redis.run(
            session_remembered(session=key, conversation=conversation_id, remembered_at=str(now_ms()))
        ):
            await self.forget_one(session, conversation_id)

    async def forget_one(self, session: SessionRecord, conversation_id: str) -> None:
        """Its session was erased while the conversation was being written down."""
        record, index = self._places(session.owner, session.user_id, conversation_id)
        member = f"{session.text(b'user')}:{record.rpartition(':')[2]}"
        await self._redis.pipeline([Number("DEL", record), Number("ZREM", index, member)])

    async def forget(self, identity: Identity, user_id: str) -> None:
        """Forgets all of the user's; for an admin, of everybody of that name in the root."""
        name = name_key(identity.owner, user_id)
        whose = "" if identity.admin else user_key(identity.owner, user_id)
        await self._redis.run(
            conversation_forget(
                conversations=self._keys.conversations(name),
                records=self._keys.conversation_prefix(name),
                user=whose,
            )
        )

    def _places(self, owner: str, user_id: str, conversation_id: str) -> tuple[Key, Key]:
        name = name_key(owner, user_id)
        digest = digest_of(owner, user_id, conversation_id)
        return self._keys.conversation(name, digest), self._keys.conversations(name)
