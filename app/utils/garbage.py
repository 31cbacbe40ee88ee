"""Collections of garbage that hold the event loop for a few milliseconds only.

A collection looks at all objects of its generation, at 0.6 to 2.4 µs each, and nothing else is done
meanwhile. An open stream has two hundred that last: with hundreds of streams the oldest generation takes a
tenth of a second and more. So that one is looked at while little is going on; and all that goes without
leaving cycles, which is nearly everything, needs none.
"""

import asyncio
import gc
from collections.abc import Callable
from typing import Final

_YOUNG: Final = 600
"""New objects after which the youngest generation is looked at."""
_YOUNG_ONES: Final = 5
"""Collections of the youngest after which the middle one is: some 3,600 objects, less than 10 ms."""
_BY_ITSELF_NEVER: Final = 1 << 30
_LOOK_SECONDS: Final = 10.0
_FEW: Final = 40
"""Streams and chats with which all of it takes no longer than the others do."""
_LONGEST_SECONDS: Final = 600.0
"""After so long it is looked at whatever goes on: memory must not grow for hours."""


def collect_when_quiet(at_work: Callable[[], int]) -> None:
    """For a process that is all ours, in its event loop, once all that lasts is there.

    Args:
        at_work: how many streams, waits or chats there are at the moment.
    """
    gc.freeze()  # what lives as long as the process need not be looked at by every collection
    gc.set_threshold(_YOUNG, _YOUNG_ONES, _BY_ITSELF_NEVER)
    loop = asyncio.get_running_loop()
    last = loop.time()

    def look() -> None:
        nonlocal last
        if at_work() <= _FEW or loop.time() - last >= _LONGEST_SECONDS:
            gc.collect()
            last = loop.time()
        loop.call_later(_LOOK_SECONDS, look)

    loop.call_later(_LOOK_SECONDS, look)
