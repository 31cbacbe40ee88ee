"""A deadline that raises an error of ours."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.exceptions import UpstreamError


@asynccontextmanager
async def deadline(when: float | None, late: Callable[[], UpstreamError]) -> AsyncIterator[asyncio.Timeout]:
    """Breaks the block off at ``when``, a time of the event loop (None: not before the yielded timeout is
    rescheduled), and raises what ``late`` returns. The ``TimeoutError`` of another deadline stays what it
    is."""
    try:
        async with asyncio.timeout_at(when) as scope:
            yield scope
    except (TimeoutError, UpstreamError):
        # Being broken off can also look like a failure of the connection: our deadline is the cause of it.
        if not scope.expired():
            raise
        raise late() from None
