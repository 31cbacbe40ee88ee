"""Events that call back, and one timer for a stream of events: waiting costs no task and no timer each."""

import asyncio
from collections.abc import Callable
from functools import partial


class Signal(asyncio.Event):
    """An ``asyncio.Event`` that also calls whoever watches it when it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._watchers: dict[Callable[[], None], None] = {}
        """In the order in which they came, which is that in which they are called."""

    def set(self) -> None:
        if self.is_set():
            return
        super().set()
        for call in tuple(self._watchers):
            call()

    def watch(self, call: Callable[[], None]) -> Callable[[], object]:
        """Calls ``call`` each time that it is set; returns how to end that."""
        self._watchers[call] = None
        return partial(self._watchers.pop, call, None)


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
        self._timer = self._loop.call_at(self._deadline, self._fire)

    @property
    def _deadline(self) -> float:
        """Both what is waited for and what is compared: two ways to work it out can differ by a rounding, and
        a timer that comes early by that would be set again without any time to wait, over and over."""
        return self._last + self._seconds

    @property
    def due(self) -> bool:
        return self._loop.time() >= self._deadline

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
            self._timer = self._loop.call_at(self._deadline, self._fire)

    def stop(self) -> None:
        self._timer.cancel()

    def _fire(self) -> None:
        if self.due:
            self._timer = self._loop.call_later(self._seconds, self._fire)
            self._ring()
        else:
            self._timer = self._loop.call_at(self._deadline, self._fire)
