"""Events -> HTTP: a feed's frames as ``text/event-stream`` (WHATWG HTML, server-sent events).

Knows nothing of where frames come from. The last two events, ``result`` and ``done``, are made here
for each reader: they are not in the log and carry the last frame's id.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.error_handlers import error_body
from app.exceptions import RateLimited, ServiceError
from app.metrics import Metrics
from app.models import Cursor, success_json, task_status_of
from app.records import head_of
from app.signals import Pulse, Signal
from app.tasks import Batch, Ending

_RETRY: Final = b"retry: 1000\n\n"
_HEARTBEAT: Final = b": keep-alive\n\n"
_RECONNECT: Final = b'event: reconnect\ndata: "come back with your last id"\n\n'
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class Feed(Protocol):
    """What a stream reads from. ``last`` is the id of what was taken last."""

    @property
    def last(self) -> Cursor: ...
    @property
    def ending(self) -> Ending | None: ...
    async def take(self) -> Batch | None: ...
    async def wait(self) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...


def render(batch: Batch) -> bytes:
    """The frames with their ids, in one piece: what arrived together is written together."""
    epoch = batch.epoch
    return b"".join(b"id: %d-%d\n%s" % (epoch, n, frame) for n, frame in enumerate(batch.frames, batch.first))


def result_json(record: bytes, *, resumable: bool = True) -> bytes:
    """The envelope with the whole chat; ``resumable`` is only written where it is false."""
    chat = head_of(record)
    body = success_json(
        orjson.Fragment(record),
        message=f"chat {chat.status}",
        task_id=chat.chat_id,
        status=task_status_of(chat.status),
    )
    if resumable:
        return body
    envelope = orjson.loads(body)
    envelope["data"]["resumable"] = False
    return orjson.dumps(envelope)


def render_ending(ending: Ending, last: Cursor) -> bytes:
    result = result_json(ending.record, resumable=ending.resumable)
    return b'id: %s\nevent: result\ndata: %s\n\nid: %s\nevent: done\ndata: "[DONE]"\n\n' % (
        str(last).encode(),
        result,
        str(last).encode(),
    )


class Dialect(Protocol):
    """How frames are written for one reader. It may keep what its client has, so each reader has its own;
    ``batch`` may raise ``ServiceError``: then the stream ends with ``error``. Empty: nothing to write."""

    @property
    def opening(self) -> bytes: ...
    def batch(self, batch: Batch) -> bytes: ...
    def ending(self, ending: Ending, last: Cursor) -> bytes: ...
    def error(self, error: ServiceError, request_id: str) -> bytes: ...
    def farewell(self) -> bytes: ...


class CozeEvents:
    """The events as the log has them, then ``result`` and ``done``."""

    opening = _RETRY
    batch = staticmethod(render)
    ending = staticmethod(render_ending)

    def error(self, error: ServiceError, request_id: str) -> bytes:
        return b'event: error\ndata: %s\n\nevent: done\ndata: "[DONE]"\n\n' % orjson.dumps(
            error_body(error, request_id)
        )

    def farewell(self) -> bytes:
        return _RECONNECT


_COZE_EVENTS: Final = CozeEvents()


class OpenStreams:
    """Counts the open streams of each caller in this process."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most
        self._gauge = metrics.open_streams
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self._open.values())

    def check(self, owner: str) -> None:
        """Raises ``RateLimited`` where the caller has as many open as may be; before anything is begun."""
        if self._open.get(owner, 0) >= self._most:
            raise RateLimited(f"More than {self._most} streams are open", retry_after=5)

    def take(self, owner: str) -> Callable[[], None]:
        """One more; returns how to give it back."""
        self._open[owner] = self._open.get(owner, 0) + 1
        self._gauge.inc()

        def give_back() -> None:
            self._gauge.dec()
            left = self._open[owner] - 1
            if left:
                self._open[owner] = left
            else:
                del self._open[owner]

        return give_back


class EventStream(Response):
    """Writes a feed until its end, the client's departure, or the farewell of this process.

    A plain ASGI response: frames go straight to ``send``, which waits while the client does not read.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        chat_id: str,
        heartbeat: float,
        farewell: Signal,
        on_close: Callable[[], None],
        dialect: Dialect = _COZE_EVENTS,
    ) -> None:
        super().__init__(headers={**_HEADERS, "X-Coze-Chat-Id": chat_id})
        del self.headers["content-length"]
        self._feed = feed
        self._dialect = dialect
        self._heartbeat = heartbeat
        self._farewell = farewell
        self._on_close = on_close
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stop_listening = self._farewell.watch(self._feed.wake)
        pulse = Pulse(self._heartbeat, self._feed.wake)
        client = asyncio.ensure_future(self._watch_client(receive))
        # In a task of its own: each frame would wake all the coroutines of middleware and routing above us.
        writer = asyncio.ensure_future(self._write(scope, send, pulse))
        try:
            await writer
        finally:
            writer.cancel()
            client.cancel()
            pulse.stop()
            stop_listening()
            self._feed.close()
            self._on_close()

    async def _write(self, scope: Scope, send: Send, pulse: Pulse) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last = await self._follow(send, pulse, scope.get("state", {}).get("request_id", ""))
        if not self._gone:
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _follow(self, send: Send, pulse: Pulse, request_id: str) -> bytes:
        """Writes what there is, all at once, as often as there is something; returns the last words."""
        feed, dialect = self._feed, self._dialect
        piece = dialect.opening
        try:
            while not self._gone:
                if (batch := await feed.take()) is not None:
                    piece += dialect.batch(batch)
                if (ending := feed.ending) is not None:
                    return piece + dialect.ending(ending, feed.last)
                if batch is None and self._farewell.is_set():
                    return piece + dialect.farewell()
                if not piece and pulse.due:
                    piece = _HEARTBEAT
                if piece:
                    pulse.beat()
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    piece = b""
                elif batch is None:
                    await feed.wait()
        except ServiceError as error:
            # The status is out already: what goes wrong now is told by an event, behind what was said.
            return piece + dialect.error(error, request_id)
        return b""

    async def _watch_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._feed.wake()
