"""OpenAI's door passes an Idempotency-Key on with tool outputs: a lost answer is had by asking again."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.support import SimControl

from .support import MODEL, Told, chat_id_of, said

SUBMIT = "/v3/chat/submit_tool_outputs"
KEY = {"Idempotency-Key": "tools-1"}


async def answered(ai: AsyncOpenAI, output: str, knobs: str = "") -> list[Any]:
    """The messages of a request that answers a bot's tool calls."""
    messages: list[Any] = [said(f"[[sim:requires_action=function;tool_calls=2;{knobs}]] weather?")]
    first = await ai.chat.completions.create(model=MODEL, messages=messages)
    calls = first.choices[0].message.tool_calls or []
    assert len(calls) == 2
    return with_outputs(messages, [call.model_dump() for call in calls], output)


def with_outputs(messages: list[Any], calls: list[dict[str, Any]], output: str) -> list[Any]:
    tools = [{"role": "tool", "tool_call_id": call["id"], "content": output} for call in calls]
    return [messages[0], {"role": "assistant", "tool_calls": calls}, *tools]


async def streamed(ai: AsyncOpenAI, messages: list[Any], headers: dict[str, str]) -> Told:
    told = Told()
    stream = await ai.chat.completions.create(
        model=MODEL, messages=messages, stream=True, extra_headers=headers
    )
    async for chunk in stream:
        told.take(chunk)
    return told


async def test_the_same_outputs_with_the_same_key_are_the_same_completion(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    messages = await answered(async_ai, "21 degrees")
    first, again = [
        await async_ai.chat.completions.create(model=MODEL, messages=messages, extra_headers=KEY)
        for _ in range(2)
    ]
    assert "21 degrees" in (first.choices[0].message.content or "")
    assert first.choices[0].finish_reason == "stop"
    assert again == first
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_a_stream_that_was_lost_is_had_again_whole(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    messages = await answered(async_ai, "21 degrees", "deltas=20;gap=0.02;reasoning=0")
    stream = await async_ai.chat.completions.create(
        model=MODEL, messages=messages, stream=True, extra_headers=KEY
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()
    again = await streamed(async_ai, messages, KEY)
    later = await streamed(async_ai, messages, KEY)
    assert "21 degrees" in again.content
    assert (later.content, later.finish, later.chat_id) == (again.content, ["stop"], again.chat_id)
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_other_outputs_with_the_same_key_are_refused(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    messages = await answered(async_ai, "21 degrees")
    await async_ai.chat.completions.create(model=MODEL, messages=messages, extra_headers=KEY)
    other = with_outputs(messages, messages[1]["tool_calls"], "22 degrees")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await async_ai.chat.completions.create(model=MODEL, messages=other, extra_headers=KEY)
    assert refused.value.code == "idempotency_key_reused"
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_without_a_key_the_same_outputs_lead_to_the_same_completion(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    """Whoever has an API key alone can fetch a lost answer in no other way, and SDKs repeat by themselves."""
    messages = await answered(async_ai, "21 degrees")
    first = await async_ai.chat.completions.create(model=MODEL, messages=messages)
    again = await async_ai.chat.completions.create(model=MODEL, messages=messages)
    assert again == first
    told = await streamed(async_ai, messages, {})
    assert (told.completion_id, told.content) == (first.id, first.choices[0].message.content)
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_without_a_key_a_stream_of_a_tool_answer_that_was_cut_is_had_again(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    messages = await answered(async_ai, "21 degrees", "deltas=20;gap=0.02;reasoning=0")
    stream = await async_ai.chat.completions.create(model=MODEL, messages=messages, stream=True)
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()
    again = await streamed(async_ai, messages, {})
    assert (again.completion_id, again.finish) == (chunk.id, ["stop"])
    assert "21 degrees" in again.content
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_a_tool_answer_that_failed_fails_alike_when_asked_for_again_and_is_not_paid_twice(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    messages = await answered(async_ai, "21 degrees", "deltas=6;fail_at=2;reasoning=0")
    for _ in range(2):
        with pytest.raises(openai.BadRequestError) as caught:
            await async_ai.chat.completions.create(model=MODEL, messages=messages)
        assert caught.value.type == "server_error"
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_other_outputs_for_calls_that_were_answered_are_a_conflict(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    messages = await answered(async_ai, "21 degrees")
    await async_ai.chat.completions.create(model=MODEL, messages=messages)
    other = with_outputs(messages, messages[1]["tool_calls"], "22 degrees")
    with pytest.raises(openai.ConflictError) as refused:
        await async_ai.chat.completions.create(model=MODEL, messages=other)
    assert refused.value.code == "coze_chat_state"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_each_round_of_tools_is_a_completion_of_its_own(async_ai: AsyncOpenAI) -> None:
    """LangGraph puts a message in the place of another with the same id."""
    messages: list[Any] = [said("[[sim:requires_action=function;rounds=2]] weather?")]
    ids, chats = [], set()
    for number in range(3):
        done = await async_ai.chat.completions.create(model=MODEL, messages=messages)
        ids.append(done.id)
        chats.add(chat_id_of(done.id))
        calls = done.choices[0].message.tool_calls or []
        messages.append({"role": "assistant", "tool_calls": [call.model_dump() for call in calls]})
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": f"{number} degrees"} for call in calls
        ]
    assert (len(set(ids)), len(chats)) == (3, 1)
    again = await async_ai.chat.completions.create(model=MODEL, messages=messages[:3])
    assert again.id == ids[1]
