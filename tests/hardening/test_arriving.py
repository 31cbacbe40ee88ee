"""Bodies that arrive slowly, or not at all: one caller's do not keep out another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from app.utils.fair_turns import FairTurns
from coze_simulator.auth_server import RunningAuth
from tests.security.helpers import ALICE, ALICE_ELSEWHERE, BOB, calling
from tests.support import RunningApp, error_of, wait_until

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
        held = service.resources.arriving._held
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
        held = service.resources.arriving._held
        await wait_until(lambda: held[""] == 3)
        assert (await alice.post("/coze/sessions", json={})).status_code == 503
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await wait_until(lambda: not held)


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
    assert not turns._owners._queues
    assert not turns._roots._queues


async def test_who_gives_up_waiting_for_a_turn_leaves_it_to_the_next() -> None:
    turns = FairTurns()
    async with turns.taken("alice"):
        for owner in ("alice", "bob"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01), turns.taken(owner):
                    raise AssertionError("two have it")
    async with turns.taken("bob"):
        pass
    assert not turns._owners._queues
    assert not turns._roots._queues
