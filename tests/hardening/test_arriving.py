"""Bodies that arrive slowly, or not at all: one caller's do not keep out another's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from app.utils.fair_turns import FairTurns
from coze_simulator.auth_server import RunningAuth
from tests.security.helpers import ALICE, ALICE_ELSEWHERE, BOB, calling
from tests.support import RunningApp, SimControl, data_of, error_of, wait_until

Start = Callable[..., RunningApp]


OPENAI = "/coze/openai/v1/chat/completions"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
SHARES = {"COZE_OWNER_SHARE": "0.0008", "COZE_ROOT_SHARE": "0.0016"}
"""Of 4,096 places: three for one caller, six for his root."""


async def unfinished(begin: bytes) -> AsyncIterator[bytes]:
    yield begin
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("path", "headers", "begin"),
    [("/coze/sessions", JSON, b"{"), ("/coze/api/v3/chat", JSON, b"{"), ("/coze/files", FORM, b"--b\r\n")],
)
async def test_bodies_that_do_not_end_have_places_which_one_caller_cannot_fill(
    start_secured: Start, auth: RunningAuth, path: str, headers: dict[str, str], begin: bytes
) -> None:
    service = start_secured(**SHARES)
    async with calling(service, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:

        async def send() -> httpx.Response:
            return await alice.post(path, content=unfinished(begin), headers=headers)

        sending = [asyncio.create_task(send()) for _ in range(3)]
        held = service.resources.bodies._held
        await wait_until(lambda: held[""] == 3)
        refused = await alice.post("/coze/sessions", json={})
        assert refused.status_code == 503
        assert error_of(refused)["code"] == "OVERLOADED"
        assert error_of(refused)["details"]["layer"] == "owner"
        assert int(refused.headers["retry-after"]) >= 1
        for other in (bob, elsewhere):
            assert (await other.post("/coze/sessions", json={})).status_code == 400, "it was read"
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await wait_until(lambda: not held)
        assert (await alice.post("/coze/sessions", json={})).status_code == 400


async def test_a_body_takes_a_place_for_each_64_kib_of_what_has_arrived(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(**SHARES)
    async with calling(service, auth, ALICE) as [alice]:
        sending = asyncio.create_task(alice.post(OPENAI, content=unfinished(b"x" * 150_000), headers=JSON))
        held = service.resources.bodies._held
        await wait_until(lambda: held[""] == 3)
        assert (await alice.post("/coze/sessions", json={})).status_code == 503
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await wait_until(lambda: not held)


async def test_a_body_that_waits_for_its_turn_keeps_its_place(
    start_secured: Start, auth: RunningAuth
) -> None:
    """It is short, and has too many values to be read at once."""
    service = start_secured(**SHARES)
    body = b'{"user_id":"u","odd":[' + b"0," * 2500 + b"0]}"
    held, turns = service.resources.bodies._held, service.resources.big_bodies._brief_turns
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        turns._is_taken = True  # somebody else's takes long
        sending = [
            asyncio.create_task(alice.post("/coze/sessions", content=body, headers=JSON)) for _ in range(3)
        ]
        await wait_until(lambda: "moicen.com" in turns._roots and held[""] == 3)
        assert (await alice.post("/coze/sessions", json={})).status_code == 503
        assert (await bob.post("/coze/sessions", json={})).status_code == 400, "it was read"
        [turn, *_] = next(iter(turns._roots["moicen.com"]._others.values()))
        turn.get_loop().call_soon_threadsafe(turns._pass_on)
        assert {answer.status_code for answer in await asyncio.gather(*sending)} <= {200, 503}
        await wait_until(lambda: not held)


async def test_what_was_made_of_one_caller_s_bodies_does_not_keep_out_another_s(
    start_secured: Start, auth: RunningAuth, simulator: SimControl
) -> None:
    service = start_secured(**SHARES)
    held = service.resources.bodies._held
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(75_000)).decode()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + picture}}
    body = {"model": "coze", "messages": [{"role": "user", "content": [image]}]}
    many = {"model": "nobody", "messages": [{"role": "user"}] * 3000}
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        simulator.knob(path="/v1/files/upload", first_byte=4)
        sending = asyncio.create_task(alice.post(OPENAI, json=body))
        await wait_until(lambda: len(simulator.requests(path="/v1/files/upload")) == 1)
        assert held[""] > 3, "it counts until its picture is at Coze"
        assert (await alice.post("/coze/sessions", json={})).status_code == 503
        assert (await bob.post("/coze/sessions", json={})).status_code == 400, "it was read"
        refused = await bob.post(OPENAI, json=many)
        assert refused.status_code == 503, "what it becomes is known before it is made"
        assert (await sending).status_code == 200
        await wait_until(lambda: not held)
        assert (await bob.post(OPENAI, json=many)).status_code == 404, "it was read"


async def test_what_was_asked_is_let_go_of_while_a_message_s_answer_takes_its_time(
    start_secured: Start, auth: RunningAuth, simulator: SimControl
) -> None:
    service = start_secured(**SHARES)
    simulator.knob(match="takes its time", delay=4)
    held, body = (
        service.resources.bodies._held,
        {"message": "takes its time", "parameters": {"a": [[]] * 900}},
    )
    async with calling(service, auth, ALICE) as [alice]:
        session_id = data_of(await alice.post("/coze/sessions", json={"user_id": "u"}))["session_id"]
        sending = asyncio.create_task(alice.post(f"/coze/sessions/{session_id}/messages", json=body))
        await wait_until(lambda: simulator.requests(contains="takes its time"))
        await wait_until(lambda: not held)
        assert not sending.done()
        assert (await sending).status_code == 200


@pytest.mark.parametrize(
    "others",
    [["alice"] * 4, [f"acme|{name}" for name in ("alice", "carol", "dave", "erin")]],
    ids=["another one", "another root's"],
)
async def test_nobody_waits_behind_all_that_others_have_sent(others: list[str]) -> None:
    turns, order = FairTurns(), list[str]()

    async def work(owner: str) -> None:
        async with turns.taken(owner):
            order.append(owner)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for owner in (*others, "other|bob"):
            group.create_task(work(owner))
    assert order.index("other|bob") <= 1
    assert not turns._roots
    assert not turns._is_taken


async def test_who_gives_up_waiting_for_a_turn_leaves_it_to_the_next() -> None:
    turns = FairTurns()
    async with turns.taken("alice"):
        for owner in ("alice", "bob"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01), turns.taken(owner):
                    raise AssertionError("two have it")
    async with turns.taken("bob"):
        pass
    assert not turns._roots
    assert not turns._is_taken


async def test_who_goes_first_stands_before_his_own_root_s_others_alone() -> None:
    turns, order = FairTurns(), list[str]()

    async def work(name: str, owner: str, *, first: bool = False) -> None:
        async with turns.taken(owner, first=first):
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group, turns.taken("acme|alice"):
        for number in range(3):
            group.create_task(work(f"new {number}", "acme|alice"))
        group.create_task(work("new of bob", "acme|bob"))
        group.create_task(work("begun", "acme|alice", first=True))
        group.create_task(work("other root", "other|carol"))
        await asyncio.sleep(0)
    assert order == ["other root", "begun", "new of bob", "new 0", "new 1", "new 2"]


async def test_a_turn_that_was_given_to_who_is_gone_is_passed_on() -> None:
    turns = FairTurns()
    done = asyncio.Event()

    async def work(*, ends: bool) -> None:
        async with turns.taken("alice"):
            assert not ends
            done.set()

    async with turns.taken("bob"):
        leaving = asyncio.create_task(work(ends=True))
        staying = asyncio.create_task(work(ends=False))
        await asyncio.sleep(0)
    leaving.cancel()  # it has the turn, and does not know it yet
    await asyncio.gather(leaving, staying, return_exceptions=True)
    assert done.is_set()
    assert leaving.cancelled()
    assert not turns._is_taken
