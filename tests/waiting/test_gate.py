"""When the gate closes: not for one slow command, but for a Redis that answers nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis as redis_py

from app.exceptions import RedisUnavailable
from app.redis_client import Command, Keys, RedisGate, open_redis
from app.stores.leases import LeaseStore
from app.stores.policy import LogPolicy
from app.tasks.lease_keeper import LeaseKeeper, scan_seconds
from app.utils.stopping import end_tasks
from tests.support import RedisServer, redis_server, wait_until

BOUND = 30.0
"""Seconds that nothing here takes unless it hangs."""


@asynccontextmanager
async def gate_to(server: RedisServer, reply_timeout: float) -> AsyncIterator[RedisGate]:
    async with open_redis(server.url, pool_size=8, reply_timeout=reply_timeout) as gate:
        assert await gate.works()
        yield gate


async def test_one_slow_command_of_somebody_else_closes_no_gate(own_redis: RedisServer) -> None:
    async with gate_to(own_redis, reply_timeout=2) as gate:
        with own_redis.client(timeout=BOUND) as other:
            sleeping = asyncio.create_task(asyncio.to_thread(other.execute_command, "DEBUG", "SLEEP", "3"))
            await asyncio.sleep(0.2)
            with pytest.raises(RedisUnavailable):
                await gate.run(Command("GET", "a"))
            assert await gate.found_away() is False
            await sleeping
        assert await gate.run(Command("GET", "a")) is None
        assert gate.outages == 0


async def test_a_redis_that_says_nothing_is_found_away_and_back(own_redis: RedisServer) -> None:
    async with gate_to(own_redis, reply_timeout=0.3) as gate:
        own_redis.pause()
        try:
            with pytest.raises(RedisUnavailable):
                await gate.run(Command("GET", "a"))
            async with asyncio.timeout(BOUND):
                assert await gate.found_away() is True
            assert gate.outages == 1
        finally:
            own_redis.resume()
        async with asyncio.timeout(BOUND):
            await gate.wait_open()
        assert await gate.run(Command("GET", "a")) is None


async def test_a_redis_that_is_gone_is_away_at_once(own_redis: RedisServer) -> None:
    async with gate_to(own_redis, reply_timeout=BOUND) as gate:
        own_redis.kill()
        with pytest.raises(RedisUnavailable):
            await gate.run(Command("GET", "a"))
        assert gate.away


@pytest.fixture
def impatient_redis() -> Iterator[RedisServer]:
    with redis_server(options=["--lua-time-limit", "50"]) as server:
        yield server


async def test_a_redis_that_is_busy_with_a_script_is_away_until_that_is_over(
    impatient_redis: RedisServer,
) -> None:
    async with gate_to(impatient_redis, reply_timeout=BOUND) as gate:
        with impatient_redis.client(timeout=BOUND) as other, impatient_redis.client() as killer:

            def run() -> None:
                with contextlib.suppress(redis_py.ResponseError):
                    other.eval("while true do end", 0)

            running = asyncio.create_task(asyncio.to_thread(run))

            async def refused() -> bool:
                try:
                    await gate.run(Command("GET", "a"))
                except RedisUnavailable:
                    return True
                return False

            await wait_until(refused, BOUND)
            assert gate.away
            killer.script_kill()
            async with asyncio.timeout(BOUND):
                await gate.wait_open()
                await running
            assert await gate.run(Command("GET", "a")) is None


class NoChats:
    """A process that runs nothing."""

    leaving = False

    def held(self) -> list[tuple[str, int]]:
        return []

    def get(self, chat_id: str) -> None:
        return None


@pytest.mark.parametrize("trouble", ["gone", "slow"])
async def test_after_trouble_with_redis_nothing_is_claimed_for_the_length_of_a_lease(
    trouble: str, own_redis: RedisServer
) -> None:
    """Counted from its end: before that no owner could renew what it holds."""
    policy = LogPolicy(lease=3_600_000, session_ttl=60_000, log_ttl=60_000, hold=60_000, usage_ttl=60_000)
    loop = asyncio.get_running_loop()
    async with gate_to(own_redis, reply_timeout=2) as gate:
        leases = LeaseStore(gate, Keys("coze:"), policy)
        keeper = LeaseKeeper(gate, leases, NoChats(), scan_seconds=scan_seconds)  # type: ignore[arg-type]
        if trouble == "gone":
            own_redis.kill()
            with pytest.raises(RedisUnavailable):
                await gate.run(Command("GET", "a"))
            claiming = asyncio.create_task(keeper._claim())
            await asyncio.sleep(0.1)
            end = loop.time()
            own_redis.start()
        else:
            with own_redis.client(timeout=BOUND) as other:
                sleeping = asyncio.create_task(
                    asyncio.to_thread(other.execute_command, "DEBUG", "SLEEP", "3")
                )
                await asyncio.sleep(0.2)
                with pytest.raises(RedisUnavailable):
                    await gate.run(Command("GET", "a"))
                assert await gate.found_away() is False
                end = loop.time()
                await sleeping
            claiming = asyncio.create_task(keeper._claim())
        await wait_until(lambda: keeper._claim_after, BOUND)
        assert keeper._claim_after >= end + 3600
        await end_tasks([claiming])


async def test_connections_that_were_closed_are_no_outage_for_who_comes_then(own_redis: RedisServer) -> None:
    """By a box in between, a Redis that was told so, its own ``timeout``: a read that waits notices first."""
    async with gate_to(own_redis, reply_timeout=5) as gate:
        for _ in range(10):
            reading = asyncio.create_task(gate.read_streams({"coze:{00}:x": "$"}, 20))
            with own_redis.client() as other:

                def waits(other: redis_py.Redis = other) -> bool:
                    return any(each["flags"] == "b" for each in other.client_list())

                await wait_until(waits)
                other.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(RedisUnavailable):
                await reading
            assert gate.away
            assert await gate.run(Command("GET", "coze:a")) is None
            assert not gate.away
