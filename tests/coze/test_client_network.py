"""A real network, misbehaving, over both transports, whose different errors must mean the same."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import pytest

from app.coze.transport import NETWORK_ERRORS, PooledClient, TransportName, ask_nothing_of_writers
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError
from tests.support import free_port

from .support import (
    LAST_CHUNK,
    OVER_BOTH_TRANSPORTS,
    PART,
    PART_EVENTS,
    REQUEST,
    SSE_HEAD,
    Sleeps,
    chunked,
    http_client,
    make_client,
    raw_server,
    read,
    send,
    sending,
    stream_error,
    streaming,
)

pytestmark = OVER_BOTH_TRANSPORTS


# -- no connection ----------------------------------------------------------------------------------------


async def test_a_refused_connection_is_tried_again_and_then_says_that_nothing_began(
    http: PooledClient,
) -> None:
    sleeps = Sleeps()
    coze = make_client(http, base=f"http://127.0.0.1:{free_port()}", sleep=sleeps)

    error, _ = await stream_error(coze)

    assert isinstance(error, CozeApiError)
    assert (error.message, error.maybe_started, error.retryable) == ("No connection to Coze", False, True)
    assert len(sleeps.taken) == 3


async def test_an_unknown_host_is_no_connection(http: PooledClient) -> None:
    error, _ = await stream_error(make_client(http, base="http://coze.invalid", max_retries=0))

    assert (error.message, error.maybe_started) == ("No connection to Coze", False)


@pytest.mark.parametrize("base", ["ftp://coze.test", "http://", "http://[::1", "coze.test"])
async def test_an_address_that_is_none_is_an_error_of_ours(http: PooledClient, base: str) -> None:
    error, _ = await stream_error(make_client(http, base=base, max_retries=0))

    assert (type(error), error.maybe_started) == (CozeApiError, False)


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full: a further one gets no answer at all."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port
        for one in waiting:
            one.close()


async def test_a_connection_that_does_not_come_about_passes_its_deadline(
    http: PooledClient, full_port: int
) -> None:
    coze = make_client(http, base=f"http://127.0.0.1:{full_port}", connect_timeout=0.2, max_retries=1)

    error, _ = await stream_error(coze)

    assert isinstance(error, CozeTimeout)
    assert error.message == "No connection to Coze within 0.2 s (COZE_CONNECT_TIMEOUT)"
    assert not error.maybe_started


async def test_a_full_pool_is_no_connection_either(transport: TransportName) -> None:
    async with (
        raw_server(sending(SSE_HEAD, chunked(PART), stall=True)) as server,
        http_client(transport, pool_size=1) as http,
    ):
        hurried = make_client(http, base=server.base, connect_timeout=0.2, max_retries=0)
        async with make_client(http, base=server.base).stream_chat(REQUEST) as stream:
            await anext(stream)
            error, _ = await stream_error(hurried)

    assert isinstance(error, CozeTimeout)
    assert not error.maybe_started
    assert server.connections == 1


# -- broken before the answer -----------------------------------------------------------------------------


async def test_a_connection_closed_without_an_answer_may_have_started_a_chat(http: PooledClient) -> None:
    """httpx-aiohttp calls this a ConnectTimeout: believing it would send the message twice."""
    async with raw_server(sending()) as server:
        error, _ = await stream_error(make_client(http, base=server.base))

    assert isinstance(error, CozeApiError)
    assert (error.message, error.maybe_started, error.retryable) == (
        "The connection to Coze broke",
        True,
        True,
    )
    assert len(server.requests) == 1


async def test_a_reset_without_an_answer_may_have_started_a_chat(http: PooledClient) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.transport.abort()

    async with raw_server(answer) as server:
        error, _ = await stream_error(make_client(http, base=server.base))

    assert (error.message, error.maybe_started) == ("The connection to Coze broke", True)
    assert len(server.requests) == 1


@pytest.mark.parametrize("junk", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nno"])
async def test_an_answer_that_is_not_http_may_have_started_a_chat(http: PooledClient, junk: bytes) -> None:
    async with raw_server(sending(junk)) as server:
        error, _ = await stream_error(make_client(http, base=server.base))

    assert (type(error), error.maybe_started) == (CozeApiError, True)
    assert len(server.requests) == 1


# -- deadlines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", SSE_HEAD], ids=["silence", "half", "head"])
async def test_the_first_byte_has_a_deadline(http: PooledClient, head: bytes) -> None:
    async with raw_server(sending(head, stall=True)) as server:
        error, _ = await stream_error(make_client(http, base=server.base, first_byte_timeout=0.5))
        async with asyncio.timeout(20):
            await server.hung_up.wait()

    assert isinstance(error, CozeTimeout)
    assert error.message == "Coze sent nothing within 0.5 s (COZE_FIRST_BYTE_TIMEOUT)"
    assert error.maybe_started
    assert error.logid == ("L1" if head == SSE_HEAD else None)
    assert len(server.requests) == 1


async def test_silence_between_bytes_has_a_deadline(http: PooledClient) -> None:
    async with raw_server(sending(SSE_HEAD, chunked(PART), stall=True)) as server:
        error, count = await stream_error(make_client(http, base=server.base, idle_timeout=0.5))
        async with asyncio.timeout(20):
            await server.hung_up.wait()

    assert isinstance(error, CozeTimeout)
    assert error.message == "Coze sent nothing more for 0.5 s (COZE_IDLE_TIMEOUT)"
    assert (error.maybe_started, error.logid, count) == (True, "L1", PART_EVENTS)


async def test_comments_hold_the_idle_deadline_off(http: PooledClient) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, SSE_HEAD)
        for _ in range(8):
            await send(writer, chunked(b": ping\n"))
            await asyncio.sleep(0.3)
        await send(writer, chunked(PART), LAST_CHUNK)

    async with streaming(http, answer, idle_timeout=2) as stream:
        assert len(await read(stream)) == PART_EVENTS


async def test_the_idle_deadline_can_be_lowered_while_reading(http: PooledClient) -> None:
    async def read_on() -> None:
        async with streaming(http, sending(SSE_HEAD, chunked(PART), stall=True)) as stream:
            await anext(stream)
            stream.idle_timeout = 0.1
            await anext(stream)

    with pytest.raises(CozeTimeout, match=r"0.1 s"):
        await read_on()


async def test_a_json_answer_that_trickles_has_a_deadline_as_a_whole(http: PooledClient) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        while True:
            await send(writer, b" ")
            await asyncio.sleep(0.02)

    async with raw_server(answer) as server:
        coze = make_client(http, base=server.base, first_byte_timeout=0.3, max_retries=0)
        with pytest.raises(CozeTimeout, match=r"not complete within 0.3 s \(COZE_FIRST_BYTE_TIMEOUT\)"):
            await coze.retrieve_chat("5", "6")


# -- broken in the middle ---------------------------------------------------------------------------------


async def broken_by(http: PooledClient, rest: bytes, **options: Any) -> UpstreamError:
    """The error of a stream that has begun well, goes on with ``rest``, and is closed."""
    go = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, SSE_HEAD, chunked(PART))
        await go.wait()
        await send(writer, rest)

    async with raw_server(answer) as server:
        coze = make_client(http, base=server.base, **options)

        async def read_on() -> None:
            async with coze.stream_chat(REQUEST) as stream:
                assert len(await anext(stream)) == PART_EVENTS
                go.set()
                await anext(stream)

        with pytest.raises(UpstreamError) as caught:
            await read_on()
    assert len(server.requests) == 1
    return caught.value


@pytest.mark.parametrize("rest", [b"", b"ff\r\ndata:"], ids=["no last chunk", "half a chunk"])
async def test_a_connection_that_breaks_in_the_middle_is_told_from_an_end(
    http: PooledClient, rest: bytes
) -> None:
    error = await broken_by(http, rest)

    assert (type(error), error.message) == (CozeApiError, "The connection to Coze broke")
    assert (error.maybe_started, error.retryable, error.logid) == (True, True, "L1")


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nabcdefgh\r\n"], ids=["no chunk size", "wrong size"])
async def test_nonsense_in_the_framing_is_an_error_within_the_idle_deadline(
    http: PooledClient, rest: bytes
) -> None:
    """httpx says so at once; aiohttp 3.14 falls silent, and the deadline ends it."""
    error = await broken_by(http, rest, idle_timeout=0.5)

    assert isinstance(error, (CozeApiError, CozeTimeout))
    assert error.maybe_started


async def test_a_reset_in_the_middle_is_a_break(http: PooledClient) -> None:
    go = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, SSE_HEAD, chunked(PART))
        await go.wait()
        writer.transport.abort()

    async with streaming(http, answer) as stream:
        await anext(stream)
        go.set()
        with pytest.raises(CozeApiError, match="broke"):
            await anext(stream)


async def test_a_stream_that_ends_early_but_cleanly_just_ends(http: PooledClient) -> None:
    cut = b'event:conversation.message.delta\ndata:{"id":"71","con'
    async with streaming(http, sending(SSE_HEAD, chunked(PART), chunked(cut), LAST_CHUNK)) as stream:
        assert len(await read(stream)) == PART_EVENTS


async def test_a_json_answer_that_breaks_off_may_have_started_a_chat(http: PooledClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    async with raw_server(sending(head, b'{"code":0,')) as server:
        with pytest.raises(CozeApiError, match="broke") as caught:
            await make_client(http, base=server.base).create_chat(REQUEST)

    assert caught.value.maybe_started
    assert len(server.requests) == 1


# -- bodies that are written while the connection closes ---------------------------------------------------


async def test_a_body_whose_connection_closes_before_its_end_leaves_no_traceback(
    http: PooledClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever the end of the body meets the connection's: so many turns of the loop lie between."""
    ask_nothing_of_writers(asyncio.get_running_loop())
    closed = asyncio.Event()

    async def close_behind_the_file(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"the file")
        writer.close()
        closed.set()

    async def body(turns: int) -> AsyncIterator[bytes]:
        yield b"the file"
        await closed.wait()
        for _ in range(turns):
            await asyncio.sleep(0)

    async with await asyncio.start_server(close_behind_the_file, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for turns in range(12):
            closed.clear()
            with pytest.raises(NETWORK_ERRORS):
                await http.post(address, content=body(turns))
    gc.collect()  # what a task has met, and nobody asked for, is told when the task is forgotten
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
