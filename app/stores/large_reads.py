"""Turns for reads whose replies are long: pages of chats, histories and lists of sessions; for steps through
rows of usage, too.

Such a reply keeps Redis, the event loop and a mebibyte busy for milliseconds. Its caller pays nothing for it,
and may have thousands of connections.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from attrs import define, field

from app.exceptions import Overloaded
from app.utils.fair_turns import Queues, TooManyWait

SMALL_BYTES: Final = 64 * 1024
"""What is no longer is read at once, by everybody."""
AT_ONCE: Final = 4
"""In a process."""
OF_A_ROOT: Final = 2
MOST_WAITING: Final = 64
"""Reads of one caller that wait."""
_RETRY_SECONDS: Final = 1


@define(eq=False, repr=False)
class LargeReads:
    """A few at a time: one of each caller's, two of each root's, four in all. The others wait, each caller's
    behind one another. Who is the root itself, an app with many users, has as many as a root."""

    _callers: Queues = field(init=False, factory=lambda: Queues(MOST_WAITING))
    _roots: Queues = field(init=False, factory=Queues)
    _turns: asyncio.Semaphore = field(init=False, factory=lambda: asyncio.Semaphore(AT_ONCE))

    @asynccontextmanager
    async def taken(self, owner: str) -> AsyncIterator[None]:
        """For the block, in which the reply is read. The next one goes on in a later turn of the event loop:
        until then whoever does not wait for anything else has handed its answer to the connection.

        Raises ``Overloaded`` where too many of this caller's wait already.
        """
        root, _, person = owner.partition("|")
        try:
            of_caller = self._callers.taken(owner, 1 if person else OF_A_ROOT)
            async with of_caller, self._roots.taken(root, OF_A_ROOT), self._turns:
                yield
        except TooManyWait:
            text = f"More than {MOST_WAITING} of your long lists, histories and reports are asked for at once"
            raise Overloaded(text, retry_after=_RETRY_SECONDS) from None
