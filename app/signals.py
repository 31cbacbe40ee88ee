"""Events that call back, and one timer for a stream of events: waiting costs no task and no timer each."""

import asyncio
from collections.abc import Callable
from functools import partial


class Signal(asyncio.Event):
    """An ``asyncio.Event`` that also calls whoever watches it when it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._watchers: set[Callable[[], None]] = set()

    def set(self) -> None:
        if self.is_set():
            return
        super().set()
        for call in tuple(self._watchers):
            call()

    def watch(self, call: Callable[[], None]) -> Callable[[], None]:
        """Calls ``call`` each time that it is set; returns how to end that."""
        self._watchers.add(call)
        return partial(self._watchers.discard, call)


async def first_of(*signals: Signal, task: "asyncio.Future[None] | None" = None) -> None:
    """Returns once one of ``signals`` is set, or ``task`` has ended; cancels nothing."""
    if any(signal.is_set() for signal in signals) or (task is not None and task.done()):
        return
    rung = asyncio.get_running_loop().create_future()

    def ring(_: object = None) -> None:
        if not rung.done():
            rung.set_result(None)

    stops = [signal.watch(ring) for signal in signals]
    if task is not None:
        task.add_done_callback(ring)
    try:
        await rung
    finally:
        for stop in stops:
            stop()
        if task is not None:
            task.remove_done_callback(ring)


class Pulse:
    """Rings when ``beat`` was not called for ``seconds``, and again after each further such time.

    One timer, moved only when it fires: a stream of deltas must not pay for a timer each.
    """

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._last = self._loop.time()
        self._seconds = seconds
        self._timer = self._loop.call_later(seconds, self._fire)

    @property
    def due(self) -> bool:
        return self._loop.time() - self._last >= self._seconds

    def beat(self) -> None:
        self._last = self._loop.time()

    @property
    def seconds(self) -> float:
        return self._seconds

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        """Counts from the last beat."""
        sooner = seconds < self._seconds
        self._seconds = seconds
        if sooner:
            self._timer.cancel()
            left = max(0.0, self._last + seconds - self._loop.time())
            self._timer = self._loop.call_later(left, self._fire)

    def stop(self) -> None:
        self._timer.cancel()

    def _fire(self) -> None:
        due = self.due
        wait = self._seconds if due else self._last + self._seconds - self._loop.time()
        self._timer = self._loop.call_later(wait, self._fire)
        if due:
            self._ring()
