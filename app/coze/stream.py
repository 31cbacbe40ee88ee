"""The event stream grammar of Coze's answers, on bytes and without I/O.

Grammar: WHATWG HTML, "Server-sent events", section "Interpreting an event stream". Lines are cut on bytes
at CR, LF and CRLF only: ``str.splitlines`` (and with it httpx's ``iter_lines``) also cuts at U+2028,
U+0085 and others, which Coze sends raw inside JSON strings.
"""

import re
from typing import Final, NamedTuple

from app.exceptions import CozeApiError

DEFAULT_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
DEFAULT_MAX_STREAM_BYTES: Final = 64 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_NEWLINE: Final = re.compile(rb"\r\n|\r|\n")


class SSEEvent(NamedTuple):
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
    """Bytes in, events out; the work is linear in the bytes fed, however they are cut.

    ``max_event_bytes`` bounds the data of one event (and any single line), ``max_stream_bytes`` everything
    fed. After ``StreamTooLarge`` the decoder must not be used again.
    """

    def __init__(
        self,
        *,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        max_stream_bytes: int = DEFAULT_MAX_STREAM_BYTES,
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

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Takes one network read and returns the events it completed.

        Raises ``StreamTooLarge``.
        """
        self._fed += len(chunk)
        if self._fed > self._max_stream:
            raise StreamTooLarge(f"Coze's answer is larger than {self._max_stream} bytes", [])
        if self._head is not None:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._line += chunk
            self._check_size(len(self._line), [])
            return []
        return self._lines(chunk)

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
