"""Readers of one log in Redis who ask for the same at once share what they get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.exceptions import RedisUnavailable
from app.models import Cursor
from app.redis_client import Command, Keys, RedisGate, open_redis
from app.stores.log_entries import Page
from app.stores.log_reader import LogReader
from app.utils import new_chat_id, new_id
from tests.support import wait_until

BOUND = 30.0
KEYS = Keys("shared:")
BEGIN = Cursor(0, 0)


class Held:
    """Replies stay on their way until they are let through, in the order in which they were asked for."""

    def __init__(self, redis: RedisGate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on_their_way: list[asyncio.Event] = []
        self.broken = False
        self._run: Callable[..., Any] = redis.run
        monkeypatch.setattr(redis, "run", self.run)

    async def run(self, command: Command[Any], **options: Any) -> Any:
        reply, arrives = await self._run(command, **options), asyncio.Event()
        self.on_their_way.append(arrives)
        await arrives.wait()
        if self.broken:
            raise RedisUnavailable
        return reply


class Log:
    def __init__(self, redis: RedisGate) -> None:
        self._redis = redis
        self._run = redis.run
        self.chat_id = new_chat_id(new_id("session"))
        self.reader = LogReader(redis, KEYS, "p")

    async def add(self, number: int) -> None:
        key = KEYS.log(self.chat_id)
        await self._run(Command[bytes]("XADD", key, f"1-{number}", "n", number, "f", b"data: x\n\n"))
        await self._run(Command[int]("PEXPIRE", key, 60_000))

    def ask(self, how: str) -> asyncio.Task[Page | None]:
        if how == "newest":
            return asyncio.create_task(self.reader.newest(self.chat_id, BEGIN, "root|me"))
        return asyncio.create_task(self.reader.after(self.chat_id, BEGIN, "root|me"))


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    async with open_redis("memory://", pool_size=4, reply_timeout=5) as redis:
        made = Log(redis)
        yield made
        await made.reader.stop()


@pytest.fixture
def held(log: Log, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(log._redis, monkeypatch)


async def brought(asked: asyncio.Task[Page | None]) -> int:
    """How many frames came."""
    async with asyncio.timeout(BOUND):
        page = await asked
    entry = await page.next(lambda: asyncio.sleep(0)) if page is not None else None
    return len(entry.frames) if entry is not None else 0


async def a_hundred_at_once(log: Log, held: Held, how: str) -> list[asyncio.Task[Page | None]]:
    """Who ask for one frame, and whose one reply has just come."""
    await log.add(1)
    asked = [log.ask(how) for _ in range(100)]
    await wait_until(lambda: held.on_their_way, BOUND)
    held.on_their_way[0].set()
    return asked


ways = pytest.mark.parametrize("how", ["newest", "after"])


@ways
async def test_redis_is_asked_once_for_what_many_want_at_once(log: Log, held: Held, how: str) -> None:
    asked = await a_hundred_at_once(log, held, how)
    assert [await brought(each) for each in asked] == [1] * 100
    assert len(held.on_their_way) == 1


@ways
async def test_those_who_share_a_read_do_not_all_go_on_in_one_turn(log: Log, held: Held, how: str) -> None:
    asked = await a_hundred_at_once(log, held, how)
    most = before = 0
    while before < len(asked):
        await asyncio.sleep(0)
        there = sum(each.done() for each in asked)
        most, before = max(most, there - before), there
    assert most <= 2


@ways
async def test_nobody_takes_a_reply_for_new_that_is_older_than_what_he_has_heard_of(
    log: Log, held: Held, how: str
) -> None:
    first = log.ask(how)
    await wait_until(lambda: held.on_their_way, BOUND)
    await log.add(1)  # Redis has answered before that
    others = [log.ask(how) for _ in range(50)]
    await asyncio.sleep(0)
    held.on_their_way[0].set()
    assert await brought(first) == 0
    await wait_until(lambda: len(held.on_their_way) == 2, BOUND)
    held.on_their_way[1].set()
    assert [await brought(each) for each in others] == [1] * 50
    assert len(held.on_their_way) == 2


@ways
async def test_where_redis_is_away_each_is_told_so(log: Log, held: Held, how: str) -> None:
    held.broken = True
    asked = [log.ask(how) for _ in range(20)]
    while not all(each.done() for each in asked):
        await wait_until(lambda: any(not each.is_set() for each in held.on_their_way), BOUND)
        for each in held.on_their_way:
            each.set()
        await asyncio.sleep(0)
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in told] == [RedisUnavailable] * 20


@ways
async def test_who_leaves_takes_the_reply_from_nobody(log: Log, held: Held, how: str) -> None:
    await log.add(1)
    leaves, stays = log.ask(how), log.ask(how)
    await wait_until(lambda: held.on_their_way, BOUND)
    leaves.cancel()
    await wait_until(lambda: len(held.on_their_way) == 2, BOUND)
    held.on_their_way[1].set()
    assert await brought(stays) == 1
    assert leaves.cancelled()
