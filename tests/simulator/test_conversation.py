"""What the bot remembers, and what becomes of chats whose client leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import block_until

from .helpers import SimClient, events_of, ids, sim_client, user_message


@pytest.fixture(scope="module")
def sim_stopping() -> Iterator[SimClient]:
    with sim_client(on_disconnect="stop") as client:
        yield client


def say(sim: SimClient, text: str, conversation_id: str | None = None, **fields: Any) -> tuple[str, str]:
    """Says something and returns (conversation id, answer)."""
    chat = sim.create(text, conversation_id, **fields)
    sim.ended(chat)
    return chat["conversation_id"], sim.answer(chat)


def test_the_bot_knows_what_was_said_before(sim_cloud: SimClient) -> None:
    conversation_id, answer = say(sim_cloud, "I like tea")
    assert "I like tea" in answer
    say(sim_cloud, "我喜欢[[sim:deltas=3]]杭州", conversation_id)
    _, english = say(sim_cloud, "What did I say before?", conversation_id)
    assert "1. I like tea\n2. 我喜欢杭州" in english
    _, chinese = say(sim_cloud, "我之前说了什么？", conversation_id)
    assert "3. What did I say before?" in chinese
    assert "你说过" in chinese
    assert "我之前说了什么？" in chinese


def test_conversations_do_not_know_of_each_other(sim_cloud: SimClient) -> None:
    say(sim_cloud, "my name is Ada")
    _, answer = say(sim_cloud, "what is my name")
    assert "Ada" not in answer


def test_history_given_with_the_request_is_context(sim_cloud: SimClient) -> None:
    messages = [
        user_message("my name is Ada"),
        {"role": "assistant", "type": "answer", "content": "Hello Ada", "content_type": "text"},
        user_message("What is my name?"),
    ]
    _, answer = say(sim_cloud, "", additional_messages=messages)
    assert "Your name is Ada" in answer


def test_without_a_message_the_last_stored_one_is_the_question(sim_cloud: SimClient) -> None:
    body = {"messages": [user_message("stored question")]}
    made = sim_cloud.call("POST", "/v1/conversation/create", body=body)["data"]
    _, answer = say(sim_cloud, "", made["id"], additional_messages=[])
    assert "stored question" in answer
    empty = sim_cloud.call("POST", "/v1/conversation/create", body={})["data"]
    assert sim_cloud.chat("", empty["id"], additional_messages=[]).json()["code"] == 4000


def test_clearing_starts_a_new_section_without_context(sim_cloud: SimClient) -> None:
    conversation_id, _ = say(sim_cloud, "my name is Ada")
    section = sim_cloud.call("POST", f"/v1/conversations/{conversation_id}/clear")["data"]["id"]
    chat = sim_cloud.create("what is my name", conversation_id)
    assert chat["section_id"] == section
    sim_cloud.ended(chat)
    assert "Ada" not in sim_cloud.answer(chat)


def test_a_cancelled_turn_leaves_the_context_but_its_stream_is_sent_in_full(sim_cloud: SimClient) -> None:
    with sim_cloud.open_stream("forget me[[sim:stall=2:0.8]]") as response:
        lines = response.iter_lines()
        assert next(lines) == "event:conversation.chat.created"
        running = json.loads(next(lines).removeprefix("data:"))
        block_until(lambda: sim_cloud.status(running) == "in_progress")
        canceled = sim_cloud.cancel(running)["data"]
        assert canceled["status"] == "canceled"
        rest = "\n".join(lines)
    assert 'event:done\ndata:"[DONE]"' in rest
    assert "event:conversation.chat.completed" in rest
    assert sim_cloud.status(running) == "canceled"
    _, answer = say(sim_cloud, "what did I say before?", running["conversation_id"])
    assert "forget me" not in answer


def test_equal_conversations_get_equal_answers(sim_cloud: SimClient) -> None:
    assert say(sim_cloud, "how do I learn Go?")[1] == say(sim_cloud, "how do I learn Go?")[1]


def leave_during(sim: SimClient, text: str) -> dict[str, str]:
    """Opens a stream, leaves after the first event, and returns the chat's ids."""
    with sim.open_stream(text) as response:
        for chunk in response.iter_bytes():
            chat: dict[str, str] = events_of(chunk[: chunk.index(b"\n\n") + 2])[0][1]
            break
    return chat


def test_a_chat_goes_on_when_its_reader_leaves(sim_cloud: SimClient) -> None:
    chat = leave_during(sim_cloud, "left alone[[sim:gap=0.05;deltas=10;reasoning=0]]")
    assert sim_cloud.status(chat) == "in_progress"
    assert sim_cloud.ended(chat)["status"] == "completed"
    assert "left alone" in sim_cloud.answer(chat)
    assert sim_cloud.control("GET", "state")["open_streams"] == 0


def test_a_chat_stops_when_its_reader_leaves_if_so_chosen(sim_stopping: SimClient) -> None:
    chat = leave_during(sim_stopping, "left alone[[sim:gap=0.005;deltas=2000;reasoning=0]]")
    failed = sim_stopping.ended(chat)
    assert (failed["status"], failed["last_error"]["code"]) == ("failed", 5000)
    assert "data" not in sim_stopping.messages(chat)
    listed = sim_stopping.call("POST", "/v1/conversation/message/list", ids(chat), {})["data"]
    assert [item["role"] for item in listed] == ["user"]
    assert sim_stopping.control("GET", "state")["running"] == 0


def test_one_request_can_choose_what_leaving_does(sim_cloud: SimClient, sim_stopping: SimClient) -> None:
    stopped = leave_during(sim_cloud, "a[[sim:gap=0.005;deltas=2000;on_disconnect=stop]]")
    assert sim_cloud.ended(stopped)["status"] == "failed"
    gone_on = leave_during(sim_stopping, "b[[sim:gap=0.005;deltas=5;reasoning=0;on_disconnect=continue]]")
    assert sim_stopping.ended(gone_on)["status"] == "completed"


def test_a_reader_who_gives_up_before_the_first_byte_has_left_too(sim_stopping: SimClient) -> None:
    sim_stopping.control("DELETE", "log")
    with pytest.raises(httpx.ReadTimeout):
        sim_stopping.http.post(
            sim_stopping.url("/v3/chat"),
            json=sim_stopping.body("impatient[[sim:first_byte=60;delay=60]]"),
            timeout=1,
        )
    record = sim_stopping.control("GET", "log", params={"path": "/v3/chat"})["requests"][0]
    chat = {"conversation_id": record["conversation_id"], "id": record["chat_id"]}
    block_until(lambda: sim_stopping.status(chat) == "failed")
