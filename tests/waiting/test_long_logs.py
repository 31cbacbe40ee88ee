"""Long logs come in pieces, from Redis and from memory, and whoever reads them takes turns with others."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from app.exceptions import ChatNotFound
from app.models import Cursor
from app.redis_client import Command, Keys, RedisGate, open_redis
from app.stores.large_reads import LargeReads
from app.stores.log_entries import PIECE_BYTES, Entry, Page, pack
from app.stores.log_reader import LogReader
from app.stores.open_log import OpenLog, Origin
from app.stores.sessions import SessionRecord
from app.tasks.reader import Batch, Reader
from app.utils import new_chat_id, new_id

BOUND = 30.0
"""Seconds that nothing here takes unless it hangs."""
KEYS = Keys("long:")
ME, OTHER = "r.example|me", "else.example|other"


def frame_of(size: int, seed: random.Random) -> bytes:
    return b"event: x\ndata: " + seed.randbytes(size // 2).hex().encode() + b"\n\n"


def entries_of(seed: random.Random) -> list[Entry]:
    entries, number = [], 1
    for each in range(seed.choice([1, 2, 60])):
        count = seed.choice([0, 1, 3, 700])
        sizes = [seed.choice([2, 80, 600]) if seed.random() > 0.01 else 200_000 for _ in range(count)]
        entries.append(Entry(1 + each // 2, number, [frame_of(size, seed) for size in sizes]))
        number += count
    return entries


def numbered(entries: Sequence[Entry]) -> list[tuple[int, int, bytes]]:
    return [(epoch, first + n, each) for epoch, first, frames in entries for n, each in enumerate(frames)]


class Turns:
    taken = 0

    async def __call__(self) -> None:
        self.taken += 1


async def pieces_of(page: Page, turns: Turns) -> list[Entry]:
    pieces = []
    while (piece := await page.next(turns)) is not None:
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize("number", range(12))
async def test_a_log_is_the_same_in_pieces_as_it_was_before_it_was_packed(number: int) -> None:
    entries = entries_of(random.Random(number))
    turns = Turns()
    packed = [b"n", b"1", b"f", b"", b"z", await pack(entries)]
    found = await pieces_of(Page([(b"9-9", packed)]), turns)
    assert numbered(found) == numbered(entries)
    assert [piece[:2] for piece in found if not piece.frames] == [
        each[:2] for each in entries if not each.frames
    ]
    long = [sum(map(len, piece.frames)) for piece in found if len(piece.frames) > 1]
    assert max(long, default=0) <= PIECE_BYTES
    unpacked = sum(len(each) for _, _, each in numbered(entries))
    assert turns.taken >= unpacked // (2 * PIECE_BYTES)


async def test_a_long_entry_that_is_not_packed_comes_in_pieces_too() -> None:
    frames = [frame_of(300, random.Random(1)) for _ in range(2000)]
    turns = Turns()
    found = await pieces_of(Page([(b"3-2006", [b"n", b"7", b"f", b"".join(frames)])]), turns)
    assert numbered(found) == numbered([Entry(3, 7, frames)])
    assert turns.taken == len(found) > 5


async def test_what_is_short_takes_no_turn() -> None:
    frames = [b'event: x\ndata: {"content":"word"}\n\n'] * 100
    turns = Turns()
    packed = [b"n", b"1", b"f", b"", b"z", await pack([Entry(1, 1, frames)])]
    stored = [(b"1-100", packed), (b"1-101", [b"n", b"101", b"f", frames[0]])]
    found = await pieces_of(Page(stored), turns)
    assert numbered(found) == numbered([Entry(1, 1, [*frames, frames[0]])])
    assert turns.taken == 0


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
async def test_a_packed_log_that_breaks_off_is_no_shorter_log(kept: float) -> None:
    packed = await pack([Entry(1, 1, [frame_of(300, random.Random(2)) for _ in range(1000)])])
    page = Page([(b"1-1000", [b"n", b"1", b"f", b"", b"z", packed[: int(kept * len(packed))]])])
    with pytest.raises(zlib.error):
        await pieces_of(page, Turns())


# -- readers -------------------------------------------------------------------------------------------


def delta(number: int, size: int = 300) -> bytes:
    return b'event: conversation.message.delta\ndata: {"n":%d,"content":"%b"}\n\n' % (number, b"w" * size)


class Chats:
    """Chats that are over, and readers of them."""

    def __init__(self, redis: RedisGate) -> None:
        self.redis = redis
        self.large = LargeReads()
        self.logs = LogReader(redis, KEYS, "p", self.large)

    async def ended(self, frames: list[bytes]) -> str:
        chat_id = new_chat_id(new_id("session"))
        packed, last = await pack([Entry(1, 1, frames)]), f"1-{len(frames)}"
        key = KEYS.log(chat_id)
        await self.redis.run(Command[bytes]("XADD", key, last, "n", 1, "f", b"", "z", packed))
        await self.redis.run(Command[int]("PEXPIRE", key, 60_000))
        return chat_id

    def reader(self, chat_id: str, owner: str, log: OpenLog | None = None) -> Reader:
        async def record() -> bytes:
            raise ChatNotFound

        return Reader(chat_id, Cursor(0, 0), local=lambda: log, logs=self.logs, record=record, owner=owner)


@pytest.fixture
async def chats() -> AsyncIterator[Chats]:
    async with open_redis("memory://", pool_size=4, reply_timeout=5) as redis:
        made = Chats(redis)
        yield made
        await made.logs.stop()


async def read_all(reader: Reader, frames: int, told: list[str] | None = None, name: str = "") -> list[Batch]:
    batches: list[Batch] = []
    async with asyncio.timeout(BOUND):
        while sum(len(batch.frames) for batch in batches) < frames:
            batch = await anext(reader)
            assert isinstance(batch, Batch)
            batches.append(batch)
            if told is not None:
                told.append(name)
    return batches


def open_log(chat_id: str, frames: list[bytes]) -> OpenLog:
    origin = Origin(SessionRecord("s", []), b"", [])
    log = OpenLog(chat_id, "s", 1, origin, frames=list(frames))
    log.visible = log.last
    return log


@pytest.mark.parametrize("in_memory", [True, False], ids=["from memory", "from Redis"])
async def test_readers_of_long_logs_take_turns_and_a_newcomer_s_owner_is_soon_served(
    chats: Chats, in_memory: bool
) -> None:
    """Thirty of one owner's stand behind one another, and one of another's beside them."""
    frames = [delta(number) for number in range(3000)]
    chat_id = await chats.ended(frames)
    log = open_log(chat_id, frames) if in_memory else None
    told: list[str] = []
    mine = [
        asyncio.create_task(read_all(chats.reader(chat_id, ME, log), len(frames), told, "me"))
        for _ in range(30)
    ]
    while not told:
        await asyncio.sleep(0)
    other = asyncio.create_task(read_all(chats.reader(chat_id, OTHER, log), len(frames), told, "other"))
    got = await other
    before = told.index("other"), len(told)
    assert b"".join(each for batch in got for each in batch.frames) == b"".join(frames)
    assert max(sum(map(len, batch.frames)) for batch in got) <= PIECE_BYTES
    assert told.count("me") < 5 * len(got) + 30, before
    await asyncio.gather(*mine)


async def test_the_loop_goes_on_between_the_pieces_of_all_readers(chats: Chats) -> None:
    """However many read, there is one piece or two between two turns of the loop."""
    frames = [delta(number) for number in range(2000)]
    chat_id = await chats.ended(frames)
    told: list[str] = []
    readers = [
        asyncio.create_task(read_all(chats.reader(chat_id, ME), len(frames), told, "me")) for _ in range(20)
    ]
    most = before = 0
    while not all(task.done() for task in readers):
        await asyncio.sleep(0)
        most, before = max(most, len(told) - before), len(told)
    assert most <= 3


async def test_a_reader_that_does_not_go_on_does_not_hold_what_was_packed(chats: Chats) -> None:
    frames = [delta(number, 3000) for number in range(2000)]
    chat_id = await chats.ended(frames)
    whole = sum(map(len, frames))
    tracemalloc.start()
    try:
        readers = [chats.reader(chat_id, ME) for _ in range(10)]
        before, _ = tracemalloc.get_traced_memory()
        for reader in readers:
            assert isinstance(await anext(reader), Batch)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < whole / 2, f"{held} of {len(readers)} times {whole}"


async def test_a_long_log_is_read_in_its_turn_among_the_owner_s_long_reads(chats: Chats) -> None:
    seed = random.Random(3)
    frames = [frame_of(300, seed) for _ in range(1000)]
    long, short = await chats.ended(frames), await chats.ended(frames[:3])
    async with chats.large.taken(ME):
        waiting = asyncio.create_task(read_all(chats.reader(long, ME), len(frames)))
        assert await read_all(chats.reader(short, ME), 3)
        assert await read_all(chats.reader(long, OTHER), len(frames))
        assert not waiting.done()
    assert await waiting


async def test_what_is_read_from_memory_has_whole_frames_however_long_they_are(chats: Chats) -> None:
    sizes = [10, PIECE_BYTES + 1, 10, 10, PIECE_BYTES // 2, PIECE_BYTES, *[1] * 600]
    frames = [delta(number, size) for number, size in enumerate(sizes)]
    batches = await read_all(chats.reader("c", ME, open_log("c", frames)), len(frames))
    assert [each for batch in batches for each in batch.frames] == frames
    firsts = [batch.first for batch in batches]
    assert firsts == [1 + sum(len(each.frames) for each in batches[:n]) for n in range(len(batches))]
    assert all(len(batch.frames) == 1 or sum(map(len, batch.frames)) <= PIECE_BYTES for batch in batches)


async def test_news_that_are_more_than_a_piece_are_written_in_pieces(chats: Chats) -> None:
    log = open_log("c", [delta(0)])
    reader = chats.reader("c", ME, log)
    taken: list[Batch] = []
    reader.take = lambda batch: taken.append(batch) or True
    assert await read_all(reader, 1)
    waiting = asyncio.create_task(read_all(reader, 1))
    await asyncio.sleep(0)
    log.add([delta(number) for number in range(1, 901)])
    rest = await waiting
    while (left := 900 - sum(len(batch.frames) for batch in [*taken, *rest])) > 0:
        rest += await read_all(reader, left)
    assert [batch.first for batch in taken] == [2]
    frames = [each for batch in [*taken, *rest] for each in batch.frames]
    assert frames == log.frames[1:]


async def test_a_page_of_a_log_ends_where_it_is_long_and_the_next_goes_on_there(chats: Chats) -> None:
    chat_id = new_chat_id(new_id("session"))
    key, sizes = KEYS.log(chat_id), [1000] * 25 + [700_000, 700_000, 10]
    for number, size in enumerate(sizes, 1):
        entry = Command[bytes]("XADD", key, f"1-{number}", "n", number, "f", delta(number, size))
        await chats.redis.run(entry)
    await chats.redis.run(Command[int]("PEXPIRE", key, 60_000))
    found = []
    place, pages = Cursor(0, 0), 0
    while (page := await chats.logs.after(chat_id, place, ME)) is not None:
        pieces = await pieces_of(page, Turns())
        found += pieces
        place, pages = Cursor(pieces[-1].epoch, pieces[-1].first), pages + 1
    assert [piece.first for piece in found] == list(range(1, len(sizes) + 1))
    assert pages == 2
    whole = [entry async for entry in chats.logs.whole(chat_id)]
    assert numbered(whole) == numbered(found)
    assert orjson.loads(whole[-1].frames[0].split(b"data: ")[1])["n"] == len(sizes)
