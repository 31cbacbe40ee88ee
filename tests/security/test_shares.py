"""A caller may name as many user ids as he likes: he gets an owner's share, a root domain its own, and others
are served. Each refusal names the layer and the setting."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from app.models import Identity
from app.tasks.limits import ServiceLimits
from coze_simulator.auth_server import RunningAuth
from tests.observability.support import scrape
from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    SimControl,
    data_of,
    error_of,
    make_settings,
    wait_until,
)

from .helpers import A_FILE, ALICE, ALICE_ELSEWHERE, BOB, BOB_ELSEWHERE, TESTER, calling

Start = Callable[..., RunningApp]
QUICK = "[[sim:deltas=2;reasoning=0;followups=0]] hello"
SLOW = "[[sim:delay=60]]"
PERSON, KEY = Identity("moicen.com", "alice").owner, Identity("api_key:app", None).owner


async def all_of(calls: Iterable[Awaitable[httpx.Response]], at_once: int = 20) -> list[httpx.Response]:
    gate = asyncio.Semaphore(at_once)

    async def one(call: Awaitable[httpx.Response]) -> httpx.Response:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


def told(response: httpx.Response) -> tuple[Any, ...]:
    """Status, code, layer and setting of a refusal; the message names the setting, too."""
    if response.status_code == 200:
        return (200,)
    error = error_of(response)
    assert error["retryable"] is True
    assert int(response.headers["retry-after"]) >= 1
    assert f"({error['details']['setting']})" in error["message"]
    assert str(error["details"]["limit"]) in error["message"]
    return response.status_code, error["code"], error["details"]["layer"], error["details"]["setting"]


async def open_session(client: Client, user: str) -> httpx.Response:
    return await client.post("/coze/sessions", json={"user_id": user})


async def ask(client: Client, user: str) -> httpx.Response:
    """A message without a session."""
    body = {"model": "coze", "messages": [{"role": "user", "content": QUICK}], "user": user}
    return await client.post("/coze/openai/v1/chat/completions", json=body)


# -- what the settings come to -----------------------------------------------------------------------------


def test_the_defaults_give_a_caller_a_fifth_and_a_root_four_fifths() -> None:
    limits = ServiceLimits.of(make_settings(ENABLE_AUTH="true"))
    assert limits.rates["messages"].numbers(PERSON) == [60, 240, 960, 1200]
    assert limits.rates["files"].numbers(PERSON) == [60, 240, 960, 1200]
    assert limits.rates["calls"].numbers(PERSON) == [60, 240, 960, 1200]
    assert limits.rates["reports"].numbers(PERSON) == [10, 40, 160, 200]
    assert limits.rates["sessions"].numbers(PERSON) == [30, 120, 480, 600]
    assert limits.sessions.numbers(PERSON) == [10, 1000, 4000, 5000]
    assert limits.users.numbers(PERSON) == [0, 200, 800, 1000]
    assert limits.chats.numbers(PERSON) == [0, 400, 1600, 2000]
    assert limits.streams.numbers(PERSON) == [0, 1000, 8000, 10_000]
    assert limits.tokens.numbers(PERSON) == [0, 0, 0, 0]
    assert limits.retries.bounds(PERSON) == [(PERSON, 10), ("moicen.com", 40), ("", 50)]


def test_an_api_key_is_a_root_and_has_its_share() -> None:
    limits = ServiceLimits.of(make_settings(ENABLE_AUTH="true"))
    assert limits.rates["messages"].numbers(KEY) == [60, 0, 960, 1200]
    assert limits.users.numbers(KEY) == [0, 0, 800, 1000]
    assert limits.streams.numbers(KEY) == [0, 1000, 8000, 10_000]
    assert limits.retries.bounds(KEY) == [("api_key:app", 40), ("", 50)]


def test_without_authentication_there_is_nobody_to_share_with() -> None:
    limits = ServiceLimits.of(make_settings(ENABLE_AUTH="false"))
    assert limits.users.numbers(Identity("local", None).owner) == [0, 0, 0, 1000]
    assert limits.rates["messages"].numbers(KEY) == [60, 0, 0, 1200]
    assert limits.retries.bounds(Identity("local", None).owner) == [("", 50)]


def test_a_rate_of_users_that_is_raised_or_switched_off_takes_the_layers_above_along() -> None:
    raised = ServiceLimits.of(make_settings(ENABLE_AUTH="true", RATE_LIMIT_MESSAGES_PER_MINUTE="1000"))
    assert raised.rates["messages"].numbers(PERSON) == [1000, 4000, 16_000, 20_000]
    off = ServiceLimits.of(make_settings(ENABLE_AUTH="true", RATE_LIMIT_MESSAGES_PER_MINUTE="0"))
    assert off.rates["messages"].numbers(PERSON) == [0, 0, 0, 0]
    users = {"ENABLE_AUTH": "true", "RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE": "0"}
    assert ServiceLimits.of(make_settings(**users)).rates["messages"].numbers(PERSON) == [60, 0, 0, 0]


def test_a_quota_of_users_bounds_the_layers_above_and_a_total_needs_no_quota_of_users() -> None:
    values = {"ENABLE_AUTH": "true", "COZE_MAX_ACTIVE_USERS": "50"}
    of_users = ServiceLimits.of(make_settings(**values, COZE_DAILY_TOKEN_QUOTA="100"))
    assert of_users.tokens.numbers(PERSON) == [100, 1000, 4000, 5000]
    of_all = ServiceLimits.of(make_settings(**values, COZE_TOTAL_DAILY_TOKEN_QUOTA="100"))
    assert of_all.tokens.numbers(PERSON) == [0, 20, 80, 100]


# -- sessions and users ------------------------------------------------------------------------------------


async def test_a_caller_who_makes_up_a_thousand_users_locks_nobody_out(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured()
    async with calling(service, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:
        answers = await all_of(open_session(alice, f"x{n}") for n in range(1010))
        refused = (429, "SESSION_LIMIT_REACHED", "owner", "COZE_OWNER_SHARE of COZE_MAX_ACTIVE_USERS")
        assert Counter(map(told, answers)) == {(200,): 200, refused: 810}
        assert told(await open_session(elsewhere, "u")) == (200,)
        assert told(await open_session(bob, "u")) == (200,)
        served = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
        assert told(await open_session(alice, f"x{served}")) == (200,), "who is there may go on"


async def test_callers_of_one_root_together_leave_room_for_another_root(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(COZE_MAX_ACTIVE_USERS="10", COZE_OWNER_SHARE="0.4", COZE_ROOT_SHARE="0.7")
    async with calling(service, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:
        greedy = (open_session(client, f"x{n}") for n in range(20) for client in (alice, bob))
        answers = Counter(map(told, await all_of(greedy)))
        assert answers[(200,)] == 7
        assert {layer for _, _, layer, *_ in (key for key in answers if len(key) > 1)} == {"owner", "root"}
        others = [told(await open_session(elsewhere, f"y{n}")) for n in range(4)]
        assert others == [(200,)] * 3 + [(429, "SESSION_LIMIT_REACHED", "service", "COZE_MAX_ACTIVE_USERS")]


async def test_sessions_count_for_caller_and_root_whatever_their_users(
    start_secured: Start, auth: RunningAuth, redis: RedisServer
) -> None:
    service = start_secured(COZE_MAX_TOTAL_SESSIONS="10", COZE_OWNER_SHARE="0.3", COZE_ROOT_SHARE="0.5")
    async with calling(service, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:
        mine = [told(await open_session(alice, f"x{n}")) for n in range(4)]
        setting = "COZE_OWNER_SHARE of COZE_MAX_TOTAL_SESSIONS"
        assert mine == [(200,)] * 3 + [(429, "SESSION_LIMIT_REACHED", "owner", setting)]
        his = [told(await open_session(bob, f"x{n}")) for n in range(3)]
        setting = "COZE_ROOT_SHARE of COZE_MAX_TOTAL_SESSIONS"
        assert his == [(200,)] * 2 + [(429, "SESSION_LIMIT_REACHED", "root", setting)]
        first = data_of(await open_session(alice, "x0"))["session_id"]  # in the place of x0's other one
        assert told(await open_session(elsewhere, "u")) == (200,)
        await alice.delete(f"/coze/sessions/{first}")
        assert told(await open_session(alice, "new")) == (200,), "an end gives the places of all layers back"


# -- rates -------------------------------------------------------------------------------------------------


async def test_three_hundred_messages_for_three_hundred_users_meet_the_caller_s_rate(
    start_secured: Start, auth: RunningAuth
) -> None:
    """The default, a sixth of it: 10 a minute for each user id, 40 for a caller. Tokens that come back while
    the messages are under way let some more pass."""
    service = start_secured(RATE_LIMIT_MESSAGES_PER_MINUTE="10")
    async with calling(service, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:
        begun = asyncio.get_running_loop().time()
        attack = asyncio.create_task(all_of(ask(alice, f"fake{n}") for n in range(300)))
        while not attack.done():
            for other in (bob, elsewhere):
                assert (await other.get("/coze/users/u/sessions")).status_code == 200
            await asyncio.sleep(0.2)
        passed = [answer for answer in attack.result() if answer.status_code == 200]
        seconds = asyncio.get_running_loop().time() - begun
        assert 40 <= len(passed) <= 40 + seconds * 40 / 60 + 1
        for answer in attack.result():
            if answer.status_code != 200:
                assert answer.status_code == 429
                assert "COZE_OWNER_SHARE of RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE" in answer.text
                assert answer.headers["ratelimit-limit"] == "40"
        for other in (bob, elsewhere):
            assert (await ask(other, "u")).status_code == 200


async def test_all_kinds_of_calls_meet_the_caller_s_rate_whatever_users_they_name(
    start_secured: Start, auth: RunningAuth
) -> None:
    """A minute's worth of each is 2; the machine may be slow, so that one more comes back meanwhile."""
    service = start_secured(
        RATE_LIMIT_MESSAGES_PER_MINUTE="5",
        RATE_LIMIT_SESSIONS_PER_MINUTE="5",
        RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE="10",
        RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE="10",
    )
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        opened = [await open_session(alice, f"x{n}") for n in range(6)]
        sessions = [data_of(answer)["session_id"] for answer in opened if answer.status_code == 200]
        sent = [await alice.send(sessions[n % len(sessions)], QUICK) for n in range(6)]
        files = [await alice.post(f"/coze/files?user_id=x{n}", files=A_FILE) for n in range(6)]
        for answers, kind in ((opened, "SESSIONS"), (sent, "MESSAGES"), (files, "MESSAGES")):
            counts = Counter(map(told, answers))
            setting = f"COZE_OWNER_SHARE of RATE_LIMIT_TOTAL_{kind}_PER_MINUTE"
            assert counts[429, "RATE_LIMITED", "owner", setting] >= 3
            assert counts[(200,)] >= 2
            assert len(counts) == 2
        assert (await bob.send(await bob.open_session("x0"), QUICK)).status_code == 200


async def test_what_goes_on_to_coze_and_what_costs_redis_much_meets_a_rate(
    start_secured: Start, auth: RunningAuth
) -> None:
    """12 calls a minute and 2 reports for a caller; one more may come back meanwhile."""
    service = start_secured(RATE_LIMIT_MESSAGES_PER_MINUTE="12", RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE="60")
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        sessions = [await alice.open_session(f"x{n}") for n in range(3)]
        for session_id in sessions:
            assert (await alice.send(session_id, QUICK)).status_code == 200
        calls = [
            await alice.http.request(method, f"/coze/sessions/{sessions[n % 3]}/{what}")
            for n in range(10)
            for method, what in (("GET", "history"), ("POST", "clear"))
        ]
        reports = [
            await alice.http.request(method, path)
            for n in range(4)
            for method, path in (("GET", "/coze/usage"), ("DELETE", f"/coze/users/x{n}"))
        ]
        for answers, most in ((calls, 12), (reports, 2)):
            counts = Counter(map(told, answers))
            setting = "COZE_OWNER_SHARE of RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE"
            assert most <= counts[(200,)] <= most + 2
            assert counts[429, "RATE_LIMITED", "owner", setting] == len(answers) - counts[(200,)]
        assert (await bob.get("/coze/usage")).status_code == 200
        assert (await bob.delete("/coze/users/x0")).status_code == 200


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"RATE_LIMIT_MESSAGES_PER_MINUTE": "1"}, "RATE_LIMITED"),
        ({"COZE_DAILY_TOKEN_QUOTA": "1"}, "QUOTA_EXCEEDED"),
        ({"MAX_CONCURRENT_CHATS": "1", "COZE_OWNER_SHARE": "1", "COZE_ROOT_SHARE": "1"}, "OVERLOADED"),
    ],
)
async def test_tool_outputs_cost_as_much_as_a_message_and_a_refusal_leaves_the_chat_waiting(
    start_secured: Start, auth: RunningAuth, settings: dict[str, str], code: str
) -> None:
    service = start_secured()
    strict = start_secured(**settings)
    async with calling(service, auth, ALICE) as [alice], calling(strict, auth, ALICE) as [refused]:
        session_id = await alice.open_session("x")
        waiting = data_of(await alice.send(session_id, "[[sim:requires_action=function]] weather?"))
        running = None
        if code == "OVERLOADED":
            running = await refused.start(await refused.open_session("y"), SLOW)
        else:
            assert (await refused.send(await refused.open_session("x"), QUICK)).status_code == 200
        answer = await refused.answer_tools(waiting, "21")
        assert error_of(answer)["code"] == code
        assert int(answer.headers["retry-after"]) >= 1
        assert data_of(await alice.result(waiting["chat_id"]))["status"] == "requires_action"
        assert data_of(await alice.answer_tools(waiting, "21"))["status"] == "completed"
        if running is not None:
            await refused.post(f"/coze/chats/{running}/cancel")


async def test_the_tokens_of_the_day_are_a_caller_s_whatever_users_he_names(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(COZE_TOTAL_DAILY_TOKEN_QUOTA="250")
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        tokens = 0
        for n in range(20):
            answer = await alice.send(await alice.open_session(f"x{n}"), QUICK)
            if answer.status_code != 200:
                break
            tokens += data_of(answer)["usage"]["token_count"]
        setting = "COZE_OWNER_SHARE of COZE_TOTAL_DAILY_TOKEN_QUOTA"
        assert told(answer) == (429, "QUOTA_EXCEEDED", "owner", setting)
        details = error_of(answer)["details"]
        assert (details["limit"], details["used"]) == (50, tokens)
        assert (await ask(alice, "another")).status_code == 429
        await alice.delete("/coze/users/x0")
        assert (await alice.send(await alice.open_session("x0"), QUICK)).status_code == 429
        assert (await bob.send(await bob.open_session("x0"), QUICK)).status_code == 200


# -- in the process ----------------------------------------------------------------------------------------


async def test_running_chats_are_shared_by_callers_and_roots(start_secured: Start, auth: RunningAuth) -> None:
    service = start_secured(MAX_CONCURRENT_CHATS="6", COZE_OWNER_SHARE="0.4", COZE_ROOT_SHARE="0.7")
    people = (ALICE, BOB, TESTER, ALICE_ELSEWHERE, BOB_ELSEWHERE)
    async with calling(service, auth, *people) as [alice, bob, tess, elsewhere, one_more]:

        async def send(client: Client, n: int) -> httpx.Response:
            session_id = await client.open_session(f"x{n}")
            return await client.send(session_id, SLOW, headers={"Prefer": "respond-async"})

        alices = await all_of(send(alice, n) for n in range(6))  # a burst
        refused = Counter(told(answer) for answer in alices if answer.status_code != 202)
        assert refused == {(429, "RATE_LIMITED", "owner", "COZE_OWNER_SHARE of MAX_CONCURRENT_CHATS"): 4}
        bobs = [await send(bob, n) for n in range(2)]
        root = await send(tess, 0)
        assert told(root) == (429, "RATE_LIMITED", "root", "COZE_ROOT_SHARE of MAX_CONCURRENT_CHATS")
        others = [await send(elsewhere, n) for n in range(2)]
        running = [answer for answer in (*alices, *bobs, *others) if answer.status_code == 202]
        assert len(running) == 6
        assert told(await send(one_more, 0)) == (503, "OVERLOADED", "service", "MAX_CONCURRENT_CHATS")
        for client, answers in ((alice, alices), (bob, bobs), (elsewhere, others)):
            for answer in answers:
                if answer.status_code == 202:
                    await client.post(f"/coze/chats/{data_of(answer)['chat_id']}/cancel")
        service.wait_idle()
        assert (await alice.send(await alice.open_session("x0"), QUICK)).status_code == 200


async def test_uploads_that_trickle_leave_connections_to_coze_for_others(
    start_secured: Start, auth: RunningAuth
) -> None:
    """Four connections, of which uploads may have a fifth, at least one: chats found none."""
    service = start_secured(COZE_MAX_CONNECTIONS="4", COZE_OWNER_SHARE="1", COZE_ROOT_SHARE="1")
    over = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + b"words " * 100
        )
        await over.wait()
        yield b"\r\n--b--\r\n"

    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        typed = {"Content-Type": "multipart/form-data; boundary=b"}

        async def upload() -> tuple[Any, ...]:
            return told(await alice.http.post("/coze/files", content=trickle(), headers=typed))

        uploads = [asyncio.create_task(upload()) for _ in range(6)]
        refused = {"limit": "uploads", "layer": "service"}
        await wait_until(lambda: scrape(service.base_url)("coze_refusals_total", **refused) == 5, pause=0.2)
        assert (await bob.send(await bob.open_session(), QUICK)).status_code == 200
        over.set()
        found = Counter(await asyncio.gather(*uploads))
    assert found.pop((503, "OVERLOADED", "service", "COZE_MAX_CONNECTIONS / 5")) == 5
    assert [status for status, *_ in found] == [200]


async def test_open_streams_are_shared_by_callers_and_roots_and_a_burst_does_not_slip_through(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(MAX_OPEN_STREAMS="10", COZE_OWNER_SHARE="0.3", COZE_ROOT_SHARE="0.5")
    people = (ALICE, BOB, ALICE_ELSEWHERE)
    async with calling(service, auth, *people) as clients, AsyncExitStack() as stack:
        chats = [await client.start(await client.open_session(), SLOW) for client in clients]

        async def read(which: int) -> tuple[Any, ...]:
            response = await stack.enter_async_context(
                clients[which].http.stream("GET", f"/coze/chats/{chats[which]}/events")
            )
            if response.status_code != 200:
                await response.aread()
            return told(response)

        setting = "COZE_OWNER_SHARE of MAX_OPEN_STREAMS"
        burst = Counter(await asyncio.gather(*(read(0) for _ in range(12))))
        assert burst == {(200,): 3, (429, "RATE_LIMITED", "owner", setting): 9}
        setting = "COZE_ROOT_SHARE of MAX_OPEN_STREAMS"
        assert [await read(1) for _ in range(3)] == [(200,)] * 2 + [(429, "RATE_LIMITED", "root", setting)]
        assert await read(2) == (200,)
        for client, chat_id in zip(clients, chats, strict=True):
            await client.post(f"/coze/chats/{chat_id}/cancel")
        await stack.aclose()
        async with clients[1].streaming("GET", f"/coze/chats/{chats[1]}/events") as reader:
            await reader.until("done")


# -- retries -----------------------------------------------------------------------------------------------


async def test_a_caller_whose_messages_coze_refuses_leaves_the_others_their_retries(
    start_secured: Start, auth: RunningAuth, simulator: SimControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.coze.retry._FIRST_PAUSE", 0.0)
    service = start_secured()
    async with calling(service, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:
        opened = await all_of(open_session(alice, f"x{n}") for n in range(40))
        sessions = [data_of(answer)["session_id"] for answer in opened]
        refused = await all_of(alice.send(session, "[[sim:fail=5000]] greedy") for session in sessions)
        assert {answer.status_code for answer in refused} == {502}
        tries = len(simulator.requests(path="/v3/chat", contains="greedy"))
        assert 40 < tries < 70, "some were sent again, and not all"
        for name, client in (("bob", bob), ("elsewhere", elsewhere)):
            session = data_of(await open_session(client, "u"))["session_id"]
            for number in range(2):
                simulator.knob(match=f"{name} {number}", times=1, http=503)
                assert (await client.send(session, f"{name} {number}")).status_code == 200
