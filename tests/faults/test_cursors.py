"""Where a reader may begin: any id it was given, and what it gets where the log has less, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support import Client, SimControl, data_of, error_of, wait_until

from .support import Clients, Cluster, Reader, check_completed, cluster, keys, nonce, open_session


async def answered(clients: list[Client], knobs: str = "deltas=6;reasoning=0") -> Reader:
    """A chat that is over, read whole at its owner."""
    session_id = await open_session(clients[0])
    reader = Reader(clients)
    assert await reader.send(session_id, f"{nonce()} [[sim:{knobs}]]")
    return reader


async def names_after(client: Client, chat_id: str | None, last_id: str | None) -> list[str]:
    async with client.events(chat_id or "", last_id) as events:
        return [event.event async for event in events]


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1-", "-1", "1-2-3", "1-x", "1 - 2", "9999999999-1", "１-1", "1.5-2"]
)
async def test_a_malformed_cursor_is_refused(cursor: str, pair: Cluster, clients: list[Client]) -> None:
    reader = await answered(clients)
    for client in clients:
        for options in (
            {"headers": {"Last-Event-ID": cursor.encode()}},
            {"params": {"after": cursor}},
        ):
            response = await client.get(f"/coze/chats/{reader.chat_id}/events", **options)
            assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")


async def test_an_epoch_that_the_chat_has_not_reached_is_refused(
    pair: Cluster, clients: list[Client]
) -> None:
    over = await answered(clients)
    running = await clients[0].start(await open_session(clients[0]), "[[sim:delay=1]]")
    for chat_id in (over.chat_id, running):
        for client in clients:
            response = await client.get(f"/coze/chats/{chat_id}/events", headers={"Last-Event-ID": "2-1"})
            assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")


async def test_a_place_ahead_of_the_log_waits_for_it(pair: Cluster, clients: list[Client]) -> None:
    chat_id = await clients[0].start(await open_session(clients[0]), "[[sim:delay=0.6;deltas=8;gap=0.05]]")
    ahead = [asyncio.create_task(names_after(client, chat_id, "1-6")) for client in clients]
    await clients[0].ended(chat_id)
    near, far = [await task for task in ahead]
    assert near == far
    assert near[-3:] == ["conversation.chat.completed", "result", "done"]
    assert "chat" not in near


async def test_at_the_last_id_there_are_just_the_result_and_done(
    pair: Cluster, clients: list[Client]
) -> None:
    for knobs in ("deltas=6", "deltas=6;fail_at=3", "requires_action=function"):
        reader = await answered(clients, knobs)
        for client in clients:
            assert await names_after(client, reader.chat_id, reader.checked.last_id) == ["result", "done"]


LONG = "deltas=900;reasoning=0;followups=1"
"""About 250 KB of frames, four times MAX_CHAT_LOG_BYTES."""


async def test_a_long_log_gives_way_to_a_snapshot(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    readers = [Reader(clients) for _ in range(6)]
    near, far, stopped_near, stopped_far, fresh_near, fresh_far = readers
    live = asyncio.create_task(near.send(session_id, f"{word} [[sim:gap=0.002;{LONG}]]"))
    await near.started.wait()
    for reader in readers[1:]:
        reader.chat_id = near.chat_id
    remote = asyncio.create_task(far.resume(1))
    assert not await stopped_near.resume(0, frames=5)
    assert not await stopped_far.resume(1, frames=5)
    await wait_until(lambda: len(near.checked.frames) > 600)
    await asyncio.gather(stopped_near.resume(0), stopped_far.resume(1))
    assert await live
    assert await remote
    assert await fresh_near.resume(0)
    assert await fresh_far.resume(1)
    for reader in readers:
        chat = reader.checked.check_whole()
        await check_completed(chat, pair.simulator, word, recovered=False)
    for reader in (stopped_near, stopped_far):
        assert reader.checked.frames[5].event == "snapshot"
    for reader in (fresh_near, fresh_far):
        assert reader.checked.frames[0].event == "snapshot"
    with pair.redis.client() as client:
        [key] = client.scan_iter(f"*:log:{near.chat_id}")
        size = sum(len(fields[b"f"]) for _, fields in client.xrange(key))
    assert size < 2 * 65536 + 32768


@pytest.mark.full
async def test_a_trimmed_chat_is_taken_over(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    near, far = Reader(clients), Reader(clients)
    sending = asyncio.create_task(near.send(session_id, f"{word} [[sim:gap=0.004;{LONG}]]"))
    await near.started.wait()
    far.chat_id = near.chat_id
    assert not await far.resume(1, frames=3)
    await wait_until(lambda: len(near.checked.frames) > 500)
    pair.replicas[0].kill()
    await asyncio.gather(sending, return_exceptions=True)
    chat = await near.follow()
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert await far.follow() == chat


@pytest.fixture(scope="module")
def brief_cluster(shared_simulator: SimControl) -> Iterator[Cluster]:
    with cluster(simulator=shared_simulator, COZE_RESULT_EXPIRE="1", SSE_HEARTBEAT_SECONDS="1") as running:
        yield running


@pytest.fixture
async def brief(brief_cluster: Cluster, simulator: SimControl) -> AsyncIterator[list[Client]]:
    """Replicas that keep a log for one second after its end."""
    brief_cluster.repair()
    async with Clients(brief_cluster.urls) as clients:
        yield clients
    await brief_cluster.settle()


@pytest.mark.full
async def test_a_place_that_the_log_never_reaches_waits_for_the_end(
    brief: list[Client], brief_cluster: Cluster
) -> None:
    chat_id = await brief[0].start(await open_session(brief[0]), "[[sim:delay=0.3;deltas=4]]")
    readings = [asyncio.create_task(names_after(client, chat_id, "1-100000")) for client in brief]
    for reading in readings:
        assert await asyncio.wait_for(reading, 20) == ["result", "done"]


async def log_is_gone(clients: Cluster, chat_id: str | None) -> None:
    await wait_until(lambda: not keys(clients.redis, f"*:log:{chat_id}"))


@pytest.mark.parametrize(
    ("knobs", "status"),
    [
        pytest.param("deltas=6;followups=2", "completed", marks=pytest.mark.full),
        ("deltas=6;fail_at=3;reasoning=0", "failed"),
        pytest.param("deltas=6;cut=1500", "completed", marks=pytest.mark.full),
    ],
)
async def test_an_expired_log_is_told_from_the_record(
    knobs: str, status: str, brief: list[Client], brief_cluster: Cluster
) -> None:
    reader = await answered(brief, knobs)
    chat = reader.checked.check_whole()
    assert chat["status"] == status
    await log_is_gone(brief_cluster, reader.chat_id)
    middle = reader.checked.frames[2].id
    ends = {"completed": "conversation.chat.completed", "failed": "conversation.chat.failed"}
    errors = ["error"] if status == "failed" else []
    for where in (0, 1):
        for place in (None, middle):
            again = Reader(brief)
            again.chat_id, again.checked.last_id = reader.chat_id, place
            assert await again.resume(where)
            assert again.checked.check_whole() == chat
            names = [event.event for event in again.checked.frames]
            assert names == ["snapshot", *errors, ends[status]]
            assert again.checked.last_id == reader.checked.last_id
        assert await names_after(brief[where], reader.chat_id, reader.checked.last_id) == ["result", "done"]
        assert data_of(await brief[where].result(reader.chat_id or "")) == chat


@pytest.mark.full
async def test_a_reader_held_up_until_the_log_has_expired_still_gets_the_end(
    brief: list[Client], brief_cluster: Cluster
) -> None:
    """The reader's own replica sleeps while the chat ends elsewhere and its log expires."""
    session_id, word = await open_session(brief[0]), nonce()
    chat_id = await brief[0].start(session_id, f"{word} [[sim:deltas=12;gap=0.05;reasoning=0]]")
    reader = Reader(brief)
    reader.chat_id = chat_id
    reading = asyncio.create_task(reader.resume(1))
    await wait_until(lambda: len(reader.checked.frames) >= 4)
    brief_cluster.replicas[1].pause()
    try:
        await brief[0].ended(chat_id)
        await log_is_gone(brief_cluster, chat_id)
    finally:
        brief_cluster.replicas[1].resume()
    assert await asyncio.wait_for(reading, 15)
    chat = reader.checked.check_whole()
    await check_completed(chat, brief_cluster.simulator, word, recovered=False)
