"""Clients that lose their connection after every single frame and go on at another replica."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import Client, Event

from .support import Cluster, Reader, check_completed, nonce, open_session

SHAPES = {
    "plain": "deltas=12;reasoning=0;followups=1",
    "reasoning": "deltas=6;followups=3;text=Thought over.",
    "many messages": "multi=3;deltas=4;reasoning=0;plugin=1;verbose=knowledge",
    "a card": "card=1",
    "audio": "audio=1;deltas=3;reasoning=0",
    "failing": "deltas=9;fail_at=6;reasoning=0",
    "an error event": "deltas=9;error_at=4;reasoning=0",
    "tool calls": "requires_action=function;tool_calls=2",
    "a cut upstream": "deltas=12;reasoning=0;cut=2600",
}


def as_seen(events: list[Event]) -> list[tuple[str | None, bytes]]:
    return [(event.id, event.raw) for event in events]


async def read_in_two(clients: list[Client], chat_id: str, frames: int, order: tuple[int, int]) -> Reader:
    """``frames`` frames from one replica, the rest from the other."""
    reader = Reader(clients)
    reader.chat_id = chat_id
    if not await reader.resume(order[0], frames=frames):
        assert await reader.resume(order[1])
    reader.checked.check_whole()
    return reader


async def cut_after_every_frame(clients: list[Client], shape: str, most: int = 48) -> int:
    """Of one chat: a whole reading, and for each frame live readings cut there and resumed elsewhere. Returns
    the number of frames."""
    session_id = await open_session(clients[0])
    word = nonce()
    chat_id = await clients[0].start(session_id, f"{word} [[sim:delay=0.3;gap=0.02;{shape}]]")
    live = Reader(clients)
    live.chat_id = chat_id
    whole = asyncio.create_task(live.resume(0))
    # More cuts than there will be frames: those past the end read all in the first part.
    cuts = [
        asyncio.create_task(read_in_two(clients, chat_id, count, order))
        for count in range(most)
        for order in ((0, 1), (1, 0))
    ]
    assert await whole
    expected = as_seen(live.checked.frames)
    readings = [await cut for cut in cuts]
    assert len(expected) < most
    for reader in readings:
        assert as_seen(reader.checked.frames) == expected
        assert reader.checked.result == live.checked.result
    # After the end, from each place of the log, on both replicas.
    for count in range(len(expected) + 1):
        reader = await read_in_two(clients, chat_id, count, (count % 2, 1 - count % 2))
        assert as_seen(reader.checked.frames) == expected
    # One reader that is cut off after every frame, and changes replicas each time.
    hopping = Reader(clients)
    hopping.chat_id = chat_id
    hops = 0
    while not await hopping.resume(hops % 2, frames=1):
        hops += 1
    assert as_seen(hopping.checked.frames) == expected
    return len(expected)


async def test_a_client_cut_after_any_frame_gets_the_same_events_from_the_other_replica(
    pair: Cluster, clients: list[Client]
) -> None:
    assert await cut_after_every_frame(clients, SHAPES["plain"]) > 15


@pytest.mark.full
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_kind_of_answer_survives_a_cut_after_any_frame(
    shape: str, pair: Cluster, clients: list[Client]
) -> None:
    await cut_after_every_frame(clients, SHAPES[shape], most=100)


async def test_a_live_reader_that_hops_at_every_frame_misses_nothing(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    done = await reader.send(session_id, f"{word} [[sim:deltas=20;gap=0.02;reasoning=0]]", frames=1)
    while not done:
        done = await reader.resume(1 - reader.place, frames=1)
    chat = reader.checked.check_whole()
    await check_completed(chat, pair.simulator, word, recovered=False)
    assert reader.connections >= len(reader.checked.frames)
