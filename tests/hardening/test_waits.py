"""What keeps a connection for long has a place, whatever it is called; what is large takes several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from coze_simulator.auth_server import RunningAuth
from tests.security.helpers import ALICE, BOB, calling
from tests.support import Client, RunningApp, data_of, error_of, wait_until

Start = Callable[..., RunningApp]
SLOW = "[[sim:deltas=2000;gap=0.2]]"
OPENAI = "/coze/openai/v1/chat/completions"


async def endless() -> AsyncIterator[bytes]:
    """A form whose file never ends."""
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + b"text " * 200
    await asyncio.sleep(60)


Wait = Callable[[Client, str, str], Awaitable[httpx.Response]]
WAITS: dict[str, Wait] = {
    "for a result": lambda client, _, chat: client.get(f"/coze/chats/{chat}/result?wait=60"),
    "for an answer": lambda client, session, _: client.send(session, SLOW, headers={"Prefer": "wait=60"}),
    "for OpenAI's answer": lambda client, _, __: client.post(
        OPENAI, json={"model": "coze", "messages": [{"role": "user", "content": SLOW}]}
    ),
    "for a file": lambda client, _, __: client.post(
        "/coze/files", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name == "for a file" else []) for name in WAITS]
)
async def test_who_waits_has_a_place_and_is_refused_without_one(
    start_secured: Start, auth: RunningAuth, name: str
) -> None:
    service = start_secured(MAX_OPEN_STREAMS_PER_CALLER="2")
    wait = WAITS[name]
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        sessions = [await alice.open_session(f"u{n}") for n in range(4)]
        chat = await alice.start(sessions[3], SLOW)
        waiting = [asyncio.create_task(wait(alice, session, chat)) for session in sessions[:2]]
        held = service.resources.streams._held
        await wait_until(lambda: held[""] == 2)
        running = 3 if "answer" in name else 1
        await wait_until(lambda: service.resources.chats.running == running)
        refused = await wait(alice, sessions[2], chat)
        assert refused.status_code == 429
        assert "(MAX_OPEN_STREAMS_PER_CALLER)" in refused.text
        assert int(refused.headers["retry-after"]) >= 1
        assert service.resources.chats.running == running, "refused before anything was begun"
        assert (await alice.result(chat)).status_code == 200, "who does not wait needs none"
        respond = await alice.send(sessions[2], SLOW, headers={"Prefer": "respond-async"})
        assert respond.status_code == 202
        his = await bob.start(await bob.open_session(), SLOW)
        assert (await bob.result(his, wait=0.05)).status_code == 200
        if name == "for a file":
            for task in waiting:
                task.cancel()
        await stop_all(service)
        await asyncio.gather(*waiting, return_exceptions=True)
        await wait_until(lambda: not held)


async def test_long_messages_take_several_of_the_chats_that_may_run(
    start_secured: Start, auth: RunningAuth
) -> None:
    """Ten for the caller, of 64 KiB each: three of 190 KiB, and one that is short."""
    service = start_secured(MAX_CONCURRENT_CHATS="10", COZE_OWNER_SHARE="1", COZE_ROOT_SHARE="1")
    said = [{"role": "user", "content": "x" * 95_000}] * 2
    async with calling(service, auth, ALICE) as [alice]:

        async def ask(user: str, **body: object) -> httpx.Response:
            message = {"message": SLOW, **body}
            path = f"/coze/sessions/{await alice.open_session(user)}/messages"
            return await alice.post(path, json=message, headers={"Prefer": "respond-async"})

        answers = [await ask(f"u{n}", additional_messages=said) for n in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 503, 503]
        assert error_of(answers[4])["code"] == "OVERLOADED"
        assert (await ask("short")).status_code == 202
        assert (await ask("one too many")).status_code == 503
        await alice.post(f"/coze/chats/{data_of(answers[0])['chat_id']}/cancel")
        await wait_until(lambda: service.resources.chats.running == 3)
        assert (await ask("u9", additional_messages=said)).status_code == 202
        await stop_all(service)


async def test_opening_messages_have_a_bound_of_their_own(start_secured: Start, auth: RunningAuth) -> None:
    service = start_secured(COZE_MAX_OPENING_BYTES="2000")
    async with calling(service, auth, ALICE) as [alice]:
        for size, status in ((1900, 200), (2000, 400)):
            body = {"user_id": "u", "additional_messages": [{"role": "user", "content": "x" * size}]}
            answer = await alice.post("/coze/sessions", json=body)
            assert answer.status_code == status
        assert "COZE_MAX_OPENING_BYTES" in answer.text


async def stop_all(service: RunningApp) -> None:
    running = service.resources.chats._running

    async def cancel() -> None:
        for chat_id, _ in running.held():
            if (job := running.get(chat_id)) is not None:
                job.cancel()

    service.call(cancel)
    await asyncio.to_thread(service.wait_idle)


async def test_little_is_kept_of_a_conversation_that_a_client_of_coze_s_makes(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured()
    create, lists = (
        "/coze/api/v1/conversation/create",
        "/coze/api/v1/conversations?bot_id=7380000000000000009",
    )
    async with calling(service, auth, ALICE) as [alice]:
        for size in (1, 15):
            body = {"bot_id": "7380000000000000009", "meta_data": {f"k{n}": "v" * 500 for n in range(size)}}
            assert (await alice.post(create, json=body)).json()["code"] == 0
        found = (await alice.get(lists)).json()["data"]["conversations"]
        assert sorted(len(each.get("meta_data") or {}) for each in found) == [0, 1]
        assert all(each["id"] for each in found)
