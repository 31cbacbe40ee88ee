"""A session's conversation is made in the background: its first message waits for it, wherever it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.support import Client, RedisServer, RunningApp, SimControl, data_of, open_client, wait_until


@pytest.mark.parametrize("first", ["here", "elsewhere"])
async def test_all_that_is_said_in_a_session_is_in_one_conversation(
    redis: RedisServer, start_app: Callable[..., RunningApp], simulator: SimControl, first: str
) -> None:
    simulator.knob(path="/v1/conversation/create", first_byte=0.5, times=1)
    services = [start_app(REDIS_URL=redis.url) for _ in range(2)]
    async with open_client(services[0].base_url) as here, open_client(services[1].base_url) as elsewhere:
        session_id = await here.open_session()
        client = elsewhere if first == "elsewhere" else here
        chats = [
            data_of(await client.send(session_id, text))
            for text in ("[[sim:first_byte=1]] my word is fig", "and now?")
        ]
        session = data_of(await here.get(f"/coze/sessions/{session_id}"))
    spoken = {chat["metadata"]["conversation_id"] for chat in chats}
    assert spoken == {session["conversation_id"]}


async def test_a_first_message_behind_a_conversation_that_was_made_here_does_not_ask_for_it(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    services = [start_app(REDIS_URL=redis.url) for _ in range(2)]
    async with open_client(services[0].base_url) as here, open_client(services[1].base_url) as elsewhere:
        asked = []
        for client in (here, elsewhere):
            session_id = await here.open_session()
            await wait_until(partial(_has_conversation, here, session_id))
            before = _asked(redis)
            await client.send(session_id, "hi")
            asked.append(_asked(redis) - before)

    assert asked[0] == asked[1] - 1


async def _has_conversation(client: Client, session_id: str) -> bool:
    return data_of(await client.get(f"/coze/sessions/{session_id}"))["conversation_id"] is not None


def _asked(redis: RedisServer) -> int:
    with redis.client() as client:
        calls: int = client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"]
    return calls
