"""Streamed messages: the order of events, ids to resume from, and how a stream may end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.models.bodies import SendMessage
from app.tasks.chats import Sending
from app.tasks.reader import Batch
from tests.support import (
    Client,
    EventReader,
    RunningApp,
    SimControl,
    data_of,
    error_of,
    open_client,
    wait_until,
)

TERMINAL = {"conversation.chat.completed", "conversation.chat.failed", "conversation.chat.canceled"}


def check_course(reader: EventReader) -> None:
    """What holds for every stream that was read to its end."""
    events, names = reader.seen, reader.names()
    assert names[0] == "chat"
    assert events[0].id == "1-1"
    assert names[-2:] == ["result", "done"]
    assert events[-1].data == '"[DONE]"'
    assert len([name for name in names if name in TERMINAL]) == 1
    assert names[-3] in TERMINAL
    frames = events[:-2]
    assert [event.id for event in frames] == [f"1-{n}" for n in range(1, len(frames) + 1)]
    assert [event.id for event in events[-2:]] == [frames[-1].id, f"1-{len(frames) + 1}"]
    chat = reader.result()
    assert chat["chat_id"] == reader.chat_id == events[0].json()["chat_id"]
    assert chat["metadata"]["last_event_id"] == frames[-1].id
    assert reader.retry is not None


async def test_a_stream_has_cozes_events_one_terminal_and_the_whole_chat(each_client: Client) -> None:
    session_id = await each_client.open_session()
    async with each_client.stream(session_id, "Tell me of the sea") as reader:
        await reader.all()
    check_course(reader)
    names = reader.names()
    assert names[1:3] == ["conversation.chat.created", "conversation.chat.in_progress"]
    assert names.count("conversation.message.completed") == 4
    chat = reader.result()
    assert reader.text() == chat["content"]
    assert "Tell me of the sea" in chat["content"]
    assert data_of(await each_client.result(reader.chat_id)) == chat
    headers = reader.response.headers
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["X-Request-Id"]
    assert "content-length" not in headers


async def test_what_coze_sent_is_passed_on_unchanged(client: Client) -> None:
    session_id = await client.open_session()
    async with client.stream(
        session_id, "[[sim:text=naïve “汉字” \U0001f600;deltas=3;reasoning=0]]"
    ) as reader:
        await reader.all()
    assert reader.text() == "naïve “汉字” \U0001f600"
    deltas = [event for event in reader.seen if event.event == "conversation.message.delta"]
    assert len(deltas) == 3
    assert all(event.json()["bot_id"] and event.json()["section_id"] for event in deltas)


async def test_internal_messages_of_coze_are_not_passed_on(client: Client) -> None:
    session_id = await client.open_session()
    async with client.stream(session_id, "[[sim:verbose=knowledge]] hello") as reader:
        await reader.all()
    assert "verbose" not in [event.json().get("type") for event in reader.seen[:-2]]
    assert b"simulated knowledge" not in reader.raw


@pytest.mark.parametrize(
    "shape", ["plugin", "card", "object_string", "audio", "no_usage", "shell_action", "multi=3", "chunk=7"]
)
async def test_every_shape_of_answer_arrives(shape: str, client: Client) -> None:
    session_id = await client.open_session()
    async with client.stream(session_id, f"[[sim:{shape};text=word]] hello") as reader:
        await reader.all()
    check_course(reader)
    assert reader.result()["status"] == "completed"
    assert "word" in reader.result()["content"]


async def test_the_first_words_arrive_while_coze_still_types(each_client: Client) -> None:
    session_id = await each_client.open_session()
    message = "hello [[sim:stall=1:0.6;deltas=3;reasoning=0]]"
    async with each_client.stream(session_id, message) as reader:
        await reader.until("conversation.message.delta")
        assert data_of(await each_client.result(reader.chat_id))["status"] == "processing"
        await reader.all()
    check_course(reader)


async def test_a_stream_that_is_silent_has_a_heartbeat(start_app: Callable[..., RunningApp]) -> None:
    service = start_app(SSE_HEARTBEAT_SECONDS="0.1")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        began = time.monotonic()
        async with client.stream(session_id, "hello [[sim:delay=2]]") as reader:
            await reader.all()
        assert 3 <= len(reader.comments) <= (time.monotonic() - began) / 0.1
        check_course(reader)


async def test_a_reader_that_hangs_up_does_not_stop_the_chat(
    each_client: Client, simulator: SimControl
) -> None:
    client = each_client
    session_id = await client.open_session()
    async with client.stream(session_id, "I am gone [[sim:deltas=10;gap=0.05;reasoning=0]]") as reader:
        await reader.until("conversation.message.delta", times=2)
    chat = await client.ended(reader.chat_id)
    assert chat["status"] == "completed"
    assert "I am gone" in chat["content"]
    assert chat["recovered"] is False
    assert len(simulator.requests(path="/v3/chat")) == 1
    assert simulator.requests(path="/v3/chat/cancel") == []


async def test_the_next_message_never_meets_its_own_last_chat(each_client: Client) -> None:
    session_id = await each_client.open_session()
    for n in range(10):
        async with each_client.stream(
            session_id, f"no {n} [[sim:deltas=1;reasoning=0;followups=0]]"
        ) as reader:
            await reader.until("done")
        assert reader.result()["status"] == "completed"


async def test_what_can_be_refused_is_refused_before_the_stream_starts(client: Client) -> None:
    session_id = await client.open_session()
    for body in ({"message": "", "stream": True}, {"message": "字" * 4001, "stream": True}):
        response = await client.post(f"/coze/sessions/{session_id}/messages", json=body)
        assert response.status_code == 400
        assert response.headers["Content-Type"] == "application/json"


async def test_ending_the_session_ends_its_stream_as_cancelled(each_client: Client) -> None:
    session_id = await each_client.open_session()
    async with each_client.stream(session_id, "hello [[sim:deltas=50;gap=0.1;reasoning=0]]") as reader:
        await reader.until("conversation.message.delta")
        ending = asyncio.create_task(each_client.delete(f"/coze/sessions/{session_id}"))
        await asyncio.wait_for(reader.all(), 10)
        assert (await ending).status_code == 200
    check_course(reader)
    assert "conversation.chat.canceled" in reader.names()
    assert "error" not in reader.names()
    assert reader.result()["status"] == "cancelled"
    assert reader.result()["content"] == reader.text() != ""


async def test_a_chat_that_needs_tool_outputs_says_so_and_ends_the_reading(each_client: Client) -> None:
    session_id = await each_client.open_session()
    async with each_client.stream(session_id, "[[sim:requires_action=function]] hello") as reader:
        await reader.all()
    assert reader.names()[-3:] == ["conversation.chat.requires_action", "result", "done"]
    chat = reader.result()
    assert chat["status"] == "requires_action"
    assert chat["completed_at"] is None
    calls = chat["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert calls[0]["function"]["name"] == "f"
    response = await each_client.result(chat["chat_id"], wait=30)
    assert response.json()["data"]["task_status"] == "requires_action"


async def test_a_slow_reader_gets_everything(client: Client) -> None:
    session_id = await client.open_session()
    async with client.stream(session_id, "hello [[sim:huge=3000000;reasoning=0]]") as reader:
        await wait_until(lambda: _is_over(client, reader.chat_id))
        await reader.all()
    check_course(reader)
    assert len(reader.text()) > 900_000


async def _is_over(client: Client, chat_id: str) -> bool:
    return bool(data_of(await client.result(chat_id))["status"] == "completed")


async def test_a_busy_session_refuses_a_stream_with_a_status(client: Client) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, "[[sim:delay=8]]")
    response = await client.send(session_id, "hello", stream=True)
    assert (response.status_code, error_of(response)["details"]["chat_id"]) == (409, chat_id)
    await client.delete(f"/coze/sessions/{session_id}")


async def test_who_reads_late_what_it_has_begun_here_has_it_from_memory(
    service: RunningApp, client: Client
) -> None:
    session_id = await client.open_session()

    async def begin_and_read_late() -> tuple[bytes, bytes, bool]:
        resources = service.resources
        identity, body = await resources.verifier.identify([], []), SendMessage(message="hello")
        started = await resources.chats.send(identity, session_id, body, Sending(request_id="r"))
        await wait_until(lambda: not resources.chats.running)
        texts = []
        for each in (started, replace(started, log=None)):
            reader = resources.chats.read(identity, each)
            batches = [found.frames async for found in reader if isinstance(found, Batch)]
            texts.append(b"".join(frame for frames in batches for frame in frames))
            if each is started:
                from_memory = reader._log is started.log
            reader.close()
        return texts[0], texts[1], from_memory

    memory, store, from_memory = await asyncio.to_thread(service.call, begin_and_read_late)
    assert from_memory
    assert memory == store
    assert b"conversation.chat.completed" in memory
