"""Redis stopped, silent, or started again empty: said at once, survived, and over by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    SimControl,
    data_of,
    error_of,
    open_client,
    redis_server,
    wait_until,
)

SLOW = "[[sim:deltas=50;gap=0.05;reasoning=0]]"


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """With AOF: a restart loses nothing."""
    with redis_server(aof=True) as server:
        yield server
        assert server.keys_without_ttl() == []


async def is_healthy(client: Client) -> bool:
    return (await client.get("/coze/health")).status_code == 200


async def check_refused_unasked(client: Client, session_id: str, chat_id: str) -> None:
    """The first request finds Redis away; the others are refused without a command to it."""
    assert (await client.get(f"/coze/sessions/{session_id}")).status_code == 503
    sent = await client.redis_commands()
    for method, path, body in (
        ("POST", "/coze/sessions", {"user_id": "u"}),
        ("GET", f"/coze/sessions/{session_id}", None),
        ("GET", f"/coze/sessions/{session_id}/chats", None),
        ("DELETE", f"/coze/sessions/{session_id}", None),
        ("POST", f"/coze/sessions/{session_id}/messages", {"message": "hello"}),
        ("POST", f"/coze/sessions/{session_id}/messages", {"message": "hello", "stream": True}),
        ("GET", f"/coze/chats/{chat_id}/result", None),
        ("GET", f"/coze/chats/{chat_id}/result?wait=30", None),
    ):
        response = await client.http.request(method, path, json=body)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (503, "COZE_REDIS_ERROR"), (method, path)
        assert error["retryable"] is True
        assert int(response.headers["Retry-After"]) >= 1
    for path, status in (("/coze/health", 503), ("/coze/health/ready", 503), ("/coze/health/live", 200)):
        assert (await client.get(path)).status_code == status
    assert await client.redis_commands() == sent


async def test_while_redis_is_stopped_all_is_refused_unasked_and_nothing_is_lost(
    durable_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=durable_redis.url)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        before = data_of(await client.send(session_id, "before"))
        durable_redis.stop()
        await check_refused_unasked(client, session_id, before["chat_id"])
        durable_redis.start()
        await wait_until(lambda: is_healthy(client))
        assert data_of(await client.result(before["chat_id"])) == before
        assert "after" in data_of(await client.send(session_id, "after"))["content"]
        assert (await client.session(session_id))["chat_count"] == 2


async def test_a_redis_that_says_nothing_costs_one_time_out_and_then_nothing(
    own_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=own_redis.url, REDIS_TIMEOUT="0.5")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        chat_id = data_of(await client.send(session_id, "before"))["chat_id"]
        own_redis.pause()
        await check_refused_unasked(client, session_id, chat_id)
        own_redis.resume()
        await wait_until(lambda: is_healthy(client))
        assert (await client.send(session_id, "after")).status_code == 200


async def test_a_service_starts_without_redis_and_works_when_it_comes(
    own_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    own_redis.stop()
    service = start_app(REDIS_URL=own_redis.url)
    async with open_client(service.base_url) as client:
        assert (await client.get("/coze/health")).status_code == 503
        assert (await client.get("/coze/health/live")).status_code == 200
        own_redis.start()
        await wait_until(lambda: is_healthy(client))
        session_id = await client.open_session()
        assert (await client.send(session_id, "hello")).status_code == 200


async def test_a_running_chat_streams_on_while_redis_restarts(
    durable_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=durable_redis.url)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        async with client.stream(session_id, f"first {SLOW}") as reader:
            await reader.until("conversation.message.delta", times=3)
            durable_redis.stop()
            await reader.until("conversation.message.delta", times=3)
            durable_redis.start()
            await reader.all()
        chat = reader.result()
        assert chat["status"] == "completed"
        assert "first" in reader.text() == chat["content"]
        stored = await client.ended(reader.chat_id)
        assert (stored["status"], stored["content"]) == ("completed", chat["content"])
        assert "second" in data_of(await client.send(session_id, "second"))["content"]


async def test_an_end_that_redis_does_not_have_is_said_and_written_later(
    durable_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=durable_redis.url)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        async with client.stream(session_id, f"first {SLOW}") as reader:
            await reader.until("conversation.message.delta")
            durable_redis.stop()
            await reader.all()
        result = next(event for event in reader.seen if event.event == "result").json()
        assert result["data"]["resumable"] is False
        assert reader.result()["status"] == "completed"
        durable_redis.start()
        await asyncio.to_thread(service.wait_idle)  # written; until then the session is busy
        stored = await client.ended(reader.chat_id)
        assert stored == reader.result()
        assert (await client.send(session_id, "second")).status_code == 200


async def test_what_an_empty_redis_has_forgotten_a_running_chat_writes_again(
    own_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=own_redis.url)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        idle = await client.open_session("u-2")
        async with client.stream(session_id, f"first {SLOW}") as reader:
            await reader.until("conversation.message.delta", times=3)
            own_redis.kill()
            own_redis.start()
            await reader.all()
        stored = await client.ended(reader.chat_id)
        assert stored == reader.result()
        assert "first" in stored["content"]
        assert (await client.send(session_id, "second")).status_code == 200
        assert (await client.get(f"/coze/sessions/{idle}")).status_code == 404


async def test_scripts_that_redis_has_forgotten_are_sent_again(
    own_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=own_redis.url)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        for number in range(3):
            with own_redis.client() as redis:
                redis.script_flush()
            assert f"no {number}" in data_of(await client.send(session_id, f"no {number}"))["content"]


async def test_two_prefixes_share_one_redis_without_meeting(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    first = start_app(REDIS_URL=redis.url, COZE_REDIS_PREFIX="one:")
    second = start_app(REDIS_URL=redis.url, COZE_REDIS_PREFIX="two:")
    async with open_client(first.base_url) as one, open_client(second.base_url) as two:
        session_id = await one.open_session()
        assert (await one.send(session_id, "hello")).status_code == 200
        assert (await two.get(f"/coze/sessions/{session_id}")).status_code == 404
        keys = [key.split(":") for key in redis.key_names()]
        assert {key[0] for key in keys if key[-1] != "replicas"} == {"one"}  # which each says of itself


async def test_two_services_on_one_redis_see_the_same_sessions(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    first, second = (start_app(REDIS_URL=redis.url) for _ in range(2))
    async with open_client(first.base_url) as one, open_client(second.base_url) as two:
        session_id = await one.open_session()
        chat_id = await one.start(session_id, "hello [[sim:delay=2]]")
        busy = await two.send(session_id, "me too")
        assert (busy.status_code, error_of(busy)["details"]["chat_id"]) == (409, chat_id)
        chat = data_of(await two.result(chat_id, wait=20))
        assert chat["status"] == "completed"
        assert "next" in data_of(await two.send(session_id, "next"))["content"]
        assert (await one.session(session_id))["chat_count"] == 2


async def test_a_chat_whose_reader_leaves_while_redis_is_away_is_cancelled_afterwards(
    durable_redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    """OpenAI's clients cancel by hanging up, and nobody comes back for the answer."""
    service = start_app(REDIS_URL=durable_redis.url)
    body = {
        "model": "coze",
        "stream": True,
        "messages": [{"role": "user", "content": "first [[sim:deltas=400;gap=0.05;reasoning=0]]"}],
    }
    async with open_client(service.base_url) as client:
        async with client.http.stream("POST", "/coze/openai/v1/chat/completions", json=body) as response:
            await anext(response.aiter_bytes())
            durable_redis.stop()
            await wait_until(lambda: service.resources.redis.away)
        await wait_until(lambda: not service.resources.streams._held)
        assert simulator.requests(path="/v3/chat/cancel") == []
        durable_redis.start()
        await wait_until(lambda: simulator.requests(path="/v3/chat/cancel"))
        await asyncio.to_thread(service.wait_idle)


async def test_a_call_that_fails_behind_the_creation_of_its_chat_names_the_chat(
    durable_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=durable_redis.url)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        first = await client.start(session_id, SLOW)
        waiting = asyncio.ensure_future(client.send(session_id, "the second", on_busy="enqueue"))

        async def queued() -> bool:
            return (await client.session(session_id))["chat_count"] == 2

        await wait_until(queued)
        durable_redis.stop()
        refused = await waiting
        durable_redis.start()
        chat_id = refused.headers["X-Coze-Chat-Id"]
        assert (refused.status_code, error_of(refused)["details"]["chat_id"]) == (503, chat_id)
        assert chat_id != first
        await wait_until(lambda: is_healthy(client))
        assert "the second" in (await client.ended(chat_id))["content"]
