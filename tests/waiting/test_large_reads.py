"""Reads with long replies: a few at a time, by turns of those who ask."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from app.exceptions import Overloaded
from app.stores.large_reads import AT_ONCE, MOST_WAITING, OF_A_ROOT, LargeReads

BOUND = 20.0
"""Seconds that nothing here takes unless it hangs."""


class Reads:
    """Reads that go on until they are told to end."""

    def __init__(self) -> None:
        self.large = LargeReads()
        self.under_way: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def _read(self, owner: str) -> None:
        async with self.large.taken(owner):
            self.under_way.append(owner)
            try:
                await self._ends.setdefault(owner, asyncio.Event()).wait()
            finally:
                self.under_way.remove(owner)

    async def begin(self, *owners: str) -> None:
        self.tasks += [asyncio.create_task(self._read(owner)) for owner in owners]
        for _ in range(10):
            await asyncio.sleep(0)

    async def end(self, owner: str) -> None:
        """All of this owner's."""
        self._ends.setdefault(owner, asyncio.Event()).set()
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def reads() -> AsyncIterator[Reads]:
    made = Reads()
    yield made
    for task in made.tasks:
        task.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_caller_has_one_at_a_time_and_a_root_two(reads: Reads) -> None:
    await reads.begin(*(["r.example|a"] * 5), *(["r.example|b"] * 5), *(["r.example|c"] * 5))
    assert Counter(reads.under_way) == {"r.example|a": 1, "r.example|b": 1}
    await reads.begin("s.example|d")
    assert "s.example|d" in reads.under_way
    await reads.end("r.example|a")
    assert sorted(reads.under_way) == ["r.example|b", "r.example|c", "s.example|d"]


async def test_who_is_the_root_itself_has_as_many_as_a_root(reads: Reads) -> None:
    await reads.begin(*(["app"] * 5))
    assert reads.under_way == ["app"] * OF_A_ROOT


async def test_a_process_has_four_and_nobody_waits_behind_all_that_another_has_asked_for(
    reads: Reads,
) -> None:
    await reads.begin(*(["app"] * 30), *(["other"] * 30), "r.example|last")
    assert Counter(reads.under_way) == {"app": 2, "other": 2}
    assert len(reads.under_way) == AT_ONCE
    reads.tasks[0].cancel()  # it has its turn
    await reads.begin()
    assert "r.example|last" in reads.under_way


async def test_past_a_number_that_wait_one_more_of_that_caller_is_refused_and_nobody_else(
    reads: Reads,
) -> None:
    await reads.begin(*(["r.example|a"] * (1 + MOST_WAITING)))
    with pytest.raises(Overloaded) as refused:
        async with reads.large.taken("r.example|a"):
            pass
    assert refused.value.retry_after
    async with asyncio.timeout(BOUND), reads.large.taken("r.example|b"):
        pass


async def test_who_gives_up_waiting_leaves_no_place_taken(reads: Reads) -> None:
    await reads.begin(*(["r.example|a"] * (1 + MOST_WAITING)))
    for task in reads.tasks:
        task.cancel()
    await asyncio.gather(*reads.tasks, return_exceptions=True)
    async with asyncio.timeout(BOUND), reads.large.taken("r.example|a"):
        pass
