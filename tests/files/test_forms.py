"""Forms as they arrive: in whatever pieces, and with headers that cost more to read than to send."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


def test_a_form_without_end_is_refused_though_each_of_its_parts_is_short() -> None:
    form = FormReader(TYPE)
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    consume(form, [part] * 32)
    with pytest.raises(ValidationFailed):
        form.feed(part)
