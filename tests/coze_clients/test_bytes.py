"""A chat through the door and the same chat asked of Coze are the same stream, byte for byte."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.support import RunningApp, SimControl

from .conftest import base_of
from .support import KEY, CozeCaller, answer_of, asking, calling, comparable, events_of

KINDS = {
    "plain": "hello",
    "chinese": "你好，介绍一下你自己",
    "without reasoning": "[[sim:reasoning=0]] hello",
    "knowledge": "[[sim:verbose=knowledge]] hello",
    "no machinery": "[[sim:verbose=none;followups=0]] hello",
    "plug-in": "[[sim:plugin=1]] weather",
    "several answers": "[[sim:multi=3]] hello",
    "card": "[[sim:card=1]] hello",
    "object string": "[[sim:object_string=1]] hello",
    "speech": "[[sim:audio=1]] hello",
    "completed says more": "[[sim:text=short;completed_text=short and more]] hello",
    "completed says something else": "[[sim:text=one;completed_text=two]] hello",
    "no usage": "[[sim:no_usage=1]] hello",
    "empty action": "[[sim:shell_action=1]] hello",
    "one byte at a time": "[[sim:chunk=1;text=hi;followups=0]] hello",
    "separators": "a\u2028b\u0085c\u2029d <&> end",
    "function": "[[sim:requires_action=function]] weather",
    "reply": "[[sim:requires_action=reply_message;tool_calls=2]] weather",
    "failed in the middle": "[[sim:fail_at=3]] hello",
    "failed with a bare code": "[[sim:fail_at=3;fail_shape=bare]] hello",
    "failed with a code in a string": "[[sim:fail_at=3;fail_shape=string]] hello",
    "failed at once": "[[sim:last_error=4028]] hello",
    "error in the middle": "[[sim:error_at=3]] hello",
    "error without a word": "[[sim:error_at=3;error_shape=empty]] hello",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_through_the_door_is_that_of_coze(
    app: CozeCaller, coze: CozeCaller, kind: str
) -> None:
    through, direct = await app.chat(KINDS[kind]), await coze.chat(KINDS[kind])
    assert comparable(through) == comparable(direct)
    assert b"coze_fastapi" not in through
    assert b"coze_chat_" not in through


async def test_so_is_what_follows_tool_outputs(app: CozeCaller, coze: CozeCaller) -> None:
    streams = []
    for caller in (app, coze):
        asked = events_of(await caller.chat("[[sim:requires_action=function;tool_calls=2;rounds=2]] weather"))
        for output in ("21", "22"):
            name, chat = asked[-2]
            assert (name, asked[-1]) == ("conversation.chat.requires_action", ("done", "[DONE]"))
            calls = chat["required_action"]["submit_tool_outputs"]["tool_calls"]
            response = await caller.call(
                "POST",
                "/v3/chat/submit_tool_outputs",
                params={"conversation_id": chat["conversation_id"], "chat_id": chat["id"]},
                json={
                    "tool_outputs": [{"tool_call_id": call["id"], "output": output} for call in calls],
                    "stream": True,
                },
            )
            asked = events_of(response.content)
        streams.append(response.content)
    through, direct = streams
    assert comparable(through) == comparable(direct)
    assert "22" in answer_of(through)


async def test_a_second_message_in_a_conversation_knows_the_first(app: CozeCaller, coze: CozeCaller) -> None:
    streams = []
    for caller in (app, coze):
        conversation_id = await caller.conversation(bot_id="7380000000000000009")
        await caller.chat("my name is Li", conversation_id)
        streams.append(await caller.chat("what is my name?", conversation_id))
    assert comparable(streams[0]) == comparable(streams[1])
    assert "Li" in answer_of(streams[0])


async def test_without_history_the_stream_is_the_same_and_the_record_has_the_messages(
    app: CozeCaller, coze: CozeCaller
) -> None:
    through = await app.chat("hello", auto_save_history=False)
    direct = await coze.chat("hello", auto_save_history=False)
    assert comparable(through) == comparable(direct)
    [chat] = [data for name, data in events_of(through) if name == "conversation.chat.completed"]
    ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
    assert (await app.data("GET", "/v3/chat/retrieve", params=ids))["status"] == "completed"
    listed = await app.data("GET", "/v3/chat/message/list", params=ids)
    assert [each["type"] for each in listed] == ["answer", "follow_up", "follow_up", "follow_up"]
    assert listed[0]["content"] == answer_of(through)


async def test_what_is_asked_is_passed_on_unread(app: CozeCaller, simulator: SimControl) -> None:
    await app.chat(
        "hello",
        enable_card=True,
        publish_status="published_online",
        custom_variables={"a": "b"},
        extra_params={"latitude": "1"},
        parameters={"deep": [{"x": None}]},
        something_new={"of": "tomorrow"},
        meta_data={"mine": "yes"},
    )
    [seen] = simulator.requests(path="/v3/chat")
    assert seen["meta_data"]["mine"] == "yes"
    assert seen["user_id"].endswith(":u-1")


async def test_silence_is_a_blank_line_and_the_stream_is_still_coze_s(
    open_door: Callable[..., RunningApp], coze: CozeCaller
) -> None:
    text = "[[sim:stall=3:0.5;text=one two three four five]] hello"
    async with calling(base_of(open_door(SSE_HEARTBEAT_SECONDS="0.05")), KEY) as caller:
        through, direct = await asyncio.gather(caller.chat(text), coze.chat(text))
    assert b"\n\n\n" in through, "there was no sign of life"
    assert comparable(re.sub(rb"\n{3,}", b"\n\n", through)) == comparable(direct)


async def test_a_refusal_before_the_stream_is_an_envelope(app: CozeCaller, coze: CozeCaller) -> None:
    for code in (4000, 4006, 4015, 4011, 4028, 5000):
        text = f"[[sim:fail={code}]] hello"
        for stream in (True, False):
            answers = [
                (await caller.call("POST", "/v3/chat", json=asking(text, stream=stream))).json()
                for caller in (app, coze)
            ]
            assert [answer["code"] for answer in answers] == [code, code]
            assert answers[0].keys() == answers[1].keys()
