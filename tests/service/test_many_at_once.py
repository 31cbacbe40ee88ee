"""Hundreds of sessions at once: nothing lost, nothing mixed. Every answer is checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.support import Client, RedisServer, RunningApp, ServiceProcess, SimControl, data_of, open_client

WORD = re.compile(r"word\d{5}[ab]")


async def talk(client: Client, number: int) -> None:
    """Two messages, one whole and one streamed, then what the bot remembers; only own words in each."""
    first, second = f"word{number:05d}a", f"word{number:05d}b"
    session_id = await client.open_session(f"user-{number}")
    chat = data_of(await client.send(session_id, f"Tell me of {first} [[sim:gap=0.005;deltas=20]]"))
    assert set(WORD.findall(chat["content"])) == {first}
    async with client.stream(session_id, f"Tell me of {second} [[sim:gap=0.005;deltas=20]]") as reader:
        await reader.all()
    assert set(WORD.findall(reader.text())) == {second}, reader.result()["error"]
    assert reader.text() == reader.result()["content"]
    ids = [event.id for event in reader.seen[:-2]]
    assert ids == [f"1-{n}" for n in range(1, len(ids) + 1)]
    assert reader.result()["session_id"] == session_id
    recalled = data_of(await client.send(session_id, "What did I say before?"))["content"]
    assert WORD.findall(recalled) == [first, second]
    session = await client.session(session_id)
    assert (session["user_id"], session["chat_count"]) == (f"user-{number}", 3)
    told = [chat["user_message"]["content"] for chat in session["chat_history"]]
    assert set(WORD.findall(" ".join(told))) == {first, second}
    assert {chat["status"] for chat in session["chat_history"]} == {"completed"}


@pytest.mark.parametrize("sessions", [50, pytest.param(200, marks=pytest.mark.full)])
async def test_many_sessions_talk_at_once_and_each_hears_its_own_words(
    redis: RedisServer, start_process: Callable[..., ServiceProcess], simulator: SimControl, sessions: int
) -> None:
    service = start_process(REDIS_URL=redis.url, COZE_TIMEOUT="60")
    async with open_client(service.base_url, timeout=90) as client:
        await asyncio.gather(*(talk(client, number) for number in range(sessions)))
    posted = [request for request in simulator.requests(path="/v3/chat") if request["chat_id"]]
    assert len(posted) == 3 * sessions
    assert len({request["meta_data"]["coze_fastapi_chat_id"] for request in posted}) == 3 * sessions
    by_user = {request["user_id"]: set[str]() for request in posted}
    for request in posted:
        by_user[request["user_id"]].add(request["conversation_id"])
    assert len(by_user) == sessions
    assert all(len(conversations) == 1 for conversations in by_user.values())


async def test_30_sessions_on_the_embedded_redis_hear_their_own_words(
    start_app: Callable[..., RunningApp],
) -> None:
    service = start_app(COZE_TIMEOUT="60")
    async with open_client(service.base_url, timeout=90) as client:
        await asyncio.gather(*(talk(client, number) for number in range(30)))


@pytest.mark.full
async def test_1000_sessions_on_two_services_hear_their_own_words(
    redis: RedisServer, start_process: Callable[..., ServiceProcess]
) -> None:
    services = [
        start_process(
            REDIS_URL=redis.url,
            COZE_TIMEOUT="100",
            COZE_FIRST_BYTE_TIMEOUT="100",
            RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE="10000",
            RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE="10000",
        )
        for _ in range(2)
    ]
    async with (
        open_client(services[0].base_url, timeout=110) as one,
        open_client(services[1].base_url, timeout=110) as two,
    ):
        await asyncio.gather(*(talk((one, two)[number % 2], number) for number in range(1000)))
