"""Coze as it is: calls without retries, repair or translation, and what came back.

The service's own client hides what is looked for here: it accepts both forms of everything.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import httpx
import orjson
from attrs import define, field, frozen

from app.coze.stream import STREAM_ENDS, SSEDecoder
from app.coze.transport import NETWORK_ERRORS
from app.coze.wire import ENDED, Endpoints, integer, json_object, normal_status, text

META_KEY: Final = "coze_fastapi_live_check"
_CALL_SECONDS: Final = 60.0
_STREAM_SECONDS: Final = 180.0


@frozen
class Answer:
    """An answer that is no stream.

    Attributes:
        status: of HTTP; 0 where nothing answered.
        code: Coze's; None where this is no answer of Coze's.
        body: the whole object; empty where it is none.
        failure: the kind of error, where nothing answered.
    """

    status: int = 0
    code: int | None = None
    body: Mapping[str, Any] = field(factory=dict)
    failure: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def data(self) -> Mapping[str, Any]:
        found = self.body.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def items(self) -> list[Mapping[str, Any]]:
        found = self.body.get("data")
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    @property
    def chat_status(self) -> str:
        """The chat's, in the service's spelling; "" where this is no chat."""
        found = self.data.get("status")
        return str(normal_status(found)) if found else ""

    def __str__(self) -> str:
        """What it was, without a text of Coze's: that could repeat what was asked."""
        if self.failure:
            return f"no answer ({self.failure})"
        return f"code {self.code}" if self.code is not None else f"HTTP {self.status}"


@define
class Heard:
    """A stream, as far as it was read.

    Attributes:
        refusal: the answer, where it was no stream.
        events: names and data, in their order.
        first_byte: seconds from the request to the first bytes of the body; None: there were none.
        first_delta: seconds from the request to the first delta; None: there was none.
        ended: Coze closed it.
        failure: the kind of error that it broke with.
    """

    refusal: Answer | None = None
    events: list[tuple[str, bytes]] = field(factory=list)
    first_byte: float | None = None
    first_delta: float | None = None
    ended: bool = False
    failure: str = ""

    @property
    def course(self) -> list[str]:
        """The events' names without repetitions and without their common beginning."""
        names: list[str] = []
        for name, _ in self.events:
            short = name.removeprefix("conversation.")
            if not names or names[-1] != short:
                names.append(short)
        return names

    @property
    def chat(self) -> Mapping[str, Any]:
        """The newest chat object in it."""
        for name, data in reversed(self.events):
            if name.startswith("conversation.chat."):
                return json_object(data) or {}
        return {}

    @property
    def done(self) -> bytes | None:
        """The data of the last event, where the stream says that it is over."""
        return next((data for name, data in self.events if name in STREAM_ENDS), None)

    def messages(self, event: str) -> list[Mapping[str, Any]]:
        """The messages of ``conversation.message.<event>`` that are answers."""
        found = [
            json_object(data) or {} for name, data in self.events if name == f"conversation.message.{event}"
        ]
        return [item for item in found if item.get("type", "answer") == "answer"]

    @property
    def answer(self) -> str:
        return "".join(text(item.get("content")) for item in self.messages("delta"))

    def __str__(self) -> str:
        if self.refusal is not None:
            return str(self.refusal)
        return self.failure or ", ".join(self.course) or "nothing"


@define
class RawCoze:
    """Calls in the name of one token. ``bearer``: with the word ``Bearer``; ``interval``: seconds between two
    looks at a chat."""

    _http: httpx.AsyncClient
    _endpoints: Endpoints
    _bearer: str = field(repr=False)
    bot_id: str
    _interval: float

    async def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Answer:
        """One call that is answered whole; ``files``: by field, each name, content and type."""
        url = self._endpoints.chat if path == "/v3/chat" else self._endpoints.url(path)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                response = await self._http.request(
                    method, url, params=params, json=body, files=files, headers=self._headers()
                )
        except NETWORK_ERRORS as error:
            return Answer(failure=type(error.__cause__ or error).__name__)
        return _answer(response.status_code, response.content)

    async def create_conversation(self) -> Answer:
        return await self.call("POST", "/v1/conversation/create", body={"bot_id": self.bot_id})

    async def create(self, conversation_id: str, message: str) -> Answer:
        """POST /v3/chat without a stream."""
        return await self.call(
            "POST", "/v3/chat", {"conversation_id": conversation_id}, self._chat(message, stream=False)
        )

    async def settled(self, conversation_id: str, chat_id: str, seconds: float) -> Answer:
        """The chat when it is over, or as it is ``seconds`` later."""
        ids = {"conversation_id": conversation_id, "chat_id": chat_id}
        until = time.monotonic() + seconds
        while True:
            answer = await self.call("GET", "/v3/chat/retrieve", ids)
            if answer.chat_status in ENDED or time.monotonic() >= until:
                return answer
            await asyncio.sleep(self._interval)

    async def hear(
        self,
        conversation_id: str,
        message: str,
        *,
        leave: Callable[[Heard], bool] = lambda _: False,
        on_delta: Callable[[Heard], Awaitable[None]] | None = None,
    ) -> Heard:
        """POST /v3/chat as a stream, read to its end, or until ``leave`` says so: then the connection is
        closed. ``on_delta`` is awaited once, after the first delta."""
        heard, began, decoder = Heard(), time.monotonic(), SSEDecoder()
        params = {"conversation_id": conversation_id}
        content = orjson.dumps(self._chat(message, stream=True))
        headers = self._headers() | {"content-type": "application/json", "accept-encoding": "identity"}
        try:
            async with (
                asyncio.timeout(_STREAM_SECONDS),
                self._http.stream(
                    "POST", self._endpoints.chat, params=params, content=content, headers=headers
                ) as response,
            ):
                if "event-stream" not in response.headers.get("content-type", ""):
                    heard.refusal = _answer(response.status_code, await response.aread())
                    return heard
                async for chunk in response.aiter_raw():
                    heard.first_byte = heard.first_byte or time.monotonic() - began
                    fresh = [(event.name, event.data) for event in decoder.feed(chunk)]
                    heard.events += fresh
                    if heard.first_delta is None and Heard(events=fresh).messages("delta"):
                        heard.first_delta = time.monotonic() - began
                        if on_delta is not None:
                            await on_delta(heard)
                    if leave(heard):
                        return heard
                heard.ended = True
        except NETWORK_ERRORS as error:
            heard.failure = type(error.__cause__ or error).__name__
        return heard

    def _chat(self, message: str, *, stream: bool) -> dict[str, object]:
        return {
            "bot_id": self.bot_id,
            "user_id": "coze-fastapi-live-check",
            "stream": stream,
            "auto_save_history": True,
            "additional_messages": [
                {"role": "user", "type": "question", "content": message, "content_type": "text"}
            ],
            "meta_data": {META_KEY: "1"},
        }

    def _headers(self) -> dict[str, str]:
        return {"authorization": self._bearer}


def _answer(status: int, content: bytes) -> Answer:
    body = json_object(content) or {}
    return Answer(status, integer(body.get("code")), body)
