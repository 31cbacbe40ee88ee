"""Makes calls: token, one or more attempts, closing.

Retries are made here, with backoff, jitter and a budget, and for a call that starts something only while
Coze demonstrably has not begun: no connection, HTTP 429, 500, 502, 503, or a JSON error whose code allows
it. Once a chat may exist, the failure goes to the caller, who can ask Coze what became of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import httpx
import msgspec
from loguru import logger

from app.coze.codes import TOKEN_REFUSED, retries_before_start, retries_when_safe
from app.coze.exchange import CozeStream, Exchange, begin_stream
from app.coze.options import Bearer, CozeOptions, Credentials, RenewableCredentials
from app.coze.replies import Head, Reply
from app.coze.retry import Backoff, RetryBudget, Uniform
from app.exceptions import UpstreamError

T = TypeVar("T")
Attempt = Callable[[Exchange, Head], Awaitable[T]]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as often as it takes. ``safe``: it may be repeated whatever happened to it;
    ``existing``: it is about a chat that exists."""

    method: str
    url: str
    params: dict[str, str] | None = None
    content: bytes | None = None
    conversation_id: str | None = None
    safe: bool = False
    existing: bool = False
    stream: bool = False
    retries: int | None = None

    def __repr__(self) -> str:
        return f"{self.method} {self.url}"  # the content is what a user wrote


class Caller:
    """One per client; holds the retry budget."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        options: CozeOptions,
        credentials: Credentials,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: Uniform,
    ) -> None:
        self._http = http
        self._options = options
        self._credentials = credentials
        self._sleep = sleep
        self._backoff = Backoff(rng=rng)
        self._budget = RetryBudget()

    async def json(self, call: Call) -> Reply:
        """The JSON answer of ``call``. Raises ``UpstreamError``."""

        async def attempt(exchange: Exchange, head: Head) -> Reply:
            return await exchange.read_json(head)

        try:
            return await self._with_retries(call, attempt)
        except UpstreamError as error:
            if call.existing:
                # A caller must not conclude from a refused retrieve that its chat never began.
                error.maybe_started = True
            raise

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[CozeStream]:
        """The open stream that answers ``call``; leaving closes it. Raises ``UpstreamError``."""
        async with AsyncExitStack() as stack:

            async def attempt(exchange: Exchange, head: Head) -> CozeStream:
                stream = await begin_stream(exchange, head, self._options)
                stack.push_async_callback(exchange.close)
                return stream

            stream = await self._with_retries(call, attempt)
            yield stream
            await stream.finish()

    async def _with_retries(self, call: Call, attempt: Attempt[T]) -> T:
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
                if not renewed and await self._has_newer_token(error, bearer):
                    renewed = True
                    continue
                if retry >= min(most, allowed(error)):
                    raise
                retry_after = exchange.head.retry_after if exchange.head else None
                pause = self._backoff.delay(retry, error, retry_after)
                if pause is None or not self._budget.take():
                    raise
                retry += 1
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
        async with AsyncExitStack() as stack:
            # On failure and cancellation too: the connection must not outlive the call.
            stack.push_async_callback(exchange.close)
            head = await exchange.send(
                call.method,
                call.url,
                bearer=bearer,
                params=call.params,
                content=call.content,
                stream=call.stream,
            )
            result = await attempt(exchange, head)
            if call.stream:
                stack.pop_all()  # stays open; ``stream`` closes it
            return result

    async def _has_newer_token(self, error: UpstreamError, bearer: Bearer) -> bool:
        return (
            error.coze_code in TOKEN_REFUSED
            and isinstance(self._credentials, RenewableCredentials)
            and await self._credentials.refused(bearer.reveal())
        )
