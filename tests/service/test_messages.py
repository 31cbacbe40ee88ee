"""Messages that are not streamed: how long a call waits, what it says, and that a chat goes on by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    SimControl,
    data_of,
    error_of,
    open_client,
    wait_until,
)

SLOW = "[[sim:delay=30]]"
LESS_THAN_THE_WAIT = 50.0
"""Whoever waits for 60 seconds and hears something sooner has not waited to the end."""


async def test_a_message_is_answered_whole(each_client: Client) -> None:
    session_id = await each_client.open_session()
    response = await each_client.send(session_id, "Tell me of the sea")
    chat = data_of(response)
    assert response.status_code == 200
    assert response.json()["data"]["task_id"] == chat["chat_id"] == response.headers["X-Coze-Chat-Id"]
    assert response.json()["data"]["task_status"] == chat["status"] == "completed"
    assert "Tell me of the sea" in chat["content"]
    assert chat["content"] == chat["assistant_message"]["content"]
    assert chat["reasoning_content"]
    assert len(chat["follow_up_questions"]) == 3
    usage = chat["usage"]
    assert usage["token_count"] == usage["input_count"] + usage["output_count"] > 0
    assert response.headers["X-Coze-Logid"] == chat["metadata"]["logid"]
    assert data_of(await each_client.result(chat["chat_id"])) == chat
    assert (await each_client.session(session_id))["chat_history"] == [chat]


async def test_the_bot_remembers_what_was_said_in_the_session(each_client: Client) -> None:
    client = each_client
    opening = [{"role": "user", "content": "I live in Lisbon."}]
    session_id = await client.open_session(additional_messages=opening)
    await client.send(session_id, "I have two cats.")
    await client.send(session_id, "I like figs.")
    recalled = data_of(await client.send(session_id, "What did I say before?"))["content"]
    for said in ("I live in Lisbon.", "I have two cats.", "I like figs."):
        assert recalled.count(said) == 1, recalled


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("respond-async", "respond-async"), ("wait=0", "wait=0"), ("respond-async, wait=1", "wait=1")],
)
async def test_a_caller_may_say_how_long_it_waits(prefer: str, applied: str, client: Client) -> None:
    session_id = await client.open_session()
    response = await client.send(session_id, SLOW, headers={"Prefer": prefer})
    chat = data_of(response)
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == applied
    assert response.headers["Location"] == f"/coze/chats/{chat['chat_id']}/result"
    assert response.json()["data"]["task_status"] == "processing"
    assert data_of(await client.get(response.headers["Location"]))["chat_id"] == chat["chat_id"]
    await client.delete(f"/coze/sessions/{session_id}")


@pytest.mark.parametrize("prefer", ["wait=601", "wait=-1", "wait", "return=minimal", "wait=soon", ""])
async def test_a_preference_that_is_not_understood_is_ignored(prefer: str, client: Client) -> None:
    session_id = await client.open_session()
    response = await client.send(session_id, "hello", headers={"Prefer": prefer})
    assert response.status_code == 200
    assert "Preference-Applied" not in response.headers


async def test_an_answer_in_time_is_whole_and_says_what_was_preferred(client: Client) -> None:
    session_id = await client.open_session()
    response = await client.send(session_id, "hello", headers={"Prefer": "wait=20"})
    assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=20")


async def test_without_a_preference_the_setting_counts(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_TIMEOUT="0.3")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        began = time.monotonic()
        response = await client.send(session_id, "later [[sim:delay=2]]")
        assert time.monotonic() - began >= 0.3
        assert (response.status_code, data_of(response)["status"]) == (202, "processing")
        chat = await client.ended(data_of(response)["chat_id"])
        assert chat["status"] == "completed"
        assert "later" in chat["content"]


async def test_a_result_can_be_waited_for(each_client: Client) -> None:
    session_id = await each_client.open_session()
    chat_id = await each_client.start(session_id, "soon [[sim:delay=1.5]]")
    assert data_of(await each_client.result(chat_id))["status"] == "processing"
    async with asyncio.timeout(LESS_THAN_THE_WAIT):
        chats = await asyncio.gather(*(each_client.result(chat_id, wait=60) for _ in range(5)))
    assert {data_of(chat)["status"] for chat in chats} == {"completed"}
    assert data_of(await each_client.result(chat_id, wait=30)) == data_of(chats[0])


async def test_a_wait_ends_with_the_chat_as_it_stands(client: Client) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, SLOW)
    began = time.monotonic()
    response = await client.result(chat_id, wait=0.3)
    assert time.monotonic() - began >= 0.3
    assert (response.status_code, data_of(response)["status"]) == (200, "processing")
    assert response.json()["data"]["task_status"] == "processing"
    await client.delete(f"/coze/sessions/{session_id}")


async def test_a_waiting_caller_hears_at_once_that_the_chat_was_cancelled(client: Client) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, SLOW)
    waiting = asyncio.create_task(client.result(chat_id, wait=60))
    await client.delete(f"/coze/sessions/{session_id}")
    async with asyncio.timeout(LESS_THAN_THE_WAIT):
        chat = data_of(await waiting)
    assert chat["status"] == "cancelled"
    assert chat["completed_at"]


async def test_ending_a_session_cancels_its_chat_at_coze(client: Client, simulator: SimControl) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, SLOW)
    await wait_until(lambda: simulator.requests(path="/v3/chat"))
    await client.delete(f"/coze/sessions/{session_id}")
    chat = data_of(await client.result(chat_id))
    assert chat["status"] == "cancelled"
    [cancelled] = simulator.requests(path="/v3/chat/cancel")
    assert cancelled["code"] == 0


async def test_a_caller_that_hangs_up_does_not_stop_the_chat(
    each_client: Client, simulator: SimControl
) -> None:
    client = each_client
    session_id = await client.open_session()
    waiting = asyncio.create_task(client.send(session_id, "I am gone [[sim:delay=1]]"))
    await wait_until(lambda: simulator.requests(path="/v3/chat"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    chat_id = (await client.session(session_id))["chat_history"][0]["chat_id"]
    chat = await client.ended(chat_id)
    assert chat["status"] == "completed"
    assert "I am gone" in chat["content"]
    assert len(simulator.requests(path="/v3/chat")) == 1
    assert simulator.requests(path="/v3/chat/cancel") == []
    assert (await client.send(session_id, "back")).status_code == 200


async def test_a_chat_without_the_stream_is_polled(
    start_app: Callable[..., RunningApp], simulator: SimControl
) -> None:
    service = start_app(COZE_USE_STREAM="false")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        async with client.stream(session_id, "polled [[sim:delay=0.3]]") as reader:
            await reader.all()
        assert reader.result()["status"] == "completed"
        assert "polled" in reader.result()["content"]
        assert reader.result()["recovered"] is False
        assert reader.result()["usage"]["token_count"] > 0
        [asked] = simulator.requests(path="/v3/chat")
        assert asked["stream"] is False
        unsaved = await client.open_session("u-2", auto_save_history=False)
        assert "kept nowhere" in data_of(await client.send(unsaved, "kept nowhere"))["content"]
        assert simulator.requests(path="/v3/chat")[-1]["stream"] is True


async def test_chats_are_paged_newest_first(each_client: Client) -> None:
    client = each_client
    session_id = await client.open_session()
    sent = [data_of(await client.send(session_id, f"no {n}"))["chat_id"] for n in range(5)]
    seen: list[str] = []
    before = ""
    while True:
        page = data_of(
            await client.get(f"/coze/sessions/{session_id}/chats", params={"limit": 2, "before": before})
        )
        seen += [chat["chat_id"] for chat in page["chats"]]
        if not page["has_more"]:
            assert page["next_before"] is None
            break
        before = page["next_before"]
    assert seen == sent[::-1]
    session = await client.session(session_id, history_limit=2)
    assert [chat["chat_id"] for chat in session["chat_history"]] == sent[:2:-1]
    assert session["chat_count"] == 5
    for limit in ("0", "101", "x"):
        answer = await client.get(f"/coze/sessions/{session_id}/chats", params={"limit": limit})
        assert answer.status_code == 400


async def test_past_the_limit_a_users_least_recent_idle_session_goes(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_MAX_SESSIONS_PER_USER="2", COZE_MAX_TOTAL_SESSIONS="3")
    async with open_client(service.base_url) as client:
        first, second = [await client.open_session("a") for _ in range(2)]
        chat_id = await client.start(first, SLOW)
        third = await client.open_session("a")
        gone = await client.get(f"/coze/sessions/{second}")
        assert (gone.status_code, error_of(gone)["code"]) == (410, "COZE_SESSION_TERMINATED")
        assert (await client.session(first))["status"] == "active"
        assert (await client.session(third))["status"] == "active"
        await client.open_session("b")
        full = await client.post("/coze/sessions", json={"user_id": "c"})
        assert (full.status_code, error_of(full)["code"]) == (429, "SESSION_LIMIT_REACHED")
        assert int(full.headers["Retry-After"]) >= 1
        await client.delete(f"/coze/sessions/{first}")
        assert data_of(await client.result(chat_id))["status"] == "cancelled"
        assert (await client.post("/coze/sessions", json={"user_id": "c"})).status_code == 200


async def test_a_session_that_ran_out_says_that_it_has_expired(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_SESSION_EXPIRE="1")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()

        async def over() -> bool:
            # Paging is no activity, so looking does not keep the session alive.
            response = await client.get(f"/coze/sessions/{session_id}/chats")
            return response.status_code == 410 and error_of(response)["code"] == "COZE_SESSION_EXPIRED"

        await wait_until(over, pause=0.1)
        response = await client.send(session_id, "too late")
        assert (response.status_code, error_of(response)["code"]) == (410, "COZE_SESSION_EXPIRED")
        assert error_of(await client.delete(f"/coze/sessions/{session_id}"))["code"] == "COZE_SESSION_EXPIRED"
