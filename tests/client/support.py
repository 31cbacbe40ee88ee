"""Both clients under one roof, and a proxy that loses connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from coze_fastapi_client import AsyncCozeClient, CozeClient, Event

PATIENT: dict[str, Any] = {"patience": 20.0}


class Blocking:
    """The blocking client as the asynchronous one looks, each call in a thread: one test tries both."""

    def __init__(self, client: CozeClient) -> None:
        self.client = client
        self.sessions = _Calls(client.sessions)
        self.chats = _Calls(client.chats)
        self.conversations = _Calls(client.conversations)
        self.bots = _Calls(client.bots)
        self.users = _Calls(client.users)
        self.files = _Calls(client.files)

    def __getattr__(self, name: str) -> Any:
        return getattr(_Calls(self.client), name)


class _Calls:
    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._resource, name)
        if name in ("stream", "follow", "stream_tool_outputs", "stream_regenerated"):
            return lambda *args, **options: BlockingStream(method(*args, **options))

        async def call(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *args, **options)

        return call


_OVER = object()


class BlockingStream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._stream.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stream.close)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await asyncio.to_thread(next, self._stream, _OVER)) is not _OVER:
            assert isinstance(event, Event)
            yield event

    async def text_deltas(self) -> AsyncIterator[str]:
        pieces = self._stream.text_deltas()
        while (piece := await asyncio.to_thread(next, pieces, _OVER)) is not _OVER:
            assert isinstance(piece, str)
            yield piece

    async def result(self) -> Any:
        return await asyncio.to_thread(self._stream.result)


def make_client(kind: str, base_url: str, **options: Any) -> Any:
    """An ``AsyncCozeClient``, or a blocking one that looks so."""
    if kind == "async":
        return AsyncCozeClient(base_url, **options)
    return Blocking(CozeClient(base_url, **options))


class Leading(SimpleHTTPRequestHandler):
    """Leads whoever calls the service (``/coze/``) to where everything is answered, and keeps what arrived
    there. Other paths are the files of its folder, as ``python3 -m http.server`` gives them."""

    arrived: list[str]
    elsewhere: str

    def do_GET(self) -> None:  # its name in the standard library
        if "/coze/" in self.path:
            return self.lead()
        return super().do_GET()

    def lead(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(307)
        self.send_header("Location", self.elsewhere + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_DELETE = do_OPTIONS = lead  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing: the output belongs to the tests."""


class Elsewhere(Leading):
    """Takes everything from everybody."""

    def lead(self) -> None:
        self.arrived.append(f"{self.command} {self.path} {self.headers.get('HtySudoerToken')}")
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"data": {"task_result": {"data": {}}}}'
        self.send_response(200)
        for name in ("Origin", "Headers", "Methods"):
            self.send_header(f"Access-Control-Allow-{name}", "*")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_OPTIONS = lead  # noqa: N815


@contextmanager
def leading(folder: str) -> Iterator[tuple[str, list[str]]]:
    """The address of a service that redirects to another origin, with the files of ``folder``; and what
    arrived at that other one."""
    arrived: list[str] = []
    there = type("There", (Elsewhere,), {"arrived": arrived})
    with ThreadingHTTPServer(("127.0.0.1", 0), there) as other:
        here = type("Here", (Leading,), {"elsewhere": f"http://127.0.0.1:{other.server_port}"})
        serve = lambda *arguments: here(*arguments, directory=folder)  # noqa: E731
        with ThreadingHTTPServer(("127.0.0.1", 0), serve) as service:
            servers = (other, service)
            threads = [threading.Thread(target=each.serve_forever, args=(0.02,)) for each in servers]
            for thread in threads:
                thread.start()
            try:
                yield f"http://127.0.0.1:{service.server_port}", arrived
            finally:
                for server, thread in zip(servers, threads, strict=True):
                    server.shutdown()
                    thread.join()


class Proxy:
    """Passes bytes on to ``target`` (a port), which may change between connections.

    ``cut_after``: bytes of an answer after which a connection is broken off, counted for each. ``mute``: of
    the first so many connections no byte of an answer goes through any more, and they stay open. ``deaf``:
    connections are refused by closing them at once, and counted in ``refused``. ``requests`` counts those
    that were passed on.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.cut_after: list[int] = []
        self.mute = 0
        self.deaf = False
        self.refused = 0
        self.requests = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        behind: asyncio.StreamWriter | None = None
        try:
            if self.deaf:
                self.refused += 1
                return
            answers, behind = await asyncio.open_connection("127.0.0.1", self.target)
            self.requests += 1
            number = self.requests
            limit = self.cut_after.pop(0) if self.cut_after else None
            forth = asyncio.create_task(self._forth(reader, behind))
            try:
                await self._back(answers, writer, limit, number)
            finally:
                forth.cancel()
        except OSError:
            pass
        finally:
            for end in filter(None, (writer, behind)):
                end.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, behind: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                behind.write(chunk)
                await behind.drain()
            behind.transport.abort()

    async def _back(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, number: int
    ) -> None:
        left = limit
        while chunk := await answers.read(65536):
            if number <= self.mute:
                continue
            if left is not None:
                chunk = chunk[:left]
                left -= len(chunk)
            if chunk:
                writer.write(chunk)
                await writer.drain()
            if left == 0:
                # What was written is sent; then the connection ends without an end of the body.
                writer.close()
                await writer.wait_closed()
                return

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """Before the service at ``target`` (a base URL)."""
    running = Proxy(int(target.rsplit(":", 1)[1]))
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        await running.stop()
