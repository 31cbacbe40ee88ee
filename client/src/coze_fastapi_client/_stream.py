"""Reading a chat's events to their end, over as many connections as it takes. No I/O."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, Final

from ._answer import Answer
from ._errors import (
    ConnectionLost,
    CozeError,
    CozeServiceError,
    NotFound,
    StreamBroken,
    UnexpectedAnswer,
    service_error,
)
from ._flows import (
    Open,
    Opened,
    Read,
    Reply,
    Request,
    RetryState,
    Settings,
    Step,
    call,
    data_of,
    error_of,
    is_transient,
    path,
)
from ._models import Chat
from ._sse import Event, SSEDecoder

_REWRITING: Final = 5.0
"""Seconds. A store that has lost its newest writes does not know a chat until its owner writes it again."""


def _position(event_id: str | None) -> tuple[int, int] | None:
    """``<epoch>-<frame>``."""
    epoch, _, frame = (event_id or "").partition("-")
    return (int(epoch), int(frame)) if epoch.isdigit() and frame.isdigit() else None


class StreamState:
    """Which request comes next, and what of its bytes is news.

    The first request is repeated until it has been answered once (a message under the same Idempotency-Key,
    so it is one chat); from then on the chat's log is read behind the last id that arrived.
    """

    def __init__(
        self,
        settings: Settings,
        first: Request,
        *,
        chat_id: str | None = None,
        after: str | None = None,
        whole: bool = True,
    ) -> None:
        self._settings = settings
        self._first = replace(first, read_timeout=settings.longest_silence)
        self._opened = False
        self._ended = False
        self._retries = RetryState(settings)
        self.chat_id = chat_id
        self.last_event_id = after
        self.answer = Answer(whole=whole)
        self.chat: Chat | None = None
        self.connections = 0

    def flow(self) -> Generator[Step | Event | Opened, Any, None]:
        """Yields events besides steps, and ``Opened`` as soon as the first connection is."""
        announced = False
        while not self._ended:
            problem: CozeError | None = None
            try:
                reply: Reply = yield Open(self._request())
                if reply.status == 204 and self.chat_id is not None:
                    yield from self._read_before(self.chat_id)
                    return
                self._check(reply)
                if not announced:
                    announced = True
                    yield Opened()
                yield from self._read()
            except ConnectionLost as lost:
                problem = lost
            except CozeServiceError as refusal:
                if not self._may_retry(refusal):
                    raise
                problem = refusal
            if not self._ended:
                yield self._pause(problem)

    def _request(self) -> Request:
        if not self._opened or self.chat_id is None:
            return self._first
        headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        where = path("/coze/chats/{}/events", self.chat_id)
        return Request("GET", where, headers=headers, read_timeout=self._settings.longest_silence)

    def _check(self, reply: Reply) -> None:
        if reply.status >= 400:
            raise error_of(reply)
        if not reply.streaming:
            raise UnexpectedAnswer(f"HTTP status {reply.status} that is no event stream")
        self.connections += 1
        self._opened = True
        self.chat_id = reply.headers.get("x-coze-chat-id") or self.chat_id

    def _read_before(self, chat_id: str) -> Generator[Step | Event | Opened, Any, None]:
        """``after`` was the id of ``done``, and nothing came behind it: only the final chat is fetched."""
        yield Opened()
        found = yield from call(self._settings, Request("GET", path("/coze/chats/{}/result", chat_id)))
        self.chat = Chat.parse(data_of(found))
        self._ended = True

    def _may_retry(self, refusal: CozeServiceError) -> bool:
        if isinstance(refusal, NotFound) and self._opened and self._retries.seconds < _REWRITING:
            return True
        return is_transient(refusal)

    def _pause(self, problem: CozeError | None) -> Step:
        """Raises what went wrong when patience is over."""
        unsure = isinstance(problem, ConnectionLost) and problem.request_sent and not self._opened
        given_up = not self._opened and self._retries.tries >= self._settings.max_retries
        pause = self._retries.pause(problem)
        if pause is not None and not given_up and (self._first.repeatable or not unsure):
            return pause
        if self.chat_id is None or not self._opened:
            raise problem or ConnectionLost("the service was leaving")
        raise StreamBroken(
            f"gave up after {self._retries.seconds:.0f} s: {problem or 'the service was leaving'}",
            chat_id=self.chat_id,
            last_event_id=self.last_event_id,
        ) from problem

    def _read(self) -> Generator[Step | Event, Any, None]:
        """One connection. Returns at the end and at ``reconnect``."""
        decoder = SSEDecoder()
        heartbeats = 0
        while chunk := (yield Read()):
            for event in decoder.feed(chunk):
                if event.name == "done" and self.chat is not None:
                    self._ended = True
                    return
                if event.name == "reconnect":
                    return
                if event.name == "error" and event.id is None:
                    # Only the reading failed; the chat is unharmed.
                    raise service_error(event.json(), status=503)
                taken = self._take(event)
                if taken is not None:
                    self._retries.reset()
                    yield taken
            if decoder.comments > heartbeats:
                # A bot that thinks for minutes behind a proxy that cuts: read_timeout, but no retries.
                heartbeats = decoder.comments
                self._retries.reset()
        raise ConnectionLost("the stream ended in the middle")

    def _take(self, event: Event) -> Event | None:
        """None for what was there before. Raises ConnectionLost where something is missing."""
        if event.name == "result":
            self.chat = Chat.parse(event.json()["data"]["task_result"]["data"])
            return replace(event, text=self.answer.end(self.chat))
        place, before = _position(event.id), _position(self.last_event_id)
        if place is None:
            return event if event.name != "done" else None
        if before is not None:
            if place <= before:
                return None
            if place[0] == before[0] and place[1] > before[1] + 1 and event.name != "snapshot":
                raise ConnectionLost(f"frames between {self.last_event_id} and {event.id} are missing")
        self.last_event_id = event.id
        if event.name == "chat":
            self.chat_id = event.json().get("chat_id") or self.chat_id
        return replace(event, text=self.answer.take(event))
