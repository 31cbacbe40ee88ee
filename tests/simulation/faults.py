"""What goes wrong. Each public method is a kind of step; all faults end by themselves, or with ``heal``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.simulation import coze_network, redis_network
from tests.simulation.book import Book, Loss
from tests.simulation.clock import CLOCK
from tests.simulation.coze_network import CozeNetwork
from tests.simulation.fake_server import Refuses
from tests.simulation.redis_network import Away, RedisNetwork
from tests.simulation.replica import Replica


class Faults:
    """``slots``: the replicas by number; ``start``: starts a new one in a slot."""

    def __init__(
        self,
        book: Book,
        redis: RedisNetwork,
        coze: CozeNetwork,
        slots: list[Replica],
        start: Callable[[int], Any],
    ) -> None:
        self._book = book
        self._redis = redis
        self._coze = coze
        self._slots = slots
        self._start = start
        self._over = False
        self.counts: Counter[str] = Counter()
        self.copies: dict[float, dict[bytes, Any]] = {}
        """Redis as it was at those times, for failovers."""

    def _note(self, name: str, kind: str, seconds: float = 0.0) -> None:
        self.counts[name] += 1
        self._book.trouble(kind, seconds)
        self._book.trace("fault", name, seconds)

    # -- replicas ------------------------------------------------------------------------------------------

    async def crash(self, slot: int, down: float = 1.0) -> None:
        """kill -9; ``down`` seconds later another process starts in its place."""
        if self._slots[slot].state in ("up", "draining"):
            self._note("crash", "replica", down)
            await self._slots[slot].crash()
            await self._start_again(slot, down)

    async def freeze(self, slot: int, seconds: float) -> None:
        replica = self._slots[slot]
        if replica.up:
            self._note("freeze", "replica", seconds)
            replica.freeze()
            await self._pass(seconds)
            replica.thaw()

    async def drain(self, slot: int, down: float = 1.0, again: float | None = None) -> None:
        """SIGTERM, with a second one ``again`` seconds later."""
        replica = self._slots[slot]
        if replica.up:
            self._note("drain", "replica", replica.settings.drain_seconds + down)
            await self.stop(replica, again)
            await self._start_again(slot, down)

    async def stop(self, replica: Replica, again: float | None = None) -> None:
        trouble = replica.troubles
        if not await replica.stop(again_after=again):
            if replica.troubles == trouble:
                tasks = ", ".join(replica.left_over()[:5])
                self._book.violated("shutdown", f"{replica.name} does not end: {tasks}")
            await replica.crash()
        elif replica.failure is not None:
            self._book.violated("shutdown", f"{replica.name} ended with {replica.failure!r}")

    async def _start_again(self, slot: int, down: float) -> None:
        await self._pass(down)
        if not self._over:
            await self._start(slot)

    async def _pass(self, seconds: float) -> None:
        """A while, or until all faults are to end."""
        until = CLOCK.now + seconds
        while CLOCK.now < until and not self._over:
            await asyncio.sleep(min(1.0, until - CLOCK.now))

    # -- Redis ---------------------------------------------------------------------------------------------

    async def redis_away(self, how: Away, seconds: float) -> None:
        if not self._redis.away:
            self._note(f"redis_away_{how}", "redis", seconds)
            self._redis.go_away(how)
            await self._pass(seconds)
            self._redis.come_back()

    async def redis_empty(self, away: float = 0.5) -> None:
        """It comes back with nothing."""
        if not self._redis.away:
            self._note("redis_empty", "redis", away)
            self._redis.go_away("refuse")
            await self._pass(away)
            self._lose(0.0, {})

    async def redis_failover(self, lost: float, away: float = 0.5) -> None:
        """A replica of it takes over, that lacks the last ``lost`` seconds. The copy was taken by the
        world."""
        contents = self.copies.pop(round(CLOCK.now, 6), None)
        if not self._redis.away and contents is not None:
            self._note("redis_failover", "redis", away)
            since = CLOCK.now - lost
            self._redis.go_away("refuse")
            await self._pass(away)
            self._lose(since, contents)

    def _lose(self, since: float, contents: dict[bytes, Any]) -> None:
        self._book.losses.append(Loss(since, CLOCK.now))
        self._redis.restart(contents)
        self._redis.come_back()

    async def redis_weather(self, kind: str, chance: float, seconds: float, slot: int | None = None) -> None:
        name = None if slot is None else self._slots[slot].name
        weather = redis_network.Weather(kind, name, chance)
        self._note(f"redis_{kind}", "odd" if kind.startswith("odd") else "redis", seconds)
        self._redis.weather.append(weather)
        await self._pass(seconds)
        self._redis.weather.remove(weather)

    async def redis_cut_off(self, slot: int, seconds: float) -> None:
        """One replica does not reach it."""
        name = self._slots[slot].name
        self._note("redis_cut_off", "redis", seconds)
        self._redis.cut_off.add(name)
        await self._pass(seconds)
        self._redis.cut_off.discard(name)

    async def redis_refuses_names(self, seconds: float) -> None:
        """Each new connection is refused, as in protected mode."""
        self._note("redis_refuses_names", "odd", seconds)
        self._redis.refuses_names = True
        self._redis.break_links()
        await self._pass(seconds)
        self._redis.refuses_names = False

    async def redis_refuses(self, how: Refuses, seconds: float) -> None:
        """It answers, and refuses what writes, or all keys; from within scripts in Redis 6's words."""
        kind = "odd" if how == "noperm" else "redis"
        self._note(f"redis_refuses_{how}", kind, seconds)
        self._redis.server.refuses = how
        await self._pass(seconds)
        self._redis.server.refuses = ""

    async def redis_evicts(self, share: float) -> None:
        """It has to make room, and throws away what it knows of chats that run."""
        for chat_id in self._redis.evict_runs(share):
            self._note("redis_evicts", "evicted")
            self._book.evicted.setdefault(chat_id, CLOCK.now)

    # -- Coze ----------------------------------------------------------------------------------------------

    async def coze_weather(self, kind: str, chance: float, seconds: float, path: str = "") -> None:
        weather = coze_network.Weather(kind, chance, path)
        trouble = kind if kind in ("spoiled", "late") else "coze"  # those two excuse nothing
        self._note(f"coze_{kind}", trouble, seconds + (120.0 if kind == "stall" else 0.0))
        self._coze.weather.append(weather)
        await self._pass(seconds)
        self._coze.weather.remove(weather)

    async def coze_breaks(self) -> None:
        """All streams break at once."""
        self._note("coze_breaks", "coze")
        self._coze.break_streams()

    # -- the end -------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Whatever is wrong ends, and at least one replica is up."""
        self._over = True
        await asyncio.sleep(2.0)
        for replica in self._slots:
            if replica.frozen:
                replica.thaw()
        await asyncio.sleep(0.1)
        for slot, replica in enumerate(list(self._slots)):
            if replica.state in ("crashed", "stopped"):
                await self._start(slot)
