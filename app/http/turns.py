"""Which requests are begun in a turn of the event loop, where thousands arrive at once."""

import asyncio
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

TURNS: Final = "turns"
"""Key in a scope's ``state``: the server's ``Turns``. Not there under a server that is not ours."""
MOST_NOT_BEGUN: Final = 4096
"""Requests that wait for their turn; one more, and the newest of whoever has most of them is given up."""
_BEGUN_AT_ONCE: Final = 16
"""Requests that are begun in one turn of the loop; enough for their commands to Redis to travel together."""
_LONG_TURN: Final = 0.005
"""Seconds of work. After a turn that took longer half as many are begun, down to one, and after a shorter one
twice as many: what a request costs is seen only once it is begun."""
_TURNS_FOR_ONE: Final = 32
_SECONDS_FOR_ONE: Final = 0.005
"""While connections keep coming, one request is begun in so many turns, or after this thread has worked for
so long. By the clock on the wall a busy machine would begin one in each turn, and take connections last."""
_PROBES: Final = frozenset({"/coze/health/live", "/coze/health/ready"})
"""Whoever asks these decides by the time that it takes whether the process is killed, or sent no more."""

Headers = Sequence[tuple[bytes, bytes]]
KnownCaller = Callable[[Headers], str | None]
"""Whose request it is, by what this process knows already; None: that has to be found out."""


class _Request(NamedTuple):
    begin: Callable[[], None]
    give_up: Callable[[], None]


class _Lines:
    """Requests of one kind, a line for each of those who ask; they have their turns one after the other."""

    def __init__(self) -> None:
        self._of: OrderedDict[Hashable, deque[_Request]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._of)

    def put(self, whose: Hashable, request: _Request) -> None:
        self._of.setdefault(whose, deque()).append(request)

    def take(self) -> _Request:
        whose, line = next(iter(self._of.items()))
        request = line.popleft()
        if line:
            self._of.move_to_end(whose)
        else:
            del self._of[whose]
        return request

    def longest(self) -> int:
        return max(map(len, self._of.values()), default=0)

    def take_newest(self) -> _Request:
        """Of the longest line."""
        whose, line = max(self._of.items(), key=lambda each: len(each[1]))
        request = line.pop()
        if not line:
            del self._of[whose]
        return request


class Turns:
    """uvloop takes one new connection in a turn, and a request costs about a millisecond: behind thousands of
    connections a probe would wait for seconds until anybody heard of it. So while connections keep coming,
    they are taken first. Only new requests wait; what was begun goes on in any turn.

    Of those that wait, three kinds have their turns one after the other: probes, callers whose credentials
    this process has accepted already, and everybody else. In each kind those who ask do: a known caller is
    one, and of the others whoever has an address. So thousands of requests of one address, or of one caller,
    stand behind one another and not in front of the others.
    """

    def __init__(self, known_caller: KnownCaller) -> None:
        self._known_caller = known_caller
        self._at_once = self._left = _BEGUN_AT_ONCE
        self._turn_began = 0.0
        """Work of this thread by then, in seconds."""
        self._came = False
        self._passed = 0
        self._begun_at = 0.0
        """Work of this thread when one was begun last while connections came, in seconds."""
        self.waiting = 0
        """Requests whose turn has not come."""
        self._probes, self._known, self._others = _Lines(), _Lines(), _Lines()
        self._kinds = deque([self._probes, self._known, self._others])
        self._is_counting = False

    def connection_came(self) -> int:
        """Returns how many requests wait for their turn."""
        self._came = True
        self._count()
        return self.waiting

    def take(self, scope: Any, begin: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Calls ``begin`` at once or in a later turn of the loop, or else ``give_up``.

        Args:
            scope: of the request, as ASGI has it.
        """
        self._count()
        if self._left and not self.waiting and not self._came:
            self._left -= 1
            begin()
            return
        lines, whose = self._place(scope)
        lines.put(whose, _Request(begin, give_up))
        if self.waiting < MOST_NOT_BEGUN:
            self.waiting += 1
        else:
            max(self._kinds, key=_Lines.longest).take_newest().give_up()

    def _place(self, scope: Any) -> tuple[_Lines, Hashable]:
        client: tuple[str, int] | None = scope["client"]
        address = _network(client[0]) if client is not None else None
        if scope["path"] in _PROBES:
            return self._probes, address
        caller = self._known_caller(scope["headers"])
        return (self._others, address) if caller is None else (self._known, caller)

    def _count(self) -> None:
        if not self._is_counting:
            self._is_counting = True
            self._turn_began = time.thread_time()
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        now = time.thread_time()
        is_long, self._turn_began = now - self._turn_began > _LONG_TURN, now
        self._at_once = max(1, self._at_once // 2) if is_long else min(_BEGUN_AT_ONCE, 2 * self._at_once)
        if self._came:
            self._passed = (self._passed + 1) % _TURNS_FOR_ONE
            self._left = 1 if not self._passed or now - self._begun_at >= _SECONDS_FOR_ONE else 0
            self._begun_at = now if self._left else self._begun_at
        else:
            self._left = self._at_once
        while self.waiting and self._left:
            self._kinds.rotate(-1)
            if lines := self._kinds[-1]:
                self.waiting -= 1
                self._left -= 1
                lines.take().begin()
        # What was begun here takes its time in the turn that follows.
        self._is_counting = self._came or self.waiting > 0 or self._left < _BEGUN_AT_ONCE
        self._came = False
        if self._is_counting:
            asyncio.get_running_loop().call_soon(self._next)


def _network(address: str) -> Hashable:
    """Of IPv6 the first half: who has one such address has all with that half."""
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8] if ":" in address else address
