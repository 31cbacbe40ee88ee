"""Forms as they arrive: in whatever pieces, and with headers that cost more to read than to send."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

from app.exceptions import UnsupportedMediaType, ValidationFailed
from app.http import multipart
from app.http.multipart import FormReader

TYPE = "multipart/form-data; boundary=b"
LONG = 120_000


@pytest.fixture
def longest_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How long the longest header was that has been taken apart."""
    lengths = [0]
    parse = multipart.parse_options_header

    def counted(value: str) -> tuple[bytes, dict[bytes, bytes]]:
        lengths.append(len(value))
        return parse(value)

    monkeypatch.setattr(multipart, "parse_options_header", counted)
    return lambda: max(lengths)


@pytest.fixture
def lines_run() -> Callable[[Callable[[], object]], int]:
    """How many lines of Python a call runs: its work, whatever else the machine does."""

    def count(call: Callable[[], object]) -> int:
        lines = 0

        def traced(_frame: FrameType, event: str, _more: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return traced

        before = sys.gettrace()
        sys.settrace(traced)
        try:
            call()
        finally:
            sys.settrace(before)
        return lines

    return count


def consume(form: FormReader, pieces: Iterable[bytes]) -> bytes:
    return b"".join(part for piece in pieces for part in form.feed(piece))


@pytest.mark.parametrize("more", [";" * LONG, ";a=b" * (LONG // 4), ' "' + '\\"' * (LONG // 2), "x" * LONG])
def test_a_long_content_type_is_refused_before_it_is_taken_apart(
    longest_read: Callable[[], int], more: str
) -> None:
    with pytest.raises(UnsupportedMediaType, match="4096"):
        FormReader(TYPE + more)
    assert longest_read() == 0


@pytest.mark.parametrize("size", [1, 1000, LONG])
@pytest.mark.parametrize("more", [b";" * LONG, b";a=b" * (LONG // 4), b'; filename="' + b"x" * LONG])
def test_a_part_s_long_header_is_refused_before_it_is_taken_apart(
    longest_read: Callable[[], int], more: bytes, size: int
) -> None:
    form = FormReader(TYPE)
    body = b'--b\r\nContent-Disposition: form-data; name="file"' + more + b"\r\n\r\ntext\r\n--b--\r\n"
    pieces = iter([body[at : at + size] for at in range(0, len(body), size)])
    with pytest.raises(ValidationFailed):
        consume(form, pieces)
    assert longest_read() < 5000


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_form_is_the_same_in_whatever_pieces_it_comes(size: int) -> None:
    content = b"\r\n--b-\r\n--" + bytes(range(256)) * 3
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + content
    body += b"\r\n--b--\r\n"
    form = FormReader(TYPE)
    found = consume(form, (body[at : at + size] for at in range(0, len(body), size)))
    form.finish()
    assert (form.file_name, found) == ("a.txt", content)


@pytest.mark.parametrize("boundary", ["b", "-" * 70])
@pytest.mark.parametrize("end", ["", "-x", "\rx", "x"])
def test_what_is_almost_a_boundary_costs_no_work_of_its_own(
    boundary: str, end: str, lines_run: Callable[[Callable[[], object]], int]
) -> None:
    line = f"\r\n--{boundary}"
    content = f"{line}{end}".encode() * 2000 if end else line[:-1].encode() * 2000
    head = b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    form = FormReader(f"multipart/form-data; boundary={boundary}")
    found = form.feed(line[2:].encode() + b"\r\n" + head)
    assert lines_run(lambda: found.extend(form.feed(content))) < 100
    found += form.feed(f"{line}--\r\n".encode())
    form.finish()
    assert b"".join(found) == content


@pytest.mark.parametrize(
    "part", [b"\r\n--b\r\n\r\n", b'\r\n--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n']
)
def test_a_piece_full_of_parts_is_read_no_further_than_parts_may_go(
    part: bytes, lines_run: Callable[[Callable[[], object]], int]
) -> None:
    form = FormReader(TYPE)

    def feed() -> None:
        with pytest.raises(ValidationFailed):
            form.feed(part * 5000)

    assert lines_run(feed) < 5000


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_blanks_behind_a_boundary_and_a_text_before_the_first_one_are_no_fault(size: int) -> None:
    body = b'A form.\r\n--b \t\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    body += b"text\r\n--b--\r\nend\r\n--b"
    form = FormReader(TYPE)
    found = consume(form, (body[at : at + size] for at in range(0, len(body), size)))
    form.finish()
    assert (form.file_name, found) == ("a.txt", b"text")


@pytest.mark.parametrize("head", [b"\r\nno colon", b"\r\nName: a\rb", b" -\r\nName: x"])
def test_what_is_no_head_of_a_part_is_refused(head: bytes) -> None:
    with pytest.raises(ValidationFailed):
        FormReader(TYPE).feed(b"--b" + head + b"\r\n\r\ntext\r\n--b--\r\n")


def test_a_form_without_end_is_refused_though_each_of_its_parts_is_short() -> None:
    form = FormReader(TYPE)
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    consume(form, [part] * 32)
    with pytest.raises(ValidationFailed):
        form.feed(part)
