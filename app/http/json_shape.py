"""How many values a JSON text holds, counted before anything is made of them.

Three bytes (``[],``) become an object of a hundred and more, so a bound on the bytes alone bounds neither
memory nor time. Counted by the parts of Python that are written in C: counting must not be work, too.
"""

from typing import Final

_MARKS: Final = (b",", b"[", b"{")
"""Each value of an array or object stands behind one of these, but for those of empty ones."""
_SLICE: Final = 64 * 1024


def marks(data: bytes, enough: int) -> int:
    """How many values ``data`` holds at most; counted to the end only where there are not ``enough``."""
    found = 0
    for at in range(0, len(data), _SLICE):
        found += _marks_of(data[at : at + _SLICE])
        if found > enough:
            break
    return found


def holds_more_than(data: bytes, most: int) -> bool:
    """Whether ``data`` holds more than ``most`` arrays, objects and values of them. What stands inside of
    texts does not count; what is no JSON may be told either way."""
    if marks(data, most) <= most:
        return False
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    found, is_text = 0, 0
    for at in range(0, len(unescaped), _SLICE):
        parts = unescaped[at : at + _SLICE].split(b'"')
        found += _marks_of(b"".join(parts[is_text::2]))
        is_text ^= (len(parts) - 1) & 1
        if found > most:
            return True
    return False


def _marks_of(piece: bytes) -> int:
    return sum(map(piece.count, _MARKS))
