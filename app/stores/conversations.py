"""Which conversations at Coze a user has had: kept far longer than sessions, so that a later one goes on.

A record says with which bot and in whose name a conversation was held; that there is one under the digest of
owner, user and conversation is the proof of ownership. It is written before a session shows the conversation
where we open it, and where Coze makes it with the first chat, at that chat's end or when the session is read.
"""

import hashlib
from typing import Final, NamedTuple

from app.exceptions import ConversationNotFound
from app.models import Identity
from app.redis_client import Keys, RedisGate, Script
from app.stores.index import name_key, user_key
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
        self._keep = Script("conversation_keep")
        self._use = Script("conversation_use")
        self._forget = Script("conversation_forget")
        self._kept = Script("session_kept")

    async def use(self, identity: Identity, user_id: str, conversation_id: str) -> Conversation:
        """The conversation, remembered for its full time from now on. Raises ``ConversationNotFound`` for one
        that this caller has not had with this user."""
        kept = await self._redis.run(
            self._use,
            self._places(identity.owner, user_id, conversation_id),
            [self._ttl, user_key(identity.owner, user_id)],
        )
        if kept is None:
            raise ConversationNotFound
        bot_id, _, credential = kept.decode().partition(" ")
        return Conversation(bot_id, credential)

    @staticmethod
    def is_due(session: SessionRecord) -> bool:
        """The session's conversation has not been written down, or not for a day. One that is there for a
        single chat is none to come back to."""
        return not session.single and now_ms() - session.number(b"kept") > _DAY_MS

    async def keep(self, session: SessionRecord, conversation_id: str, credential: str) -> None:
        """Writes down whose the conversation is."""
        await self._redis.run(
            self._keep,
            self._places(session.owner, session.user_id, conversation_id),
            [self._ttl, session.text(b"user"), f"{session.bot_id} {credential}"],
        )

    async def keep_of(self, session: SessionRecord, conversation_id: str, credential: str) -> None:
        """The same for a conversation that the session has already; what was erased meanwhile stays so."""
        await self.keep(session, conversation_id, credential)
        key = self._keys.session(session.session_id)
        if not await self._redis.run(self._kept, [key], [conversation_id, now_ms()]):
            await self.drop(session, conversation_id)

    async def drop(self, session: SessionRecord, conversation_id: str) -> None:
        """Its session was erased while the conversation was being written down."""
        record, index = self._places(session.owner, session.user_id, conversation_id)
        member = f"{session.text(b'user')}:{record.rpartition(':')[2]}"
        await self._redis.pipeline([("DEL", record), ("ZREM", index, member)])

    async def forget(self, identity: Identity, user_id: str) -> None:
        """Forgets all of the user's; for an admin, of everybody of that name in the root."""
        name = name_key(identity.owner, user_id)
        whose = "" if identity.admin else user_key(identity.owner, user_id)
        await self._redis.run(
            self._forget, [self._keys.conversations(name)], [whose, self._keys.conversation_prefix(name)]
        )

    def _places(self, owner: str, user_id: str, conversation_id: str) -> list[str]:
        name = name_key(owner, user_id)
        digest = hashlib.sha256("\0".join((owner, user_id, conversation_id)).encode()).hexdigest()[:40]
        return [self._keys.conversation(name, digest), self._keys.conversations(name)]
