"""The Responses API of OpenAI's SDK for Python in front of the running service, as it is made by default."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.openai.support import APP_KEY
from tests.support import ServiceProcess, SimControl

from .test_openai_python import ERRORS, MODEL, WEATHER, WUHAN, Place, asynchronous, blocking


def outputs(response: Any, number: int) -> list[Any]:
    calls = [item for item in response.output if item.type == "function_call"]
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{number}{n} degrees"}
        for n, call in enumerate(calls)
    ]


def test_the_blocking_client_creates_streams_parses_calls_functions_and_comes_back(
    service: ServiceProcess, simulator: SimControl
) -> None:
    with blocking(service) as ai:
        whole = ai.responses.create(model=MODEL, input="hello")
        assert whole.output_text
        with ai.responses.stream(model=MODEL, input="hello") as stream:
            final = stream.until_done().get_final_response()
        assert final.output_text == whole.output_text
        parsed = ai.responses.parse(model=MODEL, input="a place, please", text_format=Place)
        assert parsed.output_parsed == WUHAN
        response = ai.responses.create(model=MODEL, input=WEATHER)
        for number in range(2):
            response = ai.responses.create(
                model=MODEL, input=outputs(response, number), previous_response_id=response.id
            )
        assert "11 degrees" in response.output_text
        assert len(simulator.requests(path="/v3/chat", contains="weather")) == 1
        background = ai.responses.create(model=MODEL, input="hello", background=True)
        while background.status in ("queued", "in_progress"):
            background = ai.responses.retrieve(background.id)
        assert background.output_text == whole.output_text
        items = ai.responses.input_items.list(background.id)
        assert [item.type for item in items] == ["message"]
        ai.responses.delete(background.id)
        with pytest.raises(openai.NotFoundError):
            ai.responses.retrieve(background.id)


async def test_the_asynchronous_client_does_the_same_with_many_at_once(service: ServiceProcess) -> None:
    async def hold(ai: Any, number: int) -> None:
        first = await ai.responses.create(model=MODEL, input=f"hello {number}")
        assert f"{number}" in first.output_text
        stream = await ai.responses.create(
            model=MODEL,
            input=f"again {number}",
            previous_response_id=first.id,
            background=True,
            stream=True,
        )
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) == 5 + number:
                break
        await stream.close()
        rest = await ai.responses.retrieve(
            seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
        )
        seen += [event async for event in rest]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert (seen[-1].type, seen[-1].response.conversation) == ("response.completed", first.conversation)
        async with ai.responses.stream(
            response_id=seen[0].response.id, starting_after=3
        ) as again:  # the SDK reads all of it, and tells what is behind
            final = await again.get_final_response()
        assert final.output_text == seen[-1].response.output_text
        parsed = await ai.responses.parse(model=MODEL, input="a place, please", text_format=Place)
        assert parsed.output_parsed == WUHAN

    async with asynchronous(service) as ai:
        await asyncio.gather(*(hold(ai, number) for number in range(8)))


def test_cancelling_from_another_client_ends_a_stream(service: ServiceProcess, simulator: SimControl) -> None:
    with blocking(service) as ai, blocking(service) as other:
        events = []
        for event in ai.responses.create(
            model=MODEL, input="[[sim:deltas=200;gap=0.1;reasoning=0]] slow", background=True, stream=True
        ):
            events.append(event)
            if event.type == "response.output_text.delta":
                cancelled = other.responses.cancel(events[0].response.id)  # type: ignore[union-attr]
                assert cancelled.status == "cancelled"
        assert events[-1].type == "response.incomplete"
        assert len(simulator.requests(path="/v3/chat/cancel")) == 1


def test_raw_responses_show_headers_and_a_heartbeat_belongs_to_the_next_event(
    service: ServiceProcess,
) -> None:
    with blocking(service) as ai:
        raw = ai.responses.with_raw_response.create(model=MODEL, input="hello")
        response = raw.parse()
        assert response.id == f"resp_{raw.headers['x-coze-chat-id']}"
        assert raw.headers["x-request-id"] == response._request_id
        with ai.responses.with_streaming_response.create(model=MODEL, input="hello", stream=True) as answer:
            blocks = "".join(answer.iter_text()).split("\n\n")
        assert blocks.pop() == ""
        for block in blocks:
            lines = [line for line in block.split("\n") if not line.startswith(":")]
            assert [line.partition(": ")[0] for line in lines] == ["event", "data"], block


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
    with blocking(service) as ai, pytest.raises(error) as caught:
        ai.responses.create(model=MODEL, input=f"[[sim:{directive}]] heron", stream=streamed)
    assert type(caught.value) is error
    assert caught.value.code == code
    assert len(simulator.requests(path="/v3/chat", contains="heron")) == calls


async def test_the_caller_s_own_faults_have_their_classes(service: ServiceProcess) -> None:
    async with asynchronous(service) as ai:
        create: Any = ai.responses.create
        for options, error, code in (
            ({"model": "gpt-5"}, openai.NotFoundError, "model_not_found"),
            ({"input": []}, openai.BadRequestError, "invalid_request"),
            ({"input": "x" * 100_001}, openai.BadRequestError, "context_length_exceeded"),
            ({"previous_response_id": "resp_1"}, openai.BadRequestError, "previous_response_not_found"),
            ({"background": True, "store": False}, openai.BadRequestError, "invalid_request"),
        ):
            with pytest.raises(error) as caught:
                await create(**{"model": MODEL, "input": "hi"} | options)
            assert caught.value.code == code
        mine = await create(model=MODEL, input="hi")
        other = ai.with_options(api_key=APP_KEY)
        for ask in (other.responses.retrieve, other.responses.cancel, other.responses.delete):
            with pytest.raises(openai.NotFoundError):
                await ask(mine.id)
