"""Sends calls to Coze's API, with a token, and again where that is safe.

A call that starts something is only sent again while Coze demonstrably has not begun: no connection, HTTP
429, 500, 502, 503, or a JSON error whose code allows it. Once a chat may exist, the failure goes to whoever
made the call, who can ask Coze what became of it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
from attrs import define, field
from loguru import logger

from app.coze.codes import TOKEN_REFUSED, retries_before_start, retries_when_safe
from app.coze.credentials.accounts import Credentials
from app.coze.deadline import Deadline
from app.coze.options import Bearer, CozeOptions
from app.coze.replies import Reply, looks_like
from app.coze.response import CozeResponse, no_first_byte
from app.coze.retry import RetryBudget, pause_before
from app.coze.stream import CozeStream
from app.coze.transport import NETWORK_ERRORS, Outgoing, PooledClient, SecretHeaders, network_error
from app.coze.wire import ChatState
from app.exceptions import CozeApiError, UpstreamError
from app.observing.metrics import Metrics
from app.observing.tracing import Span, Tracing

T = TypeVar("T")
Read = Callable[[CozeResponse], Awaitable[T]]

USER_AGENT: Final = "coze-fastapi"
_SNIFF_BYTES: Final = 1024


class ApiCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call to Coze, as often as it takes.

    Attributes:
        content: the body; an iterator is sent as it comes, and once.
        seconds: from the request to the whole response, where that is not ``first_byte_timeout``.
        conversation_id: of what the call is about; None where there is no conversation yet.
        safe: it may be repeated whatever happened to it.
        existing: it is about a chat that exists.
        owner: of whose retries it takes; "": nobody's.
        stream: the response is to be an event stream.
        retries: at most, where that is not ``max_retries``.
    """

    method: str
    url: str
    params: dict[str, str] | None = None
    content: bytes | AsyncIterator[bytes] | None = None
    content_type: str = "application/json"
    seconds: float | None = None
    conversation_id: str | None = None
    safe: bool = False
    existing: bool = False
    owner: str
    stream: bool = False
    retries: int | None = None

    @property
    def repeatable(self) -> bool:
        """A body that is sent as it comes cannot be sent again."""
        return self.content is None or isinstance(self.content, bytes)

    def __repr__(self) -> str:
        return f"{self.method} {self.url}"  # the content is what a user wrote


@define(eq=False, repr=False)
class CozeApi:
    """One for all calls of a process: all share its retry budget.

    Args:
        http: the process's pooled client (see ``build_http_client``); it stays the caller's to close.
        options: addresses, deadlines and bounds.
        sleep: waits for seconds; tests bring a clock of their own.
        rng: jitter; tests bring one that they can foresee.
        metrics: counts retries and failures.
        tracing: makes a span of each call.
        budget: who may have how many retries.
    """

    _http: PooledClient
    options: CozeOptions
    sleep: Callable[[float], Awaitable[object]] = field(kw_only=True, default=asyncio.sleep)
    _rng: random.Random = field(kw_only=True, factory=random.SystemRandom)
    _metrics: Metrics = field(kw_only=True, factory=Metrics)
    _tracing: Tracing = field(kw_only=True, factory=Tracing)
    _budget: RetryBudget = field(kw_only=True, factory=RetryBudget)

    async def pause(self, seconds: float) -> None:
        """Waits that long, a tenth more or less."""
        await self.sleep(seconds * self._rng.uniform(0.9, 1.1))

    def may_retry(self, owner: str) -> bool:
        """Takes one retry of the owner's, for who repeats calls himself. False: there is none."""
        return self._budget.take(owner)

    async def json(self, call: ApiCall, credentials: Credentials) -> Reply:
        """The JSON answer of a call. Raises ``UpstreamError``."""
        with self._metrics.upstream(), self._span(call) as span:
            try:
                reply = await self._with_retries(call, credentials, CozeResponse.read_json, span)
            except UpstreamError as error:
                if call.existing:
                    # Nobody must conclude from a refused retrieve that its chat never began.
                    error.maybe_started = True
                raise
            span.set({"coze.logid": reply.logid})
            if reply.mended:
                self.note_unreadable("reply", reply.logid)
            return reply

    def note_unreadable(self, kind: str, logid: str | None) -> None:
        """Counts and logs what Coze sent and could not be read as it should be; ``kind``: ``reply`` or
        ``message`` (one of a list)."""
        self._metrics.unreadable.labels(kind).inc()
        logger.warning("a part of a {} from Coze was not readable (logid {})", kind, logid)

    @asynccontextmanager
    async def stream(self, call: ApiCall, credentials: Credentials) -> AsyncIterator[CozeStream]:
        """The open stream that answers a call; leaving closes it. Raises ``UpstreamError``."""
        with self._metrics.upstream(), self._span(call) as span:
            stream = await self._with_retries(call, credentials, begin_stream, span)
            span.set({"coze.logid": stream.logid})
            try:
                async with stream.deadlines():
                    yield stream
                await stream.finish()
            except UpstreamError as error:
                if stream.chat is None:  # else it is a poll that failed, and has been counted
                    self._failed(error, span)
                raise
            finally:
                await stream.close()

    def _span(self, call: ApiCall) -> Span:
        host, _, path = call.url.partition("://")[2].partition("/")
        span = self._tracing.span(f"coze {call.method}", kind="client")
        span.set({"http.request.method": call.method, "url.path": f"/{path}"})
        span.set({"server.address": host.rpartition("@")[2]})
        return span

    def _failed(self, error: UpstreamError, span: Span) -> None:
        self._metrics.upstream_error(error)
        span.set({"coze.code": error.coze_code, "coze.logid": error.logid})

    async def _with_retries(self, call: ApiCall, credentials: Credentials, read: Read[T], span: Span) -> T:
        allowed = retries_when_safe if call.safe else retries_before_start
        most = self.options.max_retries if call.retries is None else call.retries
        self._budget.deposit(call.owner)
        retry = 0
        renewed = stays_open = False
        while True:
            bearer = Bearer(await credentials.bearer(call.conversation_id))
            response: CozeResponse | None = None
            try:
                response = await send(self._http, self.options, call, bearer)
                result = await read(response)
                stays_open = call.stream  # ``stream`` closes it
                return result
            except UpstreamError as error:
                self._failed(error, span)
                if not renewed and await _has_another_token(error, bearer, call, credentials):
                    if not call.repeatable:
                        error.retryable = True  # by whoever made the call, and still has what was sent
                        raise
                    renewed = True
                    continue
                if retry >= min(most, allowed(error)):
                    raise
                retry_after = response.head.retry_after if response is not None else None
                pause = pause_before(retry, retry_after, self._rng)
                if pause is None or not self._budget.take(call.owner):
                    raise
                retry += 1
                self._metrics.retries.inc()
                span.set({"http.request.resend_count": retry})
                logger.warning(
                    "{}; retry {} of {} in {:.2f} s (logid {})",
                    error.message,
                    retry,
                    most,
                    pause,
                    error.logid,
                )
            finally:
                # On failure and cancellation too: the connection must not outlive the call.
                if response is not None and not stays_open:
                    await response.close()
            await self.sleep(pause)


async def _has_another_token(
    error: UpstreamError, bearer: Bearer, call: ApiCall, credentials: Credentials
) -> bool:
    if error.coze_code in TOKEN_REFUSED:
        return await credentials.token_refused(bearer.reveal())
    return credentials.call_failed(error) and (call.safe or not error.maybe_started)


# -- one exchange ------------------------------------------------------------------------------------------


async def send(http: PooledClient, options: CozeOptions, call: ApiCall, bearer: Bearer) -> CozeResponse:
    """Sends the request and waits for the headers of the response.

    Returns:
        The response, to be closed.

    Raises:
        CozeTimeout: they are late.
        CozeApiError: there was no connection, or it broke.
    """
    late_at = asyncio.get_running_loop().time() + (call.seconds or options.first_byte_timeout)
    async with Deadline(late_at, lambda: no_first_byte(options)):
        try:
            answer = await http.exchange(_request(call, bearer))
        except NETWORK_ERRORS as error:
            raise network_error(error, options.connect_timeout) from error
    return CozeResponse(answer, options, late_at)


def _request(call: ApiCall, bearer: Bearer) -> Outgoing:
    headers = SecretHeaders(
        {
            "authorization": bearer.header(),
            "accept": "text/event-stream, application/json" if call.stream else "application/json",
            "user-agent": USER_AGENT,
            # Compressing proxies hold deltas back.
            "accept-encoding": "identity" if call.stream else "gzip",
        }
    )
    if call.content is not None:
        headers["content-type"] = call.content_type
    return Outgoing(call.method, call.url, headers, call.params, call.content)


async def begin_stream(response: CozeResponse) -> CozeStream:
    """Decides what an answer to ``stream=true`` is, after its headers: what is called an event stream is one,
    of all else the first byte tells. Raises the error of a JSON or HTML answer, and of a stream that begins
    with one.
    """
    head, first = response.head, b""
    if head.is_event_stream:
        return await CozeStream(response).begin()
    if head.is_success:
        async with Deadline(response.late_at, response.no_first_byte):
            while looks_like(first) == "unknown" and len(first) <= _SNIFF_BYTES:
                chunk = await response.read()
                if not chunk:
                    break
                first += chunk
        kind = looks_like(first)
        if kind == "stream" or (kind == "unknown" and head.content_type != "application/json"):
            return await CozeStream(response, first=first).begin()
    reply = await response.read_json(first)
    chat = ChatState.parse(reply.data, logid=reply.logid)
    if not chat.id:
        raise CozeApiError("Coze's answer is neither a stream nor a chat", logid=reply.logid)
    return CozeStream(response, chat=chat)
