"""multipart/form-data, read piece by piece: where the one file in it begins and ends. No I/O.

The parts of a form that are not the file are skipped; how long they may be is bounded.
Source: RFC 7578, over python-multipart's parser, which holds nothing back but a boundary's length.
"""

from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.exceptions import ServiceError, UnsupportedMediaType, ValidationFailed, wrong_field

FILE_PART: Final = "file"
MAX_OVERHEAD: Final = 65_536
"""Bytes of a form that may be something else than the file: boundaries, headers, other fields."""
_MAX_PARTS: Final = 32
_MAX_CONTENT_TYPE: Final = 4096
"""Characters: to take it apart costs much more than to send it. The headers of parts the parser bounds."""


class FormReader:
    """``feed`` it the body, then ``finish``. Raises ``UnsupportedMediaType`` for what is not a form."""

    def __init__(self, content_type: str) -> None:
        if len(content_type) > _MAX_CONTENT_TYPE:
            raise UnsupportedMediaType(f"The Content-Type has more than {_MAX_CONTENT_TYPE} characters")
        kind, options = parse_options_header(content_type)
        if kind.lower() != b"multipart/form-data":
            raise UnsupportedMediaType("Send multipart/form-data")
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
            raise broken("the Content-Type names no boundary")
        self.file_name: str | None = None
        """Set as soon as the file's headers are read."""
        self.overhead = 0
        self._parts = 0
        self._in_file = False
        self._ended = False
        self._field = b""
        self._value = b""
        self._headers: dict[str, bytes] = {}
        self._pieces: list[bytes] = []
        self._fault: ServiceError | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> list[bytes]:
        """What of the file was in ``data``. Raises ``ValidationFailed`` for a form that is not right."""
        self._pieces = []
        try:
            self._parser.write(data)
        except FormParserError:
            raise broken("the body is not a multipart form") from None
        if self._fault is not None:
            raise self._fault
        self.overhead += len(data) - sum(map(len, self._pieces))
        if self.overhead > MAX_OVERHEAD:
            raise broken("the form holds too much beside the file")
        return self._pieces

    def finish(self) -> None:
        """The body is over. Raises ``ValidationFailed`` where the form is not, or has no file."""
        if self._parts and not self._ended:
            raise broken("the form breaks off")
        if self.file_name is None:
            raise broken(f"a part named {FILE_PART!r} with a file is required")

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > _MAX_PARTS:
            self._fault = broken("the form has too many parts")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value
        self._field, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        # The name is UTF-8 in practice; the parser takes text and gives back latin-1.
        disposition = self._headers.get("content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        is_file = b"filename" in options
        named = options.get(b"name", b"").decode("latin-1") == FILE_PART
        if is_file and not named:
            self._fault = broken(f"the file's part is to be named {FILE_PART!r}")
        elif named and not is_file:
            self._fault = broken(f"the part {FILE_PART!r} has no file name: send it as a file")
        elif is_file and self.file_name is not None:
            self._fault = broken("one file at a time")
        elif is_file:
            self.file_name = options[b"filename"].decode("utf-8", "replace")
            self._in_file = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])

    def _on_part_end(self) -> None:
        self._in_file = False

    def _on_end(self) -> None:
        self._ended = True


def broken(message: str) -> ValidationFailed:
    return wrong_field(FILE_PART, message)
