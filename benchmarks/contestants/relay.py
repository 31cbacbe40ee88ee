"""The relay: bytes to and fro between two sockets, on uvloop, protocol to protocol. Nothing is parsed.

What any process between a caller and Coze pays at the least: a read and a write for each delta. Each
connection of a caller gets one of its own to the upstream. ``python -m benchmarks.contestants.relay PORT``.
"""

import asyncio
import os
import sys
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.processes import raise_file_limit


class Side(asyncio.Protocol):
    """One of the two connections; what comes before the other one stands is kept for it."""

    def __init__(self) -> None:
        self.other: Side | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)
        else:
            self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.other is not None:
            self.other.close()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def join(self, other: "Side") -> None:
        """From now on, what comes here goes to ``other``, beginning with what came before."""
        self.other = other
        for data in self._early:
            other.write(data)
        self._early.clear()
        if self._transport is None:
            other.close()


class CallerSide(Side):
    """Opens the connection to the upstream."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._upstream = (host, port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, upstream = await loop.create_connection(Side, *self._upstream)
        except OSError:
            self.close()
            return
        upstream.join(self)
        self.join(upstream)


async def serve(port: int) -> None:
    upstream = urlsplit(os.environ["BENCH_UPSTREAM"])
    assert upstream.hostname
    assert upstream.port
    host, upstream_port = upstream.hostname, upstream.port
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: CallerSide(host, upstream_port), "127.0.0.1", port, backlog=8192
    )
    await server.serve_forever()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(serve(int(sys.argv[1])))
