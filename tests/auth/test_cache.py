"""What is remembered, for how long, and one call for many."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.auth.cache import Accepted, Refused, Unanswered, VerdictCache, cache_key
from app.exceptions import AuthInvalid, AuthUnavailable
from app.models import Identity
from app.observing.metrics import Metrics
from coze_simulator.auth_server import RunningAuth

from .helpers import HOST, YES, Asked, Clock, calling, counted, forged, pretending, sub, token_for, verifying


async def test_a_yes_is_believed_for_its_time(clock: Clock) -> None:
    asked = Asked()
    async with pretending(asked, clock, cache_ttl=60) as verifier:
        token = token_for()
        for seconds, calls in (0, 1), (59.9, 1), (0.2, 2), (59.9, 2), (60, 3):
            clock.advance(seconds)
            await verifier.identify([token], [HOST])
            assert len(asked.requests) == calls


async def test_a_yes_is_not_believed_past_the_end_of_the_token(clock: Clock) -> None:
    asked = Asked()
    async with pretending(asked, clock, cache_ttl=60) as verifier:
        token = forged({"sub": sub(), "exp": clock() + 30})
        clock.advance(29)
        await verifier.identify([token], [HOST])
        clock.advance(2)
        with pytest.raises(AuthInvalid, match="expired"):
            await verifier.identify([token], [HOST])
    assert len(asked.requests) == 1


async def test_a_no_is_believed_for_five_seconds(auth: RunningAuth, clock: Clock) -> None:
    token = auth.app.issue("u-1")
    auth.app.mode = "no"
    async with verifying(clock, verify_url=auth.verify_url) as verifier:
        for _ in range(2):
            with pytest.raises(AuthInvalid):
                await verifier.identify([token], [HOST])
        auth.app.mode = "ok"
        clock.advance(4.9)
        with pytest.raises(AuthInvalid):
            await verifier.identify([token], [HOST])
        assert auth.app.calls == 1
        clock.advance(0.2)
        assert (await verifier.identify([token], [HOST])).hty_id == "u-1"


async def test_a_revoked_token_is_out_when_the_yes_has_aged(auth: RunningAuth, clock: Clock) -> None:
    token = auth.app.issue("u-1")
    async with verifying(clock, verify_url=auth.verify_url, cache_ttl=60) as verifier:
        await verifier.identify([token], [HOST])
        auth.app.revoke(token)
        clock.advance(60)
        with pytest.raises(AuthInvalid):
            await verifier.identify([token], [HOST])


async def test_a_time_of_zero_remembers_nothing(clock: Clock) -> None:
    asked = Asked()
    async with pretending(asked, clock, cache_ttl=0) as verifier:
        token = token_for()
        for _ in range(3):
            await verifier.identify([token], [HOST])
    assert len(asked.requests) == 3


# -- the memory itself ------------------------------------------------------------------------------------


def make_cache(clock: Clock, size: int = 8) -> VerdictCache:
    return VerdictCache(max_entries=size, accepted_ttl=60, refused_ttl=5, ticks=clock)


def accepted(name: str = "u") -> Accepted:
    return Accepted(Identity("moicen.com", name), exp=1e12)


def test_the_least_recently_used_go_first_and_there_is_a_bound(clock: Clock) -> None:
    cache = make_cache(clock, 8)
    for number in range(6):
        cache.put(b"%d" % number, accepted(str(number)))
    assert cache.get(b"0") == accepted("0")
    cache.put(b"6", accepted("6"))
    assert cache.get(b"1") is None
    assert cache.get(b"0") == accepted("0")
    for number in range(100):
        cache.put(b"x%d" % number, accepted())
        cache.put(b"y%d" % number, Refused("no"))
    assert len(cache) == 8


def test_a_flood_of_wrong_tokens_pushes_out_nobody_who_is_known(clock: Clock) -> None:
    cache = make_cache(clock, 10_000)
    cache.put(b"known", accepted())
    for number in range(20_000):
        cache.put(b"%d" % number, Refused("no"))
    assert cache.get(b"known") == accepted()
    assert len(cache) <= 10_000


def test_the_newest_verdict_counts(clock: Clock) -> None:
    cache = make_cache(clock)
    for verdict in (accepted(), Refused("no"), accepted("v")):
        cache.put(b"k", verdict)
        assert cache.get(b"k") == verdict
        assert len(cache) == 1
    cache.put(b"k", Unanswered())
    assert cache.get(b"k") == accepted("v")


def test_what_has_aged_leaves(clock: Clock) -> None:
    cache = make_cache(clock)
    cache.put(b"k", Refused("no"))
    clock.advance(5)
    assert cache.get(b"k") is None
    assert len(cache) == 0


def test_keys_give_nobody_the_token_and_do_not_run_together() -> None:
    assert cache_key("a", "b") != cache_key("ab", "") != cache_key("", "ab")
    assert len(cache_key(token_for(), "moicen.com")) == 32


# -- one call for many ------------------------------------------------------------------------------------


async def test_500_at_once_with_a_new_token_make_one_call(auth: RunningAuth, clock: Clock) -> None:
    headers = {"HtySudoerToken": auth.app.issue("u-1"), "HtyHost": HOST}
    metrics = Metrics()
    async with (
        verifying(clock, verify_url=auth.verify_url, metrics=metrics) as verifier,
        calling(verifier) as client,
    ):
        answers = await asyncio.gather(*(client.get("/who", headers=headers) for _ in range(500)))
        assert {answer.status_code for answer in answers} == {200}
    assert auth.app.calls == 1
    results = counted(metrics, "coze_auth_cache_total")
    assert (results["miss"], results.get("hit", 0) + results["joined"]) == (1, 499)


async def test_500_at_once_share_a_failure_too_and_each_gets_an_error_of_its_own(
    auth: RunningAuth, clock: Clock
) -> None:
    token = auth.app.issue("u-1")
    auth.app.mode = "500"
    async with verifying(clock, verify_url=auth.verify_url) as verifier:
        calls = (verifier.identify([token], [HOST]) for _ in range(500))
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {AuthUnavailable}
    assert len({id(error) for error in errors}) == 500
    assert auth.app.calls == 1


class Held(Asked):
    """Answers when released."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.asked = asyncio.Event()
        self.release = asyncio.Event()

    async def _wait(self, _: httpx.Request) -> httpx.Response:
        self.asked.set()
        await self.release.wait()
        return httpx.Response(200, json=YES)


async def test_a_caller_who_leaves_takes_nobody_along(clock: Clock) -> None:
    held = Held()
    async with pretending(held, clock) as verifier:
        token = token_for()
        first, second, third = (asyncio.create_task(verifier.identify([token], [HOST])) for _ in range(3))
        await held.asked.wait()
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert second.cancelled()
        held.release.set()
        assert (await third).hty_id == "u-1"
        assert len(held.requests) == 1


async def test_the_answer_is_kept_though_every_caller_left(clock: Clock) -> None:
    held = Held()
    async with pretending(held, clock) as verifier:
        token = token_for()
        caller = asyncio.create_task(verifier.identify([token], [HOST]))
        await held.asked.wait()
        flights = list(verifier._flights.values())
        caller.cancel()
        held.release.set()
        await asyncio.wait([caller, *flights])
        await verifier.identify([token], [HOST])
    assert len(held.requests) == 1
    assert verifier._flights == {}


async def test_closing_ends_the_calls_under_way(clock: Clock) -> None:
    held = Held()
    async with pretending(held, clock) as verifier:
        caller = asyncio.create_task(verifier.identify([token_for()], [HOST]))
        await held.asked.wait()
        await verifier.aclose()
        with pytest.raises(AuthUnavailable):
            await caller
        await verifier.aclose()


async def test_different_tokens_do_not_wait_for_each_other(clock: Clock) -> None:
    slow, quick = token_for("slow"), token_for("quick")
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == slow:
            await release.wait()
        return httpx.Response(200, json=YES)

    async with pretending(Asked(answer), clock) as verifier:
        waiting = asyncio.create_task(verifier.identify([slow], [HOST]))
        assert (await verifier.identify([quick], [HOST])).hty_id == "quick"
        assert not waiting.done()
        release.set()
        assert (await waiting).hty_id == "slow"
