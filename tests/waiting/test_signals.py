"""Waking up: conditions that are waited for, and blocks that are broken off."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from app.utils.signals import FEW, InterruptWhen, Notifier, Portions, Wakeup, until

BOUND = 20.0
"""Seconds that nothing here takes unless it hangs."""


class Thing:
    def __init__(self) -> None:
        self.done = False
        self.changed = Notifier()

    def finish(self) -> None:
        self.done = True
        self.changed.notify()


async def a_few_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_wait_ends_when_its_condition_holds_and_not_before() -> None:
    thing, other = Thing(), Thing()
    waiting = asyncio.create_task(until(lambda: thing.done, thing.changed, other.changed))
    await a_few_turns()
    thing.changed.notify()
    other.changed.notify()
    await a_few_turns()
    assert not waiting.done()
    thing.done = True
    other.changed.notify()  # whichever calls, it is looked at
    async with asyncio.timeout(BOUND):
        await waiting


async def test_whoever_does_not_wait_any_more_is_not_called() -> None:
    thing = Thing()
    waiting = asyncio.create_task(until(lambda: thing.done, thing.changed))
    await a_few_turns()
    waiting.cancel()
    await a_few_turns()
    assert thing.changed._watches == {}
    await until(lambda: True, thing.changed)
    assert thing.changed._watches == {}


async def test_two_that_watch_with_the_same_call_end_each_for_itself() -> None:
    notifier, calls = Notifier(), list[int]()

    def call() -> None:
        calls.append(1)

    first, second = notifier.watch(call), notifier.watch(call)
    first()
    notifier.notify()
    assert len(calls) == 1
    second()
    notifier.notify()
    assert len(calls) == 1


async def test_a_block_that_is_broken_off_ends_here_and_its_task_goes_on() -> None:
    thing = Thing()
    asyncio.get_running_loop().call_soon(thing.finish)
    async with asyncio.timeout(BOUND), InterruptWhen(lambda: thing.done, thing.changed) as scope:
        await asyncio.sleep(600)
    assert scope.expired()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await a_few_turns()


async def test_a_block_that_ends_by_itself_is_not_broken_off_later() -> None:
    thing = Thing()
    async with InterruptWhen(lambda: thing.done, thing.changed) as scope:
        await asyncio.sleep(0)
    thing.finish()
    await a_few_turns()
    assert not scope.expired()


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
async def test_a_callers_cancel_goes_upward_even_together_with_ours(order: str) -> None:
    thing = Thing()

    async def work() -> None:
        async with InterruptWhen(lambda: thing.done, thing.changed):
            await asyncio.sleep(600)

    task = asyncio.create_task(work())
    await a_few_turns()
    if order == "ours first":
        thing.finish()
        asyncio.get_running_loop().call_soon(task.cancel)
    else:
        task.cancel()
        thing.finish()
    async with asyncio.timeout(BOUND):
        await asyncio.wait({task})
    assert task.cancelled()


async def test_a_time_out_of_the_block_itself_goes_upward() -> None:
    thing = Thing()

    async def work() -> None:
        async with InterruptWhen(lambda: thing.done, thing.changed), asyncio.timeout(0):
            await asyncio.sleep(600)

    with pytest.raises(TimeoutError):
        await work()


async def test_a_wakeup_ends_one_wait_after_another_whether_it_comes_before_or_behind() -> None:
    wakeup, waits = Wakeup(), list[int]()

    async def wait() -> None:
        for number in range(3):
            await wakeup.wait()
            wakeup.clear()
            waits.append(number)

    waiting = asyncio.create_task(wait())
    wakeup.set()  # nobody waits yet
    wakeup.set()
    await a_few_turns()
    assert waits == [0]
    wakeup.set()
    wakeup.set()  # it is awake, and has not run yet
    await a_few_turns()
    assert waits == [0, 1]
    wakeup.set()
    async with asyncio.timeout(BOUND):
        await waiting


async def test_a_wakeup_outlives_a_wait_that_was_broken_off() -> None:
    wakeup = Wakeup()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wakeup.wait()
    wakeup.set()
    async with asyncio.timeout(BOUND):
        await wakeup.wait()


async def test_very_many_are_called_in_portions_and_once_for_what_happened_meanwhile() -> None:
    """Those of two things together: no turn of the loop has more to do for two."""
    portions, called = Portions(), list[int]()
    things = [Notifier(), Notifier()]
    for number in range(200):
        things[number % 2].watch(partial(called.append, number), portions)
    for thing in things:
        thing.notify()
        thing.notify()
    assert len(called) == 4 * FEW
    most, before = 0, len(called)
    while len(called) < 200 + 2 * FEW:
        await asyncio.sleep(0)
        most, before = max(most, len(called) - before), len(called)
    await a_few_turns()
    assert len(called) == 200 + 2 * FEW
    assert most <= FEW
    assert sorted(set(called)) == list(range(200))


async def test_who_fails_or_leaves_keeps_nobody_behind_from_being_called() -> None:
    thing, portions, called = Notifier(), Portions(), list[int]()

    def fail() -> None:
        raise ZeroDivisionError

    stops = [thing.watch(partial(called.append, number), portions) for number in range(FEW + 1)]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    thing.watch(fail, portions)
    stops.append(thing.watch(partial(called.append, FEW + 1), portions))
    thing.notify()
    stops[FEW]()
    await a_few_turns()
    assert called == [*range(FEW), FEW + 1]


async def test_of_many_who_wait_for_one_thing_few_go_on_in_a_turn() -> None:
    portions, came = Portions(), list[int]()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(number: int) -> None:
        await portions.after(done)
        came.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(100)]
    await a_few_turns()
    tasks[3].cancel()
    done.set_result(None)
    await asyncio.sleep(0)
    tasks[50].cancel()
    most = before = 0
    while len(came) < 98:
        await asyncio.sleep(0)
        most, before = max(most, len(came) - before), len(came)
    assert 0 < most <= FEW
    assert sorted(came) == [number for number in range(100) if number not in (3, 50)]
