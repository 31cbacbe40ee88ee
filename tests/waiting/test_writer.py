"""The shared log writer and the leases: what an outage, a burst or a hand-over costs Redis."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.redis_client import Command, Keys, RedisGate, open_redis
from app.stores.event_log import LogWriter
from app.stores.leases import LeaseStore
from app.stores.open_log import OpenLog, Origin
from app.stores.policy import LogPolicy
from app.stores.sessions import SessionRecord
from app.utils import new_chat_id, new_id, shard_of
from tests.support import RedisServer, RunningApp, open_client, wait_until

BOUND = 30.0
"""Seconds that nothing here takes unless it hangs."""
MIB = 1 << 20
KEYS = Keys("waiting:")
"""Apart from those of services that other tests share: these would claim what is to be had."""
POLICY = LogPolicy(lease=60_000, session_ttl=60_000, log_ttl=60_000, hold=60_000, usage_ttl=60_000)


class Sent:
    """What goes to the servers behind a gate, in pipelines and by itself."""

    def __init__(self, gate: RedisGate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pipelines: list[list[Command[Any]]] = []
        self.alone: list[str] = []
        servers: Any = gate._servers
        send = servers.send

        async def counted(commands: Sequence[Command[Any]], **more: Any) -> Any:
            if len(commands) == 1:
                self.alone.append(commands[0].name)
            else:
                self.pipelines.append(list(commands))
            return await send(commands, **more)

        monkeypatch.setattr(servers, "send", counted)


@asynccontextmanager
async def gate_to(url: str) -> AsyncIterator[RedisGate]:
    async with open_redis(url, pool_size=8, reply_timeout=BOUND) as gate:
        yield gate


async def open_log(gate: RedisGate, frame: bytes = b"first\n\n") -> OpenLog:
    """A log with one frame, which Redis has."""
    session_id = new_id("session")
    chat_id = new_chat_id(session_id)
    key = KEYS.log(chat_id)
    await gate.pipeline([Command("XADD", key, "1-1", "n", 1, "f", frame), Command("PEXPIRE", key, 60_000)])
    origin = Origin(SessionRecord(session_id, [b"owner", b"o", b"running", b""]), b"{}", [b"epoch", b"1"])
    return OpenLog(chat_id, session_id, 1, origin, frames=[frame], visible=1, committed=1)


@asynccontextmanager
async def writing(gate: RedisGate) -> AsyncIterator[LogWriter]:
    writer = LogWriter(gate, KEYS, POLICY)
    writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


async def test_after_an_outage_new_chats_cost_no_look_of_their_own(
    own_redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=own_redis.url, COZE_REDIS_PREFIX=KEYS.prefix)
    own_redis.stop()
    async with open_client(service.base_url) as client:

        async def away() -> bool:
            return (await client.get("/coze/health")).status_code == 503

        async def back() -> bool:
            return not await away()

        await wait_until(away, BOUND)
        own_redis.start()
        await wait_until(back, BOUND)
        session_id = await client.open_session()
        with own_redis.client() as redis:
            redis.config_resetstat()
            for _ in range(3):
                assert (await client.send(session_id, "hello")).status_code == 200
            assert "cmdstat_xrevrange" not in redis.info("commandstats")


async def test_after_an_outage_many_logs_are_looked_at_together(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gate_to(redis.url) as gate:
        logs = [await open_log(gate) for _ in range(40)]
        sent = Sent(gate, monkeypatch)
        async with writing(gate) as writer:
            for log in logs:
                writer.append(log, [b"second\n\n"])
            await wait_until(lambda: all(log.committed == 2 for log in logs), BOUND)
            assert "XREVRANGE" not in sent.alone
            sent.pipelines.clear()
            gate.outages += 1  # as if Redis had been away since
            for log in logs:
                writer.append(log, [b"third\n\n"])
            await wait_until(lambda: all(log.committed == 3 for log in logs), BOUND)
        looks = [p for p in sent.pipelines if p[0].name == "XREVRANGE"]
        assert sum(map(len, looks)) == len(logs)
        assert len(looks) == 1
        assert "XREVRANGE" not in sent.alone


async def test_what_redis_lost_is_found_by_the_common_look(redis: RedisServer) -> None:
    """One log is as it was, one is gone, one belongs to somebody else."""
    async with gate_to(redis.url) as gate:
        whole, lost, taken = [await open_log(gate) for _ in range(3)]
        async with writing(gate) as writer:
            for log in (whole, lost, taken):
                writer.append(log, [b"second\n\n"])
            await wait_until(lambda: whole.committed == lost.committed == taken.committed == 2, BOUND)
            with redis.client() as store:
                store.delete(KEYS.log(lost.chat_id))
                store.xadd(KEYS.log(taken.chat_id), {"n": 1, "f": ""}, id="2-0")
            gate.outages += 1
            for log in (whole, lost, taken):
                writer.append(log, [b"third\n\n"])
            await wait_until(lambda: whole.committed == lost.committed == 3, BOUND)
            await wait_until(lambda: taken.state == "fenced", BOUND)
        with redis.client() as store:
            frames = [fields[b"f"] for _, fields in store.xrange(KEYS.log(lost.chat_id))]
            assert b"".join(frames) == b"first\n\nsecond\n\nthird\n\n"


async def test_a_pipeline_has_a_total_and_every_log_its_turn(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gate_to(redis.url) as gate:
        large = [await open_log(gate) for _ in range(12)]
        small = await open_log(gate)
        sent = Sent(gate, monkeypatch)
        frame = b"x" * (MIB // 4) + b"\n\n"
        async with writing(gate) as writer:
            for log in large:
                writer.append(log, [frame] * 12)
            writer.append(small, [b"small\n\n"])
            await wait_until(lambda: small.committed == 2, BOUND)
            assert not all(log.committed == 13 for log in large), "it did not wait for all the others"
            await wait_until(lambda: all(log.committed == 13 for log in large), BOUND)
        sizes = [
            sum(len(part) for c in p for part in c.parts if isinstance(part, bytes)) for p in sent.pipelines
        ]
        assert max(sizes) <= 5 * MIB
        turns: dict[str, list[int]] = {}
        for number, pipeline in enumerate(sent.pipelines):
            for command in pipeline:
                turns.setdefault(command.key, []).append(number)
        gaps = [b - a for numbers in turns.values() for a, b in itertools.pairwise(numbers)]
        assert max(gaps) <= 5, "nobody was passed over while others had several turns"


@pytest.mark.parametrize("scripts", ["known", "forgotten"])
async def test_leases_are_given_away_with_one_script_a_shard_in_one_pipeline(
    scripts: str, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gate_to(redis.url) as gate:
        leases = LeaseStore(gate, KEYS, POLICY)
        held = [(new_chat_id(new_id("session")), 1) for _ in range(100)]
        with redis.client() as store:
            for chat_id, epoch in held:
                store.zadd(KEYS.leases(shard_of(chat_id)), {f"{chat_id}:{epoch}": 9e12})
                store.expire(KEYS.leases(shard_of(chat_id)), 60)
            await leases.release(held[:1])
            if scripts == "forgotten":
                store.script_flush()
            sent = Sent(gate, monkeypatch)
            await leases.release(held)
            assert len(sent.pipelines) == (1 if scripts == "known" else 2)
            assert all(len(commands) <= 32 for commands in sent.pipelines)
            scores = [store.zscore(KEYS.leases(shard_of(chat_id)), f"{chat_id}:1") for chat_id, _ in held]
            assert scores == [0.0] * len(held)


async def test_renewing_tells_which_leases_are_gone(redis: RedisServer) -> None:
    async with gate_to(redis.url) as gate:
        leases = LeaseStore(gate, KEYS, POLICY)
        held = [(new_chat_id(new_id("session")), n) for n in range(1, 6)]
        with redis.client() as store:
            for chat_id, epoch in held[1:]:
                store.zadd(KEYS.leases(shard_of(chat_id)), {f"{chat_id}:{epoch}": 1})
                store.expire(KEYS.leases(shard_of(chat_id)), 60)
                store.hset(KEYS.run(chat_id), "epoch", epoch)
                store.expire(KEYS.run(chat_id), 60)
            store.delete(KEYS.run(held[4][0]))  # thrown away: the lease alone is no use
        assert sorted(await leases.renew(held)) == sorted([held[0], held[4]])
        assert await leases.renew([]) == []
