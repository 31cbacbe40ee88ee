"""Streams on the running service: whole ones, cut ones, and ones whose replica dies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from coze_fastapi_client import AsyncCozeClient, ConnectionLost, Replacement, StreamBroken, UpstreamError

from tests.faults.support import Cluster, check_completed, nonce
from tests.support import RunningApp, SimControl, wait_until

from .support import PATIENT, Proxy, make_client, proxy

ROOT = Path(__file__).resolve().parents[2]
MOSTLY_ASYNC = pytest.mark.parametrize("kind", ["async", pytest.param("blocking", marks=pytest.mark.full)])
"""Of what takes long: both clients are made from one source."""
TYPING = "[[sim:deltas=24;gap=0.03;reasoning=0;followups=1]]"


async def read(stream: Any) -> tuple[list[str], list[str]]:
    """The ids and names of its events, and the pieces of its text."""
    seen, pieces = [], []
    async for event in stream:
        seen.append(f"{event.id} {event.name}")
        if event.has_text:
            pieces.append(event.text)
    return seen, pieces


def in_a_row(seen: list[str]) -> None:
    """Every frame once and in order, up to one terminal frame and the result."""
    ids = [tuple(map(int, each.split()[0].split("-"))) for each in seen[:-1]]
    assert ids == sorted(set(ids))
    assert [frame for epoch, frame in ids if epoch == 1] == list(range(1, sum(e == 1 for e, _ in ids) + 1))
    assert seen[-1].split()[1] == "result"
    assert [each for each in seen if each.endswith("chat.completed")] == seen[-2:-1]


async def test_pieces_of_text_make_the_answer(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    async with coze.chats.stream(session.session_id, "hello [[sim:multi=2]]") as stream:
        assert stream.chat_id
        pieces = [piece async for piece in stream.text_deltas()]
    assert len(pieces) > 5
    assert not [piece for piece in pieces if isinstance(piece, Replacement)]
    assert "".join(pieces) == stream.text == stream.chat.content
    assert "\n" in stream.chat.content
    assert (stream.chat.status, stream.chat_id, stream.connections) == ("completed", stream.chat.chat_id, 1)
    assert stream.last_event_id == stream.chat.last_event_id


async def test_a_stream_has_every_event_in_order(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    async with coze.chats.stream(session.session_id, "hello") as stream:
        seen, _ = await read(stream)
    in_a_row(seen)
    assert seen[0] == "1-1 chat"
    async with coze.chats.follow(stream.chat_id) as again:
        assert (await read(again))[0] == seen
    assert again.chat == stream.chat


@MOSTLY_ASYNC
async def test_a_reader_that_left_goes_on_behind_its_last_event(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    first: list[str] = []
    async with coze.chats.stream(session.session_id, f"hello {TYPING}") as stream:
        async for piece in stream.text_deltas():
            first.append(piece)
            if len(first) == 5:
                break
    async with coze.chats.follow(stream.chat_id, after=stream.last_event_id) as rest:
        second = [piece async for piece in rest.text_deltas()]
    assert "".join(first + second) == rest.chat.content
    assert stream.chat is None


async def test_behind_the_end_there_is_nothing_but_the_chat(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    async with coze.chats.stream(session.session_id, "hello") as stream:
        whole = await stream.result()
    epoch, frame = whole.last_event_id.split("-")
    async with coze.chats.follow(stream.chat_id, after=f"{epoch}-{int(frame) + 1}") as rest:  # of `done`
        assert [event async for event in rest] == []
    assert rest.chat == whole


async def test_result_reads_to_the_end(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    async with coze.chats.stream(session.session_id, "hello") as stream:
        assert (await stream.result()).status == "completed"


async def test_a_chat_that_fails_raises_at_the_end_of_its_text(coze: Any, simulator: SimControl) -> None:
    session = await coze.sessions.create("u-1")
    pieces: list[str] = []
    async with coze.chats.stream(session.session_id, "hi [[sim:fail_at=3;reasoning=0]]") as stream:
        with pytest.raises(UpstreamError) as failed:
            await collect(stream, pieces)
    assert len(pieces) == 3
    assert failed.value.chat_id == stream.chat_id
    async with coze.chats.follow(stream.chat_id) as again:
        seen, _ = await read(again)
    assert [each.split()[1] for each in seen[-3:]] == ["error", "conversation.chat.failed", "result"]
    assert again.chat.status == "failed"


async def test_tool_outputs_are_answered_by_a_stream(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    async with coze.chats.stream(session.session_id, "[[sim:requires_action=function]] weather") as stream:
        asked = await stream.result()
    outputs = {call.id: '{"t": 21}' for call in asked.tool_calls}
    async with coze.chats.stream_tool_outputs(asked.chat_id, outputs, after=stream.last_event_id) as going_on:
        text = "".join([piece async for piece in going_on.text_deltas()])
    assert text == going_on.chat.content
    assert '{"t": 21}' in text


# -- connections that are lost ----------------------------------------------------------------------------


@asynccontextmanager
async def behind_proxy(
    kind: str, target: str, cut_after: Sequence[int] = (), **options: Any
) -> AsyncIterator[tuple[Proxy, Any]]:
    """A client whose connections lead through a proxy; ``cut_after`` is about its first ones."""
    async with proxy(target) as middle:
        middle.cut_after = list(cut_after)
        client = make_client(kind, middle.base_url, **{**PATIENT, **options})
        try:
            yield middle, client
        finally:
            await client.close()


async def collect(stream: Any, pieces: list[str], before_each: Callable[[], None] = lambda: None) -> None:
    async for piece in stream.text_deltas():
        before_each()
        pieces.append(piece)  # they are looked at when the stream has broken


async def test_a_stream_cut_anywhere_is_the_same_stream(kind: str, coze: Any, service: RunningApp) -> None:
    """Each connection is broken off a little later than the one before, so cuts fall everywhere."""
    session = await coze.sessions.create("u-1")
    async with coze.chats.stream(session.session_id, "hello [[sim:deltas=12]]") as whole:
        seen, pieces = await read(whole)
    cuts = [700 + 311 * step for step in range(10)]
    async with behind_proxy(kind, service.base_url, cuts) as (middle, other):
        async with other.chats.follow(whole.chat_id) as cut:
            seen_cut, pieces_cut = await read(cut)
        assert middle.cut_after == []
    assert (seen_cut, "".join(pieces_cut)) == (seen, "".join(pieces))
    assert cut.chat == whole.chat
    assert cut.connections > 8


@MOSTLY_ASYNC
async def test_a_message_whose_answer_is_lost_is_one_chat(
    kind: str, coze: Any, service: RunningApp, simulator: SimControl
) -> None:
    session_id = (await coze.sessions.create("u-1")).session_id
    word = nonce()
    async with behind_proxy(kind, service.base_url, [0, 300]) as (_, other):
        async with other.chats.stream(session_id, f"{word} streamed") as stream:
            assert (await stream.result()).status == "completed"
        assert stream.connections == 1
    async with behind_proxy(kind, service.base_url, [0, 40]) as (_, other):
        assert (await other.chats.send(session_id, f"{word} whole")).status == "completed"
    assert len(simulator.requests(contains=f"{word} streamed", path="/v3/chat")) == 1
    assert len(simulator.requests(contains=f"{word} whole", path="/v3/chat")) == 1


@MOSTLY_ASYNC
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_tool_outputs_whose_answer_is_lost_count_once(
    kind: str, coze: Any, service: RunningApp, streamed: bool
) -> None:
    session = await coze.sessions.create("u-1")
    asked = await coze.chats.send(session.session_id, "[[sim:requires_action=function]] weather")
    outputs = {call.id: "21" for call in asked.tool_calls}
    async with behind_proxy(kind, service.base_url, [0]) as (_, other):
        if streamed:
            async with other.chats.stream_tool_outputs(asked.chat_id, outputs) as stream:
                chat = await stream.result()
        else:
            chat = await other.chats.submit_tool_outputs(asked.chat_id, outputs)
    assert (chat.chat_id, chat.status) == (asked.chat_id, "completed")


@MOSTLY_ASYNC
async def test_a_service_that_cannot_be_reached_is_said_so_after_the_retries(kind: str) -> None:
    async with behind_proxy(kind, "http://127.0.0.1:1", max_retries=2) as (middle, coze):
        middle.deaf = True
        with pytest.raises(ConnectionLost):
            await coze.sessions.create("u-1")
        with pytest.raises(ConnectionLost):
            await coze.chats.stream("coze_session_1_x", "hello").__aenter__()
        assert middle.refused == 2 * 3


@MOSTLY_ASYNC
async def test_a_stream_that_stays_lost_says_where_to_go_on(
    kind: str, coze: Any, service: RunningApp
) -> None:
    session = await coze.sessions.create("u-1")
    pieces: list[str] = []
    async with (
        behind_proxy(kind, service.base_url, [3000], patience=0.5) as (middle, other),
        other.chats.stream(session.session_id, f"hello {TYPING}") as stream,
    ):
        with pytest.raises(StreamBroken) as broken:
            await collect(stream, pieces, lambda: setattr(middle, "deaf", True))
    error = broken.value
    assert (error.chat_id, error.last_event_id) == (stream.chat_id, stream.last_event_id)
    async with coze.chats.follow(error.chat_id, after=error.last_event_id) as rest:
        await collect(rest, pieces)
    assert "".join(pieces) == rest.chat.content


@MOSTLY_ASYNC
async def test_a_connection_that_falls_silent_is_given_up(kind: str, replicas: Cluster) -> None:
    """Heartbeats come every 0.2 s; a proxy that swallows them looks like a network that is gone."""
    async with behind_proxy(kind, replicas.urls[0], heartbeat=0.4) as (middle, coze):
        session = await coze.sessions.create("u-1")
        async with coze.chats.stream(session.session_id, f"hello {TYPING}") as stream:
            async for _ in stream:
                middle.mute = middle.requests
                break
            text = stream.text + "".join([piece async for piece in stream.text_deltas()])
        assert text == stream.chat.content
        assert stream.connections == 2


@MOSTLY_ASYNC
async def test_silence_with_heartbeats_is_not_trouble(kind: str, replicas: Cluster) -> None:
    """The bot thinks for longer than a client without heartbeats would wait."""
    async with behind_proxy(kind, replicas.urls[0], heartbeat=0.8, patience=2.0) as (_, coze):
        session = await coze.sessions.create("u-1")
        async with coze.chats.stream(session.session_id, "hello [[sim:delay=3]]") as stream:
            assert (await stream.result()).status == "completed"
        assert stream.connections == 1


@MOSTLY_ASYNC
async def test_a_replica_killed_in_mid_answer_costs_nothing(kind: str, replicas: Cluster) -> None:
    """kill -9 of the one that owns the chat; the balancer then leads to the other, which takes over."""
    word = nonce()
    async with behind_proxy(kind, replicas.urls[0]) as (middle, coze):
        session = await coze.sessions.create(f"u-{word}")
        await wait_until(lambda: _has_conversation(coze, session.session_id))
        pieces: list[str] = []
        async with coze.chats.stream(session.session_id, f"{word} {TYPING}") as stream:
            async for event in stream:
                if event.has_text:
                    pieces.append(event.text)
                if len(pieces) == 4 and replicas.replicas[0].running:
                    await asyncio.to_thread(replicas.replicas[0].kill)
                    middle.target = int(replicas.urls[1].rsplit(":", 1)[1])
    assert stream.connections > 1
    assert "".join(pieces) == stream.text == stream.chat.content
    assert (stream.chat.status, stream.chat.recovered) == ("completed", True)
    await check_completed(dict(stream.chat.raw), replicas.simulator, word, recovered=True)


@pytest.mark.full
async def test_a_message_to_a_replica_that_restarts_is_answered(kind: str, replicas: Cluster) -> None:
    """Nothing listens for a while: calls and streams wait for it to come back."""
    word = nonce()
    async with behind_proxy(kind, replicas.urls[0], max_retries=20) as (_, coze):
        session = await coze.sessions.create(f"u-{word}")
        replica, restarting = replicas.replicas[0], None
        async with coze.chats.stream(session.session_id, f"{word} {TYPING}") as stream:
            async for _event in stream:
                if stream.text and restarting is None:
                    replica.terminate()
                    await asyncio.to_thread(replica.wait)
                    restarting = asyncio.get_running_loop().run_in_executor(None, replica.start)
                    session = await coze.sessions.get(session.session_id)
            assert restarting is not None
            await restarting
    assert (stream.text, stream.chat.status) == (stream.chat.content, "completed")
    await check_completed(dict(stream.chat.raw), replicas.simulator, word)


async def _has_conversation(coze: Any, session_id: str) -> bool:
    session = await coze.sessions.get(session_id, history_limit=0)
    return session.conversation_id is not None


async def test_a_reader_that_is_cancelled_in_the_middle_reads_on(service: RunningApp) -> None:
    """``asyncio.wait_for`` around a read breaks the connection; the next read goes on behind the last id."""
    async with AsyncCozeClient(service.base_url, **PATIENT) as coze:
        session = await coze.sessions.create("u-1")
        seen: list[str] = []
        cancelled = 0
        async with coze.chats.stream(session.session_id, f"hello {TYPING}") as stream:
            while True:
                try:
                    event = await asyncio.wait_for(anext(stream), 0.02 if cancelled < 3 else 10)
                except TimeoutError:
                    cancelled += 1
                except StopAsyncIteration:
                    break
                else:
                    seen.append(f"{event.id} {event.name}")
    assert cancelled == 3
    in_a_row(seen)
    assert stream.chat is not None
    assert stream.text == stream.chat.content


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests may ignore it
from coze_fastapi_client import CozeClient

with CozeClient(os.environ["BASE_URL"]) as client:
    session = client.sessions.create("u-1")
    stream = client.chats.stream(session.session_id, "hello [[sim:deltas=24;gap=0.03;reasoning=0]]")
    try:
        with stream:
            for piece in stream.text_deltas():
                os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("left", stream.chat is None)
    with client.chats.follow(stream.chat_id, after=stream.last_event_id) as rest:
        rest.result()
    print(rest.chat.status, (stream.text + rest.text) == rest.chat.content)
"""


async def test_ctrl_c_leaves_the_chat_going_on(service: RunningApp) -> None:
    known = {"BASE_URL": service.base_url, "PYTHONPATH": str(ROOT / "client/src"), "NO_PROXY": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTERRUPTED), env=os.environ | known, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert printed.decode().splitlines() == ["left True", "completed True"]


async def test_a_cancelled_task_leaves_the_chat_going_on(service: RunningApp) -> None:
    async with AsyncCozeClient(service.base_url) as client:
        session = await client.sessions.create("u-1")
        stream = client.chats.stream(session.session_id, f"hello {TYPING}")
        reading = asyncio.Event()

        async def read_on() -> None:
            async with stream:
                async for _ in stream.text_deltas():
                    reading.set()

        task = asyncio.create_task(read_on())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream.chat_id
        async with client.chats.follow(stream.chat_id, after=stream.last_event_id) as rest:
            chat = await rest.result()
        assert stream.text + rest.text == chat.content
