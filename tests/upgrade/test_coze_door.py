"""Chats that clients of Coze's own API began, in the hands of the previous version, which has no such door.

Their logs also hold what only such a client is shown, as comments of the event stream; the previous version
passes those on as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.coze_clients.support import CozeCaller, answer_of, asking, calling, events_of
from tests.faults.folding import place_of
from tests.faults.support import Cluster, nonce, posts, result
from tests.support import Client, Event, data_of, outputs_for, wait_until
from tests.support.folding import before_the_end

OLD, NEW = 0, 1
TYPING = "deltas=40;gap=0.05;followups=2"
"""About two seconds; with a verbose message, which only clients of Coze's API are shown."""


@asynccontextmanager
async def coze_door(mixed: Cluster) -> AsyncIterator[CozeCaller]:
    async with calling(f"{mixed.urls[NEW]}/coze/api", "any") as caller:
        yield caller


@dataclass
class Running:
    """A chat that is streamed through the door: ``chat_id`` is ours, ``ids`` are Coze's."""

    chat_id: str
    ids: dict[str, str]
    stream: asyncio.Task[bytes]


async def begin(door: CozeCaller, text: str) -> Running:
    told: asyncio.Future[tuple[str, dict[str, str]]] = asyncio.get_running_loop().create_future()

    async def read() -> bytes:
        got = b""
        try:
            async with door.streaming(asking(text)) as response:
                async for chunk in response.aiter_raw():
                    got += chunk
                    if not told.done() and b"\n\n" in got:
                        chat = events_of(got)[0][1]
                        ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
                        told.set_result((response.headers["x-coze-chat-id"], ids))
        except httpx.TransportError:
            assert b"event:done" not in got
        return got

    stream = asyncio.create_task(read())
    chat_id, ids = await told
    return Running(chat_id, ids, stream)


def read_as_browsers_do(raw: bytes) -> Iterator[Event]:
    """The events of a stream (WHATWG HTML, 9.2.6): a block without data is none, whatever id it has."""
    for block in raw.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        if "data" in fields:
            yield Event(fields.get("id"), fields.get("event", "message"), fields["data"])


async def events(
    client: Client, chat_id: str, after: str | None = None, *, most: int | None = None
) -> list[Event]:
    """What one connection brings, up to its end or to so many events."""
    raw, found = b"", []
    headers = {} if after is None else {"Last-Event-ID": after}
    async with client.http.stream("GET", f"/coze/chats/{chat_id}/events", headers=headers) as response:
        assert response.status_code == 200
        async for chunk in response.aiter_raw():
            raw += chunk
            found = [event for event in read_as_browsers_do(raw) if event.event != "reconnect"]
            if most is not None and len(found) >= most:
                return found[:most]
    return found


async def piecewise(clients: list[Client], chat_id: str) -> list[Event]:
    """Seven events from the one version, seven from the other, to the end."""
    found: list[Event] = []
    turn = 0
    while not found or found[-1].event != "done":
        turn += 1
        after = found[-1].id if found else None
        found += await events(clients[turn % 2], chat_id, after, most=7)
    return found


def check_whole(found: list[Event], chat: dict[str, Any]) -> None:
    """By the folding rule the events make this chat; nothing came twice, and nothing is shown that is not for
    our clients."""
    places = [place_of(event.id or "") for event in found[:-2]]
    assert places == sorted(set(places))
    assert [event.event for event in found[-2:]] == ["result", "done"]
    folded = before_the_end(found)
    assert (folded.content, folded.reasoning) == (chat["content"], chat["reasoning_content"])
    assert folded.follow_ups == chat["follow_up_questions"]
    assert not any('"type":"verbose"' in event.data for event in found)


async def test_the_previous_version_reads_a_chat_of_coze_s_door_while_it_runs_and_from_every_place_afterwards(
    mixed: Cluster, sides: list[Client]
) -> None:
    word = nonce()
    async with coze_door(mixed) as door:
        running = await begin(door, f"{word} [[sim:{TYPING}]]")
        chat_id = running.chat_id
        told = await asyncio.gather(
            events(sides[OLD], chat_id), events(sides[NEW], chat_id), piecewise(sides, chat_id)
        )
        stream = await running.stream
    chat = await result(sides[OLD], chat_id)
    assert chat == await result(sides[NEW], chat_id)
    assert (chat["status"], chat["content"]) == ("completed", answer_of(stream))
    assert b'"type":"verbose"' in stream
    for found in told:
        check_whole(found, chat)
    whole = told[NEW]
    for where in (OLD, NEW):
        for number in range(len(whole) - 1):
            after = whole[number - 1].id if number else None
            check_whole(whole[:number] + await events(sides[where], chat_id, after), chat)
    assert posts(mixed.simulator, word) == 1


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_the_previous_version_ends_a_chat_of_coze_s_door_whose_owner_has_gone(
    how: str, mixed: Cluster, sides: list[Client]
) -> None:
    word = nonce()
    async with coze_door(mixed) as door:
        running = await begin(door, f"{word} [[sim:{TYPING}]]")
        watching = asyncio.create_task(events(sides[OLD], running.chat_id))
        seen = await events(sides[OLD], running.chat_id, most=12)
        if how == "killed":
            mixed.replicas[NEW].kill()
        else:
            await asyncio.to_thread(mixed.replicas[NEW].stop)
        assert b"event:done" not in await running.stream
        chat = await sides[OLD].ended(running.chat_id)
        assert (chat["status"], word in chat["content"]) == ("completed", True)
        assert (await watching)[-1].event == "done"
    await asyncio.to_thread(mixed.replicas[NEW].start)
    async with coze_door(mixed) as door:
        told = await door.data("GET", "/v3/chat/retrieve", params=running.ids)
        assert told["status"] == "completed"
        listed = await door.data("GET", "/v3/chat/message/list", params=running.ids)
        assert chat["content"] in [each["content"] for each in listed if each["type"] == "answer"]
        for client in sides:
            # No more is asked of this text: what the previous version fetches from Coze it tells in
            # ``message.completed`` alone, of which the folding rule knows nothing.
            end, done = (await events(client, running.chat_id, seen[-1].id))[-2:]
            assert (end.event, done.event) == ("result", "done")
            assert end.json()["data"]["task_result"]["data"] == chat
        again = await door.chat(f"{word} again", running.ids["conversation_id"])
        assert f"{word} again" in answer_of(again)
    assert posts(mixed.simulator, word) == 2


async def test_the_previous_version_takes_the_tool_outputs_of_a_chat_of_coze_s_door(
    mixed: Cluster, sides: list[Client]
) -> None:
    word = nonce()
    async with coze_door(mixed) as door:
        running = await begin(door, f"{word} [[sim:requires_action=function;deltas=8;gap=0.03]]")
        assert events_of(await running.stream)[-2][0] == "conversation.chat.requires_action"
        waiting = await result(sides[OLD], running.chat_id)
        path = f"/coze/chats/{running.chat_id}/tool_outputs"
        answered = data_of(await sides[OLD].post(path, json=outputs_for(waiting, word)))
        assert (answered["status"], word in answered["content"]) == ("completed", True)

        async def over() -> bool:
            chat = await door.data("GET", "/v3/chat/retrieve", params=running.ids)
            return bool(chat["status"] == "completed")

        await wait_until(over)
        for client in sides:
            check_whole(await events(client, running.chat_id), answered)
