"""The frame: what the service stands on, without the service. A bare ASGI application, read with aiohttp.

No FastAPI, no state, no authentication, no parsing. What is above it in the service's row is the service's
own; what is in it, only another server or another HTTP client could save.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

UPSTREAM = os.environ["BENCH_UPSTREAM"]
_UPSTREAM_HEADERS = {"authorization": "Bearer t", "content-type": "application/json"}
_JSON = [(b"content-type", b"application/json")]
_STREAM = [(b"content-type", b"text/event-stream")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Frame:
    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == "/chat":
            await self._chat(receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": _JSON})
            await send({"type": "http.response.body", "body": b'{"ok":true}'})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._http.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _chat(self, receive: Receive, send: Send) -> None:
        assert self._http is not None
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        url = UPSTREAM + "/v3/chat"
        async with self._http.post(url, data=body, headers=_UPSTREAM_HEADERS) as answer:
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


app = Frame()
