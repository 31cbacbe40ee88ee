"""What the bodies of all requests of a process share: room, and the processor."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MOST_BYTES: Final = 256 * 1024 * 1024


class BigBodies:
    """``turn``: for whoever works on a body long enough for others to notice, one at a time."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.turn = asyncio.Lock()
        self._left = most

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """For one body, given back at the end."""
        room = Room(self)
        try:
            yield room
        finally:
            self._left += room.taken

    def take(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True


class Room:
    def __init__(self, bodies: BigBodies) -> None:
        self._bodies = bodies
        self.taken = 0

    def take(self, size: int) -> bool:
        """``size`` bytes more; False where all bodies together would have too many."""
        if not self._bodies.take(size):
            return False
        self.taken += size
        return True
