"""OpenAI's responses in background: a stream is read on by ``starting_after`` on the replica that is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.openai.support import async_client
from tests.support import Client, wait_until

from .support import AWAY, LEASE_SECONDS, Cluster, Reader, check_completed, keys, nonce, result

MODEL = "coze"
TEXT = "A bridge is built from both banks, and where they meet it has to fit to the inch, or not at all: so."
TYPING = "deltas=50;gap=0.05;followups=1"
"""About three seconds."""
PLACES = 50
"""Events of such a response, at the least."""

TERMINAL = ("response.completed", "response.failed", "response.incomplete")

Events = list[dict[str, Any]]


def client_of(pair: Cluster, where: int) -> AsyncOpenAI:
    return async_client(pair.urls[where])


@dataclass
class Cut:
    """A response of which a client gets so many events, and no more."""

    place: int
    word: str = field(default_factory=nonce)
    told: Events = field(default_factory=list)

    @property
    def response_id(self) -> str:
        response_id: str = self.told[0]["response"]["id"]
        return response_id

    @property
    def said_by_coze(self) -> str:
        return f"{self.word}: {TEXT}"

    async def read(self, ai: AsyncOpenAI) -> None:
        text = f"{self.word} [[sim:text={self.said_by_coze};{TYPING}]]"
        stream = await ai.responses.create(model=MODEL, input=text, background=True, stream=True)
        async for event in stream:
            self.told.append(event.to_dict())
            if len(self.told) == self.place:
                break
        await stream.close()


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


async def check_read_on(pair: Cluster, cut: Cut, far: AsyncOpenAI, client: Client) -> bool:
    """What is read on the replica that is left. Returns whether the kill found the answer unfinished."""
    async with asyncio.timeout(LEASE_SECONDS + 60):
        rest = await events_after(far, cut.response_id, cut.told[-1]["sequence_number"])
        whole = await events_after(far, cut.response_id, None)
    assert cut.told + rest == whole, f"cut behind event {cut.place}"
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert len(whole) >= PLACES, "there are as many places to be cut at"
    final = whole[-1]["response"]
    assert final["output"][-1]["content"][0]["text"] == cut.said_by_coze
    said = [event["delta"] for event in whole if event["type"] == "response.output_text.delta"]
    assert "".join(said) == cut.said_by_coze
    chat = await result(client, cut.response_id.removeprefix("resp_"))
    await check_completed(chat, pair.simulator, cut.word)
    return bool(chat["recovered"])


async def cut_at(pair: Cluster, clients: list[Client], victim: int, places: list[int]) -> None:
    """A response is cut at each of these places; once all are, their owner is killed.

    Who is cut late begins early, so that all get to their places at about the same time, and most are at work
    when the kill comes.
    """
    cuts = [Cut(place) for place in sorted(places, reverse=True)]
    other = 1 - victim
    async with client_of(pair, victim) as near, client_of(pair, other) as far:
        async with asyncio.TaskGroup() as group:
            for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
                group.create_task(cut.read(near))
                if following is not None:
                    lead = cut.place - following.place
                    await wait_until(lambda c=cut, n=lead: len(c.told) >= n)
        pair.replicas[victim].kill()
        restart = asyncio.create_task(asyncio.to_thread(pair.replicas[victim].start))
        found = await asyncio.gather(*(check_read_on(pair, cut, far, clients[other]) for cut in cuts))
        await restart
    assert sum(found) > len(cuts) / 2, "most answers were over before the kill: this shows nothing"


@pytest.mark.timeout(180)
async def test_a_stream_in_background_whose_owner_is_killed_is_read_on_elsewhere_with_the_same_events(
    pair: Cluster, clients: list[Client]
) -> None:
    await cut_at(pair, clients, 0, [1, 9, 24, 41])


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_stream_in_background_may_be_cut_behind_each_event(
    pair: Cluster, clients: list[Client]
) -> None:
    for victim in (0, 1):
        await cut_at(pair, clients, victim, list(range(1 + victim, PLACES + 1, 2)))


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
