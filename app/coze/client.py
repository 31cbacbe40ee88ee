"""The calls of the Coze v3 chat API.

Every failure is an ``UpstreamError`` with Coze's code and logid where there are any. ``maybe_started`` False
says that the request can be repeated; on calls about a chat that exists it is always True. What is sent
again by itself is said in ``app.coze.api``.

Source: Coze's API pages "Chat v3", "Retrieve chat", "List chat messages", "Submit tool outputs", "Cancel
chat", "Create conversation", "Clear conversation", "Delete conversation", "List messages", "Give
feedback on a message", "Upload file", "Get bot configurations".
"""

import asyncio
from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from app.coze.api import ApiCall, CozeApi
from app.coze.codes import CANNOT_CANCEL, NOT_FOUND
from app.coze.credentials.accounts import Credentials
from app.coze.deadline import Deadline
from app.coze.files import CozeFile, FilePart
from app.coze.replies import Reply
from app.coze.stream import CozeStream
from app.coze.wire import ENDED, ChatRequest, ChatState, Message, MessagePage, identifier
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError

PAGE_SIZE: Final = 50
"""Messages of one page at most, as Coze has it."""
POLL_FAILURES: Final = 5
"""How many retrieves in a row may fail before polling gives up."""
SEARCHED_PAGES: Final = 4
SEARCHED_CHATS: Final = 10
"""How far ``find_chat`` goes back in a conversation."""

_FIRST_POLL: Final = 0.3  # of the poll interval: short answers are there at once
_POLL_GROWTH: Final = 1.2
_SLOWEST_POLL: Final = 3.0  # times the poll interval
_LIST_TRIES: Final = 3


class Section(NamedTuple):
    """The part of a conversation that the bot remembers. ``logid``: of the call that began it."""

    id: str
    logid: str | None


class CozeClient:
    """Makes calls on behalf of one identity at Coze. ``owner``: for whom, so that retries are his; "": for
    nobody in particular."""

    def __init__(self, api: CozeApi, credentials: Credentials, owner: str = "") -> None:
        self._api = api
        self._options = api.options
        self._endpoints = api.options.endpoints
        self._credentials = credentials
        self._owner = owner

    # --- on whose behalf -----------------------------------------------------------------------------------

    def using(self, credential: str, owner: str) -> "CozeClient":
        """A client for one conversation of an owner (``""``: of nobody's): in the name of the credential that
        it belongs to, or with ``""`` for a new one, which may go to any."""
        return CozeClient(self._api, self._credentials.named(credential), owner)

    @property
    def credential(self) -> str:
        """Whose a conversation is that was made through this client."""
        return self._credentials.name

    def credential_of(self, owner: str) -> str:
        """The credential that all of an owner's uploads and conversations share."""
        return self._credentials.name_for(owner)

    def answer_failed(self, error: UpstreamError) -> None:
        """An answer that had begun failed with ``error``: that may be the credential's limit, too."""
        self._credentials.call_failed(error)

    def may_ask_again(self) -> bool:
        """Whether the owner has a retry left for a call that Coze has refused; it is taken."""
        return self._api.may_retry(self._owner)

    # --- chats -----------------------------------------------------------------------------------------

    def stream_chat(self, request: ChatRequest) -> AbstractAsyncContextManager[CozeStream]:
        """POST /v3/chat with stream=true. Leaving the block closes the stream."""
        return self._api.stream(self._chat_call(request, stream=True), self._credentials)

    def stream_tool_outputs(
        self, conversation_id: str, chat_id: str, outputs: bytes
    ) -> AbstractAsyncContextManager[CozeStream]:
        """POST /v3/chat/submit_tool_outputs with stream=true; ``outputs`` is a JSON list of
        all of the chat's ``{"tool_call_id", "output"}``."""
        call = ApiCall(
            owner=self._owner,
            method="POST",
            url=self._endpoints.url("/v3/chat/submit_tool_outputs"),
            params={"conversation_id": conversation_id, "chat_id": chat_id},
            content=b'{"tool_outputs":%b,"stream":true}' % outputs,
            conversation_id=conversation_id,
            stream=True,
        )
        return self._api.stream(call, self._credentials)

    async def create_chat(self, request: ChatRequest) -> ChatState:
        """POST /v3/chat with stream=false: a chat that runs, to be polled."""
        reply = await self._api.json(self._chat_call(request, stream=False), self._credentials)
        chat = _chat(reply, request.conversation_id or "", "")
        if not chat.id:
            raise CozeApiError("Coze's answer is not a chat", logid=reply.logid, maybe_started=True)
        return chat

    def _chat_call(self, request: ChatRequest, *, stream: bool) -> ApiCall:
        return ApiCall(
            owner=self._owner,
            method="POST",
            url=self._endpoints.chat,
            params=request.query,
            content=request.body(stream=stream),
            conversation_id=request.conversation_id,
            stream=stream,
        )

    async def retrieve_chat(
        self, conversation_id: str, chat_id: str, *, retries: int | None = None
    ) -> ChatState:
        """GET /v3/chat/retrieve, sent again ``retries`` times at most (default ``max_retries``)."""
        # Coze's cloud accepts POST, too; coze-studio does not.
        ids = {"conversation_id": conversation_id, "chat_id": chat_id}
        reply = await self._call_existing(
            "GET", "/v3/chat/retrieve", conversation_id, params=ids, retries=retries
        )
        return _chat(reply, conversation_id, chat_id)

    async def list_messages(self, conversation_id: str, chat_id: str) -> list[Message]:
        """GET /v3/chat/message/list: the messages of that turn without the user's, in Coze's order, which is
        not that of time. Raises ``CozeApiError`` past ``max_messages``."""
        ids = {"conversation_id": conversation_id, "chat_id": chat_id}
        reply = await self._call_existing("GET", "/v3/chat/message/list", conversation_id, params=ids)
        return [message for message in self._messages(reply) if not message.is_question]

    async def stored_answer(self, conversation_id: str, chat_id: str) -> list[Message]:
        """``list_messages`` of a completed chat, asked again a little later while it has no answer: the
        list can lag behind the chat. Still without one, what there is."""
        messages: list[Message] = []
        for attempt in range(_LIST_TRIES):
            if attempt:
                await self._api.sleep(self._options.poll_interval * 0.5 * attempt)
            messages = await self.list_messages(conversation_id, chat_id)
            if any(message.type == "answer" for message in messages):
                break
        return messages

    async def poll_chat(self, conversation_id: str, chat_id: str) -> ChatState:
        """Retrieves the chat until it is completed, failed, canceled or requires_action.

        Waits ``0.3 * poll_interval`` first, then ``poll_interval``, growing slowly to three times that, with
        jitter. Up to ``POLL_FAILURES`` failures in a row are tolerated, if they may pass. There is no
        deadline in here: wrap it in one (``chat_deadline``).
        """
        interval = self._options.poll_interval
        wait = interval * _FIRST_POLL
        failures = 0
        while True:
            await self._api.pause(wait)
            # Coze asks for at least a second between two retrieves; only the first wait is shorter.
            wait = min(max(wait * _POLL_GROWTH, interval), interval * _SLOWEST_POLL)
            try:
                chat = await self.retrieve_chat(conversation_id, chat_id, retries=0)
            except UpstreamError as error:
                failures += 1
                if not error.retryable or failures > POLL_FAILURES:
                    raise
                continue
            failures = 0
            if chat.status in ENDED:
                return chat

    async def cancel_chat(self, conversation_id: str, chat_id: str) -> ChatState:
        """POST /v3/chat/cancel. A chat that cannot be cancelled (4104: it has ended, or waits for tool
        outputs) is retrieved instead, and its state returned."""
        ids = {"conversation_id": conversation_id, "chat_id": chat_id}
        try:
            reply = await self._call_existing("POST", "/v3/chat/cancel", conversation_id, body=ids)
        except UpstreamError as error:
            if error.coze_code not in CANNOT_CANCEL:
                raise
            return await self.retrieve_chat(conversation_id, chat_id)
        return _chat(reply, conversation_id, chat_id)

    @staticmethod
    def chat_deadline(seconds: float) -> AbstractAsyncContextManager[object]:
        """Bounds a whole chat: past ``seconds`` the block is broken off and ``CozeTimeout`` raised."""
        text = f"The chat ran longer than {seconds:g} s (COZE_CHAT_TIMEOUT)"
        return Deadline(asyncio.get_running_loop().time() + seconds, lambda: CozeTimeout(text))

    # --- conversations -----------------------------------------------------------------------------------

    async def create_conversation(self, *, bot_id: str) -> str:
        """POST /v1/conversation/create; returns the conversation's id."""
        return _own_id(await self.pass_on("POST", "/v1/conversation/create", body={"bot_id": bot_id}))

    async def clear_conversation(self, conversation_id: str) -> Section:
        """POST /v1/conversations/{id}/clear: the bot forgets what was said; returns the new section."""
        path = f"/v1/conversations/{quote(conversation_id, safe='')}/clear"
        reply = await self._call_existing("POST", path, conversation_id)
        return Section(_own_id(reply), reply.logid)

    async def delete_conversation(self, conversation_id: str) -> Reply:
        """DELETE /v1/conversations/{id}: with all that was said in it."""
        path = f"/v1/conversations/{quote(conversation_id, safe='')}"
        return await self._call_existing("DELETE", path, conversation_id)

    async def give_feedback(
        self, conversation_id: str, message_id: str, feedback: Mapping[str, object] | None
    ) -> Reply:
        """POST /v1/conversations/{id}/messages/{id}/feedback, DELETE where it is None. The last one counts.

        ``feedback``: ``feedback_type`` (``like`` or ``unlike``), ``reason_types``, ``comment``.
        """
        conversation, message = quote(conversation_id, safe=""), quote(message_id, safe="")
        path = f"/v1/conversations/{conversation}/messages/{message}/feedback"
        method = "DELETE" if feedback is None else "POST"
        return await self._call_existing(method, path, conversation_id, body=feedback)

    async def list_conversation_messages(
        self,
        conversation_id: str,
        *,
        order: Literal["asc", "desc"] = "desc",
        limit: int = PAGE_SIZE,
        before_id: str | None = None,
        after_id: str | None = None,
    ) -> MessagePage:
        """POST /v1/conversation/message/list: questions and answers.

        Args:
            order: by time; ``desc``: the newest first.
            limit: 1 to ``PAGE_SIZE``; always sent, since coze-studio lists nothing without it.
            before_id: a message's id, for the page before it.
            after_id: a message's id, for the page after it: under ``desc`` ``last_id`` for the next older.
        """
        body: dict[str, str | int] = {"order": order, "limit": min(max(limit, 1), PAGE_SIZE)}
        optional = {"before_id": before_id, "after_id": after_id}
        body.update({key: value for key, value in optional.items() if value})
        path, ids = "/v1/conversation/message/list", {"conversation_id": conversation_id}
        reply = await self._call_existing("POST", path, conversation_id, params=ids, body=body)
        messages = self._messages(reply)
        first_id = identifier(reply.body.get("first_id")) or (messages[0].id if messages else "")
        last_id = identifier(reply.body.get("last_id")) or (messages[-1].id if messages else "")
        # A page that leads nowhere is the last one, whatever Coze says: who follows it would never end.
        further = (first_id, before_id) if before_id else (last_id, after_id)
        leads_on = bool(messages) and further[0] not in ("", "0", further[1])
        return MessagePage(
            messages,
            first_id or None,
            last_id or None,
            leads_on and reply.body.get("has_more") in (True, "true"),
            reply.logid,
        )

    async def find_chat(
        self, conversation_id: str, *, meta_key: str, meta_value: str, created_after: int | None = None
    ) -> ChatState | None:
        """The newest chat of the conversation whose ``meta_data[meta_key]`` is ``meta_value``.

        Goes through the conversation's messages, newest first, and retrieves each chat they name, at most
        ``SEARCHED_CHATS`` on ``SEARCHED_PAGES``.

        ``created_after``: unix seconds by Coze's clock (leave some margin): older messages end the search.

        Returns:
            None: it is not among them (a chat of which Coze lists no message yet is not found).

        Raises:
            UpstreamError: a call failed, so that None is never a guess.
        """
        seen: set[str] = set()
        after_id: str | None = None
        for _ in range(SEARCHED_PAGES):
            page = await self.list_conversation_messages(conversation_id, after_id=after_id)
            for message in page.messages:
                if created_after is not None and (message.created_at or created_after) < created_after:
                    return None
                if not message.chat_id or message.chat_id in seen:
                    continue
                seen.add(message.chat_id)
                chat = await self._retrieve_if_there(conversation_id, message.chat_id)
                if chat is not None and chat.meta_data.get(meta_key) == meta_value:
                    return chat
                if len(seen) >= SEARCHED_CHATS:
                    return None
            if not page.has_more or not page.messages or page.last_id in (None, "0", after_id):
                return None
            after_id = page.last_id
        return None

    async def _retrieve_if_there(self, conversation_id: str, chat_id: str) -> ChatState | None:
        try:
            return await self.retrieve_chat(conversation_id, chat_id)
        except UpstreamError as error:
            if error.coze_code in NOT_FOUND:
                return None
            raise

    # --- for Coze's own clients --------------------------------------------------------------------------

    async def pass_on(
        self,
        method: str,
        path: str,
        *,
        conversation_id: str | None = None,
        params: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Reply:
        """A call of Coze's API as somebody else made it, and what Coze answers. Sent again where nothing can
        have come of it; where it changes nothing (GET, and a list that is asked for by POST) whatever became
        of it."""
        call = ApiCall(
            owner=self._owner,
            method=method,
            url=self._endpoints.url(path),
            params=dict(params) if params else None,
            content=None if body is None else msgspec.json.encode(body),
            conversation_id=conversation_id,
            safe=method == "GET" or path.endswith("/list"),
        )
        return await self._api.json(call, self._credentials)

    # --- bots, files -------------------------------------------------------------------------------------

    async def retrieve_bot(self, bot_id: str) -> Reply:
        """GET /v1/bot/get_online_info: the published bot, its prompt among the rest."""
        return await self.pass_on("GET", "/v1/bot/get_online_info", params={"bot_id": bot_id})

    async def upload_file(
        self, name: str, mime: str, chunks: AsyncIterable[bytes], *, seconds: float
    ) -> CozeFile:
        """POST /v1/files/upload, sent once.

        ``chunks`` are read as fast as Coze takes them; what they raise breaks the request off. ``seconds``:
        for the whole of it. Raises ``CozeTimeout`` where it took longer, ``UpstreamError``.
        """
        part = FilePart(name, mime, chunks)
        call = ApiCall(
            owner=self._owner,
            method="POST",
            url=self._endpoints.url("/v1/files/upload"),
            content=part.body(),
            content_type=part.content_type,
            seconds=seconds + 1,  # ours is first, and says what it is
            retries=0,
        )
        text = f"The upload took longer than {seconds:g} s (UPLOAD_TIMEOUT)"
        async with Deadline(asyncio.get_running_loop().time() + seconds, lambda: CozeTimeout(text)):
            return CozeFile.parse(await self._api.json(call, self._credentials))

    # --- how calls are made ------------------------------------------------------------------------------

    async def _call_existing(
        self,
        method: str,
        path: str,
        conversation_id: str,
        *,
        params: dict[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        retries: int | None = None,
    ) -> Reply:
        """A call about a conversation that exists, and that may be made twice."""
        return await self._api.json(
            ApiCall(
                owner=self._owner,
                method=method,
                url=self._endpoints.url(path),
                params=params,
                content=None if body is None else msgspec.json.encode(body),
                conversation_id=conversation_id,
                safe=True,
                existing=True,
                retries=retries,
            ),
            self._credentials,
        )

    def _messages(self, reply: Reply) -> list[Message]:
        listed = [] if reply.data is None else reply.data
        if not isinstance(listed, list):
            # Not an empty list: a cut answer must not be taken for all that Coze has stored.
            raise CozeApiError("Coze's answer is no list of messages", logid=reply.logid, retryable=True)
        if len(listed) > self._options.max_messages:
            raise CozeApiError(
                f"Coze listed more than {self._options.max_messages} messages", logid=reply.logid
            )
        messages = [message for message in map(Message.parse, listed) if message is not None]
        if len(messages) < len(listed):
            self._api.note_unreadable("message", reply.logid)
        return messages


def _chat(reply: Reply, conversation_id: str, chat_id: str) -> ChatState:
    """The chat of an answer; ids that Coze left out are those that were asked for."""
    chat = ChatState.parse(reply.data, logid=reply.logid)
    return msgspec.structs.replace(
        chat,
        id=chat.id or chat_id,
        conversation_id=chat.conversation_id or conversation_id,
    )


def _own_id(reply: Reply) -> str:
    found = identifier(reply.data.get("id")) if isinstance(reply.data, dict) else ""
    if not found:
        raise CozeApiError("Coze's answer has no id", logid=reply.logid)
    return found
