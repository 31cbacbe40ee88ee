"""A master lost in the middle of answers: the service follows, and what was lost is written again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.folding import place_of
from tests.faults.support import Clients, Reader, check_completed, keys, nonce, open_session
from tests.support import Client, data_of, wait_until

from .groups import Cluster, Sentinels

pytestmark = pytest.mark.ha

TYPING = "deltas=100;gap=0.05;reasoning=0"
"""About five seconds: longer than a failover."""
AT_ONCE = 6


async def start_answers(clients: list[Client]) -> tuple[list[Reader], list[str], list[asyncio.Task[Any]]]:
    """Answers under way on both replicas, some frames of each seen."""
    words = [nonce() for _ in range(AT_ONCE)]
    readers = [Reader(clients, first=number % 2) for number in range(AT_ONCE)]
    sessions = [await open_session(clients[0]) for _ in words]
    tasks = [
        asyncio.create_task(reader.whole(session_id, f"{word} [[sim:{TYPING}]]", timeout=40))
        for reader, session_id, word in zip(readers, sessions, words, strict=True)
    ]
    await wait_until(lambda: all(len(reader.checked.frames) >= 5 for reader in readers))
    return readers, words, tasks


async def check_answers(stand: Any, clients: list[Client], words: list[str], tasks: list[Any]) -> None:
    """All are whole, as Coze has them and asked for once, and read again the same on either replica."""
    for word, chat in zip(words, await asyncio.gather(*tasks), strict=True):
        await check_completed(chat, stand.simulator, word)
        for where in range(len(clients)):
            again = Reader(clients)
            again.chat_id = chat["chat_id"]
            assert await again.resume(where)
            assert again.checked.check_whole() == data_of(await clients[where].result(chat["chat_id"]))
            assert again.checked.folded.content == chat["content"]


async def is_healthy(client: Client) -> bool:
    return (await client.get("/coze/health")).status_code == 200


async def check_works(clients: list[Client]) -> None:
    for client in clients:
        await wait_until(lambda c=client: is_healthy(c), 15)
        word = nonce()
        assert word in data_of(await client.send(await open_session(client), word))["content"]


async def test_a_forced_failover_of_sentinels_loses_no_answer(on_sentinel: Any) -> None:
    group: Sentinels = on_sentinel.redis
    async with Clients(on_sentinel.urls) as clients:
        before = group.master
        _, words, tasks = await start_answers(clients)
        await asyncio.to_thread(group.force_failover)
        await wait_until(lambda: group.master is not before, 20)
        await check_answers(on_sentinel, clients, words, tasks)
        await check_works(clients)


async def test_what_a_failover_loses_the_owner_writes_again(on_sentinel: Any) -> None:
    """The replicas hear nothing of the answers' beginning, then the master dies."""
    group: Sentinels = on_sentinel.redis
    async with Clients(on_sentinel.urls) as clients:
        before = group.master
        sessions = [await open_session(client) for client in clients]
        deaf = group.replicas
        with before.client() as client:
            client.wait(len(deaf), 2000)
            for replica in deaf:
                replica.pause()
            # Else what is sent to them from now on would wait in their sockets.
            client.execute_command("CLIENT KILL TYPE replica")
        words = [nonce() for _ in sessions]
        readers = [Reader(clients, first=number) for number in range(len(sessions))]
        tasks = [
            asyncio.create_task(reader.whole(session_id, f"{word} [[sim:{TYPING}]]", timeout=40))
            for reader, session_id, word in zip(readers, sessions, words, strict=True)
        ]
        await wait_until(lambda: all(len(reader.checked.frames) >= 5 for reader in readers))
        for reader in readers:
            assert await asyncio.to_thread(keys, group.at(before.port), f"*:log:{reader.chat_id}")
        before.kill()
        for replica in deaf:
            replica.resume()
        await wait_until(lambda: group.master is not before, 20)
        await check_answers(on_sentinel, clients, words, tasks)
        for reader in readers:
            # The same owner all along: it has written again, nobody has taken over.
            assert place_of(reader.checked.last_id or "")[0] == 1
        written = on_sentinel.log_text()
        assert all(f"log of {reader.chat_id} was written again" in written for reader in readers)
        await check_works(clients)


async def test_a_master_of_the_cluster_killed_in_mid_answer_loses_no_answer(on_cluster: Any) -> None:
    group: Cluster = on_cluster.redis
    async with Clients(on_cluster.urls) as clients:
        readers, words, tasks = await start_answers(clients)
        [key] = await asyncio.to_thread(keys, group, f"*:log:{readers[0].chat_id}")
        victim = group.master_of(key)
        victim.kill()
        await wait_until(lambda: group.master_of(key) is not victim, 20)
        await check_answers(on_cluster, clients, words, tasks)
        await check_works(clients)


async def test_an_owner_killed_together_with_a_master_loses_no_answer(on_cluster: Any) -> None:
    group: Cluster = on_cluster.redis
    async with Clients(on_cluster.urls) as clients:
        session_id, word = await open_session(clients[0]), nonce()
        reader = Reader(clients)
        task = asyncio.create_task(reader.whole(session_id, f"{word} [[sim:{TYPING}]]", timeout=60))
        await wait_until(lambda: len(reader.checked.frames) >= 5)
        [key] = await asyncio.to_thread(keys, group, f"*:log:{reader.chat_id}")
        victim = group.master_of(key)
        with victim.client() as client:  # the kill is not to race the replication of what is there
            client.wait(1, 2000)
        victim.kill()
        on_cluster.replicas[0].kill()
        chat = await task
        await check_completed(chat, on_cluster.simulator, word, recovered=True)
        await wait_until(lambda: is_healthy(clients[1]), 15)


async def test_slots_that_move_are_followed(on_cluster: Any) -> None:
    """A planned failover of one master: no error, nothing waits for a time-out."""
    group: Cluster = on_cluster.redis
    async with Clients(on_cluster.urls) as clients:
        _, words, tasks = await start_answers(clients)
        with group.client() as client:
            key = client.get_node_from_key("coze:{index}:sessions")
            replica = next(
                node
                for node in client.nodes_manager.slots_cache[client.keyslot("coze:{index}:sessions")]
                if node.port != key.port
            )
        with group.at(replica.port).client() as client:
            client.execute_command("CLUSTER FAILOVER")
        await wait_until(lambda: group.master_of("coze:{index}:sessions").port == replica.port, 15)
        await check_works(clients)
        await check_answers(on_cluster, clients, words, tasks)
