"""Answers through the door are whole, and paid for once, whatever is cut, stalled or killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support import RedisServer, RunningApp, ServiceProcess, SimControl, wait_until

from .conftest import VALUES, base_of
from .support import KEY, CozeCaller, answer_of, asking, calling, deltas_of, events_of

TEXT = "Whatever is cut, this is said in full."
SHORT = f"text={TEXT};reasoning=0;followups=1"


async def check_whole(caller: CozeCaller, text: str, at_once: asyncio.Semaphore) -> None:
    async with at_once:
        stream = await caller.chat(text)
    names = [name for name, _ in events_of(stream)]
    assert names[:2] == ["conversation.chat.created", "conversation.chat.in_progress"], (text, names)
    assert names[-2:] == ["conversation.chat.completed", "done"], (text, names)
    assert answer_of(stream) == deltas_of(stream) == TEXT, text
    completed = [data["type"] for name, data in events_of(stream) if name.endswith("message.completed")]
    assert sorted(completed) == ["answer", "follow_up", "verbose"], (text, completed)


@pytest.mark.parametrize("step", [70, pytest.param(10, marks=pytest.mark.full)])
async def test_a_stream_that_is_cut_is_repaired_within_the_one_that_is_read(
    app: CozeCaller, coze: CozeCaller, simulator: SimControl, step: int
) -> None:
    """``step``: bytes from one cut to the next."""
    whole = await coze.chat(f"[[sim:{SHORT}]] cut")
    simulator.reset()
    at_once = asyncio.Semaphore(8)
    cuts = range(1, len(whole), step)
    await asyncio.gather(
        *(check_whole(app, f"[[sim:{SHORT};cut={place}]] cut {place}", at_once) for place in cuts)
    )
    assert len(simulator.requests(path="/v3/chat")) == len(cuts)


async def test_an_upstream_that_falls_silent_is_repaired_too(
    open_door: Callable[..., RunningApp], simulator: SimControl
) -> None:
    service = open_door(COZE_IDLE_TIMEOUT="0.3")
    async with calling(base_of(service), KEY) as caller:
        at_once = asyncio.Semaphore(8)
        texts = [f"[[sim:{SHORT};stall={after}:1]] silent" for after in range(5)]
        await asyncio.gather(*(check_whole(caller, text, at_once) for text in texts))
    assert len(simulator.requests(path="/v3/chat")) == 5


async def test_text_that_coze_replaces_in_the_repair_is_told_by_the_completed_message(
    app: CozeCaller,
) -> None:
    stream = await app.chat("[[sim:text=one two three;stored_text=another text;cut=1800;reasoning=0]] x")
    assert answer_of(stream) == "another text"


async def test_a_stream_that_this_process_cannot_finish_is_broken_off_and_found_elsewhere(
    open_door: Callable[..., RunningApp], door: RunningApp
) -> None:
    service = open_door(DRAIN_SECONDS="0", LEASE_SECONDS="1")
    async with calling(base_of(service), KEY) as caller, calling(base_of(door), KEY) as elsewhere:
        body = asking(f"[[sim:gap=0.02;{SHORT}]] slow")
        read, leaving = b"", None
        try:
            async with caller.streaming(body) as response:
                async for chunk in response.aiter_raw():
                    read += chunk
                    if leaving is None:
                        drain = service.resources.shutdown.drain
                        leaving = asyncio.ensure_future(asyncio.to_thread(service.call, drain, 30))
            pytest.fail("the stream ended as if that were all")
        except httpx.RemoteProtocolError:
            pass
        assert leaving is not None
        await leaving
        assert b"event:done" not in read
        assert await found(elsewhere, read) == TEXT


async def found(caller: CozeCaller, read: bytes) -> str:
    """The answer of a chat of whose stream ``read`` has arrived, as an SDK polls for it."""
    chat = events_of(read)[0][1]
    ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}

    async def over() -> Any:
        told = await caller.data("GET", "/v3/chat/retrieve", params=ids)
        return told if told["status"] != "in_progress" else None

    told = await wait_until(over, 60)
    assert told["status"] == "completed", told
    listed = await caller.data("GET", "/v3/chat/message/list", params=ids)
    [answer] = [each["content"] for each in listed if each["type"] == "answer"]
    return str(answer)


async def test_chats_whose_owner_is_killed_are_retrieved_whole_from_another_replica(
    redis: RedisServer, simulator: SimControl, start_process: Callable[..., ServiceProcess]
) -> None:
    values = {"REDIS_URL": redis.url, "LEASE_SECONDS": "1", **VALUES}
    owner, replica = start_process(**values), start_process(**values)
    async with calling(base_of(owner), KEY) as caller, calling(base_of(replica), KEY) as elsewhere:
        began = asyncio.Semaphore(0)

        async def read(number: int) -> bytes:
            got = b""
            try:
                async with caller.streaming(asking(f"[[sim:gap=0.1;{SHORT}]] {number}")) as response:
                    async for chunk in response.aiter_raw():
                        if not got:
                            began.release()
                        got += chunk
            except httpx.TransportError:
                assert b"event:done" not in got
            else:
                assert got.endswith(b'event:done\ndata:"[DONE]"\n\n'), "it ended as if that were all"
            return got

        reading = [asyncio.ensure_future(read(number)) for number in range(50)]
        for _ in reading:
            await began.acquire()
        owner.kill()
        streams = await asyncio.gather(*reading)
        assert sum(b"event:done" in stream for stream in streams) < 50
        answers = await asyncio.gather(*(found(elsewhere, stream) for stream in streams))
    assert answers == [TEXT] * 50
    assert len(simulator.requests(path="/v3/chat")) == 50
