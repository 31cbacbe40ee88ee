"""The passthrough: what one writes who wants a gateway and has FastAPI and httpx. Bytes pass through.

No state, no authentication, no parsing. PASSTHROUGH_TRANSPORT=aiohttp puts aiohttp under httpx;
PASSTHROUGH_CONNECTIONS is the size of the pool, 0 httpx's own choice.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

UPSTREAM = os.environ["BENCH_UPSTREAM"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    size = int(os.environ.get("PASSTHROUGH_CONNECTIONS", "0"))
    # httpx's own limits are 100 connections, of which it keeps 20.
    limits = httpx.Limits(max_connections=size or 100, max_keepalive_connections=size or 20)
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(limits=limits)
    if os.environ.get("PASSTHROUGH_TRANSPORT") == "aiohttp":
        import aiohttp
        from httpx_aiohttp import AiohttpTransport

        transport = AiohttpTransport(
            client=lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=size))
        )
    async with httpx.AsyncClient(transport=transport, timeout=None) as app.state.http:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/chat")
async def chat(request: Request) -> StreamingResponse:
    body = await request.body()

    async def relay() -> AsyncIterator[bytes]:
        headers = {"authorization": "Bearer t", "content-type": "application/json"}
        async with request.app.state.http.stream(
            "POST", UPSTREAM + "/v3/chat", content=body, headers=headers
        ) as answer:
            async for piece in answer.aiter_raw():
                yield piece

    return StreamingResponse(relay(), media_type="text/event-stream")
