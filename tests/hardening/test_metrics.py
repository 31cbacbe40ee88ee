"""/coze/metrics and /coze/health need no token, so asking for them must cost next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from app.observing.metrics import Metrics
from app.observing.scrapes import FRESH_SECONDS, MetricsPages
from app.redis_client import Key
from app.redis_client.gate import probe
from app.utils.kept import Kept
from tests.support import RedisServer, ServiceProcess

from .support import ask

SLOTS = 33
"""In each of them a check runs its script once."""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_redis_is_asked_once_however_many_scrape() -> None:
    asked, clock = 0, Clock()

    async def queued() -> float:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    pages = MetricsPages(Metrics(), queued, clock)
    first = await asyncio.gather(*(pages.get(accept) for accept in ["", "text/plain"] * 50))
    assert asked == 1
    assert b"coze_queued_chats 1.0" in first[0][0]
    clock.now += FRESH_SECONDS - 0.01
    assert await pages.get("") == first[0]
    clock.now += 0.02
    assert await pages.get("") != first[0]
    assert asked == 2


async def test_each_kind_of_page_is_what_was_asked_for_and_few_are_kept() -> None:
    async def queued() -> float:
        return 0

    pages = MetricsPages(Metrics(), queued, Clock())
    for number in range(100):
        accept = f"application/openmetrics-text; version=1.0.0; escaping=x{number}"
        assert (await pages.get(accept))[1].startswith("application/openmetrics-text")
        assert (await pages.get("text/plain"))[1].startswith("text/plain")
        assert len(pages._pages) <= 8


def test_a_flood_of_scrapes_costs_redis_a_handful_of_commands(
    redis: RedisServer, start_process: Callable[..., ServiceProcess]
) -> None:
    service = start_process(REDIS_URL=redis.url)
    with redis.client() as client:

        def reads() -> int:
            calls: int = client.info("commandstats")["cmdstat_zcard"]["calls"]
            return calls

        ask(service, "/coze/metrics")
        before = reads()
        for _ in range(100):
            assert ask(service, "/coze/metrics")[0] == 200
        assert reads() - before < 100 * 32 / 2  # 32 for each page that is made: one every two seconds


async def test_what_is_kept_is_made_once_for_all_who_come_in_its_time() -> None:
    made, clock = 0, Clock()

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return made

    kept = Kept(make, 1.0, clock)
    assert await asyncio.gather(*(kept.get() for _ in range(100))) == [1] * 100
    clock.now += 0.99
    assert await kept.get() == 1
    clock.now += 0.02
    assert await asyncio.gather(*(kept.get() for _ in range(100))) == [2] * 100


async def test_what_could_not_be_made_is_asked_for_again() -> None:
    async def break_down() -> int:
        raise RuntimeError

    kept: Kept[int] = Kept(break_down, 60, Clock())
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await kept.get()


def test_a_flood_of_health_checks_runs_the_scripts_once_in_a_second(
    redis: RedisServer, start_process: Callable[..., ServiceProcess]
) -> None:
    service = start_process(REDIS_URL=redis.url)
    script = str(probe(key=Key("any"), thorough=False).parts[1]).encode()
    with redis.client() as client:
        ask(service, "/coze/health/ready")  # the server knows the script by now
        client.config_set("slowlog-max-len", 100_000)
        client.config_set("slowlog-log-slower-than", 0)
        client.slowlog_reset()
        begun, asked = time.monotonic(), 0
        while asked < 100 or time.monotonic() - begun < 1.5:  # so long that one is due
            assert ask(service, ("/coze/health", "/coze/health/ready")[asked % 2])[0] == 200
            asked += 1
        checks = 1 + int(time.monotonic() - begun)
        runs = sum(script in entry["command"] for entry in client.slowlog_get(100_000))
        assert 0 < runs <= checks * SLOTS
