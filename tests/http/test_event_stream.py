"""How a stream is written: straight to the connection while its client reads, and in order in any case."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from starlette.types import Message

from app.exceptions import Overloaded
from app.http.connections import CYCLE
from app.http.sse import EventStream, OurEvents, render
from app.models import Cursor
from app.redis_client import Keys, open_redis
from app.stores.log_reader import LogReader
from app.stores.open_log import ChatEnd, OpenLog, Origin
from app.stores.sessions import SessionRecord
from app.tasks.reader import Batch, Reader
from app.tasks.shutdown import Shutdown
from app.utils import new_chat_id, new_id
from app.utils.signals import FEW

BOUND = 20.0
NOTHING_RUNS: Any = None
RECORD = orjson.dumps({"chat_id": "c", "session_id": "s", "status": "completed", "created_at": "t"})


def delta(number: int) -> bytes:
    return b'event: conversation.message.delta\ndata: {"n":%d}\n\n' % number


class Connection:
    """What the client gets, in order, whichever way it was written; and what uvicorn knows of the request."""

    disconnected = response_complete = more_body = False
    chunked_encoding = True

    def __init__(self) -> None:
        self.got = b""
        self.straight = 0
        self.pieces: list[bytes] = []
        self.write_paused = False
        self.flow = self.transport = self
        self._reads = asyncio.Event()
        self._reads.set()

    def write(self, piece: bytes) -> None:
        assert not self.write_paused
        self.straight += 1
        self.pieces.append(piece)
        if not self.chunked_encoding:
            self.got += piece
            return
        size, _, chunk = piece.partition(b"\r\n")
        assert (int(size, 16), chunk[-2:]) == (len(chunk) - 2, b"\r\n")
        self.got += chunk[:-2]

    async def send(self, message: Message) -> None:
        await self._reads.wait()
        self.got += message.get("body", b"")

    def stall(self) -> None:
        self.write_paused = True
        self._reads.clear()

    def read_on(self) -> None:
        self.write_paused = False
        self._reads.set()


class Streaming:
    """A chat that runs in this process, and one stream of it; or, with its ``log``, another one."""

    def __init__(self, logs: LogReader, log: OpenLog | None = None) -> None:
        session_id = new_id("session")
        origin = Origin(SessionRecord(session_id, []), b"", [])
        self.log = log or OpenLog(new_chat_id(session_id), session_id, 1, origin)
        self.logs = logs
        self.connection = Connection()
        self.reader = Reader(
            self.log.chat_id,
            Cursor(0, 0),
            local=lambda: self.log,
            logs=logs,
            record=self._record,
            owner="root|person",
        )
        self._stays = asyncio.Event()

    @staticmethod
    async def _record() -> bytes:
        return RECORD

    def say(self, *numbers: int) -> None:
        self.log.frames += [delta(number) for number in numbers]
        self.log.visible = self.log.last
        self.log.grown.notify()

    def end(self) -> None:
        self.log.end = ChatEnd(RECORD, 0)
        self.log.settle("committed")

    async def stream(self, dialect: OurEvents) -> None:
        response = EventStream(
            self.reader,
            chat_id="c",
            heartbeat=BOUND,
            shutdown=Shutdown(NOTHING_RUNS, NOTHING_RUNS, seconds=0),
            on_close=lambda: None,
            dialect=dialect,
        )
        scope = {"type": "http", "state": {CYCLE: self.connection}}

        async def receive() -> Message:
            await self._stays.wait()
            return {"type": "http.disconnect"}

        async with asyncio.timeout(BOUND):
            await response(scope, receive, self.connection.send)


@pytest.fixture
async def streaming() -> AsyncIterator[Streaming]:
    async with open_redis("memory://", pool_size=4, reply_timeout=5) as redis:
        logs = LogReader(redis, Keys("stream:"), "p")
        yield Streaming(logs)
        await logs.stop()


async def a_few_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_client_that_reads_gets_each_piece_in_the_turn_in_which_it_comes(
    streaming: Streaming,
) -> None:
    task = asyncio.create_task(streaming.stream(OurEvents()))
    await a_few_turns()
    streaming.say(1)
    await a_few_turns()
    for number in range(2, 6):
        before = streaming.connection.got
        streaming.say(number)
        assert streaming.connection.got == before + render(Batch(1, number, [delta(number)]))
    streaming.end()
    await task
    assert streaming.connection.got.endswith(b'event: done\ndata: "[DONE]"\n\n')


async def test_a_client_of_http_1_0_gets_each_piece_in_the_turn_in_which_it_comes(
    streaming: Streaming,
) -> None:
    streaming.connection.chunked_encoding = False
    task = asyncio.create_task(streaming.stream(OurEvents()))
    await a_few_turns()
    streaming.say(1)
    await a_few_turns()
    before = streaming.connection.got
    streaming.say(2)
    assert streaming.connection.got == before + render(Batch(1, 2, [delta(2)]))
    streaming.end()
    await task
    assert streaming.connection.got.endswith(b'event: done\ndata: "[DONE]"\n\n')


async def test_very_many_readers_are_sent_the_same_bytes(streaming: Streaming) -> None:
    """An event and the end, both long; clients of HTTP/1.0 get them without the framing of chunks."""
    many = [streaming, *(Streaming(streaming.logs, streaming.log) for _ in range(2 * FEW))]
    many[1].connection.chunked_encoding = many[2].connection.chunked_encoding = False
    tasks = [asyncio.create_task(each.stream(OurEvents())) for each in many]
    await a_few_turns()
    streaming.log.add([delta(1)])
    await a_few_turns()
    long = b'event: conversation.message.delta\ndata: "%s\xe2\x80\xa8"\n\n' % (b"x" * 100_000)
    streaming.log.add([long])
    await a_few_turns()
    record = RECORD.replace(b'"t"', b'"%s"' % (b"t" * 100_000))
    streaming.log.end = ChatEnd(record, 0)
    streaming.log.settle("committed")
    await asyncio.gather(*tasks)
    assert {each.connection.got for each in many} == {streaming.connection.got}
    assert b"\xe2\x80\xa8" not in streaming.connection.got
    pieces = {id(piece) for each in many for piece in each.connection.pieces if len(piece) > 50_000}
    assert len(pieces) == 2 + 2


@pytest.mark.parametrize("stalls_at", [0, 1, 2, 5])
async def test_a_client_that_stops_reading_for_a_while_gets_everything_once_and_in_order(
    streaming: Streaming, stalls_at: int
) -> None:
    connection = streaming.connection
    task = asyncio.create_task(streaming.stream(OurEvents()))
    await a_few_turns()
    for number in range(1, 12):
        if number == stalls_at + 1:
            connection.stall()
        if number == stalls_at + 4:
            connection.read_on()
        streaming.say(number)
        if number % 2:
            await a_few_turns()
    streaming.end()
    await task
    ids = [line for line in connection.got.split(b"\n") if line.startswith(b"id: ")]
    assert ids == [b"id: 1-%d" % n for n in range(1, 12)] + [b"id: 1-11", b"id: 1-12"]
    assert connection.straight > 0


@pytest.mark.parametrize("error", [Overloaded("no more"), ZeroDivisionError()])
async def test_a_dialect_that_fails_ends_its_own_stream_and_nobody_elses_chat(
    streaming: Streaming, error: Exception
) -> None:
    class Fails(OurEvents):
        @staticmethod
        def batch(batch: Batch) -> bytes:
            if batch.first == 3:
                raise error
            return render(batch)

    task = asyncio.create_task(streaming.stream(Fails()))
    await a_few_turns()
    for number in range(1, 5):
        streaming.say(number)  # as the chat's owner does, who must not hear of it
        await a_few_turns()
    streaming.end()
    if isinstance(error, ZeroDivisionError):
        with pytest.raises(ZeroDivisionError):
            await task
    else:
        await task
        assert b"event: error\n" in streaming.connection.got
    assert b'"n":2' in streaming.connection.got
    assert b'"n":3' not in streaming.connection.got


async def test_nothing_of_it_waits_to_be_collected(streaming: Streaming) -> None:
    """While many streams are open a collection of garbage would stop them all."""
    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(streaming.stream(OurEvents()))
        await a_few_turns()
        streaming.say(1)
        await a_few_turns()
        streaming.end()
        await task
        reader = weakref.ref(streaming.reader)
        del streaming.reader, task
        await a_few_turns()
        assert reader() is None
    finally:
        gc.enable()
