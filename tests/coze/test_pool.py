"""Connections that are kept between two requests, on which something comes that nobody has asked for."""

from __future__ import annotations

import asyncio

import pytest

from app.coze.client import CozeClient
from app.coze.transport import PooledClient

from .support import (
    LAST_CHUNK,
    OVER_BOTH_TRANSPORTS,
    PART,
    REQUEST,
    SSE_HEAD,
    chunked,
    http_client,
    make_client,
    raw_server,
    read,
    send,
)
from .vectors import BEG, DELTA, END, event, message

WHOLE = SSE_HEAD + chunked(PART) + chunked(END) + LAST_CHUNK
ANOTHER = SSE_HEAD + chunked(BEG + event(DELTA, message("answer", "another's")) + END) + LAST_CHUNK
UNASKED = {
    "an answer": ANOTHER,
    "a hundred": ANOTHER * 100,
    "a head": SSE_HEAD,
    "a part of one": SSE_HEAD[:30],
    "a byte": b"x",
}


async def said(coze: CozeClient) -> list[bytes]:
    async with coze.stream_chat(REQUEST) as stream:
        return [event.data for event in await read(stream) if event.name == DELTA.decode()]


@OVER_BOTH_TRANSPORTS
@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
async def test_what_comes_on_an_idle_connection_is_no_answer_to_the_next_request(
    http: PooledClient, unasked: bytes
) -> None:
    was_read, sent = asyncio.Event(), asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, _: bytes) -> bool:
        await send(writer, WHOLE)
        if len(server.requests) == 1:
            await was_read.wait()
            await send(writer, unasked)
        sent.set()
        return True

    async with raw_server(answer, watch=False) as server:
        coze = make_client(http, base=server.base)
        for _ in range(2):
            assert await said(coze) == [message("answer", "x")]
            was_read.set()
            await sent.wait()
        assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "unasked",
    [ANOTHER, SSE_HEAD[:9], SSE_HEAD[:30], SSE_HEAD[:-2], SSE_HEAD[:1]],
    ids=["an answer", "part of a line", "part of a head", "all but the end of a head", "a byte"],
)
@pytest.mark.parametrize("before", [b"", SSE_HEAD, SSE_HEAD + chunked(PART)], ids=["nothing", "head", "most"])
async def test_what_comes_in_one_piece_with_the_end_of_an_answer_is_none_to_the_next_request(
    before: bytes, unasked: bytes
) -> None:
    """Over aiohttp, which takes the connection back in the middle of that piece."""

    async def answer(writer: asyncio.StreamWriter, _: bytes) -> bool:
        await send(writer, before)
        await asyncio.sleep(0.05)  # by then the client has read that
        await send(writer, WHOLE[len(before) :] + (unasked if len(server.requests) == 1 else b""))
        return True

    async with http_client("aiohttp") as http, raw_server(answer, watch=False) as server:
        coze = make_client(http, base=server.base)
        for _ in range(3):
            assert await said(coze) == [message("answer", "x")]
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_an_idle_connection_on_which_something_comes_is_closed_at_once() -> None:
    was_read = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, _: bytes) -> bool:
        await send(writer, WHOLE)
        await was_read.wait()
        await send(writer, b"x")
        return True

    async with http_client("aiohttp") as http, raw_server(answer, watch=False) as server:
        await said(make_client(http, base=server.base))
        was_read.set()
        async with asyncio.timeout(20):
            await server.hung_up.wait()
