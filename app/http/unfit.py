"""What is wrong with a request that is no HTTP, in words."""

import httptools


class UnfitError(ValueError):
    """Ours, raised in a callback of the parser."""


def reason(error: httptools.HttpParserError) -> str:
    """The parser's words; of callbacks ours alone, since others repeat what was sent."""
    if isinstance(error, httptools.HttpParserCallbackError):
        ours = error.__context__
        return str(ours) if isinstance(ours, UnfitError) else "the request target cannot be used"
    return str(error) or "it cannot be parsed"
