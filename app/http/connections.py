"""What one connection may take, and all of them together: figures, and the parts that keep to them.

uvicorn bounds none of this. A reverse proxy may, but there is not always one in front.
"""

import array
import asyncio
import contextlib
import fcntl
import resource
import termios
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from uvicorn.protocols.http.flow_control import FlowControl

from app.utils.signals import Portions, Wakeup

BREAK_OFF: Final = "break_off"
"""Key in a scope's ``state``: a function that ends the connection behind what was sent, so that its client
can tell that this is not the end of the answer."""
CYCLE: Final = "cycle"
"""Key in a scope's ``state``: what uvicorn knows of the request. Not there under another server."""
MOST_HEAD_BYTES: Final = 128 * 1024
"""Of a request line with its headers; and of anything else that is no body, such as trailers."""
MOST_HEADERS: Final = 256
"""Lines of a head, and of trailers. One of five bytes becomes an object of 150 and more."""
MOST_COMMAS: Final = 256
"""In the values of a head, together. Lists are taken apart at them, by us and by libraries, which takes up to
a third of a microsecond for each, and before anybody knows what for."""
MOST_TARGET_BYTES: Final = 8 * 1024
"""Of a request's address alone. All of it is unescaped, which takes a microsecond for each escape."""
MOST_PARAMETERS: Final = 100
"""In the query of an address: each is taken apart before anybody knows what for."""
MOST_QUEUED: Final = 8
"""Requests that may wait on one connection for the answer before them; what follows is not read."""
MOST_SMALL_CHUNKS: Final = 1000
SMALL_CHUNK: Final = 16
"""Bytes. A body of more chunks than those, and smaller ones on the average, is refused: a chunk of a byte is
as much work as one of 64 KiB, and 100 connections with such bodies stopped everybody for seconds."""
MOST_REST: Final = 64 * 1024
"""Bytes of a body that are still read as such when its answer is over: who has been refused may send on."""
HEAD_SECONDS: Final = 10.0
"""For the head of a request, from when the connection is there or from its first byte; also for the rest of
a body that nobody reads any more."""
UNSENT_SECONDS: Final = 30.0
SLOWEST_BYTES: Final = 65_536
"""A client that takes less than so much of what waits for it in this time is given up."""
MOST_UNSENT: Final = 16 * 1024 * 1024
"""Bytes that wait for clients of a process, which has them twice; past it who has let them wait longest is
given up. One alone may be waited for, however much it is."""
HIGH_WATER: Final = 4 * 1024
"""Bytes that may wait for one client without being counted; past it nothing more is written for him. Less
would have a head and its short body sent one after the other."""
UNREAD: Final = "unread"
"""Key in a scope's ``state``: the server's ``Together`` of answers that wait for their clients. Not there, as
the next two, under a server that is not ours."""
HEADS: Final = "heads"
"""The same of heads that have not ended."""
GO_ON: Final = "go_on"
"""The ``Portions`` in which those go on whose clients have taken what waited for them."""
USUAL_HEAD_BYTES: Final = 8 * 1024
"""Of a head that has not ended; longer ones are counted."""
MOST_HEADS: Final = 16 * 1024 * 1024
"""Bytes of such heads in a process; past it who has taken longest to send his is given up. Thousands may each
send as much as one may, without anybody knowing who they are."""
MOST_HELD: Final = 64 * 1024
"""Bytes that are kept of requests sent ahead; where more have come the connection ends behind its answer."""
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 16 * 1024 * 1024
"""After a refusal: who is still sending would not see the answer if the connection closed at once."""
MOST_WAITING: Final = 2000
"""Connections of a process on which nothing is being done; one more, and the oldest of them are closed."""


def most_connections() -> int:
    """Half of the process's descriptors. The others are for Redis, Coze, the auth service, files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft // 2


def allow_descriptors() -> None:
    """As many as the system lets this process have: the usual 1024 are too few for 2,000 chats."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Kept(NamedTuple):
    """What a connection makes the process keep, and since when."""

    since: float
    size: int


class Connection(Protocol):
    @property
    def is_waiting(self) -> bool: ...

    @property
    def order(self) -> tuple[bool, float]: ...

    @property
    def unread(self) -> Kept:
        """Of an answer that waits for its client."""
        ...

    @property
    def head(self) -> Kept:
        """Of a head that has not ended."""
        ...

    def give_up(self) -> None: ...


_C = TypeVar("_C", bound=Connection)


def oldest_waiting(connections: Iterable[_C]) -> list[_C]:
    """A quarter of those that wait, at least one if there is one, in their ``order``. So many at once because
    looking through them all for each newcomer would be work for an attacker to give."""
    waiting = sorted((each for each in connections if each.is_waiting), key=lambda each: each.order)
    return waiting[: (len(waiting) + 3) // 4]


def unsent_bytes(transport: asyncio.Transport) -> int:
    """What the client has not taken: here, and in the system's own buffer, which may hold megabytes and takes
    more only when a third of it is gone. Looked at without that, a slow client seems to take nothing."""
    left = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, left)
    return transport.get_write_buffer_size() + left[0]


def longest_kept(kept: Mapping[_C, Kept], most: int) -> list[_C]:
    """Those of which something has been kept longest, without which all others keep within ``most`` bytes."""
    total, given_up = sum(each.size for each in kept.values()), []
    for connection in sorted(kept, key=lambda each: kept[each].since)[:-1]:
        if total <= most:
            break
        total -= kept[connection].size
        given_up.append(connection)
    return given_up


def commas_in(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(value.count(b",") for _, value in headers)


class Together(Generic[_C]):
    """The connections of a process that make it keep something, which has a bound for all of them.

    What each has is looked at when it comes here, and again once all seem to be past the bound: looking at
    all for each newcomer would be work for an attacker to give.

    Args:
        kept: what is kept of a connection.
        most: bytes of all of them. One alone may have more.
    """

    def __init__(self, kept: Callable[[_C], Kept], most: int) -> None:
        self._kept = kept
        self._most = most
        self._sizes: dict[_C, int] = {}
        self._total = 0

    def add(self, connection: _C) -> list[_C]:
        """Returns those that are to be given up; they are not counted any more."""
        self.discard(connection)
        self._sizes[connection] = size = self._kept(connection).size
        self._total += size
        if self._total <= self._most:
            return []
        given_up = longest_kept({each: self._kept(each) for each in self._sizes}, self._most)
        for each in given_up:
            del self._sizes[each]
        self._sizes = {each: self._kept(each).size for each in self._sizes}
        self._total = sum(self._sizes.values())
        return given_up

    def discard(self, connection: _C) -> None:
        self._total -= self._sizes.pop(connection, 0)


class HeldFlow(FlowControl):
    """While ``held`` nothing is read, whoever asks for it: the request that runs does, to hear of its end."""

    held = False

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._is_writable_event = Wakeup()  # type: ignore[assignment]  # only who writes the answer waits for it
        self._is_writable_event.set()

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused and not self.held:
            super().resume_reading()


class Pipeline(list[object]):
    """Requests that wait, the last one first: a few at most, and hardly ever one. A deque takes 600 bytes."""

    __slots__ = ()

    def appendleft(self, request: object) -> None:
        self.insert(0, request)


class LingeringTransport:
    """A connection whose last answer is on its way: closed a little later than asked for."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float = LINGER_SECONDS
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._loop.call_later(self._seconds, self._transport.abort)


def bounds_of_a_server() -> dict[str, object]:
    """For a scope's ``state``, one of each for all connections of a server."""
    return {
        UNREAD: Together[Connection](lambda each: each.unread, MOST_UNSENT),
        HEADS: Together[Connection](lambda each: each.head, MOST_HEADS),
        GO_ON: Portions(),
    }
