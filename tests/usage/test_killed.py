"""Replicas killed in the middle of answers: each chat counts once, and its conversation goes on."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.faults.support import Cluster, Reader, nonce, open_session
from tests.support import Client, data_of, wait_until

from .support import at_coze, report, told, total

SEED = 4711


@pytest.fixture(autouse=True)
def _empty(pair: Cluster) -> None:
    pair.redis.flush()


async def answer_with_a_kill(pair: Cluster, clients: list[Client]) -> dict[str, Any]:
    """A chat on replica 0, which dies in the middle of it; the whole answer."""
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    sending = asyncio.create_task(
        reader.whole(session_id, f"{word} [[sim:deltas=20;gap=0.05;reasoning=0]]", timeout=40)
    )
    await wait_until(lambda: len(reader.checked.frames) >= 6)
    await asyncio.to_thread(pair.replicas[0].kill)
    chat: dict[str, Any] = await sending
    assert (chat["status"], word in chat["content"]) == ("completed", True)
    return chat


async def test_a_chat_whose_replica_is_killed_in_mid_answer_counts_once_and_its_conversation_goes_on(
    pair: Cluster, clients: list[Client]
) -> None:
    chat = await answer_with_a_kill(pair, clients)
    assert chat["recovered"] is True
    assert await total(clients[1]) == told([chat]) == at_coze(pair.simulator, [chat])

    [row] = (await report(clients[1], group_by="user"))["rows"]
    body = {"user_id": row["user_id"], "conversation_id": chat["metadata"]["conversation_id"]}
    session = data_of(await clients[1].post("/coze/sessions", json=body))
    later = data_of(await clients[1].send(session["session_id"], "What did I say before?"))
    assert chat["user_message"]["content"].split()[0] in later["content"]
    assert await total(clients[1]) == told([chat, later])


async def test_a_conversation_of_a_killed_first_chat_is_written_down_by_whoever_ends_it(
    pair: Cluster, clients: list[Client]
) -> None:
    """Coze made it with the chat, and the process that learnt of it is gone."""
    pair.simulator.knob(path="/v1/conversation/create", fail=4101)
    session_id = await clients[0].open_session("the-one")
    reader = Reader(clients)
    sending = asyncio.create_task(
        reader.whole(session_id, "pineapple [[sim:deltas=20;gap=0.05;reasoning=0]]", timeout=40)
    )
    await wait_until(lambda: reader.checked.frames)
    [begun] = (await clients[1].session(session_id))["chat_history"]
    async with clients[1].events(begun["chat_id"]) as events:  # what the other replica tells, Redis has
        await events.until("conversation.message.delta")
    await asyncio.to_thread(pair.replicas[0].kill)
    chat = await sending
    body = {"user_id": "the-one", "conversation_id": chat["metadata"]["conversation_id"]}

    async def known() -> bool:
        return (await clients[1].post("/coze/sessions", json=body)).status_code == 200

    await wait_until(known)


@pytest.mark.full
async def test_a_chat_taken_from_an_owner_that_sleeps_counts_once_when_it_wakes_up(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    chat_id = await clients[0].start(session_id, f"{word} [[sim:deltas=30;gap=0.1;reasoning=0]]")
    async with clients[0].events(chat_id) as events:
        await events.until("conversation.message.delta")
        pair.replicas[0].pause()
        try:
            chat = await clients[1].ended(chat_id, 30)
        finally:
            pair.replicas[0].resume()
    await pair.settle()
    for client in clients:
        assert await total(client) == told([chat]) == at_coze(pair.simulator, [chat])


@pytest.mark.full
async def test_the_sum_over_fifty_chats_with_random_kills_is_that_of_coze(
    pair: Cluster, clients: list[Client]
) -> None:
    """Both replicas run chats; every few of them one replica dies, and comes back."""
    chance = random.Random(SEED)
    chats: list[dict[str, Any]] = []

    async def one(number: int) -> None:
        where = number % 2
        session_id, word = await open_session(clients[where]), nonce()
        reader = Reader(clients, first=where)
        knobs = f"deltas={chance.randrange(5, 40)};gap=0.03;reasoning=0"
        chats.append(await reader.whole(session_id, f"{word} [[sim:{knobs}]]", timeout=60))

    for _ in range(10):
        tasks = [asyncio.create_task(one(number)) for number in range(5)]
        await wait_until(lambda: pair.simulator.state()["running_chats"])
        await asyncio.sleep(chance.uniform(0.2, 0.9))
        victim = pair.replicas[chance.randrange(2)]
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        await asyncio.to_thread(victim.start)
        await asyncio.gather(*tasks)
    await pair.settle()
    assert len(chats) == 50
    assert sum(chat["recovered"] for chat in chats) > 5
    assert await total(clients[0]) == told(chats) == at_coze(pair.simulator, chats)
