"""multipart/form-data, read piece by piece: where the one file in it begins and ends. No I/O.

The parts of a form that are not the file are skipped; how long they may be is bounded. Boundaries are looked
for by one search over a piece: a file full of what is almost one costs about what any other file does.
Source: RFC 2046, 5.1.1, and RFC 7578.
"""

import re
from typing import Final

from python_multipart.multipart import parse_options_header

from app.exceptions import UnsupportedMediaType, ValidationFailed, wrong_field

FILE_PART: Final = "file"
MAX_OVERHEAD: Final = 65_536
"""Bytes of a form that may be something else than the file: boundaries, headers, other fields."""
_MAX_PARTS: Final = 32
_MAX_HEADER: Final = 4096
"""Bytes of a Content-Type, and of a part's headers: to take them apart costs much more than to send them."""
_END_OF_HEAD: Final = b"\r\n\r\n"


class FormReader:
    """``feed`` it the body, then ``finish``. Raises ``UnsupportedMediaType`` for what is not a form."""

    def __init__(self, content_type: str) -> None:
        if len(content_type) > _MAX_HEADER:
            raise UnsupportedMediaType(f"The Content-Type has more than {_MAX_HEADER} characters")
        kind, options = parse_options_header(content_type)
        if kind.lower() != b"multipart/form-data":
            raise UnsupportedMediaType("Send multipart/form-data")
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
            raise broken("the Content-Type names no boundary")
        self.file_name: str | None = None
        """Set as soon as the file's headers are read."""
        self.overhead = 0
        line = b"\r\n--" + boundary
        self._boundary = re.compile(re.escape(line) + rb"(?=\r\n|--|[ \t])")
        self._most_held = len(line) + 1
        """Bytes at the end of a piece that may be the beginning of a boundary."""
        self._held = b"\r\n"  # which the first boundary may come without
        self._parts = 0
        self._in_head = False
        self._in_file = False
        self._ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """What of the file is known after ``data``. Raises ``ValidationFailed`` for a form that is not right;
        nothing may be fed after that."""
        pieces = list[bytes]()
        rest: bytes | None = self._held + data
        while rest is not None:
            self._held = rest
            rest = self._after_head(rest) if self._in_head else self._after_content(rest, pieces)
        self.overhead += len(data) - sum(map(len, pieces))
        if self.overhead > MAX_OVERHEAD:
            raise broken("the form holds too much beside the file")
        return pieces

    def finish(self) -> None:
        """The body is over. Raises ``ValidationFailed`` where the form is not, or has no file."""
        if self._parts and not self._ended:
            raise broken("the form breaks off")
        if self.file_name is None:
            raise broken(f"a part named {FILE_PART!r} with a file is required")

    def _after_content(self, data: bytes, pieces: list[bytes]) -> bytes | None:
        """What follows on the next boundary; None where that is still to come."""
        found = None if self._ended else self._boundary.search(data)
        end = max(len(data) - self._most_held, 0) if found is None else found.start()
        if self._in_file and end:
            pieces.append(data[:end])
        if found is None:
            self._held = data[end:]
            return None
        self._in_file, self._in_head = False, True
        self._parts += 1
        return data[found.end() :]

    def _after_head(self, data: bytes) -> bytes | None:
        """What follows on a part's headers, or on the last boundary; None where these are not all there."""
        if data.startswith(b"--"):
            self._in_head, self._ended = False, True
            return data[2:]
        end = data.find(_END_OF_HEAD)
        if (len(data) if end < 0 else end) > _MAX_HEADER:
            raise broken(f"a part's headers have more than {_MAX_HEADER} bytes")
        if end < 0:
            return None
        self._in_head = False
        self._begin(data[:end])
        return data[end + len(_END_OF_HEAD) :]

    def _begin(self, head: bytes) -> None:
        """A part, by what stands between its boundary and its content."""
        if self._parts > _MAX_PARTS:
            raise broken("the form has too many parts")
        padding, *lines = head.split(b"\r\n")
        if padding.strip(b" \t") or any(b":" not in line or b"\r" in line for line in lines):
            raise broken("the body is not a multipart form")
        headers = {name.lower(): value for name, _, value in (line.partition(b":") for line in lines)}
        # The name is UTF-8 in practice; the parser takes text and gives back latin-1.
        _, options = parse_options_header(headers.get(b"content-disposition", b"").decode("latin-1"))
        is_file = b"filename" in options
        named = options.get(b"name", b"").decode("latin-1") == FILE_PART
        if is_file and not named:
            raise broken(f"the file's part is to be named {FILE_PART!r}")
        if named and not is_file:
            raise broken(f"the part {FILE_PART!r} has no file name: send it as a file")
        if is_file and self.file_name is not None:
            raise broken("one file at a time")
        if is_file:
            self.file_name = options[b"filename"].decode("utf-8", "replace")
            self._in_file = True


def broken(message: str) -> ValidationFailed:
    return wrong_field(FILE_PART, message)
