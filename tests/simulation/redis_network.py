"""The network between replicas and Redis: latency both ways, and everything that goes wrong there.

On the replica's side it is redis-py's own connection with a real ``StreamReader``; on the other side a socket
of fakeredis. What was sent travels on when its sender dies, as it does in a kernel's buffers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.driver_info import DriverInfo

from app.redis_client import Servers
from app.redis_client.servers import connection_options
from tests.simulation.clock import Line, Owner, later
from tests.simulation.fake_server import PlainSocket, Server
from tests.simulation.quick_socket import QuickSocket

Away = Literal["", "refuse", "silent", "stall"]
"""refuse: connections are closed and refused. silent: packets vanish. stall: they wait, and are executed when
it is back, as by a process that was stopped."""

FAULTS: Final = (
    "lost_request",
    "lost_reply",
    "cut",
    "partial",
    "slow",
    "odd_error",
    "odd_reply",
)
"""lost_*: the packet vanishes and the connection is broken later on. cut: broken at once, the request done or
not. partial: only the first commands of a packet arrive. odd_error: the reading ends with an exception that
is neither Redis' nor the system's. odd_reply: a command is refused with an error that nobody expects."""

_ODD_ERRORS: Final = (RuntimeError, AttributeError, ValueError, KeyError)


@dataclass
class Weather:
    """A fault that comes with probability ``chance`` to each packet of a replica (None: of all)."""

    kind: str
    replica: str | None
    chance: float


class RedisNetwork:
    """``trace`` gets every packet that arrives, ``check`` is called after it has been executed."""

    def __init__(
        self, dice: random.Random, *, quick: bool, trace: Callable[..., None], check: Callable[[str], None]
    ) -> None:
        self.server = Server()
        self.away: Away = ""
        self.cut_off: set[str] = set()
        """Replicas that do not reach it."""
        self.weather: list[Weather] = []
        self.refuses_names = False
        """CLIENT SETNAME, the first command of each connection, is answered as protected mode answers it."""
        self.counts: Counter[str] = Counter()
        self.packets = 0
        self.dice = dice
        self._driver = DriverInfo()  # making one for each connection means looking through what is installed
        self._socket_class = QuickSocket if quick else PlainSocket
        self._trace = trace
        self._check = check
        self._links: dict[Link, None] = {}
        self._waiting: list[tuple[Link, bytes]] = []

    def servers(self, replica: Owner, *, pool_size: int, reply_timeout: float) -> Servers:
        """What ``open_single`` would make, over this network."""

        def client(size: int, read_timeout: float | None) -> Any:
            options = {
                **connection_options(read_timeout, reply_timeout),
                "driver_info": self._driver,
                "network": self,
                "replica": replica,
            }
            return Redis.from_pool(
                BlockingConnectionPool(
                    connection_class=SimulatedConnection,
                    max_connections=size,
                    timeout=reply_timeout,
                    **options,
                )
            )

        return Servers(client, pool_size=pool_size, reply_timeout=reply_timeout)

    def delay(self) -> float:
        return self.dice.uniform(0.0001, 0.002)

    # -- what happens to it ------------------------------------------------------------------------------

    def go_away(self, how: Away) -> None:
        self.away = how
        if how == "refuse":
            self.break_links()

    def come_back(self) -> None:
        """What waited is executed now, even of those who have given up."""
        self.away = ""
        waiting, self._waiting = self._waiting, []
        for link, data in waiting:
            link.execute(data)

    def restart(self, contents: dict[bytes, Any]) -> None:
        """Comes back as another process: with nothing, or with what a replica of it had."""
        self._waiting.clear()
        self.break_links()
        self.server.restart(contents)

    def break_links(self, replica: str | None = None) -> None:
        for link in list(self._links):
            if replica is None or link.replica.name == replica:
                link.sever()

    def evict_runs(self, share: float) -> list[str]:
        """Throws the runs of some chats away that a process is at work on; returns their ids."""
        database = self.server.database
        gone = []
        for key in sorted(database.contents()):
            head, _, chat_id = key.decode().rpartition(":run:")
            run = database.get(key)
            if not head or run is None or run.value[b"state"] != b"started" or self.dice.random() >= share:
                continue
            del database[key]
            gone.append(chat_id)
        return gone

    def fault_of(self, replica: Owner) -> str:
        for weather in self.weather:
            if weather.replica in (None, replica.name) and self.dice.random() < weather.chance:
                self.counts[weather.kind] += 1
                return weather.kind
        return ""

    # -- links -------------------------------------------------------------------------------------------

    async def connect(self, replica: Owner) -> Link:
        """Raises OSError where it is refused; waits for ever where nothing answers."""
        if replica.cut:
            raise ConnectionRefusedError("cut off")
        await asyncio.sleep(self.delay())
        if self.away in ("silent", "stall") or replica.name in self.cut_off:
            await asyncio.sleep(86_400)  # the caller's own time-out ends this
        if self.away == "refuse" or replica.cut:
            raise ConnectionRefusedError("refused")
        link = Link(self, replica)
        self._links[link] = None
        return link

    def reachable(self, link: Link) -> bool:
        return link.replica.name not in self.cut_off and self.away != "silent"

    def forget(self, link: Link) -> None:
        self._links.pop(link, None)

    def wait(self, link: Link, data: bytes) -> None:
        self._waiting.append((link, data))

    def executed(self, link: Link, data: bytes) -> None:
        self.packets += 1
        self._trace(link.replica.name, "redis", data)
        self._check(link.replica.name)

    def make_socket(self, reply: Callable[[bytes], None]) -> PlainSocket:
        return self._socket_class(self.server, reply)


class Link:
    """One connection. It is also what redis-py takes for a ``StreamWriter``."""

    def __init__(self, network: RedisNetwork, replica: Owner) -> None:
        self.replica = replica
        self.reader = asyncio.StreamReader()
        self._network = network
        self._socket = network.make_socket(self._replied)
        self._there, self._back = Line(), Line()
        self._severed = False
        self._closed = False
        self._deaf = False
        self._replies: list[bytes] = []

    # -- the replica's side ------------------------------------------------------------------------------

    def writelines(self, parts: Iterable[bytes]) -> None:
        data = b"".join(parts)
        if self._severed or self.replica.cut or self._closed:
            raise ConnectionResetError(104, "the connection is broken")
        fault = self._network.fault_of(self.replica)
        lasts = self._network.dice.uniform(0.01, 5.0)
        if fault == "odd_error":
            later(0.001, self._odd)
        elif fault == "odd_reply":
            self._back.travel(0.002, self._feed, b"-ERR something odd\r\n" * len(_commands(data)))
            data = b""
        elif fault in ("lost_request", "lost_reply"):
            data = data if fault == "lost_reply" else b""
            self._deaf = True
            later(lasts, self.sever)
        elif fault == "cut":
            data = data if lasts < 2.5 else b""
            self.sever()
        elif fault == "partial":
            places = _commands(data)
            data = data[: self._network.dice.choice(places[1:])] if len(places) > 1 else data
            self._deaf = True
            later(0.01, self.sever)
        if data:
            extra = self._network.dice.uniform(0.05, 1.5) if fault == "slow" else 0.0
            self._there.travel(self._network.delay() + extra, self._arrive, data)

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self._closed = True
        self._network.forget(self)

    async def wait_closed(self) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        pass

    # -- the server's side -------------------------------------------------------------------------------

    def _arrive(self, data: bytes) -> None:
        network = self._network
        if not network.reachable(self) or network.away == "refuse":
            return
        if network.away == "stall":
            network.wait(self, data)
        else:
            self.execute(data)

    def execute(self, data: bytes) -> None:
        if self._network.refuses_names and b"SETNAME" in data:
            self._feed(b"-DENIED Redis is running in protected mode\r\n")
            return
        self._socket.execute(data)
        self._network.executed(self, data)
        self._flush()

    def _replied(self, reply: bytes) -> None:
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._flush)  # a blocked read that ends later
        self._replies.append(reply)

    def _flush(self) -> None:
        if not self._replies:
            return
        data = b"".join(self._replies)
        self._replies.clear()
        network = self._network
        if self._deaf or network.away or not network.reachable(self):
            return
        self._back.travel(network.delay(), self._feed, data)

    def _feed(self, data: bytes) -> None:
        if not self._severed and not self._closed and not self.replica.cut:
            self.reader.feed_data(data)

    def _odd(self) -> None:
        self._deaf = True
        if not self._severed and not self._closed:
            self.reader.set_exception(self._network.dice.choice(_ODD_ERRORS)("something odd"))

    def sever(self) -> None:
        """Both ends find it broken."""
        self._network.forget(self)
        if not self._severed:
            self._severed = True
            if not self._closed:
                self.reader.feed_eof()


class SimulatedConnection(Connection):
    """redis-py's own, but for the socket."""

    def __init__(self, *, network: RedisNetwork, replica: Owner, **options: Any) -> None:
        super().__init__(**options)
        self._network = network
        self._replica = replica

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            link = await self._network.connect(self._replica)
        self._reader, self._writer = link.reader, link


def _commands(data: bytes) -> list[int]:
    """Where the commands of a packet begin."""
    places, place = [], 0
    while place < len(data):
        places.append(place)
        place = _end_of_command(data, place)
    return places


def _end_of_command(data: bytes, place: int) -> int:
    end = data.index(b"\r\n", place)
    for _ in range(int(data[place + 1 : end])):
        start = end + 2
        end = data.index(b"\r\n", start)
        end += 2 + int(data[start + 1 : end])
    return end + 2
