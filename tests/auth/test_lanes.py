"""Who is checked when many are to be checked."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.auth.lanes import AT_ONCE, WAITING
from app.exceptions import AuthInvalid, AuthUnavailable

from .helpers import HOST, YES, Asked, Clock, forged, pretending, sub, token_for


def false(number: int, clock: Clock) -> str:
    return forged({"sub": sub(hty_id=f"f{number}"), "exp": clock() + 3600})


async def test_so_many_are_asked_at_once_and_who_finds_no_place_is_told_to_come_again() -> None:
    clock, gate = Clock(), asyncio.Event()

    async def hold(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200, json={**YES, "r": False})

    asked = Asked(hold)
    async with pretending(asked, clock, timeout=60) as verifier:
        total = AT_ONCE + WAITING
        flood = [asyncio.create_task(verifier.identify([false(n, clock)], [HOST])) for n in range(total + 5)]
        while len(asked.requests) < AT_ONCE:
            await asyncio.sleep(0)
        done, _ = await asyncio.wait(flood, timeout=0.05)
        assert len(asked.requests) == AT_ONCE
        assert len(done) == 5
        assert all(isinstance(each.exception(), AuthUnavailable) for each in done)
        gate.set()
        answers = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(each, AuthInvalid) for each in answers) == total


@pytest.mark.parametrize("who", ["of another root", "accepted before"])
async def test_false_tokens_are_in_nobody_elses_way(who: str) -> None:
    clock, gate = Clock(), asyncio.Event()
    true = token_for("u-true")

    async def judge(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] != true:
            await gate.wait()
        return httpx.Response(200, json=YES)

    asked = Asked(judge)
    async with pretending(asked, clock, cache_ttl=60) as verifier:
        if who == "accepted before":
            await verifier.identify([true], [HOST])
            clock.advance(61)  # it has to be asked about anew
        flood = [asyncio.create_task(verifier.identify([false(n, clock)], [HOST])) for n in range(400)]
        while len(asked.requests) < AT_ONCE:
            await asyncio.sleep(0)
        host = HOST if who == "accepted before" else "music.huiwings.cn"
        assert (await verifier.identify([true], [host])).hty_id == "u-true"
        gate.set()
        await asyncio.gather(*flood, return_exceptions=True)
