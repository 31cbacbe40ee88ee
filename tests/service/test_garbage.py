"""When garbage is collected in a process that is all ours."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from app.utils import garbage
from app.utils.garbage import collect_when_quiet

SOON = 0.01


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A number for each whole collection; nothing of the process stays changed."""
    found: list[int] = []
    before = gc.get_threshold()
    monkeypatch.setattr(garbage, "_LOOK_SECONDS", SOON)
    monkeypatch.setattr(gc, "collect", lambda: found.append(len(found)))
    yield found
    gc.unfreeze()
    gc.set_threshold(*before)


async def several_looks() -> None:
    for _ in range(5):
        await asyncio.sleep(SOON)


async def test_all_of_it_is_looked_at_while_little_goes_on(collections: list[int]) -> None:
    at_work = 500
    collect_when_quiet(lambda: at_work)
    await several_looks()
    assert collections == [], "500 streams would wait for it"
    at_work = 3
    async with asyncio.timeout(20):
        while not collections:
            await asyncio.sleep(SOON)


async def test_it_is_looked_at_at_last_though_much_goes_on(
    collections: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "_LONGEST_SECONDS", 0.05)
    collect_when_quiet(lambda: 500)
    async with asyncio.timeout(20):
        while not collections:
            await asyncio.sleep(SOON)


async def test_the_oldest_generation_is_never_looked_at_by_itself(collections: list[int]) -> None:
    collect_when_quiet(lambda: 500)
    young, young_ones, middle_ones = gc.get_threshold()
    assert young * (young_ones + 1) <= 10_000
    assert middle_ones > 1_000_000_000
    assert gc.get_freeze_count() > 0
