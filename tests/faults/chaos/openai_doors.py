"""Clients of OpenAI's chat completions and responses, with OpenAI's own SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai

from tests.faults.support import nonce
from tests.openai.support import Told, said

from .own import QUICK, SLOW
from .visits import Kind, Visit

MODEL = "coze"
_TERMINAL = ("response.completed", "response.failed", "response.incomplete")
_COMES_BACK = frozenset({"shutting_down", "coze_redis_error"})
"""Errors of a stream after which the same call may be made again."""


def _again(error: Exception) -> bool:
    """Whether the SDK would send this call again by itself."""
    if isinstance(error, openai.APIStatusError):
        return error.response.headers.get("x-should-retry") == "true"
    if isinstance(error, openai.APIConnectionError | httpx.TransportError | httpx.StreamError):
        return True
    return isinstance(error, openai.APIError) and error.code in _COMES_BACK


def _is_final(error: openai.APIError) -> bool:
    """Whether the client is told that a repetition does not help, or would be paid for again."""
    return isinstance(error, openai.BadRequestError)


async def completed(visit: Visit) -> None:
    """A whole completion. With the key the same call, on any replica, is the same one."""
    word, text = visit.message()
    key = {"Idempotency-Key": word}

    async def ask() -> Any:
        messages = [said("earlier"), said("yes", "assistant"), said(text)]
        return await visit.ai.chat.completions.create(
            model=MODEL, messages=messages, user=visit.user_id, extra_headers=key
        )

    try:
        completion = await visit.repeat(ask, _again)
    except openai.APIError as error:
        await visit.check_failure(word, error, final=_is_final(error))
    await visit.check_text(word, completion.choices[0].message.content)


async def streamed(visit: Visit) -> None:
    """A completion as it is written. One that breaks off is had again from its start."""
    word, text = visit.message()
    key = {"Idempotency-Key": word}

    async def read() -> Told:
        told = Told()
        stream = await visit.ai.chat.completions.create(
            model=MODEL, messages=[said(text)], stream=True, user=visit.user_id, extra_headers=key
        )
        async for chunk in stream:
            told.take(chunk)
        assert told.finish == ["stop"], f"{word}: it ended as if that were all: {told.finish}"
        return told

    try:
        told: Told = await visit.repeat(read, _again)
    except openai.APIError as error:
        await visit.check_failure(word, error, final=_is_final(error))
    await visit.check_text(word, told.content)


async def left(visit: Visit) -> None:
    """Somebody who closes the page in the middle of an answer: it is cancelled, and nobody is told."""
    word, text = visit.message(SLOW)
    try:
        stream = await visit.ai.chat.completions.create(
            model=MODEL, messages=[said(text)], stream=True, user=visit.user_id
        )
        async for _ in stream:
            if visit.dice.random() < 0.2:
                break
        await stream.close()
    except (openai.APIError, httpx.HTTPError):
        pass
    assert len(visit.world.ledger.asked(word)) <= 1


async def responded(visit: Visit) -> None:
    """A response, streamed; one that breaks off without a key is lost, and nobody pays for it twice."""
    word, text = visit.message()
    pieces: list[str] = []
    try:
        stream = await visit.ai.responses.create(model=MODEL, input=text, stream=True, user=visit.user_id)
        async for event in stream:
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
        last = event.type
    except (openai.APIError, httpx.HTTPError):
        last = "broken off"
    assert len(visit.world.ledger.asked(word)) <= 1
    if last == "response.completed":
        await visit.check_text(word, "".join(pieces))
    elif last == "response.failed":
        await visit.check_failure(word, event.response.error, final=True)
    else:
        visit.world.report.counts["broken off"] += 1


async def in_background(visit: Visit) -> None:
    """A response that outlives connections and replicas: its events are read on by their numbers. Then the
    next one in its conversation."""
    before: dict[str, Any] = {}
    for _ in range(visit.dice.randint(1, 2)):
        word, text = visit.message()
        response = await _read_on(visit, word, text, before)
        await _judge(visit, response, word)
        before = {"previous_response_id": response["id"]}
    await visit.repeat(lambda: visit.ai.responses.delete(response["id"]), _again)


async def _created(visit: Visit, word: str, text: str) -> Any:
    key = {"Idempotency-Key": word}

    async def create() -> Any:
        return await visit.ai.responses.create(
            model=MODEL, input=text, background=True, user=visit.user_id, extra_headers=key
        )

    try:
        return await visit.repeat(create, _again)
    except openai.APIError as error:
        await visit.check_failure(word, error, final=_is_final(error))


async def _read_on(visit: Visit, word: str, text: str, more: dict[str, Any]) -> dict[str, Any]:
    """The response when it is over. Its events come in order, each once, over all connections."""
    events: list[dict[str, Any]] = []

    async def connect() -> Any:
        if events:
            one, known = events[0]["response"]["id"], events[-1]["sequence_number"]
            return await visit.ai.responses.retrieve(one, stream=True, starting_after=known)
        asked = {"model": MODEL, "input": text, "user": visit.user_id, **more}
        key = {"Idempotency-Key": word}
        return await visit.ai.responses.create(**asked, background=True, stream=True, extra_headers=key)

    async def read() -> None:
        while not events or events[-1]["type"] not in _TERMINAL:
            stream = await connect()
            async for event in stream:
                if event.type != "error":
                    events.append(event.to_dict())
                if visit.dice.random() < 0.02:  # a tunnel
                    break
            await stream.close()

    try:
        await visit.repeat(read, lambda error: _again(error) or (bool(events) and _is_gone_for_now(error)))
    except openai.APIError as error:
        await visit.check_failure(word, error, final=_is_final(error))
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(len(numbers))), f"{word}: events are missing or doubled: {numbers}"
    response: dict[str, Any] = events[-1]["response"]
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    if response["status"] == "completed":
        assert "".join(pieces) == _text(response), f"{word}: the pieces are not the answer"
    return response


def _is_gone_for_now(error: Exception) -> bool:
    """What Redis has lost is written again."""
    return isinstance(error, openai.NotFoundError)


def _text(response: dict[str, Any]) -> str:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


async def _judge(visit: Visit, response: dict[str, Any], word: str) -> None:
    if response["status"] != "completed":
        await visit.check_failure(word, response["error"], final=True)
    await visit.check_text(word, _text(response))


async def asked_for(visit: Visit) -> None:
    """A response in background that is asked for now and then, and one that is cancelled."""
    word, text = visit.message()
    response = await _created(visit, word, text)
    fetched = await _when_over(visit, response.id)
    await _judge(visit, fetched, word)
    word, text = visit.message(SLOW)
    response = await _created(visit, word, text)
    await visit.repeat(lambda: visit.ai.responses.cancel(response.id), _again)
    await _when_over(visit, response.id)
    assert len(visit.world.ledger.asked(word)) <= 1


async def _when_over(visit: Visit, response_id: str) -> dict[str, Any]:
    while True:
        fetched = await visit.repeat(lambda: visit.ai.responses.retrieve(response_id), _again)
        if fetched.status not in ("queued", "in_progress"):
            told: dict[str, Any] = fetched.to_dict()
            return told
        await asyncio.sleep(0.5)


async def called(visit: Visit) -> None:
    """A bot that asks for a tool, by chat completions: the same outputs may be sent again."""
    word, text = visit.message(f"requires_action=function;{QUICK}")
    question = said(text)

    async def ask() -> Any:
        key = {"Idempotency-Key": word}
        return await visit.ai.chat.completions.create(
            model=MODEL, messages=[question], user=visit.user_id, extra_headers=key
        )

    try:
        completion = await visit.repeat(ask, _again)
    except openai.APIError as error:
        await visit.check_failure(word, error, final=_is_final(error))
    call = completion.choices[0].message
    assert completion.choices[0].finish_reason == "tool_calls", completion
    outputs = [{"role": "tool", "tool_call_id": each.id, "content": nonce()} for each in call.tool_calls]

    async def answer() -> Any:
        messages: Any = [question, call.to_dict(), *outputs]
        return await visit.ai.chat.completions.create(model=MODEL, messages=messages, user=visit.user_id)

    try:
        completion = await visit.repeat(answer, _again)
    except openai.APIError as error:
        await visit.check_failure(word, error, final=_is_final(error))
    assert outputs[0]["content"] in completion.choices[0].message.content


KINDS = (
    Kind("completion", 6, "openai", completed),
    Kind("completion streamed", 8, "openai", streamed),
    Kind("completion left", 3, "openai", left),
    Kind("completion with tools", 3, "openai", called),
    Kind("response streamed", 4, "openai", responded),
    Kind("response in background", 5, "openai", in_background),
    Kind("response asked for", 3, "openai", asked_for),
)
