"""A chat's log is packed when the chat ends: small, and the same bytes for whoever resumes anywhere in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import Client, Event, wait_until

from .folding import ENDS, Checked, place_of
from .support import (
    AWAY,
    Cluster,
    Reader,
    check_completed,
    keys,
    nonce,
    open_session,
    outputs_streamed,
    waiting_chat,
)

PACKED_BYTES = 10 * 1024
DEFAULT_RESULT_SECONDS = 1800


def stored(pair: Cluster, chat_id: str | None) -> list[tuple[str, dict[bytes, bytes]]]:
    """The entries of a chat's log in Redis."""
    with pair.redis.client() as client:
        [key] = set(client.scan_iter(f"*:log:{chat_id}", count=1000))  # a scan may tell a key twice
        entries: Any = client.xrange(key)
        return [(entry_id.decode(), fields) for entry_id, fields in entries]


def check_packed(pair: Cluster, chat_id: str | None, frames: list[Event]) -> dict[bytes, bytes]:
    """One entry with the last frame's id; in the clear a snapshot and the end, for the previous version."""
    [(entry_id, fields)] = stored(pair, chat_id)
    assert entry_id == frames[-1].id
    assert set(fields) == {b"n", b"f", b"z"}
    plain = fields[b"f"].split(b"\n\n")[:-1]
    assert plain[0].startswith(b"event: snapshot\n")
    assert [frame.split(b"\n")[0] for frame in plain[1:]] == [
        b"event: " + event.event.encode() for event in frames if event.event in (*ENDS, "error")
    ][-len(plain) + 1 :]
    assert plain[-1].startswith(b"event: " + frames[-1].event.encode() + b"\n")
    assert int(fields[b"n"]) + len(plain) - 1 == place_of(entry_id)[1]
    return fields


async def resume_after(clients: list[Client], where: int, chat_id: str | None, frames: list[Event]) -> Reader:
    """A client that has these frames goes on from there; nothing may be missing, and nothing come twice."""
    reader = Reader(clients)
    reader.chat_id, reader.checked = chat_id, Checked()
    for event in frames:
        reader.checked.take(event)
    assert await asyncio.wait_for(reader.resume(where), 20)
    return reader


async def check_every_place(
    clients: list[Client], reader: Reader, *, replicas: tuple[int, ...] = (0, 1), step: int = 1
) -> None:
    """From every id on each replica: the same bytes as the reader got while the chat ran."""
    frames = reader.checked.frames
    for where in replicas:
        for number in sorted({*range(0, len(frames), step), len(frames) - 1, len(frames)}):
            again = await resume_after(clients, where, reader.chat_id, frames[:number])
            assert [e.raw for e in again.checked.frames] == [e.raw for e in frames], (where, number)
            assert again.checked.check_whole() == reader.checked.check_whole()


async def is_packed(pair: Cluster, chat_id: str | None) -> None:
    await wait_until(lambda: len(stored(pair, chat_id)) == 1)


@pytest.mark.parametrize(
    "knobs",
    [
        "deltas=12;reasoning=0;gap=0.01",
        "deltas=8;fail_at=5;reasoning=0",
        "deltas=9;cut=1500;reasoning=0",
        pytest.param("card=1", marks=pytest.mark.full),
        pytest.param("multi=3;deltas=4", marks=pytest.mark.full),
        pytest.param("plugin=1;audio=1;deltas=5", marks=pytest.mark.full),
        pytest.param("deltas=0;text=", marks=pytest.mark.full),
    ],
)
async def test_a_packed_log_gives_the_same_bytes_from_every_place(
    knobs: str, pair: Cluster, clients: list[Client]
) -> None:
    reader = Reader(clients)
    assert await reader.send(await open_session(clients[0]), f"{nonce()} [[sim:{knobs}]]")
    await is_packed(pair, reader.chat_id)
    check_packed(pair, reader.chat_id, reader.checked.frames)
    await check_every_place(clients, reader)


async def test_a_chat_of_170_tokens_takes_ten_kilobytes_at_most(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    assert await reader.send(session_id, f"{word} [[sim:deltas=170;gap=0.002;reasoning=0]]")
    await is_packed(pair, reader.chat_id)
    check_packed(pair, reader.chat_id, reader.checked.frames)
    with pair.redis.client() as client:
        [key] = client.scan_iter(f"*:log:{reader.chat_id}", count=1000)
        size: Any = client.memory_usage(key)
        left: Any = client.pttl(key)
    print(
        f"{len(reader.checked.frames)} frames, {sum(len(e.raw) for e in reader.checked.frames)} bytes: {size}"
    )
    assert size <= PACKED_BYTES
    assert DEFAULT_RESULT_SECONDS - 60 < left / 1000 <= DEFAULT_RESULT_SECONDS
    await check_every_place(clients, reader, step=29)


async def test_all_bytes_are_the_same_before_and_after_the_end(pair: Cluster, clients: list[Client]) -> None:
    """Read up to the middle from the running chat, then from the packed one: one list of frames."""
    session_id, word = await open_session(clients[0]), nonce()
    owner, far = Reader(clients), Reader(clients)
    sending = asyncio.create_task(owner.send(session_id, f"{word} [[sim:deltas=30;gap=0.02;reasoning=0]]"))
    await owner.started.wait()
    far.chat_id = owner.chat_id
    assert not await far.resume(1, frames=9)
    assert await sending
    await is_packed(pair, owner.chat_id)
    assert await far.resume(1)
    assert [e.raw for e in far.checked.frames] == [e.raw for e in owner.checked.frames]
    await check_every_place(clients, owner, step=7)


async def test_the_epochs_of_a_chat_that_was_taken_over_are_packed_together(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    sending = asyncio.create_task(reader.send(session_id, f"{word} [[sim:deltas=24;gap=0.05;reasoning=0]]"))
    await wait_until(lambda: len(reader.checked.frames) >= 6)
    pair.replicas[0].kill()
    with pytest.raises(AWAY):
        await sending
    await check_completed(await reader.follow(), pair.simulator, word, recovered=True)
    await asyncio.to_thread(pair.replicas[0].start)
    frames = reader.checked.frames
    assert {place_of(event.id or "")[0] for event in frames} == {1, 2}
    await is_packed(pair, reader.chat_id)
    check_packed(pair, reader.chat_id, frames)
    # The first epoch as Redis had it: a reader that was ahead of Redis when the owner died goes on with the
    # second one; whoever begins at the start sees all that is kept.
    for where in (0, 1):
        whole = await resume_after(clients, where, reader.chat_id, [])
        kept = [event.raw for event in whole.checked.frames]
        assert kept[-2:] == [event.raw for event in frames[-2:]]
        for number, event in enumerate(whole.checked.frames, start=1):
            again = await resume_after(clients, where, reader.chat_id, whole.checked.frames[:number])
            assert [e.raw for e in again.checked.frames] == kept, event.id
            assert again.checked.check_whole() == reader.checked.result


async def test_the_epochs_before_and_after_tool_outputs_are_packed_together_at_the_end(
    pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    waiting = await waiting_chat(clients, word, "deltas=9;reasoning=0")
    before = await resume_after(clients, 1, waiting["chat_id"], [])
    assert before.checked.check_whole()["status"] == "requires_action"
    # While it waits it is not over, so it is not packed.
    assert all(b"z" not in fields for _, fields in stored(pair, waiting["chat_id"]))
    going_on = await outputs_streamed(clients[1], waiting, word)
    await is_packed(pair, waiting["chat_id"])
    frames = [*before.checked.frames, *going_on]
    check_packed(pair, waiting["chat_id"], frames)
    for where in (0, 1):
        for number in range(len(frames) + 1):
            again = await resume_after(clients, where, waiting["chat_id"], frames[:number])
            assert [e.raw for e in again.checked.frames] == [e.raw for e in frames]
            chat = again.checked.check_whole()
            assert (chat["status"], word in chat["content"]) == ("completed", True)


async def test_a_trimmed_log_is_packed_as_it_was(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    near, far = Reader(clients), Reader(clients)
    message = f"{word} [[sim:gap=0.002;deltas=900;reasoning=0;followups=1]]"
    sending = asyncio.create_task(near.send(session_id, message))
    await near.started.wait()
    far.chat_id = near.chat_id
    assert not await far.resume(1, frames=5)
    assert await sending
    await is_packed(pair, near.chat_id)
    check_packed(pair, near.chat_id, near.checked.frames)
    assert await far.resume(1)
    await check_completed(far.checked.check_whole(), pair.simulator, word, recovered=False)
    assert far.checked.frames[5].event == "snapshot"
    kept = {event.id: event.raw for event in near.checked.frames}
    for where in (0, 1):
        whole = await resume_after(clients, where, near.chat_id, [])
        frames = whole.checked.frames
        assert frames[0].event == "snapshot"
        assert [e.raw for e in frames] == [kept.get(e.id, e.raw) for e in frames]
        assert [e.raw for e in frames] == [e.raw for e in far.checked.frames[-len(frames) :]]
        for number in (1, len(frames) // 2, len(frames) - 1):
            again = await resume_after(clients, where, near.chat_id, frames[:number])
            assert [e.raw for e in again.checked.frames] == [e.raw for e in frames]


@pytest.mark.parametrize("pauses", [1, pytest.param(3, marks=pytest.mark.full)])
async def test_a_reader_in_the_middle_of_a_log_that_is_packed_goes_on_without_a_gap(
    pauses: int, pair: Cluster, clients: list[Client]
) -> None:
    """The reader's own replica is held up while the chat ends at the other one."""
    for number in range(pauses):
        session_id, word = await open_session(clients[0]), nonce()
        message = f"{word} [[sim:deltas=30;gap=0.03;reasoning=0]]"
        owner, far = Reader(clients), Reader(clients)
        sending = asyncio.create_task(owner.send(session_id, message))
        await owner.started.wait()
        far.chat_id = owner.chat_id
        reading = asyncio.create_task(far.resume(1))
        await wait_until(lambda f=far, n=number: len(f.checked.frames) >= 4 + 7 * n)
        pair.replicas[1].pause()
        try:
            assert await sending
            await is_packed(pair, owner.chat_id)
        finally:
            pair.replicas[1].resume()
        assert await asyncio.wait_for(reading, 20)
        assert [e.raw for e in far.checked.frames] == [e.raw for e in owner.checked.frames]
        await check_completed(far.checked.check_whole(), pair.simulator, word, recovered=False)


async def test_what_is_cancelled_or_never_began_is_packed_too(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    running = await clients[0].start(session_id, f"{word} [[sim:deltas=100;gap=0.05;reasoning=0]]")
    queued = await clients[1].start(session_id, f"{word} queued", on_busy="enqueue")
    async with clients[0].events(running) as events:
        await events.until("conversation.message.delta", 5)
    for chat_id in (queued, running):
        assert (await clients[1].post(f"/coze/chats/{chat_id}/cancel")).status_code == 200
        await is_packed(pair, chat_id)
        whole = await resume_after(clients, 0, chat_id, [])
        assert whole.checked.check_whole()["status"] == "cancelled"
        check_packed(pair, chat_id, whole.checked.frames)
        await check_every_place(clients, whole, step=5)
    assert keys(pair.redis, "*:run:*") == []
