"""OpenAI's SDK for Python in front of the running service, as it is made by default: with its own retries."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.openai.support import APP_KEY, WEBUI_KEY, Told, chat_id_of, said
from tests.support import ServiceProcess, SimControl

MODEL = "coze"
WEATHER = "[[sim:requires_action=function;tool_calls=2;rounds=2]] weather?"


class Place(BaseModel):
    name: str
    people: int


WUHAN = Place(name="Wuhan", people=13000000)


def blocking(service: ServiceProcess) -> OpenAI:
    return OpenAI(base_url=f"{service.base_url}/coze/openai/v1", api_key=WEBUI_KEY)


def asynchronous(service: ServiceProcess) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{service.base_url}/coze/openai/v1", api_key=WEBUI_KEY)


def outputs(message: Any, number: int) -> list[Any]:
    """The answers to all calls of a message, behind it."""
    calls = message.tool_calls
    assert all(json.loads(call.function.arguments)["question"] for call in calls)
    return [message] + [
        {"role": "tool", "tool_call_id": call.id, "content": f"{number}{n} degrees"}
        for n, call in enumerate(calls)
    ]


def test_the_blocking_client_creates_streams_parses_and_calls_tools(
    service: ServiceProcess, simulator: SimControl
) -> None:
    with blocking(service) as ai:
        assert [model.id for model in ai.models.list()] == [ai.models.retrieve(MODEL).id] == [MODEL]
        whole = ai.chat.completions.create(model=MODEL, messages=[said("hello")])
        with ai.chat.completions.create(model=MODEL, messages=[said("hello")], stream=True) as stream:
            told = Told.of(stream)
        assert told.content == whole.choices[0].message.content != ""
        with ai.chat.completions.stream(
            model=MODEL, messages=[said("a place, please")], response_format=Place
        ) as events:
            events.until_done()
            assert events.get_final_completion().choices[0].message.parsed == WUHAN
        parsed = ai.chat.completions.parse(
            model=MODEL, messages=[said("a place, please")], response_format=Place
        )
        assert parsed.choices[0].message.parsed == WUHAN
        messages: list[Any] = [said(WEATHER)]
        ids = []
        for number in range(3):
            done = ai.chat.completions.create(model=MODEL, messages=messages)
            ids.append(done.id)
            if done.choices[0].finish_reason == "tool_calls":
                messages += outputs(done.choices[0].message, number)
        assert len(set(ids)) == 3
        assert "11 degrees" in (done.choices[0].message.content or "")
        assert len(simulator.requests(path="/v3/chat", contains="weather")) == 1


async def test_the_asynchronous_client_does_the_same_with_many_at_once(service: ServiceProcess) -> None:
    async def hold(ai: AsyncOpenAI, number: int) -> None:
        question: list[Any] = [said(f"hello {number}")]
        whole = await ai.chat.completions.create(model=MODEL, messages=question)
        told = Told()
        async for chunk in await ai.chat.completions.create(model=MODEL, messages=question, stream=True):
            told.take(chunk)
        assert told.content == whole.choices[0].message.content
        assert f"{number}" in told.content
        parsed = await ai.chat.completions.parse(
            model=MODEL, messages=[said("a place, please")], response_format=Place
        )
        assert parsed.choices[0].message.parsed == WUHAN
        messages: list[Any] = [said(WEATHER)]
        for round_number in range(3):
            async with ai.chat.completions.stream(model=MODEL, messages=messages) as stream:
                message: Any = (await stream.get_final_completion()).choices[0].message
            if message.tool_calls:
                messages += outputs(message, round_number)
        assert "11 degrees" in message.content

    async with asynchronous(service) as ai:
        await asyncio.gather(*(hold(ai, number) for number in range(8)))


def test_raw_and_streaming_responses_show_headers_and_bodies(service: ServiceProcess) -> None:
    with blocking(service) as ai:
        raw = ai.chat.completions.with_raw_response.create(model=MODEL, messages=[said("hello")])
        done = raw.parse()
        assert raw.headers["x-coze-chat-id"] == chat_id_of(done.id)
        assert raw.headers["x-request-id"] == done._request_id
        with ai.chat.completions.with_streaming_response.create(
            model=MODEL, messages=[said("hello")], stream=True
        ) as response:
            assert response.headers["x-coze-chat-id"].startswith("coze_chat_")
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert all(line.startswith("data: ") for line in lines)


ERRORS: list[tuple[str, type[openai.APIStatusError], str | None, int]] = [
    ("fail=4010", openai.BadRequestError, "context_length_exceeded", 1),
    ("fail=4105", openai.BadRequestError, "content_policy_violation", 1),
    ("fail=4028", openai.RateLimitError, "insufficient_quota", 1),
    ("last_error=4028", openai.RateLimitError, "insufficient_quota", 1),
    ("fail=4101", openai.BadRequestError, "coze_api_error", 1),
    ("reasoning=0;fail_at=0", openai.BadRequestError, "coze_api_error", 1),
    ("fail=4013", openai.RateLimitError, "rate_limit_exceeded", 4),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("directive", "error", "code", "calls"), ERRORS, ids=[e[0] for e in ERRORS])
def test_each_failure_has_its_class_and_is_not_multiplied_by_the_client(
    directive: str,
    error: type[openai.APIStatusError],
    code: str,
    calls: int,
    streamed: bool,
    service: ServiceProcess,
    simulator: SimControl,
) -> None:
    question = [said(f"[[sim:{directive}]] heron")]
    with blocking(service) as ai, pytest.raises(error) as caught:
        ai.chat.completions.create(model=MODEL, messages=question, stream=streamed)
    assert type(caught.value) is error
    assert caught.value.code == code
    assert caught.value.request_id
    assert len(simulator.requests(path="/v3/chat", contains="heron")) == calls


async def test_the_caller_s_own_faults_have_their_classes(service: ServiceProcess) -> None:
    async with asynchronous(service) as ai:
        create: Any = ai.chat.completions.create
        for options, error, code in (
            ({"model": "gpt-5"}, openai.NotFoundError, "model_not_found"),
            ({"messages": []}, openai.BadRequestError, "invalid_request"),
            ({"messages": [said("x" * 100_001)]}, openai.BadRequestError, "context_length_exceeded"),
            ({"n": 2}, openai.BadRequestError, "invalid_request"),
        ):
            with pytest.raises(error) as caught:
                await create(**{"model": MODEL, "messages": [said("hi")]} | options)
            assert caught.value.code == code
        key = {"Idempotency-Key": "errors-1"}
        await create(model=MODEL, messages=[said("hi")], extra_headers=key)
        with pytest.raises(openai.UnprocessableEntityError):
            await create(model=MODEL, messages=[said("other")], extra_headers=key)
        other = ai.with_options(api_key=APP_KEY)
        with pytest.raises(openai.NotFoundError):
            await other.chat.completions.create(
                model=MODEL, messages=[said("hi")], metadata={"session_id": "coze_session_1_x"}
            )
