"""What is read of an answer of the auth service, whatever it is: bounded, and in small pieces.

The HTTP library bounds headers alone. Interim answers, chunks of a byte and what stands behind a chunk's
length have no end for it, and all that has arrived is worked through before anybody else has a turn. And what
comes behind an answer counts for it as the answer to the question that is asked next on the connection: here
such a connection is closed.
"""

# ruff: noqa: ASYNC109  # the signatures are httpcore's

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import h11
import httpcore
import httpx

MOST_BYTES: Final = 128 * 1024
"""Of one answer, with its headers."""
_SMALL_BUFFER: Final = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)]
"""The event loop takes all that the system has for a connection, whatever was asked for."""
_AT_ONCE: Final = 512
"""A hundred interim answers or chunks, which take some milliseconds."""


class CannotAsk(Exception):
    """The service gave no answer: that says nothing of the token. The text holds nothing of the request."""


class NoAnswerInTime(CannotAsk):
    """It was waited for until the end."""


def bounded_transport(
    ssl_context: ssl.SSLContext, *, max_connections: int, keepalive_seconds: float
) -> httpx.AsyncHTTPTransport:
    """One whose reads raise ``CannotAsk`` past the bound."""
    transport = httpx.AsyncHTTPTransport(verify=ssl_context, trust_env=False)
    transport._pool = _Pool(  # noqa: SLF001  # httpx takes no pool
        ssl_context=ssl_context,
        max_connections=max_connections,
        max_keepalive_connections=max_connections,
        keepalive_expiry=keepalive_seconds,
        network_backend=_Backend(httpcore.AnyIOBackend()),
        socket_options=_SMALL_BUFFER,
    )
    return transport


class _Pool(httpcore.AsyncConnectionPool):
    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return _Connection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
            socket_options=self._socket_options,
        )


class _Connection(httpcore.AsyncHTTPConnection):
    """The pool asks this before it uses a connection again."""

    def has_expired(self) -> bool:
        parser: h11.Connection | None = getattr(self._connection, "_h11_state", None)
        is_more_there = parser is not None and self.is_idle() and bool(parser.trailing_data[0])
        return is_more_there or super().has_expired()


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A request begins to count anew: on a kept connection one follows another."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._read = 0
        self._rest = b""
        """What has come and is not asked for yet."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._rest:
            await asyncio.sleep(0)
        else:
            self._rest = await self._inner.read(max_bytes, timeout)
        data, self._rest = self._rest[:_AT_ONCE], self._rest[_AT_ONCE:]
        self._read += len(data)
        if self._read > MOST_BYTES:
            raise CannotAsk("the answer is too long")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._read = 0
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return (info == "is_readable" and bool(self._rest)) or self._inner.get_extra_info(info)
