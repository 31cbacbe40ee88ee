"""Redis restarted, silent, emptied or gone while answers are under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support import Client, RedisServer, SimControl, data_of, error_of, wait_until

from .folding import ENDS
from .support import Clients, Cluster, Reader, check_completed, cluster, keys, nonce, open_session, unharmed

TYPING = "deltas=50;gap=0.05;reasoning=0;followups=1"
"""About 2.5 s."""


@pytest.fixture(scope="module")
def _patient_cluster(shared_simulator: SimControl) -> Iterator[Cluster]:
    with cluster(simulator=shared_simulator, LEASE_SECONDS="10") as running:
        yield running


@pytest.fixture
async def patient_pair(_patient_cluster: Cluster, simulator: SimControl) -> AsyncIterator[Cluster]:
    """Replicas for tests in which the owner lives. After an outage it has ten seconds to say so, however busy
    this machine is, before the other one takes its chat for orphaned."""
    async with unharmed(_patient_cluster):
        yield _patient_cluster


@pytest.fixture
async def patient_clients(patient_pair: Cluster) -> AsyncIterator[list[Client]]:
    async with Clients(patient_pair.urls) as opened:
        yield opened


def terminal_frames(redis: RedisServer, chat_id: str) -> int:
    """How many terminal frames Redis has of a chat."""
    with redis.client() as client:
        [key] = client.scan_iter(f"*:log:{chat_id}", count=1000)
        log = b"".join(fields[b"f"] for _, fields in client.xrange(key))
    return sum(log.count(f"event: {name}\n".encode()) for name in ENDS)


async def start_two(
    pair: Cluster, clients: list[Client], knobs: str
) -> tuple[str, str, Reader, Reader, list[asyncio.Task[bool]]]:
    """A chat on the first replica with a reader there and one on the other, both in mid-answer."""
    session_id, word = await open_session(clients[0]), nonce()
    near, far = Reader(clients), Reader(clients)
    tasks = [asyncio.create_task(near.send(session_id, f"{word} [[sim:{knobs}]]"))]
    await wait_until(lambda: len(near.checked.frames) >= 8)
    far.chat_id = near.chat_id
    tasks.append(asyncio.create_task(far.resume(1)))
    await wait_until(lambda: len(far.checked.frames) >= 5)
    return session_id, word, near, far, tasks


async def check_both(
    pair: Cluster,
    clients: list[Client],
    word: str,
    near: Reader,
    far: Reader,
    tasks: list[asyncio.Task[bool]],
) -> None:
    """Neither reader was cut off, both have the same frames, and the end is in Redis once."""
    for task in tasks:
        assert await asyncio.wait_for(task, 20)
    chat = near.checked.check_whole()
    assert far.checked.check_whole() == chat
    assert [event.raw for event in near.checked.frames] == [event.raw for event in far.checked.frames]
    await check_completed(chat, pair.simulator, word, recovered=False)
    assert near.chat_id is not None
    for client in clients:
        assert await client.ended(near.chat_id) == chat
    assert terminal_frames(pair.redis, near.chat_id) == 1


async def next_one_works(client: Client, session_id: str) -> None:
    word = nonce()
    assert word in data_of(await client.send(session_id, word))["content"]
    assert (await client.session(session_id))["chat_count"] == 2


async def test_redis_restarted_with_aof_in_mid_answer(
    patient_pair: Cluster, patient_clients: list[Client]
) -> None:
    session_id, word, near, far, tasks = await start_two(patient_pair, patient_clients, TYPING)
    patient_pair.redis.kill()
    seen = len(near.checked.frames)
    await wait_until(lambda: len(near.checked.frames) > seen + 4)
    patient_pair.redis.start()
    await check_both(patient_pair, patient_clients, word, near, far, tasks)
    await next_one_works(patient_clients[1], session_id)


async def silence(pair: Cluster, clients: list[Client], seconds: float, knobs: str) -> None:
    session_id, word, near, far, tasks = await start_two(pair, clients, knobs)
    pair.redis.pause()
    seen = len(near.checked.frames)
    await asyncio.sleep(seconds)
    assert len(near.checked.frames) > seen + 10, "a reader at the owner needs no Redis"
    pair.redis.resume()
    await check_both(pair, clients, word, near, far, tasks)
    await next_one_works(clients[1], session_id)


@pytest.mark.full
async def test_redis_silent_for_two_leases_in_mid_answer(pair: Cluster, clients: list[Client]) -> None:
    await silence(pair, clients, 2.0, "deltas=55;gap=0.05;reasoning=0")


@pytest.mark.full
async def test_redis_silent_for_five_seconds_in_mid_answer(pair: Cluster, clients: list[Client]) -> None:
    await silence(pair, clients, 5.0, "deltas=130;gap=0.05;reasoning=0")


@pytest.mark.full
async def test_redis_silent_for_five_seconds_over_the_end(pair: Cluster, clients: list[Client]) -> None:
    session_id, word, near, far, tasks = await start_two(pair, clients, "deltas=40;gap=0.05;reasoning=0")
    pair.redis.pause()
    assert await asyncio.wait_for(tasks[0], 20)
    assert near.checked.resumable is False
    await asyncio.sleep(3)
    pair.redis.resume()
    await check_both(pair, clients, word, near, far, tasks)
    await next_one_works(clients[1], session_id)


async def test_redis_that_comes_back_empty_is_written_again_by_the_owner(
    patient_pair: Cluster, patient_clients: list[Client]
) -> None:
    session_id, word, near, far, tasks = await start_two(patient_pair, patient_clients, TYPING)
    patient_pair.redis.lose_everything()
    patient_pair.redis.start()
    await check_both(patient_pair, patient_clients, word, near, far, tasks)
    await next_one_works(patient_clients[1], session_id)


@pytest.mark.full
async def test_what_was_written_again_can_be_taken_over(pair: Cluster, clients: list[Client]) -> None:
    _, word, near, far, tasks = await start_two(pair, clients, "deltas=60;gap=0.05;reasoning=0")
    pair.redis.lose_everything()
    pair.redis.start()

    def known_again() -> bool:
        with pair.redis.client() as client:
            run = keys(pair.redis, f"*:run:{near.chat_id}")
            return bool(run and client.hget(run[0], "coze_chat_id"))

    await wait_until(known_again)
    pair.replicas[0].kill()
    await asyncio.gather(*tasks, return_exceptions=True)
    chat = await near.follow()
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert await far.follow() == chat


async def refused_unasked(client: Client, session_id: str) -> None:
    for stream in (False, True):
        response = await client.send(session_id, "hello", stream=stream)
        assert (response.status_code, error_of(response)["code"]) == (503, "COZE_REDIS_ERROR")
        assert int(response.headers["Retry-After"]) >= 1
        # Once it is known that Redis is away it is asked nothing any more.
        sent = await client.redis_commands()
        assert (await client.post("/coze/sessions", json={"user_id": "u"})).status_code == 503
        assert await client.redis_commands() == sent


async def test_redis_gone_for_longer_than_the_chat(
    patient_pair: Cluster, patient_clients: list[Client]
) -> None:
    session_id, word, near, far, tasks = await start_two(
        patient_pair, patient_clients, "deltas=40;gap=0.05;reasoning=0"
    )
    other = await open_session(patient_clients[1])
    patient_pair.redis.stop()
    for client in patient_clients:
        await refused_unasked(client, other)
    assert await asyncio.wait_for(tasks[0], 20)
    assert near.checked.resumable is False
    chat = near.checked.check_whole()
    assert (chat["status"], word in chat["content"]) == ("completed", True)
    assert not far.checked.done
    patient_pair.redis.start()
    await check_both(patient_pair, patient_clients, word, near, far, tasks)
    assert far.checked.resumable is True
    await next_one_works(patient_clients[0], session_id)


@pytest.mark.full
async def test_an_owner_that_dies_while_redis_is_away_loses_nothing(
    pair: Cluster, clients: list[Client]
) -> None:
    _, word, near, far, tasks = await start_two(pair, clients, TYPING)
    pair.redis.kill()
    seen = len(near.checked.frames)
    await wait_until(lambda: len(near.checked.frames) > seen + 5)
    pair.replicas[0].kill()
    await asyncio.gather(tasks[0], return_exceptions=True)
    pair.redis.start()
    chat = await near.follow()
    assert await asyncio.wait_for(tasks[1], 20)
    assert far.checked.check_whole() == chat
    await check_completed(chat, pair.simulator, word, recovered=True)


@pytest.mark.full
async def test_both_replicas_keep_their_own_chats_over_an_outage(
    pair: Cluster, clients: list[Client]
) -> None:
    """All leases run out while Redis is silent; nobody takes what its owner still has."""
    readers, words, tasks = [], [], []
    for number in range(20):
        session_id, word = await open_session(clients[number % 2]), nonce()
        reader = Reader(clients, first=number % 2)
        message = f"{word} [[sim:deltas=80;gap=0.05;reasoning=0]]"
        tasks.append(asyncio.create_task(reader.send(session_id, message)))
        readers.append(reader)
        words.append(word)
    await wait_until(lambda: all(len(reader.checked.frames) > 3 for reader in readers))
    pair.redis.pause()
    await asyncio.sleep(2.5)
    pair.redis.resume()
    assert all(await asyncio.gather(*tasks))
    for reader, word in zip(readers, words, strict=True):
        chat = reader.checked.check_whole()
        await check_completed(chat, pair.simulator, word, recovered=False)
