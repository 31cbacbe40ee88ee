"""Reads JSON of Coze's of which one byte, escape or number somewhere is not what JSON allows.

The rest of it is read all the same. Only what a strict parser has refused comes here, so none of it has to
be fast.
"""

import codecs
import json
import math
import re
from typing import Final

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[^\s,:\[\]{}"]+', re.DOTALL)
"""A text that nothing closes goes to the end: else the rest would be looked at again from each quote."""
_ESCAPE: Final = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4}|.?)', re.DOTALL)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "null"})
_MOST_DIGITS: Final = 400
"""Of a number; Python refuses integers with thousands of them."""
_SIMPLE_ESCAPES: Final = frozenset('"\\/bfnrt')

_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTES: Final = re.compile("[\udc80-\udcff]+")
_HALF: Final = re.compile("[\ud800-\udfff]")
_END: Final = re.compile("[\udc80-\udcff]+\\Z")
_LONGEST_HALF: Final = 3
"""Bytes; four are a whole character."""

REPLACEMENT: Final = "\ufffd"

_decoder: Final = json.JSONDecoder(strict=False)


def loose_object(data: bytes) -> dict[str, object] | None:
    """The JSON object at the start of ``data``; None where there is none.

    Its texts may hold halves of characters, which ``mended`` and ``whole`` replace: a lone surrogate where an
    escape had one, and U+DC80 to U+DCFF for each byte that is not UTF-8.
    """
    text = data.decode("utf-8", "surrogateescape").lstrip("\ufeff \t\r\n")
    try:
        value, _ = _decoder.raw_decode(_TOKEN.sub(_mended_token, text))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _mended_token(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith('"'):
        return _ESCAPE.sub(_mended_escape, token)
    number = _NUMBER.fullmatch(token) if len(token) <= _MOST_DIGITS else None
    return token if token in _WORDS or (number and math.isfinite(float(token))) else "null"


def _mended_escape(found: re.Match[str]) -> str:
    known = found[1] in _SIMPLE_ESCAPES or len(found[1]) == 5
    return found[0] if known else REPLACEMENT + found[1]


def mended(value: object) -> object:
    """``value`` with whole characters in all of its texts, and integers of more than 64 bits as text."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {whole(key): mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mended(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


def mended_object(data: bytes) -> dict[str, object] | None:
    """``loose_object`` with whole characters."""
    found = loose_object(data)
    try:
        return None if found is None else {whole(key): mended(item) for key, item in found.items()}
    except RecursionError:
        return None


def whole(text: str) -> str:
    """``text`` with halves that belong together joined, and U+FFFD for those that are alone."""
    if _HALF.search(text) is None:
        return text
    text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    text = _BYTES.sub(lambda run: _raw(run[0]).decode("utf-8", "replace"), text)
    return _HALF.sub(REPLACEMENT, text)


def split_half(text: str) -> tuple[str, str]:
    """``text`` in two: the second part is the beginning of a character whose rest is to come, or empty."""
    if "\ud800" <= text[-1:] <= "\udbff":
        return text[:-1], text[-1]
    run = _END.search(text[-_LONGEST_HALF:])
    if run is None:
        return text, ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(_raw(run[0]))
    missing = len(decoder.getstate()[0])
    return (text[:-missing], text[-missing:]) if missing else (text, "")


def _raw(run: str) -> bytes:
    return run.encode("utf-8", "surrogateescape")
