"""Who is checked when many are to be checked."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.auth.lanes import AT_ONCE, WAITING
from app.auth.verifier import HtyVerifier
from app.exceptions import AuthInvalid, AuthUnavailable
from app.models import Identity

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


async def known_callers(verifier: HtyVerifier, clock: Clock, number: int) -> list[str]:
    """Tokens of root ``HOST`` that were accepted, and have to be asked about anew."""
    tokens = [token_for(f"u-{each}") for each in range(number)]
    for token in tokens:
        await verifier.identify([token], [HOST])
    clock.advance(61)
    return tokens


def identify(verifier: HtyVerifier, tokens: list[str]) -> list[asyncio.Task[Identity]]:
    return [asyncio.create_task(verifier.identify([token], [HOST])) for token in tokens]


@pytest.mark.parametrize("known", [True, False], ids=["accepted before", "for the first time"])
async def test_a_root_whose_auth_service_hangs_is_in_nobody_elses_way(known: bool) -> None:
    clock, hangs = Clock(), asyncio.Event()
    other = token_for("u-other")

    async def judge(request: httpx.Request) -> httpx.Response:
        if hangs.is_set() and request.headers["htyhost"].endswith("moicen.com"):
            await asyncio.Event().wait()
        return httpx.Response(200, json=YES)

    asked = Asked(judge)
    async with pretending(asked, clock, cache_ttl=60, timeout=60) as verifier:
        theirs = await known_callers(verifier, clock, 2 * AT_ONCE)
        if known:
            await verifier.identify([other], ["music.huiwings.cn"])
            clock.advance(61)
        hangs.set()
        already = len(asked.requests)
        waiting = identify(verifier, theirs)
        while len(asked.requests) < already + AT_ONCE:
            await asyncio.sleep(0)
        assert (await verifier.identify([other], ["music.huiwings.cn"])).hty_id == "u-other"
        assert len(asked.requests) == already + AT_ONCE + 1
        for each in waiting:
            each.cancel()


async def test_while_the_auth_service_does_not_answer_one_is_asked_about_in_a_second() -> None:
    clock, hangs = Clock(), asyncio.Event()

    async def judge(_: httpx.Request) -> httpx.Response:
        if hangs.is_set():
            await asyncio.Event().wait()
        return httpx.Response(200, json=YES)

    asked = Asked(judge)
    async with pretending(asked, clock, cache_ttl=60, timeout=0.2) as verifier:
        tokens = await known_callers(verifier, clock, AT_ONCE)
        hangs.set()
        found = await asyncio.gather(*identify(verifier, tokens), return_exceptions=True)
        assert all(isinstance(each, AuthUnavailable) for each in found)

        already = len(asked.requests)
        for _ in range(3):
            found = await asyncio.gather(*identify(verifier, tokens), return_exceptions=True)
            assert all(isinstance(each, AuthUnavailable) for each in found)
        assert len(asked.requests) == already + 1
        clock.advance(1)
        await asyncio.gather(*identify(verifier, tokens), return_exceptions=True)
        assert len(asked.requests) == already + 2

        hangs.clear()
        clock.advance(1)
        assert (await verifier.identify([tokens[0]], [HOST])).hty_id == "u-0"
        answers = await asyncio.gather(*identify(verifier, tokens[1:]))
        assert [each.hty_id for each in answers] == [f"u-{number}" for number in range(1, AT_ONCE)]


@pytest.mark.parametrize("answer", [httpx.Response(200, json=YES), httpx.Response(500)], ids=["yes", "500"])
async def test_an_answer_between_them_says_that_the_auth_service_is_there(answer: httpx.Response) -> None:
    clock, hangs = Clock(), asyncio.Event()
    answered = token_for("u-answered")

    async def judge(request: httpx.Request) -> httpx.Response:
        if not hangs.is_set():
            return httpx.Response(200, json=YES)
        if request.headers["authorization"] != answered:
            await asyncio.Event().wait()
        return answer

    asked = Asked(judge)
    async with pretending(asked, clock, cache_ttl=60, timeout=0.1) as verifier:
        tokens = await known_callers(verifier, clock, AT_ONCE)
        await verifier.identify([answered], [HOST])
        clock.advance(61)
        hangs.set()
        await asyncio.gather(*identify(verifier, tokens[1:]), return_exceptions=True)
        await asyncio.gather(*identify(verifier, [answered]), return_exceptions=True)
        already = len(asked.requests)
        await asyncio.gather(*identify(verifier, tokens), return_exceptions=True)
        assert len(asked.requests) == already + AT_ONCE
