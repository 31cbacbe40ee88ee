"""Which requests are begun first, where connections keep coming."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from app.http import turns as module
from app.http.turns import Turns

KNOWN = b"known"


class Door:
    """Asks for requests, and notes by their names which were begun and which were given up, in order."""

    def __init__(self) -> None:
        self.turns = Turns(lambda headers: next((v.decode() for n, v in headers if n == KNOWN), None))
        self.begun: list[str] = []
        self.given_up: list[str] = []

    def ask(self, name: str, *, address: str = "10.0.0.1", path: str = "/coze", caller: str = "") -> None:
        headers = [(KNOWN, caller.encode())] if caller else []
        scope = {"client": (address, 1), "path": path, "headers": headers}
        self.turns.take(scope, lambda: self.begun.append(name), lambda: self.given_up.append(name))

    def ask_often(self, name: str, times: int, **how: str) -> None:
        for number in range(times):
            self.ask(f"{name}{number}", **how)

    async def pass_turns(self, count: int, *, coming: bool = False) -> list[int]:
        """How many were begun after each of ``count`` turns of the loop."""
        found = []
        for _ in range(count):
            if coming:
                self.turns.connection_came()
            await asyncio.sleep(0)
            found.append(len(self.begun))
        return found


@pytest.fixture
async def door() -> Door:
    return Door()


async def test_a_request_alone_is_begun_at_once(door: Door) -> None:
    for number in range(3):
        door.ask(str(number))
        assert len(door.begun) == number + 1
        await door.pass_turns(1)


async def test_connections_that_keep_coming_are_taken_before_requests(door: Door) -> None:
    door.turns.connection_came()
    door.ask_often("r", 50)
    assert not door.begun, "a connection has come in this turn"
    while_coming = await door.pass_turns(128, coming=True)
    assert 3 <= while_coming[-1] <= 5, "nobody waits for ever, though they never end"
    assert all(after - before <= 1 for before, after in pairwise(while_coming))
    behind = await door.pass_turns(6)
    assert behind[-1] == 50, "as soon as none comes any more"
    assert max(after - before for before, after in pairwise(behind)) == 16
    assert door.begun == [f"r{number}" for number in range(50)]


async def test_requests_are_not_begun_faster_where_others_have_the_processor(door: Door) -> None:
    door.turns.connection_came()
    door.ask_often("r", 100)
    for _ in range(64):
        time.sleep(0.006)  # so it is for a process that has no turn at the processor
        await door.pass_turns(1, coming=True)
    assert len(door.begun) <= 8, "connections are taken first"


async def test_a_newcomer_of_the_same_address_waits_behind_those_that_wait(door: Door) -> None:
    door.turns.connection_came()
    door.ask_often("r", 20)
    await door.pass_turns(1)
    door.ask("last")
    await door.pass_turns(2)
    assert door.begun[-1] == "last"
    assert len(door.begun) == 21


@pytest.mark.parametrize(
    "honest",
    [
        {"address": "10.0.0.2"},
        {"caller": "somebody known"},
        {"path": "/coze/health/live"},
        {"address": "2001:db8:0:2::1"},
    ],
)
@pytest.mark.parametrize("flood", [{"address": "10.0.0.1"}, {"caller": "a known one who asks thousands"}])
async def test_thousands_of_one_stand_behind_one_another_and_not_in_front_of_others(
    door: Door, flood: dict[str, str], honest: dict[str, str]
) -> None:
    door.turns.connection_came()
    door.ask_often("r", 3000, **flood)
    door.ask("honest", **honest)
    await door.pass_turns(2)
    assert "honest" in door.begun
    assert len(door.begun) <= 32


async def test_addresses_of_one_half_of_ipv6_are_one(door: Door) -> None:
    door.turns.connection_came()
    for number in range(200):
        door.ask(f"r{number}", address=f"2001:db8:0:1::{number:x}")
    door.ask("honest", address="2001:db8:0:2::1%eth0")
    await door.pass_turns(2)
    assert door.begun.index("honest") == 1


async def test_where_too_many_wait_the_newest_of_who_has_most_is_given_up(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NOT_BEGUN", 10)
    door.turns.connection_came()
    door.ask("known", caller="somebody")
    door.ask_often("r", 9)
    door.ask("honest", address="10.0.0.2")
    assert door.given_up == ["r8"]
    door.ask("r9")
    assert door.given_up == ["r8", "r9"]
    await door.pass_turns(2)
    assert len(door.begun) == 10
    assert door.turns.waiting == 0


async def test_of_requests_that_take_long_few_are_begun_in_a_turn_and_more_once_they_do_not(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen that take 40 ms each held everybody up for 0.6 s, in each turn."""
    work = 0.0
    monkeypatch.setattr(time, "thread_time", lambda: work)

    def take(seconds: float) -> None:
        nonlocal work
        work += seconds
        door.begun.append("")

    def ask(seconds: float) -> None:
        begin = partial(asyncio.get_running_loop().call_soon, take, seconds)
        door.turns.take({"client": None, "path": "/", "headers": []}, begin, lambda: None)

    for _ in range(60):
        ask(0.04)
    counts = [b - a for a, b in pairwise(await door.pass_turns(30))]
    assert max(counts[8:]) == 1
    for _ in range(200):
        ask(0.0001)
    counts = [b - a for a, b in pairwise(await door.pass_turns(60))]
    assert max(counts) == 16


async def test_nothing_goes_on_where_nothing_comes(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an idle process would turn its loop for ever."""
    door.turns.connection_came()
    door.ask("r")
    await door.pass_turns(4)
    assert door.begun
    loop = asyncio.get_running_loop()
    schedule, called = loop.call_soon, list[object]()

    def call_soon(callback: Callable[..., object], *values: object, **how: Any) -> asyncio.Handle:
        called.append(getattr(callback, "__self__", None))
        return schedule(callback, *values, **how)

    monkeypatch.setattr(loop, "call_soon", call_soon)
    await door.pass_turns(3)
    assert door.turns not in called
    door.turns.connection_came()
    assert door.turns in called, "this is how it would be seen"
