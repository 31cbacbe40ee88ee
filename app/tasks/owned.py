"""What clients of Coze's own API ask for: an owner's conversations, and the chats in them by Coze's ids.

A conversation is served by a session of its owner, which is made anew by the next chat when it is over; its
chats are chats as any other. What is asked of Coze itself is asked in the name of the conversation, once it
is known to be the caller's.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from attrs import define, field
from loguru import logger
from msgspec import Raw

from app.coze.client import CozeClient
from app.coze.codes import NOT_FOUND
from app.exceptions import (
    ChatNotFound,
    ConversationNotFound,
    CozeApiError,
    FileNotFound,
    ServiceError,
    SessionBusy,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
    UpstreamError,
    wrong_field,
)
from app.models import Identity
from app.stores.chats import ChatStore, status_of
from app.stores.files import FileStore, coze_file_id
from app.stores.index import user_key
from app.stores.owned import Owned, OwnedPage, OwnedStore
from app.stores.rates import Payer, RateStore
from app.stores.sessions import SessionStore
from app.tasks.at_coze import AtCoze, ChatsAtCoze
from app.tasks.chats import ChatService, Started
from app.tasks.drafts import Prompt, draft_of
from app.tasks.passed import Passed, without_our_key
from app.tasks.places import Place, Places
from app.tasks.sessions import SessionService
from app.tasks.shutdown import Shutdown
from app.utils import new_id, now_ms

__all__ = ["COZE_ID", "Asked", "Begun", "Found", "Owned", "OwnedConversations", "conversation_view"]

COZE_ID: Final = re.compile(r"[0-9]{1,32}")
_SERVED_TRIES: Final = 4
_LONGEST_NAME: Final = 1000
_MOST_KEPT: Final = 4096
"""Bytes of a conversation as Coze told of it, which are kept for half a year and paid for by one message."""
_GONE: Final = (SessionNotFound, SessionExpired, SessionTerminated)


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat as a client of Coze's asks for it.

    Args:
        body: what is sent to Coze: its fields, as JSON.
        conversation_id: None: Coze makes one.
        user_id, bot_id: as the body has them.
        text: what our record shows as the question.
        file_ids: Coze's, of the files that the messages name.
        meta_data: what our record shows as the message's.
    """

    body: dict[str, Raw]
    conversation_id: str | None
    user_id: str
    bot_id: str
    text: str
    file_ids: Sequence[str]
    meta_data: dict[str, str]


@dataclass(frozen=True, slots=True)
class Begun:
    """A chat that Coze has begun, and that is found by its ids from now on, on every replica."""

    started: Started
    at_coze: AtCoze
    bot_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """``record``: our chat; None where only Coze can still know it."""

    owned: Owned
    chat_id: str = ""
    record: dict[str, object] | None = None


@define(eq=False, repr=False, kw_only=True)
class OwnedConversations:
    """Raises ``ConversationNotFound`` for what is not the caller's, and ``RedisUnavailable``, everywhere."""

    _owned: OwnedStore
    _store: SessionStore
    _records: ChatStore
    _files: FileStore
    _rates: RateStore
    _places: Places
    _sessions: SessionService
    _chats: ChatService
    _at_coze: ChatsAtCoze
    _shutdown: Shutdown
    _coze: CozeClient

    # -- chats ----------------------------------------------------------------------------------------------

    async def send(
        self, identity: Identity, asked: Asked, request_id: str, tell: Callable[[str], None]
    ) -> Begun:
        """Begins a chat, and returns once it can be found by Coze's ids. ``tell`` is called with our id of it
        as soon as it was created, whatever becomes of it then.

        Raises:
            ValidationFailed, SessionBusy, RateLimited, QuotaExceeded, Overloaded, ShuttingDown: it was not
                created.
            UpstreamError: Coze has not begun it.
        """
        self._shutdown.refuse_if_begun()
        owned = None
        if asked.conversation_id is not None:
            owned = await self.find(identity, asked.conversation_id)
        credential = owned.credential if owned is not None else self._coze.credential_of(identity.owner)
        await self.check_files(identity, asked.file_ids, credential)
        user_id = (owned.user_id if owned is not None else "") or asked.user_id
        coze = self._coze.using(credential, identity.owner)
        session_id = owned.session_id if owned is not None else ""
        opener = _Opener(self._owned, self._store, coze, identity, asked, user_id, owned, session_id)
        payer = Payer(identity.owner, user_key(identity.owner, user_id))
        with self._places.taken(identity.owner) as place:
            size = sum(len(bytes(value)) for value in asked.body.values())
            await self._chats.charge(payer, place, size)  # only what got a token writes anything
            started = await self._enter(identity, place, opener, _prompt(asked, credential), request_id)
        tell(started.chat_id)
        at_coze = await self._at_coze.begun(identity, started.chat_id)
        if owned is None:
            await self._owned.remember(
                Owned(
                    owner=identity.owner,
                    conversation_id=at_coze.conversation_id,
                    bot_id=asked.bot_id,
                    credential=at_coze.credential,
                    user_id=user_id,
                    session_id=opener.session_id,
                    created=now_ms(),
                )
            )
        return Begun(started, at_coze, asked.bot_id)

    async def _enter(
        self, identity: Identity, place: Place, opener: "_Opener", prompt: Prompt, request_id: str
    ) -> Started:
        failed: ServiceError | None = None
        gave_up = False
        while True:
            draft = draft_of(await opener.session(failed), prompt)
            try:
                return await self._chats.enter(identity, place, draft, request_id)
            except _GONE as error:
                failed = error
            except SessionBusy as error:
                # At Coze a chat that waits for tool outputs is in nobody's way, and cannot be cancelled.
                if gave_up or not await self._is_given_up(identity, error):
                    raise
                failed, gave_up = None, True

    async def _is_given_up(self, identity: Identity, busy: SessionBusy) -> bool:
        """Ends the chat that is in the way if it waits for tool outputs."""
        chat_id = str(busy.details.get("chat_id"))
        if status_of(await self._records.record(chat_id, identity)) != "requires_action":
            return False
        await self._chats.cancel(identity, chat_id)
        return True

    async def chat(self, identity: Identity, conversation_id: str, coze_chat_id: str) -> Found:
        """A chat by Coze's ids. Raises ``ChatNotFound`` for what is no id."""
        owned = await self.find(identity, conversation_id)
        if not COZE_ID.fullmatch(coze_chat_id):
            raise ChatNotFound
        chat_id = ""
        if owned.session_id:
            chat_id = await self._records.by_coze_id(owned.session_id, coze_chat_id) or ""
        if not chat_id:
            return Found(owned)
        try:
            return Found(owned, chat_id, orjson.loads(await self._records.record(chat_id, identity)))
        except ChatNotFound:
            return Found(owned)

    # -- conversations --------------------------------------------------------------------------------------

    async def find(self, identity: Identity, conversation_id: str) -> Owned:
        """The conversation, which is remembered for its full time from now on."""
        if not COZE_ID.fullmatch(conversation_id):
            raise ConversationNotFound
        return await self._owned.use(identity, conversation_id)

    async def create(
        self, identity: Identity, body: Mapping[str, Raw], *, bot_id: str, name: str, file_ids: Sequence[str]
    ) -> Passed:
        """Makes a conversation at Coze, whose owner is written down before anybody hears of it."""
        self._shutdown.refuse_if_begun()
        credential = self._coze.credential_of(identity.owner)
        await self.check_files(identity, file_ids, credential)
        await self._rates.take("messages", identity.owner, None)
        coze = self._coze.using(credential, identity.owner)
        reply = Passed.of(await coze.pass_on("POST", "/v1/conversation/create", body=body))
        view = reply.data if isinstance(reply.data, dict) else {}
        conversation_id = str(view.get("id") or "")
        if not COZE_ID.fullmatch(conversation_id):
            raise CozeApiError("Coze's answer has no conversation", logid=reply.logid)
        await self._owned.remember(
            Owned(
                owner=identity.owner,
                conversation_id=conversation_id,
                bot_id=bot_id,
                credential=coze.credential,
                name=name,
                section_id=str(view.get("last_section_id") or ""),
                view=_kept(view),
                created=now_ms(),
            )
        )
        return reply

    async def page(
        self, identity: Identity, bot_id: str, *, first: int, size: int, newest_first: bool
    ) -> OwnedPage:
        """The owner's conversations with a bot, from our records: Coze's list holds everybody's."""
        return await self._owned.page(identity, bot_id, first=first, size=size, newest_first=newest_first)

    async def rename(self, owned: Owned, name: str | None, body: Mapping[str, Raw]) -> Passed:
        reply = await self.pass_on(owned, "PUT", f"/v1/conversations/{owned.conversation_id}", body=body)
        if name is not None:
            await self._owned.change(owned, {"name": name[:_LONGEST_NAME]})
        return reply

    async def clear(self, identity: Identity, owned: Owned) -> Passed:
        """A new context. Raises ``SessionBusy`` while a chat runs: it could fall on either side."""
        if owned.session_id:
            with contextlib.suppress(*_GONE):
                session, _, _ = await self._store.read(owned.session_id, identity, history=0, touch=False)
                if session.running is not None:
                    raise SessionBusy(details={"chat_id": session.running})
        reply = await self.pass_on(owned, "POST", f"/v1/conversations/{owned.conversation_id}/clear")
        section = reply.data.get("id") if isinstance(reply.data, dict) else None
        if isinstance(section, str):
            await self._owned.change(owned, {"section": section})
        return reply

    async def delete(self, identity: Identity, owned: Owned) -> Passed:
        """Deletes it at Coze, ends what runs in it, and forgets whose it was. What Coze has no more can be
        deleted, too."""
        path = f"/v1/conversations/{owned.conversation_id}"
        try:
            reply = await self.pass_on(owned, "DELETE", path)
        except UpstreamError as error:
            if error.coze_code not in NOT_FOUND:
                raise
            reply = Passed(None, error.logid, {})
        await self._owned.forget(owned)
        if owned.session_id:
            with contextlib.suppress(*_GONE):
                await self._sessions.end(identity, owned.session_id)
        return reply

    async def pass_on(
        self,
        owned: Owned,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Passed:
        """A call about the conversation, as the caller made it. Each takes a token: ``RateLimited``."""
        user = user_key(owned.owner, owned.user_id) if owned.user_id else None
        await self._rates.take("calls", owned.owner, user)
        coze = self._coze.using(owned.credential, owned.owner)
        conversation_id = owned.conversation_id
        return Passed.of(
            await coze.pass_on(method, path, conversation_id=conversation_id, params=params, body=body)
        )

    async def check_files(self, identity: Identity, file_ids: Sequence[str], credential: str) -> None:
        """Raises ``ValidationFailed`` where one of them is not the caller's, or was uploaded in another name
        at Coze than the conversation's."""
        if not file_ids:
            return
        ids = [coze_file_id(identity.owner, each) for each in dict.fromkeys(file_ids)]
        try:
            records = await self._files.find(ids, identity)
        except FileNotFound:
            raise wrong_field("file_id", "is no file that you have uploaded here") from None
        if any(record.credential not in ("", credential) for record in records if credential):
            problem = "was uploaded before the service's credentials changed: upload it again"
            raise wrong_field("file_id", problem)


def _kept(view: dict[str, object]) -> str:
    """Without what the caller wrote into it where that is much."""
    for each in (view, {name: value for name, value in view.items() if name != "meta_data"}):
        if len(packed := orjson.dumps(each)) <= _MOST_KEPT:
            return packed.decode()
    return ""


@define(eq=False, repr=False)
class _Opener:
    """Finds the session that serves a conversation, or opens one; as often as the one that it named turns out
    to be over."""

    _store: OwnedStore
    _sessions: SessionStore
    _coze: CozeClient
    _identity: Identity
    _asked: Asked
    _user_id: str
    _owned: Owned | None
    session_id: str
    """The one that was named last; empty before there is one."""
    _tries: int = field(init=False, default=0)

    async def session(self, failed: ServiceError | None) -> str:
        """``failed``: why the one that was named last takes no chat; raised again where that never ends."""
        if failed is not None:
            self._tries += 1
            if self._tries >= _SERVED_TRIES:
                raise failed
        if self._owned is None:
            self.session_id = new_id("session")
            await self._open(None, await self._new_conversation())
        elif failed is None and self.session_id:
            return self.session_id
        elif not (isinstance(failed, SessionNotFound) and await self._opened_as_named(self._owned)):
            self._owned = await self._store.serve(
                self._owned,
                ended=self.session_id,
                session_id=new_id("session"),
                user_id=self._user_id,
                bot_id=self._asked.bot_id,
            )
            self.session_id = self._owned.session_id
            await self._open(self._owned, self._owned.conversation_id)
        return self.session_id

    async def _new_conversation(self) -> str:
        """Only in a conversation that is known can a chat be searched for whose stream was cut, or whose
        owner died, before Coze had told its ids. Without one ("") Coze makes it with the chat."""
        try:
            return await self._coze.create_conversation(bot_id=self._asked.bot_id)
        except UpstreamError as error:
            logger.info("no conversation for a chat yet: {}", error.code)
            return ""

    async def _opened_as_named(self, owned: Owned) -> bool:
        """Whoever has put the session's name there is about to open it, or has died before that: it may be
        opened by anybody, since opening it a second time changes nothing. False: it was erased."""
        with contextlib.suppress(SessionTerminated):
            await self._open(owned, owned.conversation_id)
            return True
        return False

    async def _open(self, owned: Owned | None, conversation_id: str) -> None:
        await self._sessions.open(
            self.session_id,
            self._identity,
            user_id=(owned.user_id if owned is not None else "") or self._user_id,
            bot_id=(owned.bot_id if owned is not None else "") or self._asked.bot_id,
            serves_conversation=True,
            conversation=(conversation_id, self._coze.credential) if conversation_id else None,
        )


def _prompt(asked: Asked, credential: str) -> Prompt:
    return Prompt(message=asked.text, credential=credential, meta_data=asked.meta_data, passed=asked.body)


def conversation_view(owned: Owned) -> dict[str, object]:
    """A conversation as Coze lists it, from our record."""
    view: dict[str, object] = without_our_key(orjson.loads(owned.view)) if owned.view else {}
    created = owned.created // 1000
    shown = {
        "id": owned.conversation_id,
        "created_at": created,
        "creator_id": "",
        "connector_id": "1024",
        "updated_at": created,
        **view,
        "meta_data": view.get("meta_data") or {},
        "last_section_id": owned.section_id or owned.conversation_id,
    }
    if name := owned.name or view.get("name"):
        shown["name"] = name
    return shown
