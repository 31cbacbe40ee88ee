"""Virtual time: a clock that only moves when nothing else is to be done, and the loop that moves it.

Import nothing of the service before ``install``: default arguments bind ``time.monotonic`` where they stand.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

EPOCH: Final = 1_800_000_000
"""Unix seconds at virtual time 0."""
_MOST_TURNS: Final = 100_000
"""Turns of the loop without any time passing, after which something spins."""

real_seconds: Final = time.perf_counter
cpu_seconds: Final = time.process_time


class Owner:
    """Whose task something is: a replica.

    ``skew``: seconds by which its wall clock is ahead. ``frozen``: it does nothing, as after SIGSTOP;
    ``held`` is what it would have done. ``cut``: all its I/O is cut off. ``tasks``: those that are not over.
    """

    def __init__(self, name: str, skew: float = 0.0) -> None:
        self.name = name
        self.skew = skew
        self.frozen = False
        self.cut = False
        self.held: deque[asyncio.Handle] = deque()
        self.tasks: dict[asyncio.Task[Any], None] = {}


OWNER: Final[contextvars.ContextVar[Owner | None]] = contextvars.ContextVar("owner", default=None)
"""The replica in whose context we are; None outside: Redis, Coze, clients."""


class Clock:
    """``now``: virtual seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        owner = OWNER.get()
        return EPOCH + self.now + (0.0 if owner is None else owner.skew)


CLOCK: Final = Clock()


def install() -> None:
    """Puts the virtual clock in the place of the real ones. There is no way back."""
    gmtime, strftime = time.gmtime, time.strftime
    time.time = CLOCK.wall
    time.time_ns = lambda: int(CLOCK.wall() * 1_000_000) * 1000
    time.monotonic = time.perf_counter = lambda: CLOCK.now
    time.monotonic_ns = time.perf_counter_ns = lambda: int(CLOCK.now * 1e9)
    time.gmtime = lambda s=None: gmtime(CLOCK.wall() if s is None else s)
    time.localtime = time.gmtime
    time.strftime = lambda form, t=None: strftime(form, time.gmtime() if t is None else t)


class Stuck(Exception):
    """Nothing is ready and no timer is set, or no time passes any more."""


class _Handle(asyncio.Handle):
    """Without what debugging needs: half a million of them are made in a minute."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None


class _Timer(asyncio.TimerHandle, _Handle):
    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        _Handle.__init__(self, callback, args, loop, context)
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)
            _Handle.cancel(self)


class VirtualLoop(asyncio.BaseEventLoop):
    """Where nothing is ready the clock jumps to the next timer. Frozen owners' callbacks are held back."""

    def __init__(self) -> None:
        super().__init__()
        self._still = 0
        self._number = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        """By time, and of one time in the order in which they were set."""
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return CLOCK.now

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)  # there is one thread

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        raise AssertionError(f"a thread is asked for: {func}")

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, timer))
        return timer

    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are set."""
        return [timer for _, _, timer in self._timers if not timer.cancelled()]

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if self._timer_cancelled_count > 100 and 2 * self._timer_cancelled_count > len(timers):
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0][2]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers or timers[0][0] == float("inf"):
                raise Stuck("nothing is ready and no timer is set")
            if timers[0][0] > CLOCK.now:
                CLOCK.now = timers[0][0]
                self._still = 0
        self._still += 1
        if self._still > _MOST_TURNS:
            raise Stuck("no time passes any more: something spins")
        while timers and timers[0][0] <= CLOCK.now:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is not None and owner.frozen:
                owner.held.append(handle)
            else:
                handle._run()

    def thaw(self, owner: Owner) -> None:
        """All that was held back happens now, as after SIGCONT."""
        owner.frozen = False
        self._ready.extend(owner.held)
        owner.held.clear()


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(owner.tasks.pop)
    return task


def at(moment: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
    """Calls it at that virtual second, outside of all replicas, whoever asks."""
    return asyncio.get_running_loop().call_at(moment, call, *args, context=contextvars.Context())


def later(seconds: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
    return at(CLOCK.now + seconds, call, *args)


class Line:
    """One direction of a connection: what was sent first arrives first.

    Arrivals are rounded up to half milliseconds: what a process finds when it looks at its sockets comes at
    once, and many a race needs two things in the same turn of the loop.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def travel(self, seconds: float, take: Callable[..., object], *args: Any) -> None:
        self._last = max(self._last, math.ceil((CLOCK.now + seconds) * 2000) / 2000)
        at(self._last, take, *args)


def outside(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """A task that belongs to no replica, whoever starts it."""
    return asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())
