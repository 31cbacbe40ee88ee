"""A client with a clock of its own, and servers that misbehave byte by byte."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx
import pytest

from app.coze.api import CozeApi
from app.coze.client import CozeClient
from app.coze.credentials import Accounts
from app.coze.credentials.accounts import Credentials
from app.coze.credentials.sources import StaticToken
from app.coze.options import CozeOptions
from app.coze.stream import CozeStream, SSEEvent
from app.coze.transport import PooledClient, TransportName, build_http_client
from app.coze.wire import ChatRequest, Endpoints, EnterMessage
from app.exceptions import UpstreamError

from .vectors import BEG, DELTA, event, message

OVER_BOTH_TRANSPORTS = pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
BASE = "http://coze.test/coze"
TOKEN = "pat_very_secret_value"
REQUEST = ChatRequest(bot_id="9", user_id="u", messages=[EnterMessage("user", "hello")], conversation_id="5")


class Sleeps:
    """Takes no time and remembers how long it should have taken."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


class Highest(random.Random):
    """The slowest that jitter allows."""

    def uniform(self, a: float, b: float) -> float:
        return b


def make_client(
    http: PooledClient,
    *,
    base: str = BASE,
    credentials: Credentials | None = None,
    sleep: Callable[[float], Awaitable[object]] | None = None,
    **options: Any,
) -> CozeClient:
    chosen = CozeOptions(endpoints=Endpoints.derive(f"{base}/v3/chat"), **options)
    api = CozeApi(http, chosen, sleep=sleep or Sleeps(), rng=Highest())
    return CozeClient(api, credentials or one_token(TOKEN))


def one_token(token: str) -> Credentials:
    return Accounts([(token, StaticToken(token))]).named("")


@cache
def tls() -> ssl.SSLContext:
    """Loading the list of authorities takes longer than a test."""
    return httpx.create_ssl_context(trust_env=False)


@asynccontextmanager
async def http_client(transport: TransportName = "httpx", **options: Any) -> AsyncIterator[PooledClient]:
    chosen = {"connect_timeout": 5.0, "pool_size": 10, "ssl_context": tls(), **options}
    async with build_http_client(transport=transport, **chosen) as http:
        yield http


async def stream_error(coze: CozeClient) -> tuple[UpstreamError, int]:
    """The error, and how many events came before it."""
    count = 0
    with pytest.raises(UpstreamError) as caught:  # noqa: PT012
        async with coze.stream_chat(REQUEST) as stream:
            async for events in stream:
                count += len(events)
    return caught.value, count


async def read(stream: CozeStream) -> list[SSEEvent]:
    return [event async for events in stream for event in events]


class RawServer:
    """Answers each request by calling ``answer(writer, request)``; then closes the connection unless
    ``answer`` returns True."""

    def __init__(self, answer: Callable[[asyncio.StreamWriter, bytes], Awaitable[object]]) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.hung_up = asyncio.Event()
        self.base = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                answering = asyncio.ensure_future(self._answer(writer, request))
                # EOF is what the client's hanging up looks like.
                gone = asyncio.ensure_future(reader.read(1)) if self.watch else None
                await asyncio.wait(
                    [task for task in (answering, gone) if task], return_when="FIRST_COMPLETED"
                )
                if gone is not None:
                    if gone.done():
                        self.hung_up.set()
                    gone.cancel()
                if not answering.done():
                    answering.cancel()
                    break
                if not answering.result():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()

    watch = True


@asynccontextmanager
async def raw_server(
    answer: Callable[[asyncio.StreamWriter, bytes], Awaitable[object]], *, watch: bool = True
) -> AsyncIterator[RawServer]:
    """``watch``: notice that the client hangs up while an answer is being made (one request a connection)."""
    server = RawServer(answer)
    server.watch = watch
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.base = f"http://127.0.0.1:{port}/coze"
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


async def hangs_up_when_cancelled(
    server: RawServer, task: asyncio.Task[object], begun: asyncio.Event
) -> None:
    """Cancels ``task`` once it has ``begun``; returns when the server has noticed."""
    async with asyncio.timeout(20):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.hung_up.wait()


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nx-tt-logid: L1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


PART = BEG + event(DELTA, message("answer", "x"))
PART_EVENTS = 3
Answer = Callable[[asyncio.StreamWriter, bytes], Awaitable[object]]


async def send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()


def sending(*parts: bytes, stall: bool = False) -> Answer:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await send(writer, *parts)
        if stall:
            await asyncio.Event().wait()

    return answer


@asynccontextmanager
async def streaming(http: PooledClient, answer: Answer, **options: Any) -> AsyncIterator[CozeStream]:
    """A stream of a server that answers like this."""
    async with (
        raw_server(answer) as server,
        make_client(http, base=server.base, **options).stream_chat(REQUEST) as stream,
    ):
        yield stream
