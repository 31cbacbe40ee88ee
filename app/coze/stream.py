"""Reads the events of a stream as Coze's bytes arrive.

Grammar: WHATWG HTML, "Server-sent events", section "Interpreting an event stream". Lines are cut on bytes
at CR, LF and CRLF only: ``str.splitlines`` (and with it httpx's ``iter_lines``) also cuts at U+2028,
U+0085 and others, which Coze sends raw inside JSON strings.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

import msgspec

from app.coze.arriving import MOST_AT_ONCE
from app.coze.deadline import Deadline
from app.coze.options import MAX_EVENT_BYTES, MAX_STREAM_BYTES
from app.coze.replies import error_in_tail, raise_refusal
from app.coze.response import CozeResponse
from app.coze.wire import ChatState
from app.exceptions import CozeApiError, CozeTimeout, UpstreamError
from app.utils.signals import IdleTimer

_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = 0x20
_NO_BEGIN: Final = b"\r"
"""No event that is read at once has it."""
_NEWLINE: Final = re.compile(rb"\r\n|\r|\n")
_LINES_OF_ONE_EVENT: Final = 3
"""Of a delta as Coze writes it, alone in what the network brings: its name, its data, and the end."""
STREAM_ENDS: Final = frozenset({"done", "conversation.stream.done"})
"""The second is coze-studio's."""


class SSEEvent(msgspec.Struct, frozen=True, gc=False):
    """``name`` is ``message`` where the stream gave none; ``data`` is its data lines joined by LF."""

    name: str
    data: bytes


class StreamTooLarge(CozeApiError):
    """An event or the whole stream is over its bound.

    ``events`` are those that were complete before the bound was reached, so that what a reader gets does
    not depend on how the network cut the stream.
    """

    default_message = "Coze's answer is too large"

    def __init__(self, message: str, events: list[SSEEvent], *, logid: str | None = None) -> None:
        super().__init__(message, logid=logid, maybe_started=True)
        self.events = events


class SSEDecoder:
    """Bytes in, events out, without I/O; the work is linear in the bytes fed, however they are cut.

    ``max_event_bytes`` bounds the data of one event (and any single line), ``max_stream_bytes`` everything
    fed. After ``StreamTooLarge`` the decoder must not be used again.
    """

    def __init__(
        self,
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_stream_bytes: int = MAX_STREAM_BYTES,
    ) -> None:
        self._max_event = max_event_bytes
        self._max_stream = max_stream_bytes
        self._fed = 0
        self._head: bytes | None = b""  # first bytes, while they may still become a BOM; then None
        self._line = bytearray()  # the current line, not terminated yet
        self._after_cr = False  # the last chunk ended in CR: an LF that comes next belongs to it
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._stray = b""
        self._begin = _NO_BEGIN  # of the event that was last read at once: "event:", its name, "data:"
        self._begin_name = ""

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Takes one network read and returns the events it completed.

        Raises ``StreamTooLarge``.
        """
        size = len(chunk)
        self._fed += size
        if self._fed > self._max_stream:
            raise StreamTooLarge(f"Coze's answer is larger than {self._max_stream} bytes", [])
        if self._head is not None:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        is_fresh = not (self._line or self._data or self._name)
        # A few looks instead of a loop over three lines: it is done for each delta.
        if (
            is_fresh
            and size <= self._max_event
            and chunk.count(b"\n") == _LINES_OF_ONE_EVENT
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and (chunk.startswith(self._begin) or self._reads_begin_of(chunk))
        ):
            at = len(self._begin)
            return [SSEEvent(self._begin_name, chunk[at + 1 : -2] if chunk[at] == _BLANK else chunk[at:-2])]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._line += chunk
            self._check_size(len(self._line), [])
            return []
        return self._lines(chunk)

    def _reads_begin_of(self, event: bytes) -> bool:
        """Whether it is a line with a name and one with data. Nearly always the next one begins alike."""
        line, _, rest = event.partition(b"\n")
        name = line[6:].removeprefix(b" ")
        if not (line.startswith(b"event:") and rest.startswith(b"data:") and name):
            return False
        self._begin, self._begin_name = line + b"\ndata:", name.decode("utf-8", "replace")
        return True

    def tail(self) -> bytes:
        """What is left at the end of the stream: an unterminated line, or else a stray JSON line.

        It is never dispatched as an event, but some servers write a bare JSON error where a stream was
        asked for, with or without a newline.
        """
        return (self._head or b"") + bytes(self._line) or self._stray

    def _without_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _lines(self, chunk: bytes) -> list[SSEEvent]:
        # Each byte is copied once here: what stays behind is a suffix of this chunk alone.
        text = bytes(self._line) + chunk if self._line else chunk
        if b"\r" in text:
            # The CR ends its line now, without waiting for the LF that may follow in the next chunk.
            self._after_cr = text.endswith(b"\r")
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        events: list[SSEEvent] = []
        data = self._data
        # One loop without calls: it runs three times for each delta.
        for line in lines:
            if not line:
                if data:
                    joined = data[0] if len(data) == 1 else b"\n".join(data)
                    events.append(SSEEvent(self._name or "message", joined))
                    data.clear()
                    self._data_bytes = 0
                self._name = ""
                continue
            size = self._data_bytes + len(line)
            if size > self._max_event:
                self._check_size(len(line), events)
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                data.append(value)
                self._data_bytes += len(value) + 1
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line in (b"event", b"data"):  # a field without a value
                self._bare_field(line)
            elif line.startswith(b"{"):
                self._stray = line
            # id, retry, comments (an empty name) and unknown fields mean nothing here.
        self._line = bytearray(rest)
        self._check_size(len(rest), events)
        return events

    def _bare_field(self, name: bytes) -> None:
        if name == b"event":
            self._name = ""
        else:
            self._data.append(b"")
            self._data_bytes += 1

    def _check_size(self, more: int, events: list[SSEEvent]) -> None:
        if self._data_bytes + more > self._max_event:
            raise StreamTooLarge(f"An event of Coze's answer is larger than {self._max_event} bytes", events)


def frame(name: str, data: bytes) -> bytes:
    """One event as bytes: ``event: NAME``, ``data:`` lines, blank line.

    ``name`` has no line breaks. Line breaks in ``data`` become several ``data:`` lines, so that the only
    blank line is the one that ends the frame, and an ``id:`` line can be put in front of it.
    """
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_NEWLINE.split(data))
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


class _Patience(Deadline):
    """The deadline of what is read in its block: the timer that ``watch`` begins may move it to now."""

    __slots__ = ("_timer", "_watch")

    def __init__(
        self, watch: Callable[[asyncio.Timeout], IdleTimer], late: Callable[[], UpstreamError]
    ) -> None:
        super().__init__(None, late)
        self._watch = watch

    async def __aenter__(self) -> asyncio.Timeout:
        scope = await super().__aenter__()
        self._timer = self._watch(scope)
        return scope

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.stop()
        await super().__aexit__(kind, error, traceback)


class CozeStream:
    """An open stream: an async iterator of lists of events, one list for each network read.

    ``chat`` is set where the server ignored ``stream=true`` and answered with a chat: there is nothing to
    iterate, poll it. A clean end of the stream just ends the iteration, whether a terminal event came or not.

    ``begin`` comes first: a refusal is told by it. Iterating raises ``CozeApiError`` where the connection
    breaks or a bound is passed, and the error of a bare JSON line; past a deadline the block of ``deadlines``
    is broken off with ``CozeTimeout``.
    """

    _pulse: IdleTimer
    _now: Callable[[], float]

    def __init__(self, response: CozeResponse, *, first: bytes = b"", chat: ChatState | None = None) -> None:
        """
        Args:
            response: what is read.
            first: the bytes that were read of it to see that it is a stream.
            chat: the chat that it brought instead of a stream.
        """
        options = response.options
        self.chat = chat
        self.logid = response.head.logid
        self._response = response
        self._unfed = first
        self._begun = bool(first)
        self._idle_timeout = options.idle_timeout
        self._decoder = SSEDecoder(
            max_event_bytes=options.max_event_bytes, max_stream_bytes=options.max_stream_bytes
        )
        self._ended = chat is not None
        self._too_large: StreamTooLarge | None = None
        self._had_events = False
        self._had_done = False
        self._early: list[SSEEvent] = []
        """What ``begin`` read, for whoever iterates."""
        self.take: Callable[[CozeStream, list[SSEEvent]], bool] | None = None
        """Takes events in the turn in which they come, while the iterator waits; False: it is woken, with no
        events, since they were taken. What this raises, the iterator does."""
        self._woken = False

    @property
    def idle_timeout(self) -> float:
        """Seconds between two reads. May be changed while reading, for instance lowered once the chat has
        ended and only ``done`` is missing."""
        return self._idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, seconds: float) -> None:
        self._idle_timeout = seconds
        if self._begun:
            self._pulse.seconds = seconds

    def deadlines(self) -> AbstractAsyncContextManager[object]:
        """Holds the block to the first-byte and the idle deadline while the stream is read in it. One timer
        for all reads. Raises ``CozeTimeout``."""
        return contextlib.nullcontext() if self._ended else _Patience(self._watch, self._late)

    def _watch(self, scope: asyncio.Timeout) -> IdleTimer:
        self._now = now = asyncio.get_running_loop().time
        patience = self._idle_timeout if self._begun else max(0.0, self._response.late_at - now())
        self._pulse = IdleTimer(patience, lambda: scope.reschedule(now()))
        return self._pulse

    def _late(self) -> CozeTimeout:
        if not self._begun:
            return self._response.no_first_byte()
        text = f"Coze sent nothing more for {self._idle_timeout:g} s (COZE_IDLE_TIMEOUT)"
        return CozeTimeout(text, logid=self.logid, maybe_started=True)

    async def begin(self) -> Self:
        """Reads the first events, of which a refusal is one that nothing of a chat comes before.

        Returns:
            The stream itself.

        Raises:
            UpstreamError: Coze refused, in whatever envelope, or what iterating raises.
        """
        async with self.deadlines():
            early: list[SSEEvent] = []
            async for events in self:
                early += events
                if any(raise_refusal(event.name, event.data, self._response.head) for event in events):
                    break
            self._early = early
        return self

    def __aiter__(self) -> "CozeStream":
        return self

    async def __anext__(self) -> list[SSEEvent]:
        if self._early:
            events, self._early = self._early, []
            return events
        while not self._ended:
            if self.take is not None and not self._unfed:
                self._woken = False
                await self._response.push(self._arrived)
                if self._woken:
                    return []
                if self._too_large is not None:
                    break
            chunk = self._unfed or await self._response.read()
            self._unfed = b""
            if len(chunk) >= MOST_AT_ONCE:  # no delta is: the loop goes on between the pieces of what is
                chunk, self._unfed = chunk[:MOST_AT_ONCE], chunk[MOST_AT_ONCE:]
                await asyncio.sleep(0)
            if events := self._events_of(chunk):
                return events
        if self._too_large is not None:
            raise StreamTooLarge(self._too_large.message, [], logid=self.logid)
        raise StopAsyncIteration

    def _arrived(self, chunk: bytes) -> bool:
        """For ``take``, what came while the iterator waits."""
        if len(chunk) >= MOST_AT_ONCE:
            self._unfed = chunk
            return False
        events = self._events_of(chunk)
        if events and self.take is not None and not self.take(self, events):
            self._woken = True
        return not (self._woken or self._ended)

    def _events_of(self, chunk: bytes) -> list[SSEEvent]:
        self._pulse.last = self._now()
        if not self._begun:
            self._begun = True
            self._pulse.seconds = self._idle_timeout
        try:
            events = self._decoder.feed(chunk) if chunk else self._end()
        except StreamTooLarge as error:
            # First what was complete, then the error.
            self._ended = True
            self._too_large = error
            events = error.events
        if events:
            self._had_events = True
            self._had_done = events[-1].name in STREAM_ENDS
        return events

    def _end(self) -> list[SSEEvent]:
        self._ended = True
        error_in_tail(self._decoder.tail(), self._response.head, started=self._had_events)
        return []

    async def finish(self) -> None:
        """After a reading that ended as it should: lets the connection be used again. Leaving the block calls
        it; a second call does nothing."""
        if self._had_done and not self._ended:
            self._ended = True
            self._pulse.stop()
            await self._response.drain()

    async def close(self) -> None:
        """Gives the connection back to the pool after ``finish``; else drops it."""
        await self._response.close()
