"""Makes calls: token, one or more attempts, closing.

Retries are made here, with backoff, jitter and a budget, and for a call that starts something only while
Coze demonstrably has not begun: no connection, HTTP 429, 500, 502, 503, or a JSON error whose code allows
it. Once a chat may exist, the failure goes to the caller, who can ask Coze what became of it.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from loguru import logger

from app.coze.codes import TOKEN_REFUSED, retries_before_start, retries_when_safe
from app.coze.exchange import CozeStream, Exchange, begin_stream
from app.coze.options import Bearer, CozeOptions, Credentials, OwnedCredentials, RenewableCredentials
from app.coze.replies import Head, Reply
from app.coze.retry import Backoff, RetryBudget, Uniform
from app.coze.transport import PooledClient
from app.exceptions import UpstreamError
from app.metrics import Metrics
from app.tracing import Span, Tracing

T = TypeVar("T")
Attempt = Callable[[Exchange, Head], Awaitable[T]]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as often as it takes. ``safe``: it may be repeated whatever happened to it;
    ``existing``: it is about a chat that exists. ``seconds``: from the request to the whole answer, where
    that is not the first-byte deadline."""

    method: str
    url: str
    params: dict[str, str] | None = None
    content: bytes | AsyncIterator[bytes] | None = None
    content_type: str = "application/json"
    seconds: float | None = None
    conversation_id: str | None = None
    safe: bool = False
    existing: bool = False
    stream: bool = False
    retries: int | None = None

    @property
    def repeatable(self) -> bool:
        """What flows through us is here only once."""
        return self.content is None or isinstance(self.content, bytes)

    def __repr__(self) -> str:
        return f"{self.method} {self.url}"  # the content is what a user wrote


class Caller:
    """One per client; holds the retry budget."""

    def __init__(
        self,
        http: PooledClient,
        options: CozeOptions,
        credentials: Credentials,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: Uniform,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._http = http
        self._options = options
        self._credentials = credentials
        self._sleep = sleep
        self._backoff = Backoff(rng=rng)
        self._budget = RetryBudget()

    @property
    def credentials(self) -> Credentials:
        return self._credentials

    def using(self, credentials: Credentials) -> "Caller":
        """The same caller, retry budget and all, with other credentials."""
        other = copy.copy(self)
        other._credentials = credentials  # noqa: SLF001  # of this very class
        return other

    async def json(self, call: Call) -> Reply:
        """The JSON answer of ``call``. Raises ``UpstreamError``."""

        async def attempt(exchange: Exchange, head: Head) -> Reply:
            return await exchange.read_json(head)

        with self._metrics.upstream(), self._span(call) as span:
            try:
                reply = await self._with_retries(call, attempt, span)
            except UpstreamError as error:
                if call.existing:
                    # A caller must not conclude from a refused retrieve that its chat never began.
                    error.maybe_started = True
                raise
            span.set({"coze.logid": reply.logid})
            return reply

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[CozeStream]:
        """The open stream that answers ``call``; leaving closes it. Raises ``UpstreamError``."""
        with self._metrics.upstream(), self._span(call) as span:
            stream = await self._with_retries(call, self._begin_stream, span)
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

    async def _begin_stream(self, exchange: Exchange, head: Head) -> CozeStream:
        return await begin_stream(exchange, head, self._options)

    def _span(self, call: Call) -> Span:
        if not self._tracing.on:
            return self._tracing.span(call.method)
        host, _, path = call.url.partition("://")[2].partition("/")
        span = self._tracing.span(f"coze {call.method}", kind="client")
        span.set({"http.request.method": call.method, "url.path": f"/{path}"})
        span.set({"server.address": host.rpartition("@")[2]})
        return span

    def _failed(self, error: UpstreamError, span: Span) -> None:
        self._metrics.upstream_error(error.code if error.coze_code is None else str(error.coze_code))
        span.set({"coze.code": error.coze_code, "coze.logid": error.logid})

    async def _with_retries(self, call: Call, attempt: Attempt[T], span: Span) -> T:
        allowed = retries_when_safe if call.safe else retries_before_start
        most = self._options.max_retries if call.retries is None else call.retries
        self._budget.deposit()
        retry = 0
        renewed = False
        while True:
            exchange = Exchange(self._http, self._options)
            bearer = Bearer(await self._credentials.bearer(call.conversation_id))
            try:
                return await self._attempt(exchange, call, bearer, attempt)
            except UpstreamError as error:
                self._failed(error, span)
                if not renewed and await self._has_another_token(error, bearer, call):
                    if not call.repeatable:
                        error.retryable = True  # by the caller, who still has what was sent
                        raise
                    renewed = True
                    continue
                if retry >= min(most, allowed(error)):
                    raise
                retry_after = exchange.head.retry_after if exchange.head else None
                pause = self._backoff.delay(retry, error, retry_after)
                if pause is None or not self._budget.take():
                    raise
                retry += 1
                self._metrics.upstream_retry()
                span.set({"http.request.resend_count": retry})
                logger.warning(
                    "{}; retry {} of {} in {:.2f} s (logid {})",
                    error.message,
                    retry,
                    most,
                    pause,
                    error.logid,
                )
            await self._sleep(pause)

    async def _attempt(self, exchange: Exchange, call: Call, bearer: Bearer, attempt: Attempt[T]) -> T:
        stays_open = False
        try:
            head = await exchange.send(
                call.method,
                call.url,
                bearer=bearer,
                params=call.params,
                content=call.content,
                content_type=call.content_type,
                stream=call.stream,
                seconds=call.seconds,
            )
            result = await attempt(exchange, head)
            stays_open = call.stream  # ``stream`` closes it
            return result
        finally:
            # On failure and cancellation too: the connection must not outlive the call.
            if not stays_open:
                await exchange.close()

    async def _has_another_token(self, error: UpstreamError, bearer: Bearer, call: Call) -> bool:
        credentials = self._credentials
        if error.coze_code in TOKEN_REFUSED:
            return isinstance(credentials, RenewableCredentials) and await credentials.refused(
                bearer.reveal()
            )
        moved = isinstance(credentials, OwnedCredentials) and credentials.failed(error)
        return moved and (call.safe or not error.maybe_started)
