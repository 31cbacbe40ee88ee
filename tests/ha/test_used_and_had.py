"""On a Cluster what was used lies in many slots, as conversations do: counted, gone on with, erased."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.support import Clients, Reader, nonce
from tests.support import Client, data_of, error_of, wait_until
from tests.usage.support import at_coze, report, told, total

pytestmark = pytest.mark.ha

USERS = ("had-1", "had-2")


async def erased(client: Client, user_id: str) -> None:
    while data_of(await client.delete(f"/coze/users/{user_id}"))["remaining_sessions"]:
        pass


async def test_usage_and_conversations_hold_over_a_cluster_and_a_killed_replica(on_cluster: Any) -> None:
    async with Clients(on_cluster.urls) as clients:
        before = await total(clients[1])
        chats, reader, word = [], Reader(clients), nonce()
        for number in range(12):
            session_id = await clients[number % 2].open_session(USERS[0])
            chats.append(data_of(await clients[number % 2].send(session_id, f"chat {number}")))
        session_id = await clients[0].open_session(USERS[1])
        sending = asyncio.create_task(
            reader.whole(session_id, f"{word} [[sim:deltas=20;gap=0.05;reasoning=0]]", timeout=40)
        )
        await wait_until(lambda: len(reader.checked.frames) >= 4)
        await asyncio.to_thread(on_cluster.replicas[0].kill)
        chats.append(await sending)
        now = await total(clients[1])
        assert tuple(b - a for a, b in zip(before, now, strict=True)) == told(chats)
        assert told(chats) == at_coze(on_cluster.simulator, chats)

        body = {"user_id": USERS[1], "conversation_id": chats[-1]["metadata"]["conversation_id"]}
        session = data_of(await clients[1].post("/coze/sessions", json=body))
        told_again = data_of(await clients[1].send(session["session_id"], "What did I say before?"))
        assert word in told_again["content"]
        history = data_of(await clients[1].get(f"/coze/sessions/{session['session_id']}/history"))
        assert len(history["messages"]) == 4
        assert (await clients[1].post(f"/coze/sessions/{session['session_id']}/clear")).status_code == 200

        for user in USERS:
            await erased(clients[1], user)
        rows = (await report(clients[1], group_by="user"))["rows"]
        assert {row["user_id"] for row in rows} & set(USERS) == set()
        refused = await clients[1].post("/coze/sessions", json=body)
        assert error_of(refused)["code"] == "COZE_CONVERSATION_NOT_FOUND"
