"""Host names, and which of our roots one belongs to. HtyHost is data: only the root leads anywhere.

RFC 1123, 2.1 (after RFC 952): labels of letters, digits and inner hyphens, 1 to 63 long, the name at most
253. Nothing is normalised but case: what is not plainly a name of ours is refused.
"""

import re
from collections.abc import Iterable
from typing import Final

MAX_NAME: Final = 253
_MAX_PORT: Final = 65_535
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT: Final = re.compile("[1-9][0-9]{0,4}")


def host_name(value: str) -> str | None:
    """The name in ``name`` or ``name:port``, in lower case; None if ``value`` is neither."""
    name, colon, port = value.partition(":")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        return None
    if colon and not (_PORT.fullmatch(port) and int(port) <= _MAX_PORT):
        return None
    # Only now: lower() makes an ASCII k of the Kelvin sign, and so a good name of a look-alike.
    return name.lower()


def root_of(value: str, roots: Iterable[str]) -> str | None:
    """The root that ``value`` equals or is a subdomain of; the longest where roots nest, None without one.

    ``roots`` are in lower case. The dot in front of the root is what tells ``a.moicen.com`` from
    ``evil-moicen.com``.
    """
    name = host_name(value)
    if name is None:
        return None
    return max((root for root in roots if name == root or name.endswith(f".{root}")), key=len, default=None)
