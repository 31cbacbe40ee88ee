"""A reader of a chat: from memory or from Redis, nothing twice and nothing lost where that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from app.models import Cursor
from app.redis_client import Command, Keys, RedisGate, open_redis
from app.stores.log_reader import LogReader
from app.stores.open_log import ChatEnd, OpenLog, Origin
from app.stores.sessions import SessionRecord
from app.tasks.reader import Batch, Ending, Reader
from app.utils import new_chat_id, new_id

BOUND = 20.0
"""Seconds that nothing here takes unless it hangs."""
KEYS = Keys("reader:")
START = Cursor(0, 0)
COMPLETED: dict[str, object] = {
    "status": "completed",
    "created_at": "t",
    "updated_at": "t",
    "user_message": {"content": "q", "timestamp": "t", "message_id": "m"},
    "content": "answer",
    "metadata": {"last_event_id": "1-9"},
}


def delta(text: str) -> bytes:
    return b'event: conversation.message.delta\ndata: {"id":"1","content":"%b"}\n\n' % text.encode()


class Reading:
    """A chat's log in Redis and, where it runs here, in memory; and a reader of it."""

    def __init__(self, redis: RedisGate) -> None:
        self.redis = redis
        self.session_id = new_id("session")
        self.chat_id = new_chat_id(self.session_id)
        self.logs = LogReader(redis, KEYS, "p")
        self.log: OpenLog | None = None
        self.ended: dict[str, object] = {}
        """What the record says once the chat is over."""

    def open_log(self, epoch: int, *frames: bytes) -> OpenLog:
        origin = Origin(SessionRecord(self.session_id, []), b"", [])
        self.log = OpenLog(self.chat_id, self.session_id, epoch, origin, frames=list(frames))
        self.log.visible = self.log.last
        return self.log

    def say(self, *frames: bytes) -> None:
        assert self.log is not None
        self.log.frames += frames
        self.log.visible = self.log.last
        self.log.grown.notify()

    async def store(self, epoch: int, first: int, *frames: bytes) -> None:
        place = f"{epoch}-{first + len(frames) - 1}"
        key = KEYS.log(self.chat_id)
        await self.redis.run(Command[bytes]("XADD", key, place, "n", first, "f", b"".join(frames)))
        await self.redis.run(Command[int]("PEXPIRE", key, 60_000))

    async def record(self) -> bytes:
        ids = {"chat_id": self.chat_id, "session_id": self.session_id}
        return orjson.dumps(ids | {"status": "processing"} | self.ended)

    def reader(self, after: Cursor = START, *, only_end: bool = False) -> Reader:
        return Reader(
            self.chat_id,
            after,
            local=lambda: self.log,
            logs=self.logs,
            owner="root|person",
            record=self.record,
            only_end=only_end,
        )


@pytest.fixture
async def reading() -> AsyncIterator[Reading]:
    async with open_redis("memory://", pool_size=4, reply_timeout=5) as redis:
        made = Reading(redis)
        yield made
        await made.logs.stop()


async def next_of(reader: Reader) -> Batch | Ending:
    async with asyncio.timeout(BOUND):
        return await anext(reader)


async def a_few_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_arrived_together_is_read_together_and_the_end_is_the_last(
    reading: Reading,
) -> None:
    log = reading.open_log(1, delta("a"), delta("b"))
    reader = reading.reader()
    assert await next_of(reader) == Batch(1, 1, [delta("a"), delta("b")])
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    reading.say(delta("c"))
    assert await waiting == Batch(1, 3, [delta("c")])
    log.end = ChatEnd(b"{}", 0)
    log.settle("committed")
    assert await next_of(reader) == Ending(b"{}")
    assert reader.last == Cursor(1, 3)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_whoever_is_woken_without_news_gets_a_batch_without_frames(reading: Reading) -> None:
    reading.open_log(1, delta("a"))
    reader = reading.reader(Cursor(1, 1))
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    assert not waiting.done()
    reader.wake()
    woken = await waiting
    assert isinstance(woken, Batch)
    assert woken.frames == []
    assert reader.last == Cursor(1, 1)


async def test_news_are_taken_in_the_turn_of_whoever_brings_them_and_nothing_twice(reading: Reading) -> None:
    log = reading.open_log(1, delta("a"))
    reader = reading.reader()
    taken: list[Batch] = []
    can_take = True

    def take(batch: Batch) -> bool:
        if can_take:
            taken.append(batch)
        return can_take

    reader.take = take
    assert await next_of(reader) == Batch(1, 1, [delta("a")]), "nobody waits yet: it is read as ever"
    reading.say(delta("b"))
    assert taken == [], "what comes while the reader is busy waits for its turn"
    assert await next_of(reader) == Batch(1, 2, [delta("b")])
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    reading.say(delta("c"))
    assert taken == [Batch(1, 3, [delta("c")])]
    can_take = False
    reading.say(delta("d"))
    can_take = True
    reading.say(delta("e"))
    await a_few_turns()
    told = [frame for batch in taken for frame in batch.frames]
    if waiting.done():
        rest = await waiting
        assert isinstance(rest, Batch)
        told += rest.frames
    assert told == [delta("c"), delta("d"), delta("e")]
    waiting = waiting if not waiting.done() else asyncio.create_task(next_of(reader))
    await a_few_turns()
    log.end = ChatEnd(b"{}", 0)
    log.settle("committed")
    assert await waiting == Ending(b"{}")


async def test_a_change_of_the_log_without_news_wakes_nobody(reading: Reading) -> None:
    log = reading.open_log(1, delta("a"))
    reader = reading.reader(Cursor(1, 1))
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    log.grown.notify()  # Coze's ids are in Redis, say
    await a_few_turns()
    assert not waiting.done()
    reading.say(delta("b"))
    assert await waiting == Batch(1, 2, [delta("b")])


async def test_a_reader_of_the_end_alone_is_not_woken_by_frames(reading: Reading) -> None:
    log = reading.open_log(1)
    reader = reading.reader(only_end=True)
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    for text in "abc":
        reading.say(delta(text))
        await a_few_turns()
    assert not waiting.done()
    log.end = ChatEnd(b"{}", 0)
    log.settle("unsaved")
    assert await waiting == Batch(1, 1, [delta("a"), delta("b"), delta("c")])
    assert await next_of(reader) == Ending(b"{}", resumable=False)


async def test_a_reading_goes_with_the_chat_to_another_process_and_back(reading: Reading) -> None:
    log = reading.open_log(1, delta("a"), delta("b"))
    reader = reading.reader()
    assert await next_of(reader) == Batch(1, 1, [delta("a"), delta("b")])
    await reading.store(1, 1, delta("a"), delta("b"), delta("c"))
    log.settle("fenced")
    assert await next_of(reader) == Batch(1, 3, [delta("c")])
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    await reading.store(2, 1, b"event: snapshot\ndata: {}\n\n")
    assert await waiting == Batch(2, 1, [b"event: snapshot\ndata: {}\n\n"])
    reading.open_log(3, b"event: snapshot\ndata: {}\n\n", delta("d"))
    reader.wake()
    assert await next_of(reader) == Batch(3, 1, [b"event: snapshot\ndata: {}\n\n", delta("d")])
    assert reader.last == Cursor(3, 2)


async def test_a_chat_that_begins_here_is_read_from_memory_and_its_end_needs_no_redis(
    reading: Reading,
) -> None:
    await reading.store(1, 1, delta("queued"))
    reader = reading.reader(only_end=True)
    assert await next_of(reader) == Batch(1, 1, [delta("queued")])
    waiting = asyncio.create_task(next_of(reader))
    await a_few_turns()
    log = reading.open_log(1, delta("queued"))
    await reading.store(1, 2, delta("a"))  # Redis' bell makes it look, and memory is where it looks
    while reader._log is None:
        await asyncio.sleep(0.01)
    log.end = ChatEnd(b"{}", 0)
    log.settle("unsaved")
    assert await waiting == Ending(b"{}", resumable=False)


async def test_a_log_that_is_gone_with_its_chat_over_ends_the_reading_by_the_record(
    reading: Reading,
) -> None:
    reading.ended = COMPLETED
    reader = reading.reader()
    stood_in = await next_of(reader)
    assert isinstance(stood_in, Batch)
    assert [frame.split(b"\n")[0] for frame in stood_in.frames] == [
        b"event: snapshot",
        b"event: conversation.chat.completed",
    ]
    assert (stood_in.epoch, stood_in.first) == (1, 8)
    assert isinstance(await next_of(reader), Ending)
    assert reader.last == Cursor(1, 9)


@pytest.mark.parametrize("place", [Cursor(1, 9), Cursor(1, 11)], ids=["the end", "done"])
async def test_who_had_the_end_gets_no_frame_of_the_record_and_its_ids_again(
    place: Cursor, reading: Reading
) -> None:
    reading.ended = COMPLETED
    reader = reading.reader(place)
    assert isinstance(await next_of(reader), Ending)
    assert reader.last == Cursor(1, 9)


@pytest.mark.parametrize("place", [Cursor(2, 1), Cursor(3, 40)], ids=str)
async def test_a_reader_of_an_epoch_that_redis_has_lost_gets_the_answer_and_the_end_under_ids_that_rise(
    place: Cursor, reading: Reading
) -> None:
    """Redis came back without the claim that began it, and the owner before has ended the chat."""
    reading.ended = COMPLETED
    reader = reading.reader(place)
    stood_in = await next_of(reader)
    assert isinstance(stood_in, Batch)
    assert [frame.split(b"\n")[0] for frame in stood_in.frames] == [
        b"event: snapshot",
        b"event: conversation.chat.completed",
    ]
    assert (stood_in.epoch, stood_in.first) == (place.epoch, place.frame + 1)
    assert isinstance(await next_of(reader), Ending)
    assert reader.last == Cursor(place.epoch, place.frame + 2)
