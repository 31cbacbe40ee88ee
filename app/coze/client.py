"""The calls of the Coze v3 chat API.

Every failure is an ``UpstreamError`` with Coze's code and logid where there are any. ``maybe_started`` False
says that the request can be repeated; on calls about a chat that exists it is always True. What is retried
in here is said in ``app.coze.caller``.
"""

import asyncio
import copy
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Literal

import msgspec

from app.coze.caller import Call, Caller
from app.coze.codes import CANNOT_CANCEL, NOT_THERE
from app.coze.exchange import CozeStream
from app.coze.files import CozeFile, FilePart
from app.coze.options import CozeOptions, Credentials, OwnedCredentials, SharedCredentials
from app.coze.replies import Reply
from app.coze.retry import Uniform
from app.coze.transport import PooledClient
from app.coze.wire import (
    ENDED,
    ChatRequest,
    ChatState,
    Message,
    MessagePage,
    identifier,
)
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError
from app.metrics import Metrics
from app.tracing import Tracing

MAX_PAGE: Final = 50
POLL_FAILURES: Final = 5
"""How many retrieves in a row may fail before polling gives up."""

_FIRST_POLL: Final = 0.3  # of the poll interval: short answers are there at once
_POLL_GROWTH: Final = 1.2
_SLOWEST_POLL: Final = 3.0  # times the poll interval
_LIST_TRIES: Final = 3


class CozeClient:
    """``http`` is the process's pooled client (see ``build_http_client``) and stays the caller's to close.
    ``sleep`` and ``rng`` are for tests."""

    def __init__(
        self,
        http: PooledClient,
        options: CozeOptions,
        credentials: Credentials,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: Uniform | None = None,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._options = options
        self._endpoints = options.endpoints
        self._sleep = sleep
        self._rng = rng or random.SystemRandom()
        # Looked at once: whether an object follows a protocol takes long to find out.
        self._shared = credentials if isinstance(credentials, SharedCredentials) else None
        self._owned = credentials if isinstance(credentials, OwnedCredentials) else None
        self._caller = Caller(
            http,
            options,
            credentials,
            sleep=sleep,
            rng=self._rng,
            metrics=metrics or Metrics(),
            tracing=tracing or Tracing(),
        )

    # --- on whose behalf -----------------------------------------------------------------------------------

    def using(self, credential: str) -> "CozeClient":
        """This client for one conversation: in the name of the credential that it belongs to, or with ``""``
        for a new one, which may go to any. Credentials that have no names leave the client as it is."""
        if self._shared is None:
            return self
        other = copy.copy(self)
        other._shared = None  # noqa: SLF001  # of this very class, as below
        other._owned = self._shared.of(credential)  # noqa: SLF001
        other._caller = self._caller.using(other._owned)  # noqa: SLF001
        return other

    @property
    def credential(self) -> str:
        """Whose a conversation is that was made through this client; empty where that is no matter."""
        return self._owned.name if self._owned is not None else ""

    def answer_failed(self, error: UpstreamError) -> None:
        """An answer that had begun failed with ``error``: that may be the credential's limit, too."""
        if self._owned is not None:
            self._owned.failed(error)

    # --- chats -----------------------------------------------------------------------------------------

    def stream_chat(self, request: ChatRequest) -> AbstractAsyncContextManager[CozeStream]:
        """POST /v3/chat with stream=true. Leaving the block closes the stream."""
        return self._caller.stream(
            Call(
                method="POST",
                url=self._endpoints.chat,
                params=request.query,
                content=request.body(stream=True),
                conversation_id=request.conversation_id,
                stream=True,
            )
        )

    def stream_tool_outputs(
        self, conversation_id: str, chat_id: str, outputs: list[dict[str, Any]]
    ) -> AbstractAsyncContextManager[CozeStream]:
        """POST /v3/chat/submit_tool_outputs with stream=true; ``outputs`` are all of the chat's
        ``{"tool_call_id", "output"}``."""
        return self._caller.stream(self._tool_outputs(conversation_id, chat_id, outputs, stream=True))

    async def create_chat(self, request: ChatRequest) -> ChatState:
        """POST /v3/chat with stream=false: a chat that runs, to be polled."""
        reply = await self._caller.json(
            Call(
                method="POST",
                url=self._endpoints.chat,
                params=request.query,
                content=request.body(stream=False),
                conversation_id=request.conversation_id,
            )
        )
        chat = _chat(reply, request.conversation_id or "", "")
        if not chat.id:
            raise CozeApiError("Coze's answer is not a chat", logid=reply.logid, maybe_started=True)
        return chat

    async def submit_tool_outputs(
        self, conversation_id: str, chat_id: str, outputs: list[dict[str, Any]]
    ) -> ChatState:
        """POST /v3/chat/submit_tool_outputs with stream=false."""
        reply = await self._caller.json(self._tool_outputs(conversation_id, chat_id, outputs, stream=False))
        return _chat(reply, conversation_id, chat_id)

    async def retrieve_chat(self, conversation_id: str, chat_id: str) -> ChatState:
        """GET /v3/chat/retrieve."""
        return await self._retrieve(conversation_id, chat_id, retries=None)

    async def list_messages(self, conversation_id: str, chat_id: str) -> list[Message]:
        """GET /v3/chat/message/list: the messages of that turn without the user's, in Coze's order, which is
        not that of time. Raises ``CozeApiError`` past ``max_messages``."""
        reply = await self._caller.json(
            Call(
                method="GET",
                url=self._endpoints.messages,
                params={"conversation_id": conversation_id, "chat_id": chat_id},
                conversation_id=conversation_id,
                safe=True,
                existing=True,
            )
        )
        return [message for message in self._messages(reply) if not message.is_question]

    async def stored_answer(self, conversation_id: str, chat_id: str) -> list[Message]:
        """``list_messages`` of a completed chat, asked again a little later while it has no answer: the
        list can lag behind the chat. Still without one, what there is."""
        messages: list[Message] = []
        for attempt in range(_LIST_TRIES):
            if attempt:
                await self._sleep(self._options.poll_interval * 0.5 * attempt)
            messages = await self.list_messages(conversation_id, chat_id)
            if any(message.type == "answer" for message in messages):
                break
        return messages

    async def poll_chat(self, conversation_id: str, chat_id: str) -> ChatState:
        """Retrieves the chat until it is completed, failed, canceled or requires_action.

        Waits ``0.3 * poll_interval`` first, then ``poll_interval``, growing slowly to three times that, with
        jitter. Up to five failures in a row that may pass are borne. There is no deadline in here: wrap it
        in one (``chat_deadline``).
        """
        interval = self._options.poll_interval
        wait = interval * _FIRST_POLL
        failures = 0
        while True:
            await self._sleep(wait * self._rng.uniform(0.9, 1.1))
            # Coze asks for at least a second between two retrieves; only the first wait is shorter.
            wait = min(max(wait * _POLL_GROWTH, interval), interval * _SLOWEST_POLL)
            try:
                chat = await self._retrieve(conversation_id, chat_id, retries=0)
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
        body = {"conversation_id": conversation_id, "chat_id": chat_id}
        try:
            reply = await self._caller.json(
                Call(
                    method="POST",
                    url=self._endpoints.cancel,
                    content=msgspec.json.encode(body),
                    conversation_id=conversation_id,
                    safe=True,
                    existing=True,
                )
            )
        except UpstreamError as error:
            if error.coze_code not in CANNOT_CANCEL:
                raise
            return await self.retrieve_chat(conversation_id, chat_id)
        return _chat(reply, conversation_id, chat_id)

    # --- conversations -----------------------------------------------------------------------------------

    async def create_conversation(
        self, *, bot_id: str | None = None, meta_data: dict[str, str] | None = None
    ) -> str:
        """POST /v1/conversation/create; returns the conversation's id."""
        body = {"bot_id": bot_id, "meta_data": meta_data}
        reply = await self._caller.json(
            Call(
                method="POST",
                url=self._endpoints.conversation_create,
                content=msgspec.json.encode({key: value for key, value in body.items() if value}),
            )
        )
        return _own_id(reply)

    async def clear_conversation(self, conversation_id: str) -> str:
        """POST /v1/conversations/{id}/clear: the bot forgets what was said; returns the new section's id."""
        return (await self.new_section(conversation_id))[0]

    async def new_section(self, conversation_id: str) -> tuple[str, str | None]:
        """The same; returns the new section's id and the logid."""
        reply = await self._caller.json(
            Call(
                method="POST",
                url=self._endpoints.conversation_clear(conversation_id),
                conversation_id=conversation_id,
                safe=True,
                existing=True,
            )
        )
        return _own_id(reply), reply.logid

    async def list_conversation_messages(
        self,
        conversation_id: str,
        *,
        order: Literal["asc", "desc"] = "desc",
        limit: int = MAX_PAGE,
        before_id: str | None = None,
        after_id: str | None = None,
        chat_id: str | None = None,
    ) -> MessagePage:
        """POST /v1/conversation/message/list: questions and answers. For the next older page under ``desc``
        pass ``last_id`` as ``after_id``. ``limit``: 1-50, always sent, since coze-studio lists nothing
        without it."""
        body: dict[str, Any] = {"order": order, "limit": min(max(limit, 1), MAX_PAGE)}
        optional = {"before_id": before_id, "after_id": after_id, "chat_id": chat_id}
        body.update({key: value for key, value in optional.items() if value})
        reply = await self._caller.json(
            Call(
                method="POST",
                url=self._endpoints.conversation_messages,
                params={"conversation_id": conversation_id},
                content=msgspec.json.encode(body),
                conversation_id=conversation_id,
                safe=True,
                existing=True,
            )
        )
        return MessagePage(
            self._messages(reply),
            identifier(reply.body.get("first_id")) or None,
            identifier(reply.body.get("last_id")) or None,
            reply.body.get("has_more") is True,
            reply.logid,
        )

    async def find_chat(
        self,
        conversation_id: str,
        *,
        meta_key: str,
        meta_value: str,
        created_after: int | None = None,
        max_pages: int = 4,
        max_chats: int = 10,
    ) -> ChatState | None:
        """The newest chat of the conversation whose ``meta_data[meta_key]`` is ``meta_value``.

        Goes through the conversation's messages, newest first, and retrieves each chat they name; messages
        older than ``created_after`` (unix seconds, by Coze's clock: leave some margin) end the search. None:
        it is not among them (a chat of which Coze lists no message yet is not found). A failing call raises,
        so that None is never a guess.
        """
        seen: set[str] = set()
        after_id: str | None = None
        for _ in range(max_pages):
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
                if len(seen) >= max_chats:
                    return None
            if not page.has_more or not page.messages or page.last_id in (None, "0", after_id):
                return None
            after_id = page.last_id
        return None

    @asynccontextmanager
    async def chat_deadline(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Bounds a whole chat: past ``seconds`` (default ``chat_timeout``) the block is cancelled and
        ``CozeTimeout`` raised."""
        limit = self._options.chat_timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(limit) as scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise CozeTimeout(f"The chat ran longer than {limit:g} s (COZE_CHAT_TIMEOUT)") from None

    # --- files -------------------------------------------------------------------------------------------

    async def upload_file(
        self, name: str, mime: str, chunks: AsyncIterable[bytes], *, seconds: float
    ) -> CozeFile:
        """POST /v1/files/upload, sent once: ``chunks`` are read as fast as Coze takes them. ``seconds`` bound
        the whole of it. What ``chunks`` raises breaks the request off, and is an ``UpstreamError`` here."""
        part = FilePart(name, mime, chunks)
        try:
            async with asyncio.timeout(seconds) as scope:
                reply = await self._caller.json(
                    Call(
                        method="POST",
                        url=self._endpoints.file_upload,
                        content=part.body(),
                        content_type=part.content_type,
                        seconds=seconds + 1,  # ours is first, and says what it is
                        retries=0,
                    )
                )
        except TimeoutError:
            if not scope.expired():
                raise
            raise CozeTimeout(f"The upload took longer than {seconds:g} s (UPLOAD_TIMEOUT)") from None
        return CozeFile.parse(reply)

    # --- how calls are made ------------------------------------------------------------------------------

    def _tool_outputs(
        self, conversation_id: str, chat_id: str, outputs: list[dict[str, Any]], *, stream: bool
    ) -> Call:
        return Call(
            method="POST",
            url=self._endpoints.tool_outputs,
            params={"conversation_id": conversation_id, "chat_id": chat_id},
            content=msgspec.json.encode({"tool_outputs": outputs, "stream": stream}),
            conversation_id=conversation_id,
            stream=stream,
        )

    async def _retrieve(self, conversation_id: str, chat_id: str, *, retries: int | None) -> ChatState:
        reply = await self._caller.json(
            Call(
                method="GET",  # POST is accepted by Coze's cloud too, but not by coze-studio
                url=self._endpoints.retrieve,
                params={"conversation_id": conversation_id, "chat_id": chat_id},
                conversation_id=conversation_id,
                safe=True,
                existing=True,
                retries=retries,
            )
        )
        return _chat(reply, conversation_id, chat_id)

    async def _retrieve_if_there(self, conversation_id: str, chat_id: str) -> ChatState | None:
        try:
            return await self.retrieve_chat(conversation_id, chat_id)
        except UpstreamError as error:
            if error.coze_code in NOT_THERE:
                return None
            raise

    def _messages(self, reply: Reply) -> list[Message]:
        listed = reply.data if isinstance(reply.data, list) else []
        if len(listed) > self._options.max_messages:
            raise CozeApiError(
                f"Coze listed more than {self._options.max_messages} messages", logid=reply.logid
            )
        parsed = (Message.parse(item) for item in listed)
        return [message for message in parsed if message is not None]


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
