"""Events -> HTTP: a feed's frames as ``text/event-stream`` (WHATWG HTML, server-sent events).

Knows nothing of where frames come from. The last two events, ``result`` and ``done``, are made here
for each reader: they are not in the log and carry the last frame's id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.error_handlers import error_body
from app.exceptions import RateLimited, ServiceError
from app.metrics import Metrics
from app.models import Cursor, success_json, task_status_of
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
    chat = orjson.loads(record)
    body = success_json(
        orjson.Fragment(record),
        message=f"chat {chat['status']}",
        task_id=chat["chat_id"],
        status=task_status_of(chat["status"]),
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
        farewell: asyncio.Event,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(headers={**_HEADERS, "X-Coze-Chat-Id": chat_id})
        del self.headers["content-length"]
        self._feed = feed
        self._heartbeat = heartbeat
        self._farewell = farewell
        self._on_close = on_close
        self._gone = False
        self._request_id = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._request_id = scope.get("state", {}).get("request_id", "")
        watchers = [
            asyncio.ensure_future(self._watch_client(receive)),
            asyncio.ensure_future(self._watch_farewell()),
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
            async for piece in self._guarded(self._pieces(loop)):
                if self._gone:
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            self._feed.close()
            self._on_close()

    async def _guarded(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The status is out already: what goes wrong now is told by an event."""
        try:
            async for piece in pieces:
                yield piece
        except ServiceError as error:
            yield b'event: error\ndata: %s\n\nevent: done\ndata: "[DONE]"\n\n' % orjson.dumps(
                error_body(error, self._request_id)
            )

    async def _pieces(self, loop: asyncio.AbstractEventLoop) -> AsyncIterator[bytes]:
        feed = self._feed
        while not self._gone:
            batch = await feed.take()
            if batch is not None:
                yield render(batch)
                continue
            if (ending := feed.ending) is not None:
                yield render_ending(ending, feed.last)
                return
            if self._farewell.is_set():
                yield _RECONNECT
                return
            silent_since = loop.time()
            alarm = loop.call_later(self._heartbeat, feed.wake)
            await feed.wait()
            alarm.cancel()
            if loop.time() - silent_since >= self._heartbeat:
                yield _HEARTBEAT

    async def _watch_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._feed.wake()

    async def _watch_farewell(self) -> None:
        await self._farewell.wait()
        self._feed.wake()
