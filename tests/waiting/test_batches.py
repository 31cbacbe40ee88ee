"""Commands that travel together: whatever happens to their pipeline, each caller hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.exceptions import RedisUnavailable
from app.redis_client import Command, RedisGate, open_redis
from tests.support import RedisServer, wait_until

BOUND = 20.0
"""Seconds that nothing here takes unless it hangs."""

Reply = Callable[[list[bytes]], bytes]


@asynccontextmanager
async def gate_to(url: str, reply_timeout: float = 5.0) -> AsyncIterator[RedisGate]:
    async with open_redis(url, pool_size=8, reply_timeout=reply_timeout) as gate:
        yield gate


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    words = []
    if line := await reader.readline():
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
    return words


@asynccontextmanager
async def fake_redis(new_connection: Callable[[], Reply]) -> AsyncIterator[str]:
    """Its address. It says yes to everything but GET; each connection has a function that answers those."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = new_connection()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while words := await read_command(reader):
                said = b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n"
                writer.write(reply(words) if words[0] == b"GET" else said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def all_of(*calls: Awaitable[object]) -> list[object]:
    async with asyncio.timeout(BOUND):
        return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("bad", ["\ud800", object()], ids=["text that is none", "no text at all"])
async def test_what_cannot_be_sent_fails_its_own_caller_alone(bad: str, redis: RedisServer) -> None:
    async with gate_to(redis.url) as gate:
        await gate.run(Command("SET", "a", "1", "PX", 60_000))
        before, refused, after = await all_of(
            gate.run(Command("GET", "a")), gate.run(Command("GET", bad)), gate.run(Command("GET", "a"))
        )
        assert (before, after) == (b"1", b"1")
        assert isinstance(refused, UnicodeEncodeError | TypeError)
        assert await gate.run(Command("GET", "a")) == b"1"


async def test_an_answer_that_nobody_expects_reaches_all_who_asked() -> None:
    async with fake_redis(lambda: lambda _: b"-ERR \xff\xfe\r\n") as url, gate_to(url) as gate:
        for _ in range(2):
            outcomes = await all_of(*(gate.run(Command("GET", f"key-{n}")) for n in range(5)))
            assert all(isinstance(outcome, Exception) for outcome in outcomes)
            assert len(outcomes) == 5


async def test_whoever_waits_when_the_store_is_closed_hears_of_it(redis: RedisServer) -> None:
    async with gate_to(redis.url, reply_timeout=60) as gate:
        redis.pause()
        try:
            waiting = [asyncio.create_task(gate.run(Command("GET", "a"))) for _ in range(3)]
            await asyncio.sleep(0)
            waiting.append(asyncio.create_task(gate.run(Command("GET", "b"))))
            await asyncio.sleep(0)
            async with asyncio.timeout(BOUND):
                await gate.close()
        finally:
            redis.resume()
        outcomes = await all_of(*waiting)
        assert [type(outcome) for outcome in outcomes] == [RedisUnavailable] * 4
        assert not any(task.cancelled() for task in waiting), "a cancel of ours is not one of theirs"


def held_back() -> Reply:
    """Replies with each GET's own key; the last ten of a pipeline only when something else is asked."""
    held: list[bytes] = []

    def reply(words: list[bytes]) -> bytes:
        held.append(b"$%d\r\n%s\r\n" % (len(words[1]), words[1]))
        if words[1].startswith(b"k") and words[1] != b"k49":
            return b""
        now = b"".join(held)
        held.clear()
        return now

    return reply


async def test_replies_that_nobody_took_never_answer_somebody_else() -> None:
    """A pipeline that is given up between two replies: the others are still to come on its connection."""
    async with fake_redis(held_back) as url:
        for turns in range(2, 30):
            async with gate_to(url) as gate:
                await gate.on_each("PING")
                reading = asyncio.create_task(gate.pipeline([Command("GET", f"k{n}") for n in range(60)]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await wait_until(reading.done, BOUND, pause=0)
                assert await gate.run(Command("GET", "mine")) == b"mine"


async def test_a_long_reply_holds_up_nobody_who_asks_in_the_same_turn() -> None:
    """One connection, one pipeline and one time-out for all: the small ones failed with the long one."""
    async with fake_redis(held_back) as url, gate_to(url) as gate:
        long = asyncio.create_task(gate.run(Command("GET", "k0"), alone=True))  # it is never answered
        small = [asyncio.create_task(gate.run(Command("GET", f"small-{n}"))) for n in range(3)]
        assert await all_of(*small) == [b"small-0", b"small-1", b"small-2"]
        assert not long.done()
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)


async def test_of_those_who_have_asked_together_few_go_on_in_one_turn(redis: RedisServer) -> None:
    """All of a burst would else do all their work between two looks at the sockets, again and again."""
    turn, went_on = 0, Counter[int]()

    async def ask(gate: RedisGate) -> None:
        await gate.run(Command("GET", "a"))
        went_on[turn] += 1

    async with gate_to(redis.url) as gate:
        everybody = asyncio.gather(*(ask(gate) for _ in range(200)))
        while not everybody.done():
            turn += 1
            await asyncio.sleep(0)
        await everybody
    assert went_on.total() == 200
    assert max(went_on.values()) <= 8
