"""OpenAI's responses in background: a stream is read on by ``starting_after`` on the replica that is left."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.openai.support import async_client
from tests.support import Client, wait_until

from .support import AWAY, LEASE_SECONDS, Cluster, Reader, check_completed, keys, nonce

MODEL = "coze"
TEXT = "A bridge is built from both banks, and where they meet it has to fit to the inch, or not at all: so."
TYPING = "deltas=50;gap=0.03;followups=1"
"""About two seconds."""
PLACES = 50

TERMINAL = ("response.completed", "response.failed", "response.incomplete")

Events = list[dict[str, Any]]


def client_of(pair: Cluster, where: int) -> AsyncOpenAI:
    return async_client(pair.urls[where])


async def first_events(ai: AsyncOpenAI, text: str, many: int) -> Events:
    """The first events of a new response; the connection is then left as it is by whoever kills its end."""
    events: Events = []
    stream = await ai.responses.create(model=MODEL, input=text, background=True, stream=True)
    async for event in stream:
        events.append(event.to_dict())
        if len(events) == many:
            break
    await stream.close()
    return events


async def events_after(ai: AsyncOpenAI, response_id: str, number: int | None) -> Events:
    """All events behind one, however often the connection ends before the last."""
    events: Events = []
    while not events or events[-1]["type"] not in TERMINAL:
        after = events[-1]["sequence_number"] if events else number
        known: dict[str, Any] = {} if after is None else {"starting_after": after}
        async for event in await ai.responses.retrieve(response_id, stream=True, **known):
            events.append(event.to_dict())
        if not events and number is not None:
            break  # the last event was had before
    return events


async def cut_killed_and_read_on(pair: Cluster, clients: list[Client], victim: int, place: int) -> int:
    """Returns how many events there are."""
    word, other = nonce(), 1 - victim
    said_by_coze = f"{word}: {TEXT}"
    text = f"{word} [[sim:text={said_by_coze};{TYPING}]]"
    async with client_of(pair, victim) as near, client_of(pair, other) as far:
        told = await first_events(near, text, place)
        response_id = told[0]["response"]["id"]
        pair.replicas[victim].kill()
        async with asyncio.timeout(LEASE_SECONDS + 30):
            rest = await events_after(far, response_id, told[-1]["sequence_number"])
            whole = await events_after(far, response_id, None)
    assert told + rest == whole, f"cut behind event {place}"
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    final = whole[-1]["response"]
    assert final["output"][-1]["content"][0]["text"] == said_by_coze
    said = [event["delta"] for event in whole if event["type"] == "response.output_text.delta"]
    assert "".join(said) == said_by_coze
    chat_id = response_id.removeprefix("resp_")
    chat = (await clients[other].get(f"/coze/chats/{chat_id}/result")).json()["data"]["task_result"]["data"]
    await check_completed(chat, pair.simulator, word)
    return len(whole)


async def cut_at(pair: Cluster, clients: list[Client], places: list[int]) -> None:
    """At each of these places one response; the replica that was killed starts while the other one works."""
    with ThreadPoolExecutor(1) as pool:
        restart = pool.submit(lambda: None)
        for number, place in enumerate(places):
            victim = number % 2
            total = await cut_killed_and_read_on(pair, clients, victim, place)
            assert total >= PLACES, "there are as many places to be cut at"
            await asyncio.wrap_future(restart)
            restart = pool.submit(pair.replicas[victim].start)
            await asyncio.wrap_future(restart)


@pytest.mark.timeout(180)
async def test_a_stream_in_background_whose_owner_is_killed_is_read_on_elsewhere_with_the_same_events(
    pair: Cluster, clients: list[Client]
) -> None:
    await cut_at(pair, clients, [1, 9, 24, 41])


@pytest.mark.full
@pytest.mark.timeout(3000)
async def test_a_stream_in_background_may_be_cut_behind_each_event(
    pair: Cluster, clients: list[Client]
) -> None:
    await cut_at(pair, clients, list(range(1, PLACES + 1)))


@pytest.mark.timeout(90)
async def test_what_only_a_dead_process_had_was_told_to_nobody(pair: Cluster, clients: list[Client]) -> None:
    """Our own readers are ahead of Redis. Such a stream is not: nothing that it told goes with its owner."""
    text = f"{nonce()} [[sim:text={TEXT * 12};deltas=1000;gap=0.05;reasoning=0]]"
    async with client_of(pair, 0) as near, client_of(pair, 1) as far:
        told: Events = []
        stream = await near.responses.create(model=MODEL, input=text, background=True, stream=True)

        async def read() -> None:
            async for event in stream:
                told.append(event.to_dict())

        reading = asyncio.create_task(read())
        await wait_until(lambda: any(event["type"] == "response.output_text.delta" for event in told))
        response_id = told[0]["response"]["id"]
        ahead = Reader(clients)
        ahead.chat_id = response_id.removeprefix("resp_")
        ours = asyncio.create_task(ahead.resume(0))
        frames = ahead.checked.frames
        await wait_until(lambda: frames)
        pair.redis.pause()
        try:
            seen = len(frames)
            await wait_until(lambda: len(frames) > seen + 4)
            before, seen = list(told), len(frames)
            await wait_until(lambda: len(frames) > seen + 4)
            assert told == before
            pair.replicas[0].kill()
            for reader in (reading, ours):
                with pytest.raises((*AWAY, openai.APIError)):
                    await reader
        finally:
            pair.redis.resume()
        async with asyncio.timeout(LEASE_SECONDS + 30):
            await far.responses.cancel(response_id)
            rest = await events_after(far, response_id, told[-1]["sequence_number"])
            whole = await events_after(far, response_id, None)
    assert told + rest == whole


async def test_one_response_is_read_on_both_replicas_with_the_same_events_and_once_its_log_is_gone(
    pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    text = f"{word} [[sim:text={TEXT};deltas=30;gap=0.01]]"
    async with client_of(pair, 0) as near, client_of(pair, 1) as far:
        made = await near.responses.create(model=MODEL, input=text, background=True, stream=True)
        async for event in made:
            response_id = event.response.id  # type: ignore[union-attr]
            break
        ours, theirs = await asyncio.gather(
            events_after(near, response_id, None), events_after(far, response_id, None)
        )
        assert ours == theirs
        with pair.redis.client() as redis:
            redis.delete(*keys(pair.redis, "*:log:*"))
        for ai in (near, far):
            assert await events_after(ai, response_id, None) == ours
            last = ours[-2]["sequence_number"]
            assert await events_after(ai, response_id, last) == ours[-1:]
            assert await events_after(ai, response_id, last + 1) == []
