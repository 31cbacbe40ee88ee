"""A deadline that raises an error of ours."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from app.exceptions import UpstreamError


class Deadline:
    """Breaks its block off at ``when``, a time of the event loop (None: not before the timeout that the block
    is given is rescheduled), and raises what ``late`` returns. The ``TimeoutError`` of another deadline stays
    what it is.

    A class, since a chat has half a dozen: of a generator with a decorator each would take a kilobyte more.
    """

    __slots__ = ("_late", "_scope")

    def __init__(self, when: float | None, late: Callable[[], UpstreamError]) -> None:
        self._scope = asyncio.timeout_at(when)
        self._late = late

    async def __aenter__(self) -> asyncio.Timeout:
        return await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:  # its own
            raise self._late() from None
        # Being broken off can also look like a failure of the connection: our deadline is the cause of it.
        if isinstance(error, (TimeoutError, UpstreamError)) and self._scope.expired():
            raise self._late() from None
