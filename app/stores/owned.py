"""The conversations of an owner, for clients of Coze's own API: an owner alone decides who gets in.

A record says by whom, with which bot and in whose name at Coze a conversation is held, and which session
serves it; it is there for as long as the conversation is remembered, while sessions come and go. The first
chat gives it a user, under whom usage is counted and by whom it can be erased; until then it has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from app.exceptions import ConversationNotFound
from app.models import Identity
from app.redis_client import Arg, Command, Key, Keys, RedisGate, Texts, pairs
from app.stores.index import OPENING_MS, digest_of, name_key, owner_key
from app.stores.scripts import (
    OwnedKeys,
    owned_change,
    owned_file,
    owned_forget,
    owned_label,
    owned_not_filed,
    owned_remember,
    owned_serve,
    owned_unlabel,
    owned_use,
)
from app.utils import now_ms

_DAY_MS: Final = 86_400_000
_AT_ONCE: Final = 500
_FILED_PER_CALL: Final = 20_000
_MOST_LISTED: Final = 10_000
"""Of a list in one order: Redis walks over all that come before a page, and everybody waits for it."""


@dataclass(frozen=True, slots=True)
class Owned:
    """``user_id`` and ``session_id`` are empty before the first chat. ``view``: the conversation as Coze told
    of it, as JSON; empty where it was made with a chat. ``created``: unix milliseconds."""

    owner: str
    conversation_id: str
    bot_id: str
    credential: str
    user_id: str = ""
    session_id: str = ""
    name: str = ""
    section_id: str = ""
    view: str = ""
    created: int = 0
    labelled: int = 0
    """When it was last entered among what its user has begun."""

    @classmethod
    def parse(cls, flat: Sequence[bytes]) -> "Owned":
        """Of a hash as Redis returned it (flat)."""
        found = {name.decode(): value.decode() for name, value in pairs(flat)}
        return cls(
            owner=found.get("owner", ""),
            conversation_id=found.get("conversation", ""),
            bot_id=found.get("bot", ""),
            credential=found.get("credential", ""),
            user_id=found.get("user_id", ""),
            session_id=found.get("session", ""),
            name=found.get("name", ""),
            section_id=found.get("section", ""),
            view=found.get("view", ""),
            created=int(found.get("created") or 0),
            labelled=int(found.get("labelled") or 0),
        )

    def fields(self) -> list[Arg]:
        return [
            *("owner", self.owner, "conversation", self.conversation_id, "credential", self.credential),
            *("user_id", self.user_id, "session", self.session_id, "name", self.name),
            *("section", self.section_id, "view", self.view, "created", self.created),
        ]


class OwnedPage(NamedTuple):
    conversations: list[Owned]
    has_more: bool


class OwnedStore:
    """``days``: how long a conversation is remembered after it was last used. Raises ``ConversationNotFound``
    for one that the caller does not have, and ``RedisUnavailable``."""

    def __init__(self, redis: RedisGate, keys: Keys, *, days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl = days * _DAY_MS

    async def remember(self, owned: Owned) -> Owned:
        """Writes down a new conversation, and first by whom it can be erased; returns what is written."""
        if owned.user_id:
            await self._label(owned.owner, owned.conversation_id, owned.user_id)
        at = self._places(owned.owner, owned.conversation_id)
        written = owned_remember(at=at, ttl=self._ttl, bot=owned.bot_id, fields=owned.fields())
        return Owned.parse(await self._redis.run(written))

    async def use(self, identity: Identity, conversation_id: str) -> Owned:
        """The conversation, remembered for its full time from now on."""
        at = self._places(identity.owner, conversation_id)
        owned, now = _found(await self._redis.run(owned_use(at=at, ttl=self._ttl))), now_ms()
        if (
            owned.user_id and now - owned.labelled > _DAY_MS
        ):  # an erasure has to find it as long as it is there
            await self._label(owned.owner, conversation_id, owned.user_id)
            if not await self._redis.run(owned_change(record=at.record, fields=["labelled", now])):
                await self._redis.run(self._unlabel(owned.owner, conversation_id, owned.user_id))
        return owned

    async def serve(self, owned: Owned, *, ended: str, session_id: str, user_id: str, bot_id: str) -> Owned:
        """The conversation with the session that serves it: ``session_id`` in the place of the one that has
        ``ended``, unless another call was first. ``user_id`` and ``bot_id`` count where it has no user
        yet."""
        if not owned.user_id:
            await self._label(owned.owner, owned.conversation_id, user_id)
        flat = await self._redis.run(
            owned_serve(
                at=self._places(owned.owner, owned.conversation_id),
                ttl=self._ttl,
                ended=ended,
                session_id=session_id,
                user_id=user_id,
                bot=bot_id,
            )
        )
        if not flat:
            await self._redis.run(self._unlabel(owned.owner, owned.conversation_id, user_id))
        return _found(flat)

    async def change(self, owned: Owned, fields: Mapping[Literal["name", "section", "view"], str]) -> None:
        """Notes what was changed at Coze."""
        record = self._places(owned.owner, owned.conversation_id).record
        flat: list[Arg] = [part for pair in fields.items() for part in pair]
        await self._redis.run(owned_change(record=record, fields=flat))

    async def page(
        self, identity: Identity, bot_id: str, *, first: int, size: int, newest_first: bool
    ) -> OwnedPage:
        """Conversations with a bot in the order of their last use, without the ``first`` of them. A list ends
        after ``_MOST_LISTED`` of them."""
        if first >= _MOST_LISTED:
            return OwnedPage([], False)
        lists, now = self._keys.owned_lists(owner_key(identity.owner)), now_ms()
        key = Key(lists + bot_id)
        limit = ("LIMIT", first, size + 1)
        if newest_first:
            command = Texts("ZREVRANGEBYSCORE", key, "+inf", now, *limit)
        else:
            command = Texts("ZRANGEBYSCORE", key, now, "+inf", *limit)
        ids = [each.decode() for each in await self._redis.run(command)]
        records = await self._redis.pipeline(
            [Texts("HGETALL", self._places(identity.owner, each).record) for each in ids[:size]]
        )
        has_more = len(ids) > size and first + size < _MOST_LISTED
        return OwnedPage([Owned.parse(flat) for flat in records if flat], has_more)

    async def forget(self, owned: Owned) -> None:
        """Forgets the conversation, and then that it was its user's."""
        await self._redis.run(owned_forget(at=self._places(owned.owner, owned.conversation_id)))
        if owned.user_id:
            await self._redis.run(self._unlabel(owned.owner, owned.conversation_id, owned.user_id))

    # -- erasing a user -----------------------------------------------------------------------------------

    async def of_user(self, identity: Identity, user_id: str, limit: int) -> tuple[list[Owned], bool]:
        """Conversations that the user has begun, of all owners whom the caller may see; and whether there may
        be more, for one that he is just beginning, too. At most ``limit`` are read: what is erased leaves,
        and the next call begins in front."""
        name = name_key(identity.owner, user_id)
        if identity.admin:
            some = Texts("ZRANGE", self._keys.labelled(name), 0, limit)
            places, more_to_be_filed = [_split(member) for member in await self._redis.run(some)], False
        else:
            more_to_be_filed = await self._file(name)
            some = Texts("ZRANGE", self._keys.begun(name, owner_key(identity.owner)), 0, limit)
            places = [(identity.owner, each.decode()) for each in await self._redis.run(some)]
        more = len(places) > limit or more_to_be_filed
        found: list[Owned] = []
        gone: list[Command[int]] = []
        read = [Texts("HGETALL", self._places(*place).record) for place in places[:limit]]
        for place, flat in zip(places, await self._redis.pipeline(read), strict=False):
            owned = Owned.parse(flat)
            if owned.user_id == user_id:
                found.append(owned)
            else:  # it is gone or another user's, or is about to be his
                opening = 0 if owned.user_id else OPENING_MS
                gone.append(self._unlabel(*place, user_id, opening=opening))
        just_begun = any(await self._redis.pipeline(gone))
        return found, more or just_begun

    async def _file(self, name: str) -> bool:
        """What the version before has entered under the name goes into its owners' own lists, in portions;
        returns whether more may be left."""
        labelled = self._keys.labelled(name)
        for _ in range(_FILED_PER_CALL // _AT_ONCE):
            members = await self._redis.run(owned_not_filed(labelled=labelled, limit=_AT_ONCE))
            if not members:
                return False
            places = [_split(member) for member in members]
            await self._redis.run(
                owned_file(
                    labelled=labelled,
                    begun=self._keys.begun(name),
                    ttl=self._ttl,
                    members=[_member(*place) for place in places],
                    owners=[owner_key(owner) for owner, _ in places],
                    conversations=[conversation_id for _, conversation_id in places],
                )
            )
        return True

    async def _label(self, owner: str, conversation_id: str, user_id: str) -> None:
        """Before the record names the user: what is in Redis can always be found to be erased."""
        name = name_key(owner, user_id)
        await self._redis.run(
            owned_label(
                labelled=self._keys.labelled(name),
                begun=self._keys.begun(name, owner_key(owner)),
                member=_member(owner, conversation_id),
                conversation=conversation_id,
                ttl=self._ttl,
            )
        )

    def _unlabel(self, owner: str, conversation_id: str, user_id: str, *, opening: int = 0) -> Command[int]:
        """``opening``: what was labelled less than so many milliseconds ago stays so."""
        name = name_key(owner, user_id)
        return owned_unlabel(
            labelled=self._keys.labelled(name),
            begun=self._keys.begun(name, owner_key(owner)),
            member=_member(owner, conversation_id),
            conversation=conversation_id,
            ttl=self._ttl,
            opening=opening,
        )

    def _places(self, owner: str, conversation_id: str) -> OwnedKeys:
        whose = owner_key(owner)
        return OwnedKeys(self._keys.owned(whose, digest_of(conversation_id)), self._keys.owned_lists(whose))


def _found(flat: Sequence[bytes]) -> Owned:
    if not flat:
        raise ConversationNotFound
    return Owned.parse(flat)


def _member(owner: str, conversation_id: str) -> str:
    return f"{owner}\0{conversation_id}"


def _split(member: bytes) -> tuple[str, str]:
    owner, _, conversation_id = member.decode().partition("\0")
    return owner, conversation_id
