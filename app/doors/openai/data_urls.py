"""``data:`` URLs as browsers read them (WHATWG Fetch, "data: URL processor", and Infra, "forgiving base64").

Beyond that the URL-safe alphabet is taken, and any padding, or none: encoders leave both behind.
"""

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

_EDGES: Final = "".join(map(chr, range(0x21)))
"""C0 controls and the blank: a URL parser takes them off both ends."""
_NO_BREAKS: Final = str.maketrans("", "", "\t\n\r")
_SCHEME: Final = re.compile(r"data:", re.IGNORECASE)
_SPACES: Final = b" \t\n\r\f"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def clean_url(text: str) -> str:
    """What a URL parser takes off: blanks and controls around, tabs and line ends anywhere."""
    return text.strip(_EDGES).translate(_NO_BREAKS)


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
    data = unquote_to_bytes(body)
    words = [word.strip().lower() for word in kind.split(";")]
    return _forgiving(data) if "base64" in words[1:] else data


def _forgiving(text: bytes) -> bytes:
    text = text.translate(_URL_SAFE, _SPACES).rstrip(b"=")
    if len(text) % 4 == 1:
        raise ValueError("its base64 is cut off")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("is not base64") from None
