"""A chat that waits for its tools: until when, who makes that later, and what happens then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    SimControl,
    data_of,
    error_of,
    open_client,
    wait_until,
)

from .support import PREFIX, expired

MESSAGE = "[[sim:requires_action=function]] weather?"
MOMENT = timedelta(milliseconds=2)
"""Redis tells the time in milliseconds, cut off."""


@dataclass
class Place:
    """A service with brief sessions, and a client of it."""

    service: RunningApp
    client: Client


OpenPlace = Callable[..., Any]


@pytest.fixture(params=["redis-server", "memory"])
async def open_place(
    request: pytest.FixtureRequest, redis: RedisServer, start_app: Callable[..., RunningApp]
) -> AsyncIterator[OpenPlace]:
    """``await open_place(2)``: a service whose sessions live two seconds, on either kind of store."""
    places: list[tuple[Any, Place]] = []

    async def start(session_seconds: int, **values: str) -> Place:
        url = redis.url if request.param == "redis-server" else "memory://"
        service = start_app(
            REDIS_URL=url, COZE_REDIS_PREFIX=PREFIX, COZE_SESSION_EXPIRE=str(session_seconds), **values
        )
        opened = open_client(service.base_url)
        place = Place(service, await opened.__aenter__())
        places.append((opened, place))
        return place

    yield start
    for opened, place in places:
        await opened.__aexit__(None, None, None)
        await asyncio.to_thread(place.service.wait_idle)
        assert place.service.keys_without_ttl() == []


async def waiting(client: Client, session_id: str) -> dict[str, Any]:
    chat: dict[str, Any] = data_of(await client.send(session_id, MESSAGE))
    assert chat["status"] == "requires_action"
    return chat


async def chat_of(client: Client, chat_id: str) -> dict[str, Any]:
    chat: dict[str, Any] = data_of(await client.result(chat_id))
    return chat


async def over(client: Client, chat_id: str) -> dict[str, Any]:
    """The chat when it is over, whatever it waited for before."""

    async def look() -> dict[str, Any] | None:
        chat = await chat_of(client, chat_id)
        return chat if chat["status"] in ("completed", "failed", "cancelled") else None

    chat: dict[str, Any] = await wait_until(look, 15)
    return chat


async def streamed(client: Client, chat_id: str) -> dict[str, Any]:
    """The chat as a stream's ``result`` tells it."""
    async with client.events(chat_id) as events:
        await events.all()
        return events.result()


async def counted(client: Client) -> int:
    """How many chats have been counted as used."""
    count: int = data_of(await client.get("/coze/usage"))["total"]["chats"]
    return count


async def test_a_waiting_chat_tells_until_when_on_every_way_to_it(open_place: OpenPlace) -> None:
    client = (await open_place(300)).client
    session_id = await client.open_session()
    before = data_of(await client.send(session_id, "hello"))
    chat_id = (await waiting(client, session_id))["chat_id"]
    session = await client.session(session_id)
    history = {chat["chat_id"]: chat for chat in session["chat_history"]}
    page = data_of(await client.get(f"/coze/sessions/{session_id}/chats"))["chats"]
    listed = {chat["chat_id"]: chat for chat in page}
    ways = [
        history[chat_id],
        listed[chat_id],
        await chat_of(client, chat_id),
        data_of(await client.result(chat_id, wait=1)),
        await streamed(client, chat_id),
    ]
    assert [way["waits_until"] for way in ways] == [session["expires_at"]] * len(ways)
    assert all(way["status"] == "requires_action" for way in ways)
    for way in (history, listed):
        assert way[before["chat_id"]]["waits_until"] is None
    answered = data_of(await client.answer_tools(ways[0]))
    assert answered["status"] == "completed"
    session = await client.session(session_id)
    ends = [answered, await chat_of(client, chat_id), await streamed(client, chat_id)]
    ends += [chat for chat in session["chat_history"] if chat["chat_id"] == chat_id]
    assert [end["waits_until"] for end in ends] == [None] * 4


async def test_a_chat_begins_to_wait_for_as_long_as_a_session_lives(open_place: OpenPlace) -> None:
    """What the running chat held its session alive for beyond that is over."""
    client = (await open_place(300)).client
    chat = await waiting(client, await client.open_session())
    told = datetime.fromisoformat((await chat_of(client, chat["chat_id"]))["waits_until"])
    life = timedelta(seconds=300)
    assert datetime.fromisoformat(chat["updated_at"]) + life - MOMENT <= told
    assert told <= datetime.now(UTC) + life


async def test_reading_the_session_makes_the_chat_wait_longer_and_looking_at_the_chat_does_not(
    open_place: OpenPlace,
) -> None:
    client = (await open_place(300)).client
    session_id = await client.open_session()
    chat_id = (await waiting(client, session_id))["chat_id"]
    first = (await chat_of(client, chat_id))["waits_until"]
    later = time.time() + 0.05
    await wait_until(lambda: time.time() > later)
    assert (await streamed(client, chat_id))["waits_until"] == first
    await client.get(f"/coze/sessions/{session_id}/chats")
    assert (await chat_of(client, chat_id))["waits_until"] == first
    busy = await client.send(session_id, "next")
    assert (busy.status_code, error_of(busy)["code"]) == (409, "COZE_SESSION_BUSY")
    assert (await chat_of(client, chat_id))["waits_until"] == first
    expires_at = (await client.session(session_id))["expires_at"]
    assert (await chat_of(client, chat_id))["waits_until"] == expires_at > first


async def test_a_session_that_is_looked_at_keeps_its_chat_waiting_for_many_of_its_lives(
    open_place: OpenPlace, simulator: SimControl
) -> None:
    client = (await open_place(1)).client
    session_id = await client.open_session()
    chat = await waiting(client, session_id)
    queued = await client.start(session_id, "queued", on_busy="enqueue")
    begun = (await chat_of(client, chat["chat_id"]))["updated_at"]
    until = datetime.fromisoformat(begun) + timedelta(seconds=4)

    async def looked_at_for_long() -> bool:
        session = await client.session(session_id)
        return datetime.fromisoformat(session["expires_at"]) > until

    await wait_until(looked_at_for_long, pause=0.1)
    assert (await chat_of(client, chat["chat_id"]))["status"] == "requires_action"
    assert data_of(await client.answer_tools(chat))["status"] == "completed"
    assert (await client.ended(queued))["status"] == "completed"


async def test_a_waiting_chat_ends_with_its_session_and_so_does_what_is_queued_behind_it(
    open_place: OpenPlace, simulator: SimControl
) -> None:
    place = await open_place(2, COZE_RESULT_EXPIRE="900")
    client: Client = place.client
    session_id = await client.open_session()
    chat = await waiting(client, session_id)
    queued = await client.start(session_id, "queued one", on_busy="enqueue")
    async with client.stream(session_id, "queued two", on_busy="enqueue") as events:
        await asyncio.wait_for(events.all(), 15)  # it hears of its end while it is connected
        assert events.names() == ["chat", "error", "conversation.chat.failed", "result", "done"]
        assert expired(events.result())
        followed = events.chat_id
    ends = [await over(client, each) for each in (chat["chat_id"], queued, followed)]
    assert [expired(end) for end in ends] == [True] * 3
    assert [end["waits_until"] for end in ends] == [None] * 3
    # The first of them began at Coze, which refuses to cancel a chat that waits: it is not asked.
    assert len(simulator.requests(path="/v3/chat")) == 1
    assert simulator.requests(path="/v3/chat/cancel") == []
    assert await counted(client) == 3
    for response, code in [
        (await client.get(f"/coze/sessions/{session_id}"), "COZE_SESSION_EXPIRED"),
        (await client.send(session_id, "too late"), "COZE_SESSION_EXPIRED"),
        (await client.answer_tools(chat), "COZE_CHAT_STATE"),
    ]:
        assert error_of(response)["code"] == code, response.text
        assert response.status_code == (409 if code == "COZE_CHAT_STATE" else 410)
    cancelled = data_of(await client.post(f"/coze/chats/{chat['chat_id']}/cancel"))
    assert expired(cancelled)
    assert await counted(client) == 3


async def test_the_stream_of_a_chat_that_ended_with_its_session_says_so(open_place: OpenPlace) -> None:
    client = (await open_place(1)).client
    session_id = await client.open_session()
    async with client.stream(session_id, MESSAGE) as events:
        first = await events.all()
    await over(client, events.chat_id)
    tail = ["error", "conversation.chat.failed", "result", "done"]
    async with client.events(events.chat_id, events.last_id) as again:
        after = await again.all()
    assert [event.event for event in after][-4:] == tail
    assert error_in(after) == "COZE_SESSION_EXPIRED"
    async with client.events(events.chat_id) as whole:
        frames = await whole.all()
    assert [event.raw for event in frames[: len(first) - 2]] == [event.raw for event in first[:-2]]
    assert [event.event for event in frames][-4:] == tail


def error_in(events: list[Any]) -> str:
    [code] = [event.json()["code"] for event in events if event.event == "error"]
    return str(code)


async def test_the_record_of_such_an_end_stays_readable_for_its_stated_time(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(
        REDIS_URL=redis.url, COZE_REDIS_PREFIX=PREFIX, COZE_SESSION_EXPIRE="1", COZE_RESULT_EXPIRE="900"
    )
    async with open_client(service.base_url) as client:
        chat = await waiting(client, await client.open_session())
        assert expired(await over(client, chat["chat_id"]))
        with redis.client() as store:
            found = [key for key in store.scan_iter("*:chats:*") if store.hexists(key, chat["chat_id"])]
            [left] = [store.pttl(key) for key in found]
        assert isinstance(left, int)
        assert 890_000 < left <= 900_000
    # A prefix of its own: any replica may end the chat, and the first one would give it its own 900 s.
    brief = start_app(
        REDIS_URL=redis.url, COZE_REDIS_PREFIX="brief:", COZE_SESSION_EXPIRE="1", COZE_RESULT_EXPIRE="1"
    )
    async with open_client(brief.base_url) as client:
        chat = await waiting(client, await client.open_session())

        async def gone() -> bool:
            return (await client.result(chat["chat_id"])).status_code == 404

        await wait_until(gone, 15)


@pytest.mark.parametrize("lost", [False, True])
async def test_deleting_a_session_whose_chat_waits_leaves_no_key_without_a_time_to_live(
    lost: bool, redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    """``lost``: the chat's run has gone from Redis before, for whatever reason."""
    service = start_app(REDIS_URL=redis.url, COZE_REDIS_PREFIX=PREFIX)
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        chat = await waiting(client, session_id)
        queued = await client.start(session_id, "queued", on_busy="enqueue")
        if lost:
            with redis.client() as store:
                for key in store.scan_iter(f"*:run:{chat['chat_id']}"):
                    store.delete(key)
        deleting = asyncio.create_task(client.delete(f"/coze/sessions/{session_id}"))
        while not deleting.done():
            assert await asyncio.to_thread(redis.keys_without_ttl) == []
        assert data_of(await deleting)["status"] == "terminated"
        assert redis.keys_without_ttl() == []
        assert (await over(client, queued))["status"] == "cancelled"
        if not lost:
            assert (await over(client, chat["chat_id"]))["status"] == "cancelled"
        assert len(simulator.requests(path="/v3/chat")) == 1


async def test_tool_outputs_that_come_as_the_session_ends_are_taken_or_refused_but_never_both(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    """Twelve sessions of a second each; outputs come from a little before their ends to a little after."""
    service = start_app(
        REDIS_URL=redis.url,
        COZE_REDIS_PREFIX=PREFIX,
        COZE_SESSION_EXPIRE="1",
        COZE_MAX_SESSIONS_PER_USER="20",
    )
    async with open_client(service.base_url) as client:

        async def one(number: int) -> None:
            chat = await waiting(client, await client.open_session())
            await asyncio.sleep(0.7 + number * 0.1)
            answer = await client.answer_tools(chat)
            end = await over(client, chat["chat_id"])
            coze_id = chat["metadata"]["coze_chat_id"]
            sent = len(simulator.requests(path="/v3/chat/submit_tool_outputs", chat_id=coze_id))
            if answer.status_code == 200:
                assert (data_of(answer)["status"], end["status"], sent) == ("completed", "completed", 1)
            else:
                assert answer.status_code in (409, 410)
                assert (expired(end), sent) == (True, 0)

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(one(number))
        assert await counted(client) == 12
        await wait_until(lambda: _leases(redis) == [])


def _leases(redis: RedisServer) -> list[bytes]:
    with redis.client() as store:
        return [member for key in store.scan_iter("*:leases") for member in store.zrange(key, 0, -1)]
