"""Responses at the level of bytes: streams of a running chat, JSON with faults, connections that break."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Transport
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coze_simulator.knobs import Knobs
from coze_simulator.outbox import Outbox

TRANSPORT_KEY = "coze_simulator.transport"
_CLOSE_TIMEOUT = 5.0  # seconds for the peer to take what was written before a cut


class WireResponse(Response):
    """A response whose bytes can be late, cut or sent in pieces. ``source`` yields the body.

    ``on_gone`` is called once if the client leaves before the end (not when we cut the connection ourselves).
    """

    def __init__(
        self,
        source: bytes | Outbox,
        *,
        status: int,
        headers: Mapping[str, str],
        knobs: Knobs,
        on_gone: Callable[[], None] | None = None,
        drop: bool = False,
    ) -> None:
        # Starlette's own initialisation would add a content-length, which a stream must not have.
        self.status_code = status
        self.background = None
        self.body = b""
        self._source = source
        self._knobs = knobs
        self._on_gone = on_gone
        self._drop = drop
        self.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        if isinstance(source, bytes):
            self.raw_headers.append((b"content-length", str(len(source)).encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        gone = asyncio.create_task(self._watch(receive))
        try:
            if self._knobs.first_byte:
                await asyncio.wait({gone}, timeout=self._knobs.first_byte)
            if self._drop:
                await _break_off(scope, gone)
            elif not gone.done():
                await self._send(scope, send, gone)
        finally:
            if gone.done() and not gone.cancelled() and gone.result() and self._on_gone is not None:
                self._on_gone()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _watch(self, receive: Receive) -> bool:
        """Waits until the client has left; True if it did so on its own."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if isinstance(self._source, Outbox):
            self._source.leave()
        return True

    async def _send(self, scope: Scope, send: Send, gone: asyncio.Task[bool]) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = self._knobs.cut
        async for data in self._pieces():
            if left is not None and len(data) >= left:
                if left:
                    await send({"type": "http.response.body", "body": data[:left], "more_body": True})
                if self._knobs.on_disconnect != "stop":
                    # A cut in the network is not the client's leaving: Coze goes on, unless told otherwise.
                    self._on_gone = None
                await _break_off(scope, gone)
                return
            if left is not None:
                left -= len(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            if self._knobs.chunk:
                await asyncio.sleep(0)  # so that each piece is a write of its own
        if not gone.done():
            # From here on a disconnect is the ordinary end of the exchange.
            self._on_gone = None
            self.over()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def over(self) -> None:
        """Called when all but the end of the body has been sent."""

    async def _pieces(self) -> AsyncIterator[bytes]:
        chunk = self._knobs.chunk
        async for data in self._blocks():
            if not chunk:
                yield data
                continue
            for start in range(0, len(data), chunk):
                yield data[start : start + chunk]

    async def _blocks(self) -> AsyncIterator[bytes]:
        if isinstance(self._source, bytes):
            yield self._source
            return
        while (data := await self._source.take()) is not None:
            yield data


async def _break_off(scope: Scope, gone: asyncio.Task[bool]) -> None:
    """Closes the connection after what was written, without the end of the body."""
    transport: Transport | None = scope.get(TRANSPORT_KEY)
    if transport is not None:
        transport.close()
        await asyncio.wait({gone}, timeout=_CLOSE_TIMEOUT)
