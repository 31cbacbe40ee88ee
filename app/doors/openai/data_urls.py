"""``data:`` URLs as browsers read them (WHATWG Fetch, "data: URL processor", and Infra, "forgiving base64").

Beyond that the URL-safe alphabet is taken, and any padding, or none: encoders leave both behind.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

_EDGES: Final = "".join(map(chr, range(0x21)))
"""C0 controls and the blank: a URL parser takes them off both ends."""
_BREAKS: Final = "\t\n\r"
_SCHEME: Final = re.compile(r"data:", re.IGNORECASE)
_SPACES: Final = b" \t\n\r\f"
_LONGEST_KIND: Final = 1000
_PIECE: Final = 64 * 1024
"""Letters that are read at once: a file takes a tenth of a second, in which nothing else would be done."""
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def clean_url(text: str) -> str:
    """What a URL parser takes off: blanks and controls around, tabs and line ends anywhere."""
    text = text.strip(_EDGES)
    for each in _BREAKS:  # ``translate`` takes a second for 16 MB of letters outside of ASCII
        text = text.replace(each, "")
    return text


def data_of_url(url: str) -> bytes | None:
    """The bytes in a cleaned ``url``; None where it is no ``data:`` URL. Its media type is not asked.

    Raises ``ValueError`` where its base64 cannot be read.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return None
    end = url.find("#")
    end = end if end >= 0 else len(url)
    comma = url.find(",", scheme.end(), end)
    if comma < 0:
        raise ValueError("there is no comma before its data")
    kind = url[scheme.end() : min(comma, scheme.end() + _LONGEST_KIND + 1)]
    if len(kind) > _LONGEST_KIND:
        raise ValueError(f"its media type has more than {_LONGEST_KIND} characters")
    words = [word.strip().lower() for word in kind.split(";")]
    pieces = _pieces(url, comma + 1, end)
    return b"".join(_forgiving(pieces) if "base64" in words[1:] else pieces)


def _pieces(url: str, at: int, end: int) -> Iterator[bytes]:
    """What stands there, its escapes resolved, none of which is cut."""
    rest = b""
    for begin in range(at, end, _PIECE):
        piece, rest = rest + url[begin : min(begin + _PIECE, end)].encode(), b""
        if begin + _PIECE < end and (cut := piece.rfind(b"%", -2)) >= 0:
            piece, rest = piece[:cut], piece[cut:]
        yield _unescaped(piece)


def _unescaped(text: bytes) -> bytes:
    """With each ``%41`` as its byte; a ``%`` that begins no such escape is refused.

    ``urllib`` makes an object of each escape, and of a picture there may be millions. Quoted-printable has
    the same escapes behind ``=`` (which must not stand for itself then), and a reader that is written in C.
    """
    if b"%" not in text:
        return text
    quoted = text.replace(b"=", b"%3D").replace(b"%", b"=")
    data = binascii.a2b_qp(quoted)
    if len(data) != len(quoted) - 2 * quoted.count(b"="):
        raise ValueError("is not base64, nor a percent-encoded file: a % begins no escape")
    return data


def _forgiving(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest, is_over = b"", False
    for piece in pieces:
        text, padding, behind = piece.translate(_URL_SAFE, _SPACES).partition(b"=")
        if behind.strip(b"=") or (is_over and text):
            raise ValueError("is not base64")
        is_over = is_over or bool(padding)
        text = rest + text
        whole = len(text) - len(text) % 4
        yield _decoded(text[:whole])
        rest = text[whole:]
    if len(rest) == 1:
        raise ValueError("its base64 is cut off")
    yield _decoded(rest + b"=" * (-len(rest) % 4))


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("is not base64") from None
