"""How many values a JSON text holds, counted before anything is made of them, and what they take then.

Three bytes (``[],``) become an object of a hundred and more, so a bound on the bytes alone bounds neither
memory nor time. Counted by the parts of Python that are written in C: counting must not be work, too.
"""

import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel

_MARKS: Final = (b",", b"[", b"{")
"""Each value of an array or object stands behind one of these, but for those of empty ones."""
_SLICE: Final = 64 * 1024
VALUE_BYTES: Final = 300
"""What a value takes in memory, at most, beside its text: 10 to 125 bytes are usual; an object that is one
of our models takes 600 to 900, and has two values at least."""


def marks(data: bytes | bytearray, enough: int) -> int:
    """How many values ``data`` holds at most; counted to the end only where there are not ``enough``."""
    found = 0
    for at in range(0, len(data), _SLICE):
        found += _marks_of(data[at : at + _SLICE])
        if found > enough:
            break
    return found


def holds_more_than(data: bytes | bytearray, most: int) -> bool:
    """Whether ``data`` holds more than ``most`` arrays, objects and values of them. What stands inside of
    texts does not count; what is no JSON may be told either way."""
    return marks(data, most) > most and values_in(data, most) > most


def values_in(data: bytes | bytearray, enough: int) -> int:
    """How many arrays, objects and values of them it holds; counted to the end only where there are not
    ``enough``. As for ``holds_more_than``."""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    found, is_text = 0, 0
    for at in range(0, len(unescaped), _SLICE):
        parts = unescaped[at : at + _SLICE].split(b'"')
        found += _marks_of(b"".join(parts[is_text::2]))
        is_text ^= (len(parts) - 1) & 1
        if found > enough:
            break
    return found


def _marks_of(piece: bytes | bytearray) -> int:
    return sum(map(piece.count, _MARKS))


def in_pieces(value: object) -> Iterator[bytes]:
    """``value`` as JSON. Megabytes of escapes written in one step would stop everybody, also beside the event
    loop."""
    if isinstance(value, str) and len(value) > _SLICE:
        yield b'"'
        for at in range(0, len(value), _SLICE):
            yield msgspec.json.encode(value[at : at + _SLICE])[1:-1]
        yield b'"'
    elif isinstance(value, dict):
        before = b"{"
        for name, each in value.items():
            yield before
            yield from in_pieces(name)
            yield b":"
            yield from in_pieces(each)
            before = b","
        yield b"}" if value else b"{}"
    elif isinstance(value, list):
        before = b"["
        for each in value:
            yield before
            yield from in_pieces(each)
            before = b","
        yield b"]" if value else b"[]"
    else:
        yield msgspec.json.encode(value)


class Size(NamedTuple):
    """Bytes in memory: of texts, and of all else."""

    texts: int
    others: int


def size_of(body: BaseModel) -> Size:
    """What the body takes as it lies in memory. Names and numbers that several values share count for each of
    them: it may be less, and is never more."""
    texts, others, values = 0, 0, list[Any]([body])
    while values:
        value = values.pop()
        size = sys.getsizeof(value)
        if isinstance(value, str):
            texts += size
            continue
        others += size
        if isinstance(value, dict):
            values += value.values()
            others += sum(map(sys.getsizeof, value))
        elif isinstance(value, list):
            values += value
        elif isinstance(value, BaseModel):
            values.append(value.__dict__)
            others += sys.getsizeof(value.model_fields_set)
            if value.model_extra is not None:
                values.append(value.model_extra)
    return Size(texts, others)
