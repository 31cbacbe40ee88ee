"""What is read of an answer of the auth service, whatever it is: bounded, and in small pieces.

The HTTP library bounds headers alone. Interim answers, chunks of a byte and what stands behind a chunk's
length have no end for it, and all that has arrived is worked through before anybody else has a turn.
"""

# ruff: noqa: ASYNC109  # the signatures are httpcore's

import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore
import httpx

MOST_BYTES: Final = 128 * 1024
"""Of one answer, with its headers."""
SMALL_BUFFER: Final = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)]
"""The event loop takes all that the system has for a connection, whatever was asked for."""
_AT_ONCE: Final = 512
"""A hundred interim answers or chunks, which take some milliseconds."""


class CannotAsk(Exception):
    """The service gave no answer: that says nothing of the token. The text holds nothing of the request."""


def bound_answers(transport: httpx.AsyncHTTPTransport) -> httpx.AsyncHTTPTransport:
    """The transport, whose reads raise ``CannotAsk`` past the bound from now on."""
    pool = transport._pool  # noqa: SLF001  # httpx hands no backend on
    pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001
    return transport


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

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._inner.read(min(max_bytes, _AT_ONCE), timeout)
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
        return self._inner.get_extra_info(info)
