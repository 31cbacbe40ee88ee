"""Waking up: one notifier for whatever is waited for, and one timer for a stream of events."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

FEW: Final = 16
"""Watchers of one thing that are called at once, and how many more in each turn of the loop."""
_SECONDS_OF_A_TURN: Final = 0.001
"""Work of this thread after which the others wait for the next turn, though they were fewer. Whoever is no
part of it may need a hundred turns: one connection is taken in each, to begin with."""


class Due(Protocol):
    """What ``Portions`` calls. ``is_due``: it stands there."""

    is_due: bool

    def come(self) -> None:
        """Its turn has come; whether there is still something to do it looks up itself."""


class _Watch:
    """One that is called, until it is itself called: a function that remembers as much takes four times the
    memory, and a stream has half a dozen."""

    __slots__ = ("_watches", "call", "is_due", "portions")

    def __init__(
        self, watches: "dict[_Watch, None]", call: Callable[[], object], portions: "Portions | None"
    ) -> None:
        self._watches = watches
        self.call = call
        self.portions = portions
        self.is_due = False
        """It stands in ``portions``."""
        watches[self] = None

    def __call__(self) -> None:
        self._watches.pop(self, None)

    def come(self) -> None:
        if self in self._watches:
            self.call()


class Portions:
    """Calls very many, some in each turn of the loop: what a thousand readers of a chat do with one event is
    a second of work, and everybody else would wait for it. One for a process and a kind of waiting, whatever
    it is that they wait for."""

    __slots__ = ("_due", "_is_calling")

    def __init__(self) -> None:
        self._due: deque[Due] = deque()
        self._is_calling = False

    def put(self, due: Due) -> None:
        """Who stands here already is called once: they look up themselves what has happened."""
        if due.is_due:
            return
        due.is_due = True
        self._due.append(due)
        if not self._is_calling:
            self._is_calling = True
            asyncio.get_running_loop().call_soon(self._next)

    async def after(self, done: "asyncio.Future[Any]") -> None:
        """Returns in a portion once ``done`` is, which is left alone where this is cancelled: of thousands
        who wait for one thing all would go on in one turn."""
        await asyncio.wait([done])
        turn = _Turn()
        self.put(turn)
        await turn.came

    def _next(self) -> None:
        until = time.thread_time() + _SECONDS_OF_A_TURN
        portion = [self._due.popleft() for _ in range(min(FEW, len(self._due)))]
        try:
            while portion and time.thread_time() < until:
                first = portion.pop(0)
                first.is_due = False
                first.come()
        finally:
            self._due.extendleft(reversed(portion))
            self._is_calling = bool(self._due)
            if self._due:
                asyncio.get_running_loop().call_soon(self._next)


class _Turn:
    __slots__ = ("came", "is_due")

    def __init__(self) -> None:
        self.is_due = False
        self.came: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def come(self) -> None:
        if not self.came.done():  # else whoever waited has gone
            self.came.set_result(None)


class Notifier:
    """Calls whoever watches it, each time that something has happened; what it was they look up themselves.

    Watching costs no task: half of a chat's reading is being woken.
    """

    __slots__ = ("_watches",)

    def __init__(self) -> None:
        self._watches: dict[_Watch, None] = {}
        """In the order in which they came, which is that in which they are called."""

    def __len__(self) -> int:
        """How many watch."""
        return len(self._watches)

    def watch(self, call: Callable[[], object], portions: Portions | None = None) -> Callable[[], object]:
        """Calls ``call`` at each ``notify``; returns how to end that. Behind the first ``FEW`` who watch
        it is called by ``portions`` where there are some, once for all that has happened meanwhile."""
        return _Watch(self._watches, call, portions)

    def notify(self) -> None:
        watches = tuple(self._watches)
        if len(watches) > FEW:
            for watch in watches[FEW:]:
                if watch.portions is not None:
                    watch.portions.put(watch)
                else:
                    watch.call()
            watches = watches[:FEW]
        for watch in watches:
            watch.call()


class Wakeup:
    """An ``asyncio.Event`` for one that waits. An Event has a list of its waiters, which takes 700 bytes, and
    a stream has several."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():  # else it was cancelled, or woken before
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    def wait(self) -> "asyncio.Future[None]":
        """To be awaited, by one task at a time: over once it is set."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        if self._is_set:
            waiter.set_result(None)
        return waiter


class Told:
    """In place of a ``Wakeup`` for which nobody waits: calls."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def set(self) -> None:
        if self._call is not None:
            self._call()

    def ignore(self) -> None:
        self._call = None


async def until(condition: Callable[[], bool], *notifiers: Notifier) -> None:
    """Returns once ``condition`` holds. It is looked at now and whenever one of ``notifiers`` calls."""
    if condition():
        return
    called = Wakeup()
    stops = [notifier.watch(called.set) for notifier in notifiers]
    try:
        while not condition():
            await called.wait()
            called.clear()
    finally:
        for stop in stops:
            stop()


class InterruptWhen:
    """Breaks its block off once ``condition`` holds, looked at whenever ``notifier`` calls.

    It is a time-out without a time, since asyncio tells the cancel of a time-out from a caller's: ours ends
    here, and ``expired()`` of what the block is given says so afterwards; a caller's goes on upward.
    """

    __slots__ = ("_condition", "_notifier", "_scope", "_stop")

    def __init__(self, condition: Callable[[], bool], notifier: Notifier) -> None:
        self._condition = condition
        self._notifier = notifier
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> asyncio.Timeout:
        scope = await self._scope.__aenter__()
        self._stop = self._notifier.watch(self._look)
        self._look()
        return scope

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._stop()
        del self._stop  # it leads back here: what goes in a circle waits to be collected
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:  # its own
            return True
        return isinstance(error, TimeoutError) and self._scope.expired()

    def _look(self) -> None:
        if self._scope.when() is None and self._condition():
            self._scope.reschedule(asyncio.get_running_loop().time())


class IdleTimer:
    """Rings when nothing was heard for ``seconds``, and again after each further such time.

    Whoever hears something sets ``last`` to the loop's time. One timer, moved only when it fires: 0.1 µs for
    each delta, where ``asyncio.timeout`` around its read takes 7.5 (measured with CPython 3.11 and uvloop),
    for the upstream and for each reader.
    """

    __slots__ = ("_loop", "_ring", "_seconds", "_timer", "last")

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self.last = self._loop.time()
        self._seconds = seconds
        self._timer = self._loop.call_at(self._deadline, self._fire)

    @property
    def _deadline(self) -> float:
        """Both what is waited for and what is compared: two ways to work it out can differ by a rounding, and
        a timer that comes early by that would be set again without any time to wait, over and over."""
        return self.last + self._seconds

    @property
    def due(self) -> bool:
        return self._loop.time() >= self._deadline

    @property
    def seconds(self) -> float:
        return self._seconds

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        """Counts from ``last``."""
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
