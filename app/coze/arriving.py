"""Answers as they arrive, over either HTTP client."""

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Final, Protocol

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from app.coze.packed import unpacked

Take = Callable[[bytes], bool]
_LONGEST_SIZE: Final = 10
"""Of a chunk's first line, with its end."""
MOST_AT_ONCE: Final = 16 * 1024
"""Bytes that are looked at in one go: full of the shortest lines or chunks there are, they take some
milliseconds."""


class Answer(Protocol):
    """From its headers on. Reading raises ``app.coze.transport.NETWORK_ERRORS``. Always ``close`` it."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body, b"" at its end."""
        ...

    async def push(self, take: Take) -> None:
        """Gives each piece of the body to ``take`` in the turn of the loop in which it comes, where that can
        be done.

        Returns once ``take`` has said False, and where ``read`` is to be asked: for the end, for what went
        wrong, for all where this cannot be done. Raises what ``take`` does.
        """

    async def close(self) -> None:
        """Gives the connection back to the pool where the body was read to its end; else drops it."""


class HttpxAnswer:
    def __init__(self, response: httpx.Response) -> None:
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101  # an async client has no other
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        # What is not encoded needs no decoder: one generator instead of four between the socket and us.
        self._chunks = _decoded(stream, self.headers)

    async def read(self) -> bytes:
        return await _first(self._chunks)

    async def push(self, take: Take) -> None:
        """It cannot be done."""

    async def close(self) -> None:
        await self._response.aclose()


class AiohttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._content = response.content
        self._chunks: AsyncIterator[bytes] | None = None
        if "content-encoding" in response.headers:
            self._chunks = _decoded(response.content.iter_any(), response.headers)
        self._tap: _Tap | None = None

    async def read(self) -> bytes:
        try:
            return await (self._content.readany() if self._chunks is None else _first(self._chunks))
        except RuntimeError as error:  # so it says that the connection went while nobody was reading
            raise aiohttp.ClientConnectionError("lost") from error

    async def push(self, take: Take) -> None:
        content = self._content
        if self._chunks is not None:
            return
        while content.exception() is None and (piece := content.read_nowait()):
            if not take(piece):
                return
        if content.exception() is None and (connection := self._response.connection) is not None:
            if self._tap is None:
                self._tap = _Tap(content)
            await self._tap.hand_on(connection, take)

    async def close(self) -> None:
        self._response.release()
        await self._response.wait_for_close()


def _decoded(stream: AsyncIterable[bytes], headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    encoding = headers.get("content-encoding")
    return aiter(stream) if encoding is None else unpacked(stream, encoding)


async def _first(chunks: AsyncIterator[bytes]) -> bytes:
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""


class _Tap(asyncio.Protocol):
    """Stands in front of aiohttp's protocol of one connection, and hands on what that has read of one body.

    A task that waits for aiohttp's reader is woken for each delta, in a turn of the loop of its own: that
    takes longer than all that is done with the delta. Once the body is over the connection may be another
    request's, so by then it has its protocol back.
    """

    _between_chunks: bool
    """aiohttp's parser has seen the end of a chunk, and nothing of the next one. Whole chunks that come
    now can be kept from it: to read one takes it a third of all that a delta costs."""
    _behind: ResponseHandler
    _transport: asyncio.Transport | None = None
    """Where it stands in front."""
    _over: asyncio.Future[None]

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        content.on_eof(self._remove)

    async def hand_on(self, connection: Connection, take: Take) -> None:
        """Until ``take`` says False, or nothing more can be handed on; ``content`` is empty when it is
        called."""
        transport, behind = connection.transport, connection.protocol
        if transport is None or behind is None:
            return
        self._over = asyncio.get_running_loop().create_future()
        self._transport, self._behind, self._take = transport, behind, take
        self._taken = self._content.total_bytes
        self._between_chunks = False
        # The connection may have been opened by another chat, in whose context its calls come.
        self._run = contextvars.copy_context().run
        transport.set_protocol(self)
        try:
            await self._over
        finally:
            self._remove()
            del self._take, self._run  # they lead back here: what goes in a circle waits to be collected

    def _remove(self) -> None:
        """A second call does nothing."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.set_protocol(self._behind)
            if not self._over.done():
                self._over.set_result(None)

    def data_received(self, data: bytes) -> None:
        chunks = _whole_chunks(data)
        if chunks and self._between_chunks:
            if not self._run(self._take, chunks):
                self._remove()
            return
        content, before = self._content, self._content.total_bytes
        self._behind.data_received(data)
        # Within a chunk, or where the body has none, all of ``data`` would be body.
        self._between_chunks = bool(chunks) and content.total_bytes == before + len(chunks)
        while content.total_bytes != self._taken and self._transport is not None:
            piece = b"" if content.exception() is not None else content.read_nowait()
            self._taken += len(piece)
            if not piece or not self._run(self._take, piece):  # what went wrong is raised to whoever reads
                self._remove()

    def eof_received(self) -> None:
        self._remove()
        self._behind.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not isinstance(exc, OSError) and not self._over.done():
            self._over.set_exception(exc)  # a fault of ``take``, for which the event loop has closed it
        self._remove()
        self._behind.connection_lost(exc)
        if not self._content.is_eof() and self._content.exception() is None:
            # After what is no chunk aiohttp tells nobody.
            self._content.set_exception(aiohttp.ClientPayloadError("broken"))

    def pause_writing(self) -> None:
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        self._behind.resume_writing()


def _whole_chunks(data: bytes) -> bytes:
    """What is in chunks (RFC 9112, 7.1), where ``data`` is whole ones and nothing else; else b""."""
    total = len(data)
    if total > MOST_AT_ONCE:
        return b""
    found: list[bytes] = []
    at = 0
    while True:
        line_end = data.find(b"\r\n", at, at + _LONGEST_SIZE)
        try:
            size = int(data[at:line_end], 16) if line_end > at else 0
        except ValueError:
            return b""
        begin, end = line_end + 2, line_end + 2 + size
        if size <= 0 or data[end : end + 2] != b"\r\n":
            return b""
        at = end + 2
        if at == total:  # nearly always with the first
            return b"".join([*found, data[begin:end]]) if found else data[begin:end]
        found.append(data[begin:end])
