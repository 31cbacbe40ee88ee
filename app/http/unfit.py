"""What is wrong with a request that is no HTTP, in words."""

from typing import Final

import httptools

NOT_KNOWN: Final[dict[str, object]] = {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
"""Of a request that could not be read: its scope says this much all the same."""


class UnfitError(ValueError):
    """Ours, raised in a callback of the parser."""


def reason(error: httptools.HttpParserError) -> str:
    """The parser's words; of callbacks ours alone, since others repeat what was sent."""
    if isinstance(error, httptools.HttpParserCallbackError):
        ours = error.__context__
        return str(ours) if isinstance(ours, UnfitError) else "the request target cannot be used"
    return str(error) or "it cannot be parsed"
