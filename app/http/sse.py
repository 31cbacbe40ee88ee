"""Events -> HTTP: what a reader brings as ``text/event-stream`` (WHATWG HTML, server-sent events).

The last two events, ``result`` and ``done``, are made here for each reader: they are not in the log.
``result`` carries the last frame's id, ``done`` the next one, which no frame ever has: who comes back with it
has read all there is.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Final, Protocol, cast

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.error_handlers import error_body, error_response
from app.exceptions import ServiceError, ShuttingDown
from app.http.connections import BREAK_OFF, CYCLE
from app.http.half_close import HALF_CLOSED
from app.http.middleware import CLIENT_GONE, STRAIGHT_BYTES
from app.models import Cursor
from app.models.envelope import success_json, task_status_of
from app.models.records import head_of
from app.tasks.reader import Batch, Ending, Reader
from app.tasks.shutdown import Shutdown
from app.utils.signals import IdleTimer, Told

_RETRY: Final = b"retry: 1000\n\n"
_HEARTBEAT: Final = b": keep-alive\n\n"
_LONG: Final = 4096
"""Bytes of a last word that are worth a write of their own."""
_DOUBTFUL_SECONDS: Final = 1.0
"""Heartbeat for a client that sends nothing more: it reads, or it is gone and only writing finds that out."""
_COLON: Final = 0x3A
_RECONNECT: Final = b'event: reconnect\ndata: "come back with your last id"\n\n'
STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",  # a box that compresses would gather frames
    "X-Accel-Buffering": "no",
}


_SEPARATORS: Final = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
"""Characters at which readers that cut text with ``str.splitlines`` would cut our JSON in two."""


def without_separators(piece: bytes) -> bytes:
    """Whole frames with U+2028, U+2029 and U+0085 as JSON escapes."""
    # Nearly always one or two looks for a single byte are enough.
    if not (0xE2 in piece or 0xC2 in piece):
        return piece
    for raw, escape in _SEPARATORS:
        piece = piece.replace(raw, escape)
    return piece


def render(batch: Batch) -> bytes:
    """The frames with their ids, in one piece: what arrived together is written together. What is hidden
    (``app.coze.marks``: it begins with a colon) is for readers of another dialect."""
    if batch.made is None:  # nearly always
        return _rendered(batch)
    if (piece := batch.made.get(render)) is None:
        piece = batch.made[render] = _rendered(batch)
    return cast("bytes", piece)


def _rendered(batch: Batch) -> bytes:
    epoch, number, frames = batch.epoch, batch.first, batch.frames
    if len(frames) == 1:  # nearly always
        return b"id: %d-%d\n%b" % (epoch, number, frames[0]) if frames[0][0] != _COLON else b""
    return b"".join(
        [b"id: %d-%d\n%b" % (epoch, n, frame) for n, frame in enumerate(frames, number) if frame[0] != _COLON]
    )


def result_json(found: Ending) -> bytes:
    """The envelope with the whole chat; ``resumable`` is only written where it is false."""
    if (body := found.made.get(result_json)) is None:
        body = found.made[result_json] = _result_json(found)
    return cast("bytes", body)


def _result_json(found: Ending) -> bytes:
    chat = head_of(found.record)
    body = success_json(
        orjson.Fragment(found.record),
        message=f"chat {chat.status}",
        task_id=chat.chat_id,
        status=task_status_of(chat.status),
    )
    if found.resumable:
        return body
    envelope = orjson.loads(body)
    envelope["data"]["resumable"] = False
    return orjson.dumps(envelope)


def render_ending(ending: Ending, last: Cursor) -> bytes:
    key = render_ending, last
    if (piece := ending.made.get(key)) is None:
        piece = b'id: %s\nevent: result\ndata: %s\n\nid: %s\nevent: done\ndata: "[DONE]"\n\n' % (
            str(last).encode(),
            _result_json(ending),
            str(last.behind).encode(),
        )
        ending.made[key] = piece
    return cast("bytes", piece)


class Dialect(Protocol):
    """How frames are written for one client. It may keep what that has, so each stream has its own.

    ``opening`` is written first, ``heartbeat`` in silence, ``ending`` or ``error`` last, or ``reconnect``
    where this process leaves. None as the last word: there is none that a client would understand, and the
    connection is broken off.
    ``ending`` may take its time, in which others go on.
    ``batch``, ``ending`` and ``reconnect`` may raise ``ServiceError``: then the stream ends with ``error``,
    or is refused where nothing of it was sent yet.
    """

    @property
    def opening(self) -> bytes: ...
    @property
    def heartbeat(self) -> bytes: ...
    def batch(self, batch: Batch) -> bytes: ...
    async def ending(self, ending: Ending, last: Cursor) -> bytes: ...
    def error(self, error: ServiceError, request_id: str) -> bytes | None: ...
    def reconnect(self) -> bytes | None: ...


class OurEvents:
    """The events as the log has them, then ``result`` and ``done``."""

    opening = _RETRY
    heartbeat = _HEARTBEAT
    batch = staticmethod(render)

    async def ending(self, ending: Ending, last: Cursor) -> bytes:
        return render_ending(ending, last)

    def error(self, error: ServiceError, request_id: str) -> bytes:
        return b'event: error\ndata: %s\n\nevent: done\ndata: "[DONE]"\n\n' % orjson.dumps(
            error_body(error, request_id)
        )

    def reconnect(self) -> bytes:
        return _RECONNECT


_OUR_EVENTS: Final = OurEvents()


_NO_PIECE: Final = None, 0, b"", b""


def _nothing() -> None:
    pass


class Pieces:
    """Writes pieces of a body to the connection, past ASGI: a coroutine and the layers of middleware for each
    take longer than the writing. Only behind the first piece and before the last one, which go through ASGI.
    """

    __slots__ = ("_cycle", "written")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self.written = 0
        """Bytes of the body."""

    @property
    def ready(self) -> bool:
        """False: it has to go through ASGI, which waits for a client who is slow, and begins the body."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        return cycle.chunked_encoding is not None

    def write(self, piece: bytes, made: dict[Hashable, Any] | None = None) -> None:
        """``piece`` is not empty, and ``ready`` has just been True. ``made``: of what very many are sent,
        which is then one object for all of them."""
        if made is not None:
            self._write_shared(piece, made)
            return
        body = piece if piece.isascii() else without_separators(piece)
        size = len(body)
        self.written += size
        # Clients of HTTP/1.0 do not know chunks (``app.http.http_1_0``).
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (size, body) if self._cycle.chunked_encoding else body)

    def _write_shared(self, piece: bytes, made: dict[Hashable, Any]) -> None:
        known, size, body, chunk = made.get(Pieces, _NO_PIECE)
        if known is not piece:  # the first of those who are sent it, or one of another dialect
            body = without_separators(piece)
            size = len(body)
            chunk = b"%x\r\n%b\r\n" % (size, body)
            made[Pieces] = piece, size, body, chunk
        self.written += size
        self._cycle.transport.write(chunk if self._cycle.chunked_encoding else body)


class EventStream(Response):
    """Writes what a reader brings until the chat's end, the client's departure, or that of this process.

    A plain ASGI response. Once the head is out, and as long as the client reads, news are written in the turn
    of whoever brings them (``_take``); else ``send`` waits for the client.

    Args:
        reader: closed at the end.
        chat_id: the chat, for a header.
        heartbeat: seconds of silence after which the dialect's sign of life is written.
        shutdown: tells when open streams have to go.
        on_close: called at the end, however it came.
        dialect: how frames are written.
        patience: seconds for which the head is held back until the dialect has something to say beyond its
            opening. Until then a failure is an answer with a status of its own.
        headers: that go along.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        chat_id: str,
        heartbeat: float,
        shutdown: Shutdown,
        on_close: Callable[[], None],
        dialect: Dialect = _OUR_EVENTS,
        patience: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={**STREAM_HEADERS, "X-Coze-Chat-Id": chat_id, **(headers or {})})
        del self.headers["content-length"]
        self._reader = reader
        self._dialect = dialect
        self._heartbeat = heartbeat
        self._shutdown = shutdown
        self._on_close = on_close
        self._patience = patience
        self._begun = self._gone = self._is_body_over = False
        self._pieces: Pieces | None = None
        self._broken: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ``ClientDisconnect`` where the client left before the head."""
        self._now = asyncio.get_running_loop().time
        stop_listening = self._shutdown.changed.watch(self._reader.wake)
        self._silence = silence = IdleTimer(self._heartbeat, self._reader.wake)
        cycle = scope.setdefault("state", {}).get(CYCLE)
        self._pieces = Pieces(cycle) if cycle is not None and scope.get("method") != "HEAD" else None
        stop_watching = self._watch(cycle, receive)
        try:
            await self._write(scope, receive, send)
        finally:
            stop_watching()
            silence.stop()
            stop_listening()
            scope["state"][STRAIGHT_BYTES] = self._pieces.written if self._pieces is not None else 0
            scope["state"][CLIENT_GONE] = self._gone
            self._reader.close()
            self._reader.take = None  # it leads back here: what goes in a circle waits to be collected
            self._on_close()

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            last = await self._follow(send, scope["state"].get("request_id", ""))
        except ServiceError as error:
            await self._refuse(error, scope, receive, send)
            return
        if last is None and not self._begun:
            await self._refuse(ShuttingDown(), scope, receive, send)
        elif last is None:
            scope["state"].get(BREAK_OFF, _nothing)()  # without it a server does so by itself, and complains
        elif not self._gone:
            await self._send(send, last, more=False)
        elif not self._begun:
            raise ClientDisconnect

    async def _refuse(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        error.headers["X-Coze-Chat-Id"] = self.headers["X-Coze-Chat-Id"]
        await error_response(error, scope)(scope, receive, send)

    async def _send(
        self, send: Send, piece: bytes, made: dict[Hashable, Any] | None = None, *, more: bool = True
    ) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        elif more and self._pieces is not None and self._pieces.ready:
            self._silence.last = self._now()
            self._pieces.write(piece, made)
            return
        body = without_separators(piece)
        self._silence.last = self._now()
        await send({"type": "http.response.body", "body": body, "more_body": more})

    def _take(self, batch: Batch) -> bool:
        """News, as soon as they are there. False: not now, whoever iterates has to bring them."""
        pieces = self._pieces
        if pieces is None or not pieces.ready or self._broken is not None:
            return False
        try:
            piece = self._dialect.batch(batch)
        except Exception as error:  # noqa: BLE001  # ours alone: whoever brings the news must not fail of it
            self._broken = error
            self._reader.wake()
            return True
        if piece:
            self._silence.last = self._now()
            pieces.write(piece, batch.made)
        return True

    async def _follow(self, send: Send, request_id: str) -> bytes | None:
        """Writes what there is, all at once, as often as there is something; returns the last words, None
        where there are none.

        Raises ``ServiceError`` where there was none before.
        """
        dialect, piece = self._dialect, self._dialect.opening
        loop = asyncio.get_running_loop()
        held_until = loop.time() + self._patience
        # The opening is not to wait for a frame.
        first = loop.call_later(self._patience, self._reader.wake)
        try:
            async for found in self._reader:
                if self._broken is not None:
                    raise self._broken
                if isinstance(found, Ending):
                    word = await dialect.ending(found, self._reader.last)
                    return await self._end(send, piece, word, found.made)
                is_woken, made = not found.frames, found.made
                news = b"" if is_woken else dialect.batch(found)
                del found  # who waits for the client, or for a turn, does so without the frames
                is_news, piece = bool(news), piece + news
                made = made if piece is news else None
                del news
                if self._gone:
                    return b""
                if self._shutdown.streams_end and is_woken:
                    return await self._last(send, piece, dialect.reconnect())
                if not (is_news or self._begun or loop.time() >= held_until):
                    continue
                if not piece and self._silence.due:
                    piece = dialect.heartbeat
                if piece:
                    await self._send(send, piece, made)
                    piece = b""
                    self._reader.take = self._take
        except ServiceError as error:
            if not self._begun and self._patience:
                raise
            # The status is out already: what goes wrong now is told by an event, behind what was said.
            return await self._last(send, piece, dialect.error(error, request_id))
        finally:
            first.cancel()
        return b""

    async def _end(self, send: Send, piece: bytes, word: bytes, made: dict[Hashable, Any]) -> bytes:
        """A long word goes out by itself: ASGI would make a copy of it for each reader."""
        if piece or not self._begun or len(word) < _LONG or self._gone:
            return piece + word
        await self._send(send, word, made)
        return b""

    async def _last(self, send: Send, piece: bytes, word: bytes | None) -> bytes | None:
        if word is None and piece:
            await self._send(send, piece)
        return None if word is None else piece + word

    # -- the client ------------------------------------------------------------------------------------------

    def _watch(self, cycle: RequestResponseCycle | None, receive: Receive) -> Callable[[], object]:
        """Hears of the client's leaving; returns how to end that. Under our own server without a task that
        waits for it, which would take two kilobytes of each stream."""
        if cycle is None:
            return asyncio.ensure_future(self._receive_all(receive)).cancel
        self._is_body_over = not cycle.more_body
        told = Told(partial(self._told, cycle))
        cycle.message_event = told  # type: ignore[assignment]  # nobody waits for it any more
        if cycle.disconnected:
            self._leave()
        return told.ignore

    def _told(self, cycle: RequestResponseCycle) -> None:
        """By the connection: it is lost, or something has arrived."""
        if cycle.disconnected:
            self._leave()
        elif self._is_body_over:  # behind the end of a body nothing but ``eof_received`` tells anything
            self._doubt()
        else:
            self._is_body_over = not cycle.more_body

    async def _receive_all(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            if message["type"] == HALF_CLOSED:
                self._doubt()
        self._leave()

    def _doubt(self) -> None:
        self._silence.seconds = min(self._silence.seconds, _DOUBTFUL_SECONDS)

    def _leave(self) -> None:
        self._gone = True
        self._reader.wake()
