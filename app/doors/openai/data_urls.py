"""``data:`` URLs as browsers read them (WHATWG Fetch, "data: URL processor", and Infra, "forgiving base64").

Beyond that the URL-safe alphabet is taken, and any padding, or none: encoders leave both behind.
"""

import base64
import binascii
import re
from typing import Final

_EDGES: Final = "".join(map(chr, range(0x21)))
"""C0 controls and the blank: a URL parser takes them off both ends."""
_BREAKS: Final = "\t\n\r"
_SCHEME: Final = re.compile(r"data:", re.IGNORECASE)
_SPACES: Final = b" \t\n\r\f"
_LONGEST_KIND: Final = 1000
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
    kind, comma, body = url[scheme.end() :].partition("#")[0].partition(",")
    if not comma:
        raise ValueError("there is no comma before its data")
    if len(kind) > _LONGEST_KIND:
        raise ValueError(f"its media type has more than {_LONGEST_KIND} characters")
    data = _unescaped(body.encode())
    words = [word.strip().lower() for word in kind.split(";")]
    return _forgiving(data) if "base64" in words[1:] else data


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


def _forgiving(text: bytes) -> bytes:
    text = text.translate(_URL_SAFE, _SPACES).rstrip(b"=")
    if len(text) % 4 == 1:
        raise ValueError("its base64 is cut off")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("is not base64") from None
