"""Which conversations at Coze a user has had: kept far longer than sessions, so that a later one goes on.

A record says with which bot and in whose name a conversation was held; that there is one under the digest of
owner, user and conversation is the proof of ownership. It is written before a session shows the conversation
where we open it, and where Coze makes it with the first chat, at that chat's end or when the session is read.
Once somebody has spoken in it, its id, title, bot and last use lie beside that, for the user's list.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from app.exceptions import ConversationNotFound
from app.models import Identity
from app.redis_client import Command, Keys, RedisGate, Text, pairs
from app.stores.index import digest_of, name_key, user_key
from app.stores.scripts import (
    ConversationKeys,
    conversation_drop,
    conversation_file,
    conversation_forget,
    conversation_forget_named,
    conversation_list,
    conversation_remember,
    conversation_rename,
    conversation_use,
    session_remembered,
)
from app.stores.sessions import JsonObject, SessionRecord
from app.utils import iso, now_ms

_DAY_MS: Final = 86_400_000
_ERASED_PER_CALL: Final = 20_000
_LATELY_MS: Final = 300_000
"""So exact is when a conversation was last used: each writing of it is a command more for a chat's end."""


class Conversation(NamedTuple):
    """``credential``: in whose name it was held at Coze; empty where only one can be meant."""

    bot_id: str
    credential: str
    title: str = ""


class ConversationStore:
    """``days``: how long a conversation is remembered after it was last used."""

    def __init__(self, redis: RedisGate, keys: Keys, *, days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl = days * _DAY_MS

    async def use(self, identity: Identity, user_id: str, conversation_id: str) -> Conversation:
        """The conversation, remembered for its full time from now on. Raises ``ConversationNotFound`` for one
        that this caller has not had with this user."""
        at = self._places(identity.owner, user_id, conversation_id)
        value, title = await self._redis.run(conversation_use(at=at, ttl=self._ttl))
        return _conversation(value, title)

    async def find(self, identity: Identity, user_id: str, conversation_id: str) -> Conversation:
        """The same without remembering it for longer."""
        record = self._places(identity.owner, user_id, conversation_id).record
        value = await self._redis.run(Text("GET", record))
        return _conversation(value or b"")

    @staticmethod
    def is_due(session: SessionRecord) -> bool:
        """The session's conversation has not been written down, or not lately; one that nobody has spoken in
        is not listed. One that is there for a single chat is none to come back to."""
        if session.single:
            return False
        since = now_ms() - session.number(b"kept")
        if not session.number(b"count"):
            return since > _DAY_MS
        return since > _LATELY_MS or not session.number(b"listed")

    async def remember(self, session: SessionRecord, conversation_id: str, credential: str) -> bool:
        """Writes down whose the conversation is, and where somebody has spoken in it, lists it. False: its
        user has deleted it."""
        at = self._places(session.owner, session.user_id, conversation_id)
        return bool(
            await self._redis.run(
                conversation_remember(
                    at=at,
                    ttl=self._ttl,
                    value=f"{session.bot_id} {credential}",
                    conversation=conversation_id if session.number(b"count") else "",
                    title=session.title,
                    bot=session.bot_id,
                    created=str(session.number(b"created")),
                )
            )
        )

    async def remember_again(self, session: SessionRecord, conversation_id: str, credential: str) -> None:
        """The same for a conversation that the session has already; what was erased meanwhile stays so."""
        if not await self.remember(session, conversation_id, credential):
            return
        key, listed = self._keys.session(session.session_id), bool(session.number(b"count"))
        if not await self._redis.run(
            session_remembered(
                session=key, conversation=conversation_id, remembered_at=str(now_ms()), listed=listed
            )
        ):
            await self.forget_one(session, conversation_id)

    async def forget_one(self, session: SessionRecord, conversation_id: str) -> None:
        """Its session was erased while the conversation was being written down."""
        at = self._places(session.owner, session.user_id, conversation_id)
        await self._redis.run(conversation_drop(at=at, mark=False))

    async def forget(self, identity: Identity, user_id: str) -> bool:
        """Forgets all of the user's; for an admin, of everybody of that name in the root. A call does a
        bounded number: returns whether more may be left."""
        keys, name = self._keys, name_key(identity.owner, user_id)
        named, records = keys.conversations(name), keys.conversation(name)
        had, lists = keys.conversations_had(name), keys.conversation_list(name)
        if identity.admin:
            return await self._all_portions(
                conversation_forget_named(conversations=named, had=had, lists=lists, records=records)
            )
        to_be_filed = conversation_file(conversations=named, had=had, ttl=self._ttl)
        more_to_be_filed = await self._all_portions(to_be_filed)
        user = user_key(identity.owner, user_id)
        forget = conversation_forget(
            conversations=named,
            had=keys.conversations_had(name, user),
            listed=keys.conversation_list(name, user),
            records=records,
            user=user,
        )
        return await self._all_portions(forget) or more_to_be_filed

    async def _all_portions(self, portion: Command[int]) -> bool:
        """Up to a bounded number of things, others having their turn in between; whether more may be left."""
        done = 0
        while done < _ERASED_PER_CALL:
            some = await self._redis.run(portion)
            if not some:
                return False
            done += some
        return True

    # -- as their user sees them --------------------------------------------------------------------------

    async def page(
        self, identity: Identity, user_id: str, *, limit: int, before: str
    ) -> tuple[list[JsonObject], bool]:
        """The caller's own of that user, the last used first, behind the conversation ``before`` ("" = from
        the first), and whether more follow."""
        name = name_key(identity.owner, user_id)
        more, found = await self._redis.run(
            conversation_list(
                listed=self._keys.conversation_list(name, user_key(identity.owner, user_id)),
                records=self._keys.conversation(name),
                before=digest_of(identity.owner, user_id, before) if before else "",
                limit=limit,
            )
        )
        return [_view(flat) for flat in found if flat], bool(more)

    async def rename(self, owner: str, user_id: str, conversation_id: str, title: str) -> JsonObject:
        """Raises ``ConversationNotFound``, also where nobody has spoken in it yet."""
        record = self._places(owner, user_id, conversation_id).record
        flat = await self._redis.run(conversation_rename(record=record, title=title))
        if not flat:
            raise ConversationNotFound
        return _view(flat)

    async def delete(self, identity: Identity, user_id: str, conversation_id: str) -> None:
        """Nobody can go on with it any more, and a chat that ends in it now does not bring it back."""
        at = self._places(identity.owner, user_id, conversation_id)
        await self._redis.run(conversation_drop(at=at, mark=True))

    def _places(self, owner: str, user_id: str, conversation_id: str) -> ConversationKeys:
        name, user = name_key(owner, user_id), user_key(owner, user_id)
        return ConversationKeys(
            self._keys.conversation(name, digest_of(owner, user_id, conversation_id)),
            self._keys.conversations(name),
            self._keys.conversations_had(name, user),
            self._keys.conversation_list(name, user),
            user,
        )


def _conversation(value: bytes, title: bytes = b"") -> Conversation:
    if not value:
        raise ConversationNotFound
    bot_id, _, credential = value.decode().partition(" ")
    return Conversation(bot_id, credential, title.decode())


def _view(flat: Sequence[bytes]) -> JsonObject:
    """The conversation object of the contract."""
    told = {name.decode(): value.decode() for name, value in pairs(flat)}
    return {
        "conversation_id": told.get("id", ""),
        "title": told.get("title"),
        "bot_id": told.get("bot", ""),
        "created_at": iso(int(told.get("created", 0))),
        "last_used_at": iso(int(told.get("used", 0))),
    }
