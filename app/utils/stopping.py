"""Cancelling: what is told to end ends, and a cancel that is meant for us is not lost.

Before Python 3.12 ``asyncio.wait_for`` forgets a cancel that comes in the moment when its wait is over, and
redis-py waits with it for each write. A task that lost its cancel goes on for ever, and so does whoever
awaits it; a time-out around such a call never ends either, since it is a cancel, too.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

from loguru import logger

_AGAIN_SECONDS: Final = 1.0
"""After so long a task that still runs is cancelled once more: it may have lost the cancel."""
_END_SECONDS: Final = 5.0


async def end_tasks(tasks: Iterable["asyncio.Future[Any]"], *, within: float = _END_SECONDS) -> None:
    """Cancels tasks and returns when they have ended, however they did.

    Waits with ``asyncio.wait``, which raises only a cancel of our own, never one of theirs; ours is raised
    again once they have ended. What does not end is logged and left, so that nobody waits for it for ever.

    Args:
        within: seconds; they are told again each second.

    Raises:
        asyncio.CancelledError: whoever called this was cancelled meanwhile.
    """
    chosen = list(tasks)
    left = [task for task in chosen if not task.done()]
    loop = asyncio.get_running_loop()
    give_up = loop.time() + within
    ours: asyncio.CancelledError | None = None
    while left:
        for task in left:
            task.cancel()
        seconds = min(_AGAIN_SECONDS, give_up - loop.time())
        if seconds <= 0:
            names = sorted(task.get_name() if isinstance(task, asyncio.Task) else "a future" for task in left)
            logger.error("{} tasks do not end, {} among them", len(left), names[0])
            break
        try:
            await asyncio.wait(left, timeout=seconds)
        except asyncio.CancelledError as error:
            ours = error
        left = [task for task in left if not task.done()]
    for task in chosen:
        if task.done() and not task.cancelled():
            task.exception()  # looked at, or asyncio complains
    if ours is not None:
        raise ours


class NoCancelLost:
    """``with NoCancelLost():`` around calls that may lose a cancel: at the end it is raised after all,
    in place of whatever else came of the calls."""

    __slots__ = ("_before", "_task")

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is None or self._task.cancelling() <= self._before:
            return
        if not isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError
