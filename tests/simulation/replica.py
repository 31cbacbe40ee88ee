"""A replica: the real ``open_resources`` and HTTP layer, and what can happen to a process."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from fastapi import FastAPI
from loguru import logger

from app.config import Settings
from app.factory import World, open_resources
from app.main import create_app
from tests.simulation.clock import OWNER, Owner, VirtualLoop, outside
from tests.simulation.coze_network import CozeNetwork
from tests.simulation.exchange import Broken, Exchange, Request, context_of
from tests.simulation.redis_network import RedisNetwork

START_SECONDS = 30.0
"""Within this a process listens, whatever Redis does."""
_STOP_SLACK = 40.0
"""What stopping may take beyond DRAIN_SECONDS: handing over (2 s), stores that answer late."""

_SAYS_EVERY = 3600.0
"""Seconds; each 20 would be half of all that happens in the hours in which nothing else does."""


class Apps:
    """What the scenarios of a process share, since it is dear: applications, which keep no state but their
    resources (making one costs as much as ten chats), and the way of what the log calls an error to
    ``on_error``."""

    def __init__(self) -> None:
        self._free: list[FastAPI] = []
        self.on_error: Callable[[str], None] = lambda _: None
        logger.add(lambda text: self.on_error(str(text)), level="ERROR", format="{message} {exception}")

    def take(self, settings: Settings) -> FastAPI:
        return self._free.pop() if self._free else create_app(settings)

    def give_back(self, app: FastAPI) -> None:
        app.state.resources = None
        self._free.append(app)


class Replica(Owner):
    def __init__(
        self,
        name: str,
        settings: Settings,
        redis: RedisNetwork,
        coze: CozeNetwork,
        apps: Apps,
        *,
        skew: float,
        scan_seconds: Callable[[], float],
        trace: Callable[..., None],
    ) -> None:
        super().__init__(name, skew)
        self.settings = settings
        self.state = "starting"
        """starting, up, draining, stopped, crashed."""
        self.troubles = 0
        """How often it was frozen or crashed: its clients then wait for longer than they should."""
        self._redis = redis
        self._coze = coze
        self._apps = apps
        self._scan_seconds = scan_seconds
        self._trace = trace
        self._serving: dict[Exchange, None] = {}
        self._dice = random.Random(f"{name} clients")
        self._leave = asyncio.Event()
        self._ready = asyncio.Event()
        self._app: FastAPI | None = None
        self._life: asyncio.Task[None] | None = None
        self._drained: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self.state == "up" and not self.frozen

    # -- its life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._app = self._apps.take(self.settings)
        context = context_of(self)
        self._life = asyncio.get_running_loop().create_task(self._live(), name=self.name, context=context)
        ready = outside(self._ready.wait(), f"{self.name} ready")
        await asyncio.wait({ready, self._life}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._ready.is_set():
            self.state = "up"

    async def _live(self) -> None:
        """As the lifespan does it, without signals and logging."""
        assert self._app is not None
        world = World(
            servers=self._redis.servers(
                self, pool_size=self.settings.redis_pool_size, reply_timeout=self.settings.redis_timeout
            ),
            transport=self._coze.transport(self),
            scan_seconds=self._scan_seconds,
            says_every=_SAYS_EVERY,
        )
        async with open_resources(self.settings, world) as resources:
            self._app.state.resources = resources
            await resources.redis.works()
            self._ready.set()
            await self._leave.wait()
            await resources.shutdown.drain()
            # The server waits for open streams, which say goodbye, and cancels what is left then.
            serving = [exchange.task for exchange in self._serving]
            if serving:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await asyncio.wait(serving, timeout=5.0)
            for task in serving:
                task.cancel()

    async def stop(self, *, again_after: float | None = None) -> bool:
        """SIGTERM, and a second one ``again_after`` seconds later. False: it did not end in its time."""
        if self._life is None or self.state in ("stopped", "crashed"):
            return True
        self.state = "draining"
        self._leave.set()
        if again_after is not None:
            self._drained = asyncio.get_running_loop().create_task(
                self._drain_again(again_after), context=context_of(self)
            )
        await asyncio.wait({self._life}, timeout=self.settings.drain_seconds + _STOP_SLACK)
        if not self._life.done():
            return False
        self.state = "stopped"
        for exchange in list(self._serving):
            exchange.break_off()
        self._give_back()
        return True

    async def _drain_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        assert self._app is not None
        if self._app.state.resources is not None:
            await self._app.state.resources.shutdown.drain()

    @property
    def failure(self) -> BaseException | None:
        """What ended it, if that was an error."""
        if self._life is None or not self._life.done() or self._life.cancelled():
            return None
        return self._life.exception()

    async def crash(self) -> None:
        """All its I/O ends at once, then what is left of it is cancelled: nothing it does can be seen any
        more."""
        if self.state in ("stopped", "crashed"):
            return
        self._trace(self.name, "crash")
        self.cut, self.state = True, "crashed"
        self.troubles += 1
        self._redis.break_links(self.name)
        self._coze.break_streams(self.name)
        for exchange in list(self._serving):
            exchange.break_off()
        if self.frozen:
            self.thaw()
        for _ in range(50):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)
        self._give_back()

    def freeze(self) -> None:
        if self.state in ("up", "draining"):
            self._trace(self.name, "freeze")
            self.frozen = True
            self.troubles += 1

    def thaw(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if self.frozen:
            self._trace(self.name, "thaw")
            loop.thaw(self)

    def _give_back(self) -> None:
        if self._app is not None:
            self._apps.give_back(self._app)
            self._app = None

    # -- what clients do ---------------------------------------------------------------------------------

    def call(self, request: Request) -> Exchange:
        """Raises ``Broken`` where nobody listens."""
        if self._app is None or self.state not in ("up", "draining"):
            raise Broken(self.name)
        exchange = Exchange(
            self._app, request, self._delay, name=f"{self.name} {request.method}", context=context_of(self)
        )
        self._serving[exchange] = None
        exchange.task.add_done_callback(lambda _: self._serving.pop(exchange, None))
        return exchange

    def _delay(self) -> float:
        return self._dice.uniform(0.0002, 0.002)

    def left_over(self) -> list[str]:
        """Tasks and timers of a process that is over."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        tasks = [f"task {task.get_name()}" for task in self.tasks if not task.done()]
        timers = [
            f"timer {timer._callback!r}" for timer in loop.timers() if timer._context.get(OWNER) is self
        ]
        return tasks + timers
