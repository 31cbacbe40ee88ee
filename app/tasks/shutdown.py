"""How this process leaves: nothing new is begun, chats get their time, what is left is handed over."""

import asyncio
import contextlib

from app.exceptions import ShuttingDown
from app.stores.event_log import LogWriter
from app.tasks.running import RunningChats
from app.utils.signals import Notifier, until


class Shutdown:
    """Where this process is on its way out.

    Args:
        running: the chats that run here.
        writer: told that no queued chat is started here any more.
        seconds: that running chats get to come to their end.
    """

    def __init__(self, running: RunningChats, writer: LogWriter, *, seconds: float) -> None:
        self._running = running
        self._writer = writer
        self._seconds = seconds
        self._at_once = False
        self.begun = False
        """Nothing new is begun."""
        self.streams_end = False
        """Chats are over or handed over: open streams have to go."""
        self.changed = Notifier()

    def refuse_if_begun(self) -> None:
        """Raises ``ShuttingDown`` where nothing new is begun."""
        if self.begun:
            raise ShuttingDown

    def view(self) -> dict[str, object]:
        """For operators."""
        return {"running_chats": len(self._running), "draining": self.begun}

    async def drain(self) -> None:
        """Running chats get their time; what is left is handed over, and open streams are told to reconnect.

        Called a second time, it does not wait for them.
        """
        if self.begun:
            self._at_once = True
            self.changed.notify()
            await until(lambda: self.streams_end, self.changed)
            return
        self.begun = self._writer.draining = True
        self.changed.notify()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await until(
                        lambda: self._running.idle or self._at_once, self._running.changed, self.changed
                    )
            await self._running.hand_over()
        finally:
            self.streams_end = True  # or whoever asked again would wait for ever
            self.changed.notify()
