"""Streaming over a real network: what is handed on when, and what becomes of the connection."""

import asyncio
import gzip
import tracemalloc
from collections import Counter

import pytest

from app.coze.stream import MOST_AT_ONCE, SSEDecoder, SSEEvent
from app.coze.transport import PooledClient, TransportName
from app.exceptions import CozeApiError
from tests.support import free_port

from .support import (
    LAST_CHUNK,
    OVER_BOTH_TRANSPORTS,
    PART,
    PART_EVENTS,
    REQUEST,
    SSE_HEAD,
    chunked,
    hangs_up_when_cancelled,
    http_client,
    make_client,
    raw_server,
    read,
    send,
    sending,
    stream_error,
    streaming,
)
from .vectors import DELTA, END, event, message

pytestmark = OVER_BOTH_TRANSPORTS


async def test_events_are_handed_on_as_they_arrive(http: PooledClient) -> None:
    go = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, SSE_HEAD)
        for number in range(3):
            await send(writer, chunked(event(DELTA, message("answer", str(number)))))
            await go.wait()
            go.clear()
        await send(writer, LAST_CHUNK)

    async with streaming(http, answer) as stream, asyncio.timeout(20):
        for number in range(3):
            (found,) = await anext(stream)
            assert found.data == message("answer", str(number))
            go.set()
        assert await read(stream) == []


async def test_a_compressed_stream_is_read_although_none_was_asked_for(http: PooledClient) -> None:
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    asked = []

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        asked.append(request.lower())
        await send(writer, head, chunked(gzip.compress(PART + END)), LAST_CHUNK)

    async with streaming(http, answer) as stream:
        assert len(await read(stream)) == PART_EVENTS + 2
    assert b"accept-encoding: identity" in asked[0]


@pytest.mark.parametrize(("encoding", "times"), [("gzip", 1), ("gzip, gzip", 2)])
async def test_a_stream_that_unpacks_without_end_takes_no_memory(
    http: PooledClient, encoding: str, times: int
) -> None:
    packed = b"data: " + b"a" * 200_000_000
    for _ in range(times):
        packed = gzip.compress(packed, 6)
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %b\r\n\r\n" % encoding.encode())
    async with raw_server(sending(head, chunked(packed), LAST_CHUNK)) as server:
        tracemalloc.start()
        try:
            error, _ = await stream_error(make_client(http, base=server.base))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert isinstance(error, CozeApiError)
    assert most < 24_000_000  # an event has at most 4 MB


@pytest.mark.parametrize("encoding", ["", "identity", "gzip"])
async def test_the_loop_goes_on_between_the_pieces_of_a_burst(
    http: PooledClient, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    burst = b":\n" * 1_000_000 + PART + END
    packed = gzip.compress(burst) if encoding == "gzip" else burst
    line = f"\r\nContent-Encoding: {encoding}" if encoding else ""
    head = SSE_HEAD.replace(b"\r\n\r\n", f"{line}\r\n\r\n".encode())
    turn, fed, feed = 0, Counter[int](), SSEDecoder.feed

    async def turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def counted(decoder: SSEDecoder, chunk: bytes) -> list[SSEEvent]:
        fed[turn] += len(chunk)
        return feed(decoder, chunk)

    monkeypatch.setattr(SSEDecoder, "feed", counted)
    counting = asyncio.create_task(turns())
    try:
        async with streaming(http, sending(head, chunked(packed), LAST_CHUNK)) as stream:
            assert len(await read(stream)) == PART_EVENTS + 2
    finally:
        counting.cancel()
    assert sum(fed.values()) == len(burst)
    assert max(fed.values()) <= 2 * MOST_AT_ONCE  # the end of one read and the beginning of the next


async def test_leaving_the_block_hangs_up(http: PooledClient) -> None:
    async with raw_server(sending(SSE_HEAD, chunked(PART), stall=True)) as server:
        async with make_client(http, base=server.base).stream_chat(REQUEST) as stream:
            await anext(stream)
        async with asyncio.timeout(20):
            await server.hung_up.wait()


@pytest.mark.parametrize("parts", [(), (SSE_HEAD,), (SSE_HEAD, chunked(PART))], ids=len)
async def test_a_cancelled_reader_hangs_up(http: PooledClient, parts: tuple[bytes, ...]) -> None:
    waiting = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, *parts)
        waiting.set()
        await asyncio.Event().wait()

    async with raw_server(answer) as server:
        reading = asyncio.create_task(stream_error(make_client(http, base=server.base)))
        await hangs_up_when_cancelled(server, reading, waiting)


async def test_a_callers_own_deadline_stays_the_callers(http: PooledClient) -> None:
    async with raw_server(sending(SSE_HEAD, chunked(PART), stall=True)) as server:
        coze = make_client(http, base=server.base)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.2), coze.stream_chat(REQUEST) as stream:
                await read(stream)

    assert type(caught.value) is TimeoutError


@pytest.mark.parametrize("later", [True, False])
async def test_a_finished_streams_connection_is_used_again(http: PooledClient, later: bool) -> None:
    """Reading stops at ``done``, which may be before the last chunk of the body is there."""

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> bool:
        await send(writer, SSE_HEAD, chunked(PART + END))
        if later:
            await asyncio.sleep(0.02)
        await send(writer, LAST_CHUNK)
        return True

    async with raw_server(answer, watch=False) as server:
        coze = make_client(http, base=server.base, drain_timeout=20)
        for _ in range(3):
            async with coze.stream_chat(REQUEST) as stream:
                async for events in stream:
                    if events[-1].name == "done":
                        break
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_server_that_holds_the_connection_after_done_does_not_hold_the_chat(
    http: PooledClient,
) -> None:
    async with raw_server(sending(SSE_HEAD, chunked(PART + END), stall=True)) as server, asyncio.timeout(20):
        async with make_client(http, base=server.base, drain_timeout=0.05).stream_chat(REQUEST) as stream:
            await anext(stream)
        await server.hung_up.wait()


# -- what the client is not to do -------------------------------------------------------------------------


async def test_redirects_are_not_followed_and_cookies_not_kept(http: PooledClient) -> None:
    head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nSet-Cookie: a=b; Path=/\r\n"
    rest = b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(sending(head + rest)) as server:
        coze = make_client(http, base=server.base)
        for _ in range(2):
            error, _ = await stream_error(coze)
            assert (error.message, error.maybe_started) == ("Coze answered with HTTP status 307", False)

    assert len(server.requests) == 2
    assert all(b"elsewhere" not in request for request in server.requests)
    assert b"cookie" not in server.requests[1].lower()


async def test_proxies_of_the_environment_are_not_used(
    transport: TransportName, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    answer = sending(SSE_HEAD, chunked(PART), LAST_CHUNK)
    async with http_client(transport) as http, streaming(http, answer) as stream:
        assert len(await read(stream)) == PART_EVENTS
