"""One HTTP exchange with Coze: deadlines, bounds, and every failure as an ``UpstreamError``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from app.coze.options import Bearer, CozeOptions
from app.coze.replies import Head, Reply, error_in_tail, looks_like, read_reply
from app.coze.stream import SSEDecoder, SSEEvent, StreamTooLarge
from app.coze.transport import NETWORK_ERRORS, PooledClient, is_timeout, never_connected
from app.coze.wire import ChatState
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError
from app.signals import IdleTimer

USER_AGENT: Final = "coze-fastapi"
_STREAM_ENDS: Final = frozenset({"done", "conversation.stream.done"})
_SNIFF_BYTES: Final = 1024


class Exchange:
    """One request and its answer. Always ``close`` it.

    ``head`` is set once the answer's headers are there.
    """

    def __init__(self, http: PooledClient, options: CozeOptions) -> None:
        self._http = http
        self._options = options
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._deadline = 0.0  # loop time of the first-byte deadline
        self.head: Head | None = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        bearer: Bearer,
        params: dict[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        content_type: str = "application/json",
        stream: bool = False,
        seconds: float | None = None,
    ) -> Head:
        """Sends the request and waits for the headers of the answer, ``seconds`` at most for all of it
        instead of ``first_byte_timeout``."""
        options = self._options
        self._deadline = asyncio.get_running_loop().time() + (seconds or options.first_byte_timeout)
        request = self._build(method, url, bearer, params, content, stream)
        if content is not None:
            request.headers["content-type"] = content_type
        try:
            async with asyncio.timeout_at(self._deadline) as scope:
                response = await self._http.exchange(request)
        except NETWORK_ERRORS as error:
            if scope.expired():
                raise self.no_first_byte() from None
            raise network_error(error, options) from error
        self._response = response
        # What is not encoded needs no decoder: one generator instead of four between the socket and us.
        encoded = "content-encoding" in response.headers
        self._chunks = response.aiter_bytes() if encoded else aiter(_bytes_of(response))
        self.head = Head.of(response.status_code, response.headers)
        return self.head

    def _build(
        self,
        method: str,
        url: str,
        bearer: Bearer,
        params: dict[str, str] | None,
        content: bytes | AsyncIterator[bytes] | None,
        stream: bool,
    ) -> httpx.Request:
        # httpx.Headers, not a dict: its repr hides the token from any traceback that shows variables.
        headers = httpx.Headers(
            {
                "authorization": bearer.header(),
                "accept": "text/event-stream, application/json" if stream else "application/json",
                "user-agent": USER_AGENT,
                # Compressing proxies hold deltas back.
                "accept-encoding": "identity" if stream else "gzip, deflate",
            }
        )
        timeout = httpx.Timeout(
            None, connect=self._options.connect_timeout, pool=self._options.connect_timeout
        )
        extensions = {"timeout": timeout.as_dict()}
        try:
            return httpx.Request(
                method, url, params=params or None, content=content, headers=headers, extensions=extensions
            )
        except httpx.InvalidURL as error:
            raise network_error(error, self._options) from error

    @property
    def logid(self) -> str | None:
        return self.head.logid if self.head else None

    async def read(self) -> bytes | None:
        """The next bytes of the body, None at its end; whoever reads holds the deadline.

        Raises ``CozeApiError`` where the connection breaks.
        """
        if self._chunks is None:
            return None
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            return None
        except NETWORK_ERRORS as error:
            raise network_error(error, self._options, self.head) from error

    async def read_all(self, before: bytes = b"") -> bytes:
        """``before`` plus the rest of the body.

        An error's body is read as far as ``max_error_bytes`` and no further; a success that is larger than
        ``max_json_bytes`` raises ``CozeApiError``. The first-byte deadline holds for the whole.
        """
        success = self.head is not None and self.head.is_success
        limit = self._options.max_json_bytes if success else self._options.max_error_bytes
        body = bytearray(before)
        try:
            async with asyncio.timeout_at(self._deadline) as scope:
                while len(body) <= limit:
                    chunk = await self.read()
                    if chunk is None:
                        return bytes(body)
                    body += chunk
        except TimeoutError:
            if not scope.expired():
                raise
            raise self.late(
                f"Coze's answer was not complete within {self._options.first_byte_timeout:g} s "
                "(COZE_FIRST_BYTE_TIMEOUT)"
            ) from None
        if success:
            raise CozeApiError(f"Coze's answer is larger than {limit} bytes", logid=self.logid)
        return bytes(body[:limit])

    async def read_json(self, head: Head) -> Reply:
        """The answer of a JSON call; raises what ``read_reply`` raises."""
        return read_reply(head, await self.read_all())

    @property
    def patience(self) -> float:
        """Seconds left until the first byte of the body is late."""
        return self._deadline - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def until_first_byte(self) -> AsyncIterator[None]:
        """Raises ``CozeTimeout`` where the block is not left before the first-byte deadline."""
        try:
            async with asyncio.timeout_at(self._deadline) as scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise self.no_first_byte() from None

    def no_first_byte(self) -> CozeTimeout:
        seconds = self._options.first_byte_timeout
        return self.late(f"Coze sent nothing within {seconds:g} s (COZE_FIRST_BYTE_TIMEOUT)")

    def late(self, message: str) -> CozeTimeout:
        return CozeTimeout(message, logid=self.logid, maybe_started=True)

    async def drain(self) -> None:
        """Reads on after a stream's own end, so that its connection goes back to the pool: what is missing
        is mostly just the last, empty chunk."""
        if self._chunks is None:
            return
        try:
            async with asyncio.timeout(self._options.drain_timeout):
                async for _ in self._chunks:
                    pass
        except NETWORK_ERRORS:
            return  # the answer is complete; only the connection is lost

    async def close(self) -> None:
        """Closes the answer; a connection in the middle of one is dropped."""
        if self._response is None:
            return
        try:
            await self._response.aclose()
        except NETWORK_ERRORS:
            return


class CozeStream:
    """An open stream: an async iterator of lists of events, one list for each network read.

    ``chat`` is set where the server ignored ``stream=true`` and answered with a chat: there is nothing to
    iterate, poll it. ``idle_timeout`` (seconds) may be changed while reading, for instance lowered once the
    chat has ended and only ``done`` is missing. A clean end of the stream just ends the iteration, whether a
    terminal event came or not.

    Iterating raises ``CozeApiError`` where the connection breaks or a bound is passed, and the error of a
    bare JSON line; past a deadline the block of ``deadlines`` is broken off with ``CozeTimeout``.
    """

    def __init__(
        self,
        exchange: Exchange,
        head: Head,
        options: CozeOptions,
        *,
        first: bytes = b"",
        chat: ChatState | None = None,
    ) -> None:
        self.chat = chat
        self._head = head
        self._exchange = exchange
        self._first = first
        self._begun = bool(first)
        self._idle_timeout = options.idle_timeout
        self._pulse: IdleTimer | None = None
        self._decoder = SSEDecoder(
            max_event_bytes=options.max_event_bytes, max_stream_bytes=options.max_stream_bytes
        )
        self._over = chat is not None
        self._too_large: StreamTooLarge | None = None
        self._seen_events = False
        self._said_done = False

    @property
    def logid(self) -> str | None:
        return self._head.logid

    @property
    def idle_timeout(self) -> float:
        return self._idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, seconds: float) -> None:
        self._idle_timeout = seconds
        if self._begun and self._pulse is not None:
            self._pulse.seconds = seconds

    @asynccontextmanager
    async def deadlines(self) -> AsyncIterator[None]:
        """Holds the block to the first-byte and the idle deadline while the stream is read in it; raises
        ``CozeTimeout``. One timer for all reads."""
        if self._over:
            yield
            return
        try:
            async with asyncio.timeout(None) as scope:
                now = asyncio.get_running_loop().time
                patience = self._idle_timeout if self._begun else max(0.0, self._exchange.patience)
                self._pulse = IdleTimer(patience, lambda: scope.reschedule(now()))
                try:
                    yield
                finally:
                    self._stop_waiting()
        except TimeoutError:
            if not scope.expired():
                raise
            if not self._begun:
                raise self._exchange.no_first_byte() from None
            seconds = self._idle_timeout
            text = f"Coze sent nothing more for {seconds:g} s (COZE_IDLE_TIMEOUT)"
            raise self._exchange.late(text) from None

    def _stop_waiting(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None

    def _beat(self) -> None:
        if self._pulse is not None:
            self._pulse.beat()
            if not self._begun:
                self._pulse.seconds = self._idle_timeout
        self._begun = True

    def __aiter__(self) -> "CozeStream":
        return self

    async def __anext__(self) -> list[SSEEvent]:
        while not self._over:
            chunk = self._first or await self._exchange.read()
            self._first = b""
            self._beat()
            events = self._end() if chunk is None else self._feed(chunk)
            if events:
                self._seen_events = True
                self._said_done = events[-1].name in _STREAM_ENDS
                return events
        if self._too_large is not None:
            raise StreamTooLarge(self._too_large.message, [], logid=self.logid)
        raise StopAsyncIteration

    def _feed(self, chunk: bytes) -> list[SSEEvent]:
        try:
            return self._decoder.feed(chunk)
        except StreamTooLarge as error:
            # First what was complete, then the error.
            self._over = True
            self._too_large = error
            return error.events

    def _end(self) -> list[SSEEvent]:
        self._over = True
        error_in_tail(self._decoder.tail(), self._head, started=self._seen_events)
        return []

    async def finish(self) -> None:
        """After a reading that ended as it should: lets the connection be used again. Leaving the block calls
        it; a second call does nothing."""
        self._stop_waiting()
        if self._said_done and not self._over:
            self._over = True
            await self._exchange.drain()

    async def close(self) -> None:
        """Lets the connection go: back to the pool after ``finish``, else it is dropped."""
        await self._exchange.close()


async def begin_stream(exchange: Exchange, head: Head, options: CozeOptions) -> CozeStream:
    """Decides what an answer to ``stream=true`` is, after its headers.

    By content type; where that does not tell, by the first byte. Raises the error of a JSON or HTML answer.
    """
    if head.is_event_stream:
        return CozeStream(exchange, head, options)
    first = b""
    if head.is_success and head.content_type != "application/json":
        async with exchange.until_first_byte():
            while looks_like(first) == "unknown" and len(first) <= _SNIFF_BYTES:
                chunk = await exchange.read()
                if chunk is None:
                    break
                first += chunk
        if looks_like(first) in ("stream", "unknown"):
            return CozeStream(exchange, head, options, first=first)
    reply = read_reply(head, await exchange.read_all(first))
    chat = ChatState.parse(reply.data, logid=reply.logid)
    if not chat.id:
        raise CozeApiError("Coze's answer is neither a stream nor a chat", logid=reply.logid)
    return CozeStream(exchange, head, options, chat=chat)


def _bytes_of(response: httpx.Response) -> httpx.AsyncByteStream:
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  # an async client has no other
    return response.stream


def network_error(error: BaseException, options: CozeOptions, head: Head | None = None) -> UpstreamError:
    """What a failure of the transport means; ``head`` where an answer had begun. The transport's own text,
    which holds addresses, stays in ``__cause__``."""
    if head is None and never_connected(error):
        if is_timeout(error):
            return CozeTimeout(
                f"No connection to Coze within {options.connect_timeout:g} s (COZE_CONNECT_TIMEOUT)",
                maybe_started=False,
            )
        return CozeApiError(
            "No connection to Coze",
            hint="Check COZE_API_URL and COZE_BASE_URL, the network and the name service.",
            maybe_started=False,
            retryable=True,
        )
    logid = head.logid if head else None
    if is_timeout(error):
        return CozeTimeout("The connection to Coze timed out", logid=logid, maybe_started=True)
    return CozeApiError("The connection to Coze broke", logid=logid, maybe_started=True, retryable=True)
