"""Cancels: none is lost, and nobody waits for ever for a task that lost one."""

from __future__ import annotations

import asyncio

import pytest

from app.redis_client import open_redis
from app.stores.loops import forever
from app.utils.stopping import NoCancelLost, end_tasks

BOUND = 20.0
"""Seconds that nothing here takes unless it hangs."""


class Forgetful:
    """A wait as redis-py's: before Python 3.12 it forgets a cancel that comes when it is just over."""

    def __init__(self) -> None:
        self.waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rounds = 0

    async def wait(self) -> None:
        self.rounds += 1
        await asyncio.wait_for(self.waits, 600)

    def cancel_when_over(self, task: asyncio.Task[None]) -> None:
        self.waits.set_result(None)
        task.cancel()


async def a_few_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("then", ["goes well", "fails"])
async def test_a_periodic_step_that_lost_its_cancel_is_the_last_one(then: str) -> None:
    forgetful = Forgetful()

    async def step() -> None:
        await forgetful.wait()
        if then == "fails":
            raise ValueError("as a server's odd answer would")

    async with open_redis("memory://", pool_size=4, reply_timeout=1) as redis:
        loop = asyncio.create_task(forever(step, redis))
        await a_few_turns()
        forgetful.cancel_when_over(loop)
        async with asyncio.timeout(BOUND):
            await asyncio.wait({loop})
        assert loop.cancelled()
        assert forgetful.rounds == 1


async def test_a_periodic_step_that_is_not_wanted_any_more_ends_by_itself() -> None:
    rounds = 0

    async def step() -> None:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0)

    async with open_redis("memory://", pool_size=4, reply_timeout=1) as redis:
        await forever(step, redis, wanted=lambda: rounds < 3)
    assert rounds == 3


async def test_a_time_out_around_a_wait_that_forgets_still_ends_it() -> None:
    forgetful = Forgetful()

    async def work() -> None:
        async with asyncio.timeout(600) as scope:
            scope.reschedule(asyncio.get_running_loop().time() + 0.01)
            with NoCancelLost():
                await forgetful.wait()
            await asyncio.sleep(600)

    task = asyncio.create_task(work())
    await a_few_turns()
    forgetful.cancel_when_over(task)
    async with asyncio.timeout(BOUND):
        await asyncio.wait({task})
    assert task.cancelled()


async def test_a_task_that_lost_its_cancel_is_told_again() -> None:
    forgetful = Forgetful()

    async def work() -> None:
        await forgetful.wait()
        await asyncio.sleep(600)

    task = asyncio.create_task(work())
    await a_few_turns()
    forgetful.waits.set_result(None)
    async with asyncio.timeout(BOUND):
        await end_tasks([task])
    assert task.cancelled()


async def test_what_does_not_end_is_left_in_the_end() -> None:
    stubborn = asyncio.Event()

    async def work() -> None:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(work())
    await a_few_turns()
    async with asyncio.timeout(BOUND):
        await end_tasks([task], within=0.05)
    assert not task.done()
    stubborn.set()
    await task


async def test_a_cancel_of_our_own_is_raised_once_the_others_have_ended() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            ended.append("theirs")

    async def ender(task: asyncio.Task[None]) -> None:
        try:
            await end_tasks([task])
        except asyncio.CancelledError:
            ended.append("ours")
            raise

    theirs = asyncio.create_task(work())
    ours = asyncio.create_task(ender(theirs))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ours.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.wait({ours, theirs})
    assert ours.cancelled()
    assert ended[-1] == "ours"


async def test_ending_what_has_failed_raises_nothing_and_leaves_no_complaint() -> None:
    async def work() -> None:
        raise ValueError("odd")

    task = asyncio.create_task(work())
    await a_few_turns()
    await end_tasks([task])
    assert isinstance(task.exception(), ValueError)
