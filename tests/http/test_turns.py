"""Which requests are begun first, where connections keep coming."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from app.http.connections import Turns


async def one_turn() -> None:
    await asyncio.sleep(0)


async def begun_in(
    turns: Turns, waiting: list[asyncio.Future[None]], count: int, *, coming: bool
) -> list[int]:
    """How many were begun after each of ``count`` turns of the loop."""
    found = []
    for _ in range(count):
        if coming:
            turns.connection_came()
        await one_turn()
        found.append(sum(each.done() for each in waiting))
    return found


async def test_a_request_alone_is_begun_at_once() -> None:
    turns = Turns()
    for _ in range(3):
        assert turns.for_request() is None
        await one_turn()


async def test_connections_that_keep_coming_are_taken_before_requests() -> None:
    turns = Turns()
    turns.connection_came()
    waiting = [turn for _ in range(50) if (turn := turns.for_request()) is not None]
    assert len(waiting) == 50, "a connection has come in this turn"
    while_coming = await begun_in(turns, waiting, 64, coming=True)
    assert 3 <= while_coming[-1] <= 5, "nobody waits for ever, though they never end"
    assert all(after - before <= 1 for before, after in pairwise(while_coming))
    behind = await begun_in(turns, waiting, 6, coming=False)
    assert behind[-1] == 50, "as soon as none comes any more"
    assert max(after - before for before, after in pairwise(behind)) == 16


async def test_they_are_begun_in_their_order_and_one_that_gave_up_takes_no_place() -> None:
    turns = Turns()
    turns.connection_came()
    waiting = [turn for _ in range(40) if (turn := turns.for_request()) is not None]
    for given_up in waiting[:20]:
        given_up.cancel()
    await one_turn()
    await one_turn()
    assert [each.done() for each in waiting[20:]] == [True] * 16 + [False] * 4
    await one_turn()
    assert all(each.done() for each in waiting)


async def test_a_newcomer_waits_behind_those_that_wait() -> None:
    turns = Turns()
    turns.connection_came()
    waiting = [turn for _ in range(20) if (turn := turns.for_request()) is not None]
    await one_turn()
    last = turns.for_request()
    assert last is not None
    while not all(each.done() for each in waiting):
        assert not last.done()
        await one_turn()
    await one_turn()
    assert last.done()


async def test_nothing_goes_on_where_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an idle process would turn its loop for ever."""
    turns = Turns()
    turns.connection_came()
    assert turns.for_request() is not None
    for _ in range(4):
        await one_turn()
    loop = asyncio.get_running_loop()
    schedule, called = loop.call_soon, list[object]()

    def call_soon(callback: Callable[..., object], *values: object, **how: Any) -> asyncio.Handle:
        called.append(getattr(callback, "__self__", None))
        return schedule(callback, *values, **how)

    monkeypatch.setattr(loop, "call_soon", call_soon)
    for _ in range(3):
        await one_turn()
    assert turns not in called
    turns.connection_came()
    assert turns in called, "this is how it would be seen"
