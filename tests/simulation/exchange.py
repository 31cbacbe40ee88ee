"""One HTTP exchange with an ASGI application in this process, streamed both ways, over a network that can
break."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.clock import OWNER, Line, Owner, later, outside


class Broken(Exception):
    """The connection broke before the answer was complete, or could not be made."""


@dataclass
class Request:
    method: str
    path: str
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    asked: Any = None
    """What it asks for that has a limit; see ``shares.Asked``."""

    def scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "scheme": "http",
            "headers": self.headers,
            "client": ("10.0.0.1", 1),
            "server": ("world", 80),
        }


class Exchange:
    """Begun when it is made. ``context``: that of the replica that serves it, or an empty one.

    ``delay`` gives the seconds that each piece of the answer travels. ``transport``: what the simulator of
    Coze looks for to cut a connection."""

    def __init__(
        self,
        app: Any,
        request: Request,
        delay: Callable[[], float],
        *,
        name: str,
        context: contextvars.Context | None = None,
    ) -> None:
        self.transport = self
        self.name = name
        self.path = request.path
        self.gone = asyncio.Event()
        """The client has left, or the connection is broken."""
        self.ended = False
        self._app = app
        self._request = request
        self._delay = delay
        self._line = Line()
        self._body = list(request.body) or [b""]
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.head: asyncio.Future[tuple[int, dict[str, str]]] = asyncio.get_running_loop().create_future()
        self.head.add_done_callback(_look_at)
        if context is None:
            self.task = outside(self._serve(), name)
        else:
            self.task = asyncio.get_running_loop().create_task(self._serve(), name=name, context=context)

    # -- the server's side -------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            await self._app(self._request.scope(), self._receive, self.send)
        finally:
            if not self.ended:
                self.break_off()

    async def _receive(self) -> dict[str, Any]:
        if self._body and not self.gone.is_set():
            piece = self._body.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._body)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if self.gone.is_set():
            return
        if message["type"] == "http.response.start":
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            self._travel(self._take_head, message["status"], headers)
            return
        if message.get("body"):
            self._travel(self._take, message["body"])
        if not message.get("more_body"):
            self.ended = True
            self._travel(self._take, None)

    def _travel(self, take: Callable[..., None], *args: Any) -> None:
        self._line.travel(self._delay(), take, *args)

    def _take_head(self, status: int, headers: dict[str, str]) -> None:
        if not self.head.done():
            self.head.set_result((status, headers))

    def _take(self, piece: bytes | None) -> None:
        self._pieces.put_nowait(piece)
        if piece is None:
            self.gone.set()

    def close(self) -> None:
        """What was sent arrives, and then nothing more: the simulator cuts like this."""
        self._travel(self.break_off)

    def break_off(self) -> None:
        """Both ends find the connection broken."""
        self.gone.set()
        if not self.head.done():
            self.head.set_exception(Broken(self.name))
        self._pieces.put_nowait(Broken(self.name))

    # -- the client's side -------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """The server hears of it a moment later."""
        later(self._delay(), self.gone.set)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises ``Broken``."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])


def _look_at(head: asyncio.Future[Any]) -> None:
    """Nobody may be waiting for it any more."""
    if not head.cancelled():
        head.exception()


def context_of(owner: Owner) -> contextvars.Context:
    """An empty context that belongs to a replica."""
    context = contextvars.Context()
    context.run(OWNER.set, owner)
    return context
