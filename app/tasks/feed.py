"""What a reader of a chat holds: its place in the log, and a bell that rings when there is more."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from app.models import Cursor
from app.stores.event_log import OpenLog
from app.tasks.frames import ends_reading


class Batch(NamedTuple):
    """``frames[i]`` has the id ``<epoch>-<first + i>``."""

    epoch: int
    first: int
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Ending:
    """The chat's record once reading is over. ``resumable`` False: Redis is away and does not have it."""

    record: bytes
    resumable: bool = True


class LocalFeed:
    """Reads the frames of a chat that runs here, by index: a slow reader costs nothing.

    ``take`` gives what there is, ``wait`` sleeps until ``wake`` or news, ``ending`` is set when what was
    taken last was the end.
    """

    def __init__(self, log: OpenLog, after: Cursor, on_close: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._place = after.frame if after.epoch == log.epoch else 0
        self._bell = asyncio.Event()
        self._on_close = on_close
        self.last = after
        log.wakers.add(self._bell)

    @property
    def fenced(self) -> bool:
        """Somebody else owns the chat: what is left has to be read from Redis."""
        return self._log.state == "fenced"

    @property
    def ending(self) -> Ending | None:
        log = self._log
        if log.state in ("open", "fenced") or log.end is None or self._place < len(log.frames):
            return None
        return Ending(log.end.record, resumable=log.state == "committed")

    def take(self) -> Batch | None:
        log = self._log
        if self._place >= log.visible or log.state == "fenced":
            return None
        batch = Batch(log.epoch, self._place + 1, log.frames[self._place : log.visible])
        self._place = log.visible
        self.last = Cursor(log.epoch, self._place)
        return batch

    async def wait(self) -> None:
        await self._bell.wait()
        self._bell.clear()

    def wake(self) -> None:
        self._bell.set()

    def close(self) -> None:
        self._log.wakers.discard(self._bell)
        self._on_close()


__all__ = ["Batch", "Ending", "LocalFeed", "ends_reading"]
