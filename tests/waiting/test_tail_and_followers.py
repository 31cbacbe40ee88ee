"""Loops that outlive a fault, and queued chats that no drain overlooks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from app.models import Cursor
from app.redis_client import Keys, open_redis
from app.stores.log_reader import LogReader
from app.utils import new_chat_id, new_id, shard_of
from tests.support import Client, RedisServer, RunningApp, data_of, open_client, wait_until

BOUND = 30.0
"""Seconds that nothing here takes unless it hangs."""
KEYS = Keys("waiting:")
"""Apart from those of services that other tests share: these would claim what is to be had."""
StartApp = Callable[..., RunningApp]


async def test_readers_of_a_shard_are_woken_again_after_an_odd_answer(redis: RedisServer) -> None:
    """One of the logs of the shard is no stream for a while, which fails the one read for all of them."""
    session_id = new_id("session")
    odd, sound = new_chat_id(session_id), new_chat_id(session_id)
    rung: list[str] = []
    async with open_redis(redis.url, pool_size=4, reply_timeout=5) as gate:
        reader = LogReader(gate, KEYS, "p")
        with redis.client() as store:

            def refusals() -> Any:  # the server is shared: other tests may have been refused before
                return store.info("errorstats").get("errorstat_WRONGTYPE")

            before = refusals()
            store.set(KEYS.log(odd), "not a stream", ex=60)
            stops = [
                reader.listen(odd, Cursor(0, 0), lambda: rung.append(odd)),
                reader.listen(sound, Cursor(0, 0), lambda: rung.append(sound)),
            ]
            await wait_until(lambda: refusals() != before, BOUND)
            store.delete(KEYS.log(odd))
            await wait_until(lambda: {odd, sound} <= set(rung), BOUND)  # something may have been missed
            rung.clear()
            store.xadd(KEYS.log(sound), {"n": 1, "f": "x"}, id="1-1")
            store.expire(KEYS.log(sound), 60)
            await wait_until(lambda: sound in rung, BOUND)
        for stop in stops:
            stop()
        async with asyncio.timeout(BOUND):
            await reader.stop()


async def test_a_thousand_readers_of_a_log_are_woken_in_portions(redis: RedisServer) -> None:
    """Each of those woken asks Redis for what is new: between portions the event loop does something else."""
    chat_id = new_chat_id(new_id("session"))
    rung: list[int] = []
    at_once: list[int] = []

    def ring(number: int) -> None:
        if not rung:
            asyncio.get_running_loop().call_soon(lambda: at_once.append(len(rung)))
        rung.append(number)

    async with open_redis(redis.url, pool_size=4, reply_timeout=5) as gate:
        reader = LogReader(gate, KEYS, "p")
        stops = [reader.listen(chat_id, Cursor(0, 0), partial(ring, number)) for number in range(1000)]
        with redis.client() as store:
            store.xadd(KEYS.log(chat_id), {"n": 1, "f": "x"}, id="1-1")
            store.expire(KEYS.log(chat_id), 60)
        await wait_until(lambda: len(set(rung)) == 1000, BOUND)
        assert at_once[0] < 100
        for stop in stops:
            stop()
        async with asyncio.timeout(BOUND):
            await reader.stop()


class HeldClaims:
    """The service's claims wait until they are let through."""

    def __init__(self, service: RunningApp) -> None:
        self._service = service
        self._leases = service.resources.chats._leases
        self.waiting = 0
        self._go: asyncio.Event | None = None

    async def hold(self) -> None:
        self._go, claim = asyncio.Event(), self._leases.claim

        async def held(*args: Any, **more: Any) -> Any:
            self.waiting += 1
            assert self._go is not None
            await self._go.wait()
            return await claim(*args, **more)

        self._leases.claim = held  # type: ignore[method-assign]

    async def let_through(self) -> None:
        assert self._go is not None
        self._go.set()


async def queue_two(client: Client, second: str) -> tuple[str, str]:
    """Ids of a chat that soon ends and of one that is queued behind it."""
    session_id = await client.open_session()
    first = await client.start(session_id, "first [[sim:delay=0.5]]")
    body = {"message": second, "on_busy": "enqueue"}
    queued = await client.post(
        f"/coze/sessions/{session_id}/messages", json=body, headers={"Prefer": "respond-async"}
    )
    return first, data_of(queued)["chat_id"]


async def test_a_drain_waits_for_the_queued_chat_that_is_just_being_claimed(
    redis: RedisServer, start_app: StartApp
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_REDIS_PREFIX=KEYS.prefix, DRAIN_SECONDS="60")
    claims = HeldClaims(service)
    async with open_client(service.base_url) as client:
        first, second = await queue_two(client, "second")
        await asyncio.to_thread(service.call, claims.hold)
        await wait_until(lambda: claims.waiting, BOUND)
        assert data_of(await client.result(first))["status"] == "completed"
        assert service.resources.chats.running == 1, "it counts while it is being claimed"
        drain = service.resources.shutdown.drain
        draining = asyncio.create_task(asyncio.to_thread(service.call, drain, BOUND))
        await wait_until(lambda: service.resources.shutdown.begun, BOUND)
        await asyncio.to_thread(service.call, claims.let_through)
        await draining
        assert data_of(await client.result(second))["status"] == "completed"


async def test_what_was_just_being_claimed_is_handed_over_like_all_else(
    redis: RedisServer, start_app: StartApp
) -> None:
    service = start_app(
        REDIS_URL=redis.url, COZE_REDIS_PREFIX=KEYS.prefix, DRAIN_SECONDS="0.01", LEASE_SECONDS="300"
    )
    claims = HeldClaims(service)
    async with open_client(service.base_url) as client:
        _, second = await queue_two(client, "second [[sim:delay=60]]")
        await asyncio.to_thread(service.call, claims.hold)
        await wait_until(lambda: claims.waiting, BOUND)
        drain = service.resources.shutdown.drain
        draining = asyncio.create_task(asyncio.to_thread(service.call, drain, BOUND))
        await wait_until(lambda: service.resources.chats._running.handing_over, BOUND)
        await asyncio.to_thread(service.call, claims.let_through)
        await draining
        with redis.client() as store:
            assert store.zscore(KEYS.leases(shard_of(second)), f"{second}:1") == 0.0
