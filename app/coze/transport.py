"""The HTTP client under the Coze client, and what its failures mean.

Two transports: aiohttp's connection pool behind httpx's interface (the default: several times the
throughput at hundreds of open streams), and httpx's own.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Literal, NamedTuple

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from app.coze.arriving import AiohttpAnswer, Answer, HttpxAnswer
from app.coze.pool import Connector
from app.coze.replies import Head
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError
from app.utils.certificates import certificate_fault

TransportName = Literal["aiohttp", "httpx"]

KEEPALIVE_SECONDS: Final = 15.0
"""How long an idle connection is kept; shorter than the usual 60 s of servers and balancers, so that a
request rarely meets a connection that is just being closed."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""Of one header line of an answer: cookies and traces of middle boxes exceed the usual 8 KiB."""

NETWORK_ERRORS: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, aiohttp.ClientError, OSError)
"""All that a request or a read can raise. httpx-aiohttp lets some of aiohttp's own errors through, and both
transports the system's; ``TimeoutError`` is an ``OSError``."""

_WRITER: Final = aiohttp.ClientRequest.write_bytes.__qualname__
_NOT_CONNECTED_AIOHTTP: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
_NOT_CONNECTED_HTTPX: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


class SecretHeaders(dict[str, str]):
    """Tracebacks that show variables do not show these."""

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


class Outgoing(NamedTuple):
    """A request. ``content``: an iterator is sent as it comes."""

    method: str
    url: str
    headers: SecretHeaders
    params: dict[str, str] | None = None
    content: bytes | AsyncIterator[bytes] | None = None


class PooledClient(httpx.AsyncClient):
    """An ``AsyncClient`` that can also send a request just as it is.

    Its other calls look for cookies, redirects and authentication that there are not, and make objects of
    httpx' for what aiohttp has already: half of what a request takes.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, connect_timeout: float) -> None:
        self._limits: Final = httpx.Timeout(None, connect=connect_timeout, pool=connect_timeout)
        super().__init__(
            transport=transport,
            # The reads' deadlines are the Coze client's own, the same over both transports.
            timeout=self._limits,
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        )
        self._below: Final = transport
        self._straight_limits: Final = aiohttp.ClientTimeout(
            connect=connect_timeout, sock_connect=connect_timeout
        )

    async def exchange(self, request: Outgoing) -> Answer:
        """From a request to its answer once the headers are there; the caller closes it. Raises
        ``NETWORK_ERRORS``."""
        method, url, headers, params, content = request
        if not isinstance(self._below, AiohttpTransport):
            extensions = {"timeout": self._limits.as_dict()}
            sent = httpx.Request(
                method, url, params=params or None, content=content, headers=headers, extensions=extensions
            )
            return HttpxAnswer(await self._below.handle_async_request(sent))
        session = self._below.client = self._below.get_client()  # made when the loop runs
        proxy = self._below.proxy
        response = await session.request(
            method,
            url,
            params=params,
            data=content,
            headers=headers,
            allow_redirects=False,
            timeout=self._straight_limits,
            proxy=str(proxy.url) if proxy else None,
            proxy_auth=aiohttp.BasicAuth(*proxy.auth) if proxy and proxy.auth else None,
        )
        return AiohttpAnswer(response)


def build_http_client(
    *,
    connect_timeout: float,
    pool_size: int,
    transport: TransportName = "aiohttp",
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = None,
) -> PooledClient:
    """A pooled client; call it inside the event loop and ``aclose`` it there.

    Redirects are not followed: a POST must not be sent twice, nor a token to another host. The environment
    (proxies, .netrc, SSL_CERT_FILE) is not consulted, so that what is set is what happens. Cookies are not
    kept: all chats share this client.

    Args:
        connect_timeout: seconds, also for the wait for a free connection.
        pool_size: how many connections may be open, and so how many chats run at once.
        ssl_context: instead of certifi's list of authorities.
        proxy: ``http://[user:password@]host[:port]``, through which all goes.
    """
    limits = httpx.Limits(
        max_connections=pool_size,
        max_keepalive_connections=pool_size,
        keepalive_expiry=KEEPALIVE_SECONDS,
    )
    ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
    through = httpx.Proxy(proxy) if proxy else None
    chosen: httpx.AsyncBaseTransport
    if transport == "aiohttp":

        def session() -> aiohttp.ClientSession:
            connector = Connector(limit=pool_size, keepalive_timeout=KEEPALIVE_SECONDS, ssl=ssl_context)
            return aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )

        chosen = AiohttpTransport(
            verify=ssl_context, trust_env=False, limits=limits, client=session, proxy=through
        )
    else:
        chosen = httpx.AsyncHTTPTransport(verify=ssl_context, trust_env=False, limits=limits, proxy=through)
    return PooledClient(chosen, connect_timeout)


def network_error(error: BaseException, connect_timeout: float, head: Head | None = None) -> UpstreamError:
    """What one of ``NETWORK_ERRORS`` means. Its own text, which holds addresses, stays in ``__cause__``.
    ``head``: of the answer, where it had begun."""
    late = _is_timeout(error)
    if head is None and _never_connected(error):
        if late:
            text = f"No connection to Coze within {connect_timeout:g} s (COZE_CONNECT_TIMEOUT)"
            return CozeTimeout(text, maybe_started=False)
        return CozeApiError(
            "No connection to Coze",
            hint=certificate_fault(error)
            or "Check COZE_API_URL and COZE_BASE_URL, the network and the name service.",
            maybe_started=False,
            retryable=True,
        )
    logid = head.logid if head else None
    if late:
        return CozeTimeout("The connection to Coze timed out", logid=logid, maybe_started=True)
    return CozeApiError("The connection to Coze broke", logid=logid, maybe_started=True, retryable=True)


def ask_nothing_of_writers(loop: asyncio.AbstractEventLoop) -> None:
    """Keeps out of the log what aiohttp's tasks that write a body have met.

    Nobody asks these tasks. Where Coze closes a connection right before the end of an upload, asyncio would
    log a traceback at ``ERROR``, though the upload itself has failed and says so.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        task = context.get("future")
        name = getattr(task.get_coro(), "__qualname__", "") if isinstance(task, asyncio.Task) else ""
        if name != _WRITER or not isinstance(context.get("exception"), aiohttp.ClientConnectionError):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def _never_connected(error: BaseException) -> bool:
    """Whether the request demonstrably never left, so that it may be sent again."""
    return isinstance(error, _NOT_CONNECTED_AIOHTTP + _NOT_CONNECTED_HTTPX)


def _is_timeout(error: BaseException) -> bool:
    """Whether a deadline of the transport passed."""
    return isinstance(error, (httpx.TimeoutException, TimeoutError))
