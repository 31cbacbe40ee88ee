"""The folding rule: deltas by message id, and snapshots, give the whole answer before the terminal frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tests.support import (
    Client,
    Event,
    RedisServer,
    RunningApp,
    SimControl,
    data_of,
    open_client,
    wait_until,
)
from tests.support.folding import before_the_end, events_of


def check(events: Sequence[Event], chat: dict[str, Any]) -> None:
    """Who knows only the rule had everything when the terminal frame came."""
    had = before_the_end(events)
    assert had.content == chat["content"]
    assert had.reasoning == chat["reasoning_content"]
    if chat["status"] == "completed":
        assert had.follow_ups == chat["follow_up_questions"]


async def read(client: Client, message: str, **session: Any) -> tuple[list[Event], dict[str, Any]]:
    """A new chat read from its start to its end; checked."""
    session_id = await client.open_session(**session)
    async with client.stream(session_id, message) as reader:
        events = await reader.all()
    check(events, reader.result())
    return events, reader.result()


async def read_again(client: Client, chat: dict[str, Any], after: str | None = None) -> list[Event]:
    async with client.events(chat["chat_id"], after) as reader:
        return await reader.all()


def names(events: Sequence[Event]) -> list[str]:
    """Without what all have."""
    short = [event.event.removeprefix("conversation.") for event in events]
    return [name for name in short if name not in ("chat", "result", "done") and "chat." not in name]


BRIEF = "reasoning=0;followups=0;verbose=none"
SHAPES = {
    "deltas": "deltas=4",
    "reasoning first": "deltas=3;reasoning=1;followups=2",
    "a card": "card=1",
    "an object_string": "object_string=1;multi=2",
    "completed goes on": "text=The half;completed_text=The half and the rest;deltas=2",
    "completed differs": "text=A bad word;completed_text=***;deltas=2",
    "completed is empty": "text=All of it;completed_text=;deltas=2",
    "several answers, completed differs": "multi=3;deltas=2;completed_text=same",
    "a plugin": "plugin=1;deltas=2;verbose=knowledge",
    "nothing at all": "deltas=0;text=",
}


@pytest.mark.parametrize("knobs", SHAPES.values(), ids=SHAPES)
async def test_every_shape_of_answer_is_told_by_the_rule(knobs: str, each_client: Client) -> None:
    _, chat = await read(each_client, f"[[sim:{BRIEF};{knobs}]] hello")
    assert chat["status"] == "completed"
    check(await read_again(each_client, chat), chat)


async def test_a_message_without_deltas_gets_a_delta_and_one_that_goes_on_the_rest(client: Client) -> None:
    events, _ = await read(client, f"[[sim:card=1;{BRIEF}]] hello")
    assert names(events) == ["message.delta", "message.completed"]
    [delta, completed] = [event.json() for event in events if "message." in event.event]
    fields = ("id", "conversation_id", "chat_id", "role", "type", "content", "content_type")
    assert [delta[name] for name in fields] == [completed[name] for name in fields]
    assert delta["content_type"] == "card"

    text = "text=The half;completed_text=The half and the rest;deltas=1"
    events, _ = await read(client, f"[[sim:{BRIEF};{text}]] hello")
    assert names(events) == ["message.delta", "message.delta", "message.completed"]
    [first, rest] = [event.json() for event in events if event.event == "conversation.message.delta"]
    assert (rest["id"], rest["content"]) == (first["id"], " and the rest")


async def test_a_message_that_ends_otherwise_than_it_began_gets_a_snapshot(client: Client) -> None:
    events, chat = await read(client, f"[[sim:{BRIEF};text=A bad word;completed_text=***;deltas=1]] hello")
    assert names(events) == ["message.delta", "snapshot", "message.completed"]
    assert chat["content"] == "***"


async def test_what_coze_says_as_it_should_is_passed_on_and_nothing_added(client: Client) -> None:
    events, _ = await read(client, f"[[sim:{BRIEF};multi=2;deltas=2]] hello")
    assert names(events) == ["message.delta", "message.delta", "message.completed"] * 2


STORED = {
    "as it was streamed": "",
    "otherwise": "stored_text=Quite another answer",
    "more of it": "text=Word for word;stored_text=Word for word and more",
    "nothing yet": "empty_list=1",
    "several": "multi=3",
    "a card": "card=1",
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
@pytest.mark.parametrize("cut", [0, 700, 1500, 2400])
async def test_what_repair_finds_is_told_by_the_rule(cut: int, stored: str, each_client: Client) -> None:
    knobs = f"reasoning=1;followups=1;deltas=4;{stored};cut={cut}"
    _, chat = await read(each_client, f"[[sim:{knobs}]] hello")
    assert (chat["status"], chat["recovered"]) == ("completed", True)
    check(await read_again(each_client, chat), chat)


@pytest.mark.parametrize("cut", [700, 1500])
async def test_a_part_of_an_answer_is_never_called_completed(cut: int, client: Client) -> None:
    """Coze says that it has completed the chat, and never shows the answer."""
    knobs = f"{BRIEF};text=One two three four;deltas=4;cut={cut};empty_list=999"
    events, chat = await read(client, f"[[sim:{knobs}]] hello")
    assert (chat["status"], chat["error"]["code"], chat["error"]["retryable"]) == (
        "failed",
        "COZE_API_ERROR",
        False,
    )
    assert "shows no answer" in chat["error"]["message"]
    assert "One two three four".startswith(chat["content"])
    assert chat["usage"]["output_count"] > 0
    check(events, chat)


async def test_repair_goes_on_where_the_stream_was_cut(client: Client) -> None:
    events, _ = await read(client, f"[[sim:{BRIEF};text=One two three four;deltas=4;cut=1500]] hello")
    deltas = [event.json()["content"] for event in events if event.event == "conversation.message.delta"]
    assert 2 <= len(deltas) <= 4
    assert "".join(deltas) == "One two three four"
    assert names(events) == ["message.delta"] * len(deltas) + ["message.completed"]


async def test_a_message_that_was_complete_is_not_completed_again_by_repair(client: Client) -> None:
    events, chat = await read(client, f"[[sim:{BRIEF};multi=2;deltas=2;no_terminal=1]] hello")
    assert chat["recovered"] is True
    assert names(events) == ["message.delta", "message.delta", "message.completed"] * 2


@pytest.fixture
async def polling(start_app: Callable[..., RunningApp], redis: RedisServer) -> AsyncIterator[list[Client]]:
    """Services that do not stream from Coze, on both stores."""
    clients = []
    for url in ("memory://", redis.url):
        opened = open_client(
            start_app(REDIS_URL=url, COZE_USE_STREAM="false", COZE_POLL_INTERVAL="0.05").base_url
        )
        clients.append((opened, await opened.__aenter__()))
    yield [client for _, client in clients]
    for opened, _ in clients:
        await opened.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "knobs", ["", "multi=3", "card=1", "followups=2;reasoning=1", "stored_text=other", "empty_list=8"]
)
async def test_an_answer_that_is_polled_for_is_told_by_the_rule(knobs: str, polling: list[Client]) -> None:
    for client in polling:
        _, chat = await read(client, f"[[sim:{BRIEF};{knobs}]] hello")
        assert chat["status"] == "completed"
        assert chat["content"]
        check(await read_again(client, chat), chat)


async def test_an_answer_that_is_polled_for_and_never_shown_is_not_called_completed(
    polling: list[Client],
) -> None:
    for client in polling:
        _, chat = await read(client, f"[[sim:{BRIEF};empty_list=999]] hello")
        assert (chat["status"], chat["content"], chat["usage"]["output_count"] > 0) == ("failed", "", True)


@pytest.mark.parametrize("stored", ["", "stored_text=Quite another answer"])
async def test_a_cancel_that_comes_too_late_tells_the_answer_by_the_rule(
    stored: str, each_client: Client, simulator: SimControl
) -> None:
    """Coze is through with its answer, but does not give it to us yet."""
    client = each_client
    session_id = await client.open_session()
    simulator.knob(path="/v3/chat/message/list", http=502)
    message = f"[[sim:{BRIEF};followups=1;deltas=4;cut=1500;{stored}]] hello"
    async with client.stream(session_id, message) as reader:
        await reader.until("conversation.message.delta")
        assert reader.text() != ""
        await wait_until(lambda: len(simulator.requests(path="/v3/chat/message/list")) > 4)
        cancelling = asyncio.create_task(client.post(f"/coze/chats/{reader.chat_id}/cancel"))
        # Until Coze is asked to cancel its answer stays out of reach: else the repair might find it first.
        await wait_until(lambda: simulator.requests(path="/v3/chat/cancel"))
        simulator.clear_knobs()
        answer = await cancelling
        await reader.all()
    chat = reader.result()
    assert (chat["status"], chat["recovered"]) == ("completed", True)
    assert data_of(answer) == chat
    assert len(chat["follow_up_questions"]) == 1
    check(reader.seen, chat)
    assert ("snapshot" in names(reader.seen)) is bool(stored)
    assert [record["path"] for record in simulator.requests(path="/v3/chat/cancel")]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_what_was_said_of_an_answer_that_did_not_get_to_its_end_stays(
    status: str, each_client: Client
) -> None:
    client = each_client
    session_id = await client.open_session()
    knobs = "deltas=6;fail_at=3" if status == "failed" else "deltas=6;stall=3:30"
    async with client.stream(session_id, f"[[sim:{BRIEF};{knobs}]] hello") as reader:
        await reader.until("conversation.message.delta", times=3)
        if status == "cancelled":
            await client.post(f"/coze/chats/{reader.chat_id}/cancel")
        await reader.all()
    chat = reader.result()
    assert chat["status"] == status
    assert chat["content"]
    check(reader.seen, chat)
    check(await read_again(client, chat), chat)


@pytest.mark.parametrize("knobs", ["", "multi=2", "card=1", "completed_text=otherwise"])
async def test_after_tool_outputs_it_goes_on_by_the_rule(knobs: str, each_client: Client) -> None:
    client = each_client
    session_id = await client.open_session()
    message = f"[[sim:{BRIEF};requires_action=function;{knobs}]] hello"
    async with client.stream(session_id, message) as reader:
        events = await reader.all()
    check(events, reader.result())
    [call] = reader.result()["required_action"]["submit_tool_outputs"]["tool_calls"]
    body = {"tool_outputs": [{"tool_call_id": call["id"], "output": "21"}], "stream": True}
    path = f"/coze/chats/{reader.chat_id}/tool_outputs"
    async with client.streaming("POST", path, json=body) as going_on:
        more = await going_on.all()
    assert more[0].event == "snapshot"
    check([*events, *more], going_on.result())
    check(more, going_on.result())
    check(await read_again(client, going_on.result()), going_on.result())


@pytest.fixture
async def trimming(start_app: Callable[..., RunningApp], redis: RedisServer) -> AsyncIterator[list[Client]]:
    clients = []
    for url in ("memory://", redis.url):
        service = start_app(REDIS_URL=url, MAX_CHAT_LOG_BYTES="65536", COZE_RESULT_EXPIRE="1")
        opened = open_client(service.base_url)
        clients.append((opened, await opened.__aenter__()))
    yield [client for _, client in clients]
    for opened, _ in clients:
        await opened.__aexit__(None, None, None)


@pytest.mark.parametrize("knobs", ["", "multi=3", "completed_text=quite another text"])
async def test_trimmed_and_expired_logs_tell_the_answer_by_the_rule(
    knobs: str, trimming: list[Client]
) -> None:
    for client in trimming:
        session_id = await client.open_session()
        message = f"[[sim:{BRIEF};deltas=500;followups=1;{knobs}]] hello"
        async with client.stream(session_id, message) as reader:
            await reader.all()
        chat = reader.result()
        check(reader.seen, chat)
        frames = [event for event in reader.seen if event.id and event.event not in ("result", "done")]
        # By one who was stopped at any place, and by one who begins now.
        for place in (0, 1, 7, len(frames) // 2, len(frames) - 2):
            again = await read_again(client, chat, frames[place].id)
            check([*frames[: place + 1], *again], chat)
        again = await read_again(client, chat)
        check(again, chat)
        assert "snapshot" in names(again)

        async def gone(client: Client = client, chat: dict[str, Any] = chat) -> bool:
            events = await read_again(client, chat)
            return names(events) == ["snapshot"]

        await wait_until(gone, 10)
        for place in range(0, len(frames) - 1, 97):
            again = await read_again(client, chat, frames[place].id)
            check([*frames[: place + 1], *again], chat)


async def test_who_has_all_but_the_end_gets_no_id_twice_once_the_log_has_expired(
    trimming: list[Client],
) -> None:
    for client in trimming:
        session_id = await client.open_session()
        async with client.stream(session_id, f"[[sim:{BRIEF};deltas=4;fail_at=3]] hello") as reader:
            await reader.all()
        frames = [event for event in reader.seen if event.id and event.event not in ("result", "done")]
        chat = reader.result()

        async def gone(client: Client = client, chat: dict[str, Any] = chat) -> bool:
            return names(await read_again(client, chat)) == ["snapshot", "error"]

        await wait_until(gone, 10)
        for place, frame in enumerate(frames):
            again = await read_again(client, chat, frame.id)
            ids = [event.id for event in again if event.event not in ("result", "done")]
            assert frame.id not in ids
            if place >= len(frames) - 3:
                assert ids == [later.id for later in frames[place + 1 :]]


async def test_readers_that_come_at_any_moment_all_have_the_answer(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    knobs = f"{BRIEF};deltas=30;gap=0.01;text={'word ' * 30};completed_text=otherwise"
    async with client.stream(session_id, f"[[sim:{knobs}]] hello") as first:
        await first.until("chat")
        later = []
        for _ in range(10):
            await first.until("conversation.message.delta", times=2)
            later.append(asyncio.create_task(read_again(client, {"chat_id": first.chat_id})))
        await first.all()
    for reading in later:
        check(await reading, first.result())


def test_a_frame_is_read_as_the_event_that_it_is() -> None:
    [event] = events_of([b'event: a\ndata: {"x":\ndata: 1}\n\n'])
    assert (event.event, event.json()) == ("a", {"x": 1})
