"""Certificates of those that we call, where they are not trusted."""

import ssl
from collections.abc import Iterator
from typing import Final

_MOST_CAUSES: Final = 8


def certificate_fault(error: BaseException, setting: str = "SSL_CERT_FILE") -> str:
    """What is wrong with the certificate of whoever was called; empty where ``error`` is not about that.

    Libraries wrap the system's error in one of their own, or in several. The text holds no address.

    Args:
        error: what the call raised.
        setting: where the authorities that are trusted are named.
    """
    for each in causes(error):
        # aiohttp's own error of this kind has no such message; the system's is behind it.
        if isinstance(each, ssl.SSLCertVerificationError) and (why := getattr(each, "verify_message", "")):
            return f"its certificate is not trusted ({why}): see {setting}"
    return ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it was made of, the nearest first; as far as ``_MOST_CAUSES``."""
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__
