"""One scenario, run from its beginning to the day when Redis must be empty."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import warnings
from collections.abc import Coroutine
from typing import Any, Final

from app.config import Settings, load_settings
from app.utils import _digest_of
from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN
from tests.simulation.actions import Clients
from tests.simulation.book import Book
from tests.simulation.client import JWT_KEY, Caller
from tests.simulation.clock import CLOCK, OWNER, Stuck, VirtualLoop, cpu_seconds, later, outside
from tests.simulation.coze_network import CozeNetwork, make_options
from tests.simulation.entropy import seed_everything
from tests.simulation.faults import Faults
from tests.simulation.oracle import Oracle
from tests.simulation.redis_network import RedisNetwork
from tests.simulation.replica import Apps, Replica
from tests.simulation.scenario import WORLD, Outcome, Scenario, Step
from tests.simulation.shares import Shares

BASE: Final = {
    "COZE_API_TOKEN": SIMULATOR_TOKEN,
    "COZE_BOT_ID": SIMULATOR_BOT_ID,
    "HTY_JWT_KEY": JWT_KEY,
    "COZE_API_URL": "http://coze.world/v3/chat",
    "COZE_CHAT_TIMEOUT": "120",
    "COZE_TIMEOUT": "30",
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
    "RATE_LIMIT_SESSIONS_PER_MINUTE": "0",
    "DRAIN_SECONDS": "5",
}
DAYS: Final = 200
"""After so many days nothing is left: the longest life is a conversation's, 180 days."""

_LAST_SCANS: Final = 1200.0
"""Seconds between two looks for lost leases where only ends of sessions are to come."""


class Trace:
    """All that happens, as a hash; in words, too, where somebody wants to read it."""

    def __init__(self, *, keep: bool) -> None:
        self._hash = hashlib.sha256()
        self.lines: list[str] | None = [] if keep else None

    def __call__(self, *what: Any) -> None:
        self._hash.update(f"{CLOCK.now:.6f}".encode())
        for part in what:
            self._hash.update(part if isinstance(part, bytes) else str(part).encode())
        if self.lines is not None:
            shown = " ".join(_shown(part) for part in what)
            self.lines.append(f"{CLOCK.now:12.6f}  {shown}")

    def digest(self) -> str:
        return self._hash.hexdigest()[:24]


def _shown(part: object) -> str:
    if not isinstance(part, bytes):
        return str(part)
    words = [line for line in part.split(b"\r\n") if line and line[:1] not in b"*$"]
    return " ".join(word[:70].decode(errors="replace") for word in words[:14])


class World:
    def __init__(self, scenario: Scenario, apps: Apps, *, ignore: frozenset[str], keep: bool) -> None:
        seed, chosen = scenario.seed, WORLD | scenario.world
        self.scenario = scenario
        self.trace = Trace(keep=keep)
        self.book = Book(self.trace)
        self.book.ignored = ignore
        self._chosen = chosen
        self._apps = apps
        self._settings: Settings = load_settings(_env_file=None, **(BASE | scenario.settings))
        self.redis = RedisNetwork(
            random.Random(f"redis {seed}"), quick=chosen["tuned"], trace=self.trace, check=self._check_keys
        )
        options = make_options(seed, on_disconnect=chosen["on_disconnect"], speed=1.0)
        self.coze = CozeNetwork(options, random.Random(f"coze {seed}"), self.trace)
        self.slots: list[Replica] = []
        self._all: list[Replica] = []
        self._dice = random.Random(f"replicas {seed}")
        until = scenario.calm_after + chosen["hour"]
        shares = Shares(self.book, self._settings)
        dice = random.Random(f"clients {seed}")
        timeout = self._settings.chat_timeout
        caller = Caller(lambda: self.slots, self.book, dice, shares, timeout)
        self.clients = Clients(caller, self.book, scenario.settings, until)
        self.faults = Faults(self.book, self.redis, self.coze, self.slots, self._start)
        self.oracle = Oracle(self.book, self.coze, caller, self._settings)

    def _check_keys(self, replica: str) -> None:
        for key in self.redis.server.database.keys_for_ever():
            self.book.violated("ttl", f"{replica} left {key} without a time to live")

    # -- replicas ------------------------------------------------------------------------------------------

    async def _start(self, slot: int) -> None:
        number = sum(replica.name[1:].startswith(f"{slot}.") for replica in self._all)
        skew = self._dice.uniform(-1.0, 1.0) * self._chosen["skew"]
        replica = Replica(
            f"R{slot}.{number}",
            self._settings,
            self.redis,
            self.coze,
            self._apps,
            skew=skew,
            scan_seconds=self._scan_seconds,
            trace=self.trace,
        )
        self._all.append(replica)
        self.slots[slot : slot + 1] = [replica]
        await replica.start()
        if replica.failure is not None and self.book.troubled("odd"):
            await replica.crash()
            self.slots[slot] = replica
            later(1.0, lambda: outside(self._start(slot), "supervisor"))  # as whatever looks after processes
        elif replica.state != "up":
            self.book.violated("start", f"{replica.name}: {replica.failure or 'does not listen'!r}")
            await replica.crash()

    def _scan_seconds(self) -> float:
        """Looks for lost leases are what waiting costs: where nothing has happened for long they are rare."""
        now, calm = CLOCK.now, self.scenario.calm_after
        moments = [calm, *(step.at for step in self.scenario.steps)]
        since = min((now - moment for moment in moments if now > moment - 5.0), default=0.0)
        if since <= 40.0:
            return float(self._chosen["scan_seconds"])
        if since <= 150.0:
            return 5.0 if now < calm else 10.0
        if since <= 600.0 and now < calm:
            return 60.0
        return 240.0 if now < calm + self._chosen["hour"] else _LAST_SCANS

    # -- the course ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        for slot in range(self._chosen["replicas"]):
            await self._start(slot)
        doing = [outside(self._do(step), step.do) for step in self.scenario.steps]
        await self._until(self.scenario.calm_after)
        await self.faults.heal()
        calm = CLOCK.now
        hour = self._chosen["hour"]
        looking = outside(self.clients.keep_alive(), "keep alive")
        _, late = await asyncio.wait(doing, timeout=hour / 2) if doing else (None, set())
        looking.cancel()
        for task in late:
            if task.get_name() == "send" and self.oracle.somebody_waits():
                task.cancel()  # behind a chat that waits until its session ends
                continue
            self.book.violated("stuck", f"{task.get_name()} is not over {hour / 2:g} s after all faults")
            task.cancel()
        await self.oracle.check_chats(self.slots)
        await self._until(calm + hour)
        await self.oracle.check_ends(self.slots)
        longest = self._settings.session_expire + self._settings.chat_timeout
        await asyncio.sleep(longest + 1.2 * _LAST_SCANS + 60.0)
        await self.oracle.check_waiting(self.slots)
        for replica in list(self.slots):
            await self.faults.stop(replica)
        await self.coze.simulator.core.close()
        await asyncio.sleep(60.0)
        self._check_left_over()
        await asyncio.sleep(DAYS * 86_400.0)
        if keys := self.redis.server.database.live_keys(CLOCK.wall()):
            self.book.violated("empty", f"after {DAYS} days there are {keys[:5]}")

    async def _until(self, moment: float) -> None:
        if moment > CLOCK.now:
            await asyncio.sleep(moment - CLOCK.now)

    async def _do(self, step: Step) -> None:
        if step.do == "redis_failover":
            await self._until(step.at - step.args["lost"])
            copy = self.redis.server.database.contents()
            await self._until(step.at)
            self.faults.copies[round(CLOCK.now, 6)] = copy
        else:
            await self._until(step.at)
        self.trace("step", step.do, step.args)
        act = getattr(self.faults, step.do, None) or getattr(self.clients, step.do)
        await act(**step.args)

    def _check_left_over(self) -> None:
        for replica in self._all:
            if replica.state == "stopped":
                for thing in replica.left_over():
                    self.book.violated("left_over", f"{replica.name}: {thing}")

    def stuck_tasks(self) -> list[str]:
        """What waits for what, for whoever looks for the reason."""
        lines = []
        for task in asyncio.all_tasks(asyncio.get_event_loop_policy().get_event_loop()):
            stack = " < ".join(f"{f.f_code.co_name}:{f.f_lineno}" for f in reversed(task.get_stack()))
            lines.append(f"{task.get_name()}: {stack}")
        return sorted(lines)


def run_scenario(
    scenario: Scenario, apps: Apps, *, ignore: frozenset[str] = frozenset(), keep: bool = False
) -> Outcome:
    """Runs it; never raises for what the service does."""
    began = cpu_seconds()
    gc.collect()
    gc.disable()
    CLOCK.now = 0.0
    seed_everything(scenario.seed)
    _digest_of.cache_clear()
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    world = World(scenario, apps, ignore=ignore, keep=keep)
    loop.set_exception_handler(lambda _, context: _unretrieved(world.book, context))
    apps.on_error = world.oracle.logged
    try:
        loop.run_until_complete(world.run())
    except Stuck as stuck:
        tasks = world.stuck_tasks()
        world.trace.lines = None if world.trace.lines is None else [*world.trace.lines, *tasks]
        world.book.violated("stuck", f"{stuck}; {len(tasks)} tasks wait")
    finally:
        _close(loop)
        gc.collect()
        gc.enable()
    counts = world.faults.counts + world.redis.counts + world.coze.counts
    return Outcome(
        scenario.seed,
        scenario.kind,
        world.book.violations,
        world.trace.digest(),
        chats=sum(1 for chat in world.book.chats.values() if chat.id),
        faults=dict(counts),
        virtual_seconds=CLOCK.now,
        cpu_seconds=cpu_seconds() - began,
        lines=world.trace.lines or [],
    )


def _unretrieved(book: Book, context: dict[str, Any]) -> None:
    task = context.get("future")
    name = task.get_name() if isinstance(task, asyncio.Task) else task
    book.violated("left_over", f"{name}: {context.get('message')}: {context.get('exception')!r}")


def _close(loop: VirtualLoop) -> None:
    """Whatever is left after a scenario that got stuck."""
    left: list[Coroutine[Any, Any, Any] | asyncio.Task[Any]] = []
    for task in asyncio.all_tasks(loop):
        task.cancel()
        left.append(task)
    loop.set_exception_handler(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(20):
            try:
                loop.run_until_complete(asyncio.sleep(5.0))
            except (Stuck, Exception):  # noqa: BLE001  # it is the end of a broken world
                break
            if not asyncio.all_tasks(loop):
                break
    asyncio.set_event_loop(None)
    loop.close()


__all__ = ["OWNER", "Apps", "later", "run_scenario"]
