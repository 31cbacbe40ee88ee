"""Events that are taken in the turn in which they arrive, instead of by whoever iterates."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator, Iterable

import pytest

from app.coze.client import CozeClient
from app.coze.stream import CozeStream, SSEEvent, StreamTooLarge
from app.coze.transport import PooledClient
from app.exceptions import CozeApiError, CozeTimeout

from .support import (
    LAST_CHUNK,
    REQUEST,
    SSE_HEAD,
    Answer,
    chunked,
    hangs_up_when_cancelled,
    http_client,
    make_client,
    raw_server,
    read,
    send,
    sending,
    streaming,
)
from .vectors import BEG, DELTA, END, event, message

_BETWEEN_PACKETS = 0.002
"""Seconds. Packets that travel together all the same fail no test."""
_LIKE_A_CHUNK = b"8\r\ndata:abc\r\n"
"""Within a body these are lines like others: of what is in a chunk the last line would have no end."""
TEXT = event(DELTA, message("answer", "你好"))
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@pytest.fixture
async def http() -> AsyncIterator[PooledClient]:
    async with http_client("aiohttp", pool_size=100) as client:
        yield client


class Taker:
    """Takes all that comes; ``iterated`` counts what had to be read by iterating."""

    def __init__(self, stops_at: str = "") -> None:
        self.found: list[tuple[str, bytes]] = []
        self.iterated = 0
        self._stops_at = stops_at

    def __call__(self, stream: CozeStream, events: list[SSEEvent]) -> bool:
        self.found += [(each.name, each.data) for each in events]
        return not any(each.name == self._stops_at for each in events)

    async def read(self, stream: CozeStream) -> list[tuple[str, bytes]]:
        stream.take = self
        async with asyncio.timeout(30):
            async for events in stream:
                self.iterated += len(events)
                if not self(stream, events):
                    break
        return self.found


def in_packets(parts: Iterable[bytes]) -> Answer:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> bool:
        for part in parts:
            await send(writer, part)
            await asyncio.sleep(_BETWEEN_PACKETS)
        return True

    return answer


async def found_in(http: PooledClient, *parts: bytes) -> list[tuple[str, bytes]]:
    async with streaming(http, in_packets(parts)) as stream:
        return await Taker().read(stream)


BODY = (
    chunked(BEG)
    + chunked(TEXT)
    + chunked(TEXT + 2 * _LIKE_A_CHUNK + b"\n" + TEXT)
    + chunked(TEXT)
    + LAST_CHUNK
)
EVENTS = [
    *(("conversation.chat." + name, None) for name in ("created", "in_progress")),
    (DELTA.decode(), None),
    (DELTA.decode(), None),
    ("message", b"abc\nabc"),
    (DELTA.decode(), None),
    (DELTA.decode(), None),
]


def is_right(found: list[tuple[str, bytes]]) -> bool:
    names = [(name, data if name == "message" else None) for name, data in found]
    texts = {data for name, data in found if name == DELTA.decode()}
    return names == EVENTS and texts == {message("answer", "你好")}


async def test_wherever_the_network_cuts_the_chunks(http: PooledClient) -> None:
    places = range(1, len(BODY))

    async def cut_at(place: int) -> bool:
        return is_right(await found_in(http, SSE_HEAD + BODY[:place], BODY[place:]))

    for first in range(0, len(places), 50):
        some = places[first : first + 50]
        assert all(await asyncio.gather(*map(cut_at, some))), f"one of {some}"


async def test_cut_in_several_places(http: PooledClient) -> None:
    rng = random.Random(20)

    async def cut(number: int) -> bool:
        cuts = sorted(rng.sample(range(1, len(BODY)), number))
        parts = [BODY[a:b] for a, b in zip([0, *cuts], [*cuts, len(BODY)], strict=True)]
        return is_right(await found_in(http, SSE_HEAD, *parts))

    assert all(await asyncio.gather(*(cut(number) for number in range(2, 42))))


async def test_several_chunks_in_one_packet(http: PooledClient) -> None:
    two = chunked(TEXT) + chunked(TEXT + 2 * _LIKE_A_CHUNK + b"\n" + TEXT)
    assert is_right(await found_in(http, SSE_HEAD, chunked(BEG), two, chunked(TEXT) + LAST_CHUNK))
    many = [two, chunked(b": comment\n"), two, two]
    found = await found_in(http, SSE_HEAD, chunked(BEG), *many, LAST_CHUNK)
    assert [name for name, _ in found[2:]] == [name for name, _ in EVENTS[2:-1]] * 3


async def test_what_looks_like_a_chunk_within_one_is_none(http: PooledClient) -> None:
    """Two come, each alone, right behind whole chunks that came alone."""
    outer = TEXT + 2 * _LIKE_A_CHUNK + b"\n" + TEXT
    head, behind = b"%x\r\n" % len(outer) + TEXT, b"\n" + TEXT + b"\r\n"
    parts = [
        chunked(BEG),
        chunked(TEXT),
        head,
        _LIKE_A_CHUNK,
        _LIKE_A_CHUNK,
        behind,
        chunked(TEXT),
        LAST_CHUNK,
    ]
    assert is_right(await found_in(http, SSE_HEAD, *parts))


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "until the connection ends"])
async def test_what_looks_like_a_chunk_in_a_body_without_chunks_is_none(
    http: PooledClient, length: bool
) -> None:
    parts = [BEG, TEXT, TEXT, _LIKE_A_CHUNK, _LIKE_A_CHUNK, b"\n", TEXT, TEXT]
    more = b"Content-Length: %d\r\n" % sum(map(len, parts)) if length else b"Connection: close\r\n"

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> bool:
        await in_packets([PLAIN_HEAD + more + b"\r\n", *parts])(writer, request)
        return length

    async with streaming(http, answer) as stream:
        assert is_right(await Taker().read(stream))


async def test_deltas_are_taken_and_not_iterated(http: PooledClient) -> None:
    async with streaming(
        http, in_packets([SSE_HEAD, chunked(BEG), *[chunked(TEXT)] * 20, LAST_CHUNK])
    ) as stream:
        taker = Taker()
        assert len(await taker.read(stream)) == 22
    assert taker.iterated <= 3, "what opened the stream, and no more"


async def test_much_at_once_comes_in_order_by_whoever_iterates(http: PooledClient) -> None:
    many = [message("answer", str(number)) for number in range(600)]
    burst = b"".join(chunked(event(DELTA, each)) for each in many)
    parts = [SSE_HEAD, chunked(BEG), burst, chunked(TEXT), burst, LAST_CHUNK]
    found = [data for name, data in await found_in(http, *parts) if name == DELTA.decode()]
    assert found == [*many, message("answer", "你好"), *many]


async def test_a_connection_is_used_again_afterwards(http: PooledClient) -> None:
    parts = [SSE_HEAD, chunked(BEG), chunked(TEXT), chunked(END), LAST_CHUNK]
    async with raw_server(in_packets(parts), watch=False) as server:
        coze = make_client(http, base=server.base, drain_timeout=20)
        for stops_at in ("done", "", "done", ""):
            async with coze.stream_chat(REQUEST) as stream:
                assert len(await Taker(stops_at).read(stream)) == 5
        assert (server.connections, len(server.requests)) == (1, 4)


async def test_what_a_taker_raises_is_raised_where_it_is_iterated(http: PooledClient) -> None:
    def take(stream: CozeStream, events: list[SSEEvent]) -> bool:
        raise ZeroDivisionError

    parts = [SSE_HEAD, chunked(BEG), chunked(TEXT), chunked(TEXT)]
    async with raw_server(in_packets(parts)) as server, asyncio.timeout(20):
        async with make_client(http, base=server.base).stream_chat(REQUEST) as stream:
            stream.take = take
            with pytest.raises(ZeroDivisionError):
                assert await read(stream) == []
        await server.hung_up.wait()


async def test_silence_has_its_deadline(http: PooledClient) -> None:
    answer = sending(SSE_HEAD, chunked(BEG), chunked(TEXT), stall=True)
    with pytest.raises(CozeTimeout, match="nothing more"):
        async with streaming(http, answer, idle_timeout=0.1) as stream:
            await Taker().read(stream)


async def test_the_deadline_can_be_changed_by_what_was_taken(http: PooledClient) -> None:
    def take(stream: CozeStream, events: list[SSEEvent]) -> bool:
        stream.idle_timeout = 0.1
        return True

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await in_packets([SSE_HEAD, chunked(BEG), chunked(TEXT)])(writer, request)
        await asyncio.Event().wait()

    async def changed() -> None:
        async with streaming(http, answer, idle_timeout=60) as stream, asyncio.timeout(20):
            stream.take = take
            await read(stream)

    with pytest.raises(CozeTimeout, match=r"for 0\.1 s"):
        await changed()


async def test_an_answer_past_its_bound_ends_at_once_behind_what_was_whole(http: PooledClient) -> None:
    taker = Taker()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await in_packets([SSE_HEAD, chunked(BEG), chunked(TEXT), chunked(TEXT), chunked(b": " * 2000)])(
            writer, request
        )
        await asyncio.Event().wait()

    with pytest.raises(StreamTooLarge):
        async with streaming(http, answer, max_stream_bytes=3000, idle_timeout=60) as stream:
            await taker.read(stream)
    assert len(taker.found) == 4


@pytest.mark.parametrize("rest", [b"", b"12", b"5\r\nda", b"no chunk\r\n"])
async def test_a_break_is_told_behind_what_came(http: PooledClient, rest: bytes) -> None:
    taker = Taker()
    parts = [SSE_HEAD, chunked(BEG), chunked(TEXT), chunked(TEXT), rest]

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        await in_packets(part for part in parts if part)(writer, request)

    with pytest.raises(CozeApiError, match="broke"):
        async with streaming(http, answer) as stream:
            await taker.read(stream)
    assert len(taker.found) == 4


async def test_who_is_cancelled_hangs_up(http: PooledClient) -> None:
    taken = asyncio.Event()

    def take(stream: CozeStream, events: list[SSEEvent]) -> bool:
        taken.set()
        return True

    async with raw_server(in_packets([SSE_HEAD, chunked(BEG), *[chunked(TEXT)] * 1000])) as server:

        async def ask() -> None:
            async with make_client(http, base=server.base).stream_chat(REQUEST) as stream:
                stream.take = take
                await read(stream)

        await hangs_up_when_cancelled(server, asyncio.create_task(ask()), taken)


async def test_nothing_of_it_waits_to_be_collected(http: PooledClient) -> None:
    """While many streams are open a collection of garbage would stop them all."""
    parts = [SSE_HEAD, chunked(BEG), chunked(TEXT), chunked(END), LAST_CHUNK]
    gone = []

    async def ask(coze: CozeClient, stops_at: str) -> None:
        async with coze.stream_chat(REQUEST) as stream:
            gone.append(weakref.ref(stream))
            assert len(await Taker(stops_at).read(stream)) == 5

    gc.collect()
    gc.disable()
    try:
        async with raw_server(in_packets(parts), watch=False) as server:
            for stops_at in ("done", ""):
                await ask(make_client(http, base=server.base, drain_timeout=20), stops_at)
                assert gone.pop()() is None
    finally:
        gc.enable()
