"""Past the limits the oldest idle session gives way: to each newcomer one, on whichever replica it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from app.utils import new_id
from tests.support import Client, RedisServer, RunningApp, data_of, error_of, open_client, wait_until

SLOW = "[[sim:delay=60]]"
StartApp = Callable[..., RunningApp]


@asynccontextmanager
async def replicas(start_app: StartApp, redis: RedisServer, **values: str) -> AsyncIterator[list[Client]]:
    values = {"RATE_LIMIT_SESSIONS_PER_MINUTE": "0", "RATE_LIMIT_MESSAGES_PER_MINUTE": "0", **values}
    services = [start_app(REDIS_URL=redis.url, **values) for _ in range(2)]
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_client(service.base_url)) for service in services]


async def create(client: Client, user: str) -> httpx.Response:
    return await client.post("/coze/sessions", json={"user_id": user})


async def create_many(clients: list[Client], user: str, count: int, at_once: int) -> list[str]:
    """Ids of sessions that were created so many at once, by turns on each replica; all must succeed."""
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> httpx.Response:
        async with room:
            return await create(clients[number % len(clients)], user)

    answers = await asyncio.gather(*(one(number) for number in range(count)))
    assert [answer.status_code for answer in answers] == [200] * count
    return [data_of(answer)["session_id"] for answer in answers]


async def alive(client: Client, sessions: list[str]) -> list[str]:
    """Those that still take messages; looked at without keeping them alive."""
    answers = await asyncio.gather(*(client.get(f"/coze/sessions/{s}/chats") for s in sessions))
    return [s for s, answer in zip(sessions, answers, strict=True) if answer.status_code == 200]


def indexed(redis: RedisServer) -> list[str]:
    with redis.client() as store:
        return [member.decode() for member in store.zrange("coze:{index}:sessions", 0, -1)]


async def test_forty_newcomers_of_one_user_all_get_a_place(redis: RedisServer, start_app: StartApp) -> None:
    async with replicas(start_app, redis, COZE_MAX_SESSIONS_PER_USER="4") as clients:
        sessions = await create_many(clients, "u", 40, 5)
        left = await alive(clients[0], sessions)
        assert len(left) == 4, "one went for each that came, and no more"
        assert sorted(indexed(redis)) == sorted(left)


async def test_newcomers_all_at_once_share_one_place(redis: RedisServer, start_app: StartApp) -> None:
    async with replicas(start_app, redis, COZE_MAX_SESSIONS_PER_USER="1") as clients:
        sessions = await create_many(clients, "u", 16, 16)
        assert len(await alive(clients[0], sessions)) == 1


async def test_the_limit_of_all_sessions_is_shared_out_like_that_of_a_user(
    redis: RedisServer, start_app: StartApp
) -> None:
    limits = {"COZE_MAX_SESSIONS_PER_USER": "50", "COZE_MAX_TOTAL_SESSIONS": "6"}
    async with replicas(start_app, redis, **limits) as clients:
        others = [(await create_many(clients, name, 1, 1))[0] for name in ("a", "b")]
        sessions = await create_many(clients, "u", 4, 1)
        sessions += await create_many(clients, "u", 30, 5)
        assert len(await alive(clients[0], sessions)) == 4
        assert await alive(clients[0], others) == others, "nobody evicts somebody else"
        full = await create(clients[0], "c")
        assert (full.status_code, error_of(full)["code"]) == (429, "SESSION_LIMIT_REACHED")


async def test_the_limit_of_users_holds_however_many_come_at_once(
    redis: RedisServer, start_app: StartApp
) -> None:
    async with replicas(start_app, redis, COZE_MAX_ACTIVE_USERS="3") as clients:
        answers = await asyncio.gather(*(create(clients[n % 2], f"u-{n}") for n in range(12)))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 9


async def test_busy_sessions_stay_and_only_a_user_with_nothing_else_is_refused(
    redis: RedisServer, start_app: StartApp
) -> None:
    async with replicas(start_app, redis, COZE_MAX_SESSIONS_PER_USER="4") as clients:
        busy = await create_many(clients, "u", 3, 1)
        chats = [await clients[n % 2].start(session, SLOW) for n, session in enumerate(busy)]
        sessions = await create_many(clients, "u", 20, 5)
        assert await alive(clients[0], busy) == busy
        left = await alive(clients[0], sessions)
        assert len(left) == 1
        chats.append(await clients[0].start(left[0], SLOW))
        refused = await asyncio.gather(*(create(client, "u") for client in clients * 3))
        assert {error_of(answer)["code"] for answer in refused} == {"SESSION_LIMIT_REACHED"}
        assert await alive(clients[1], [*busy, *left]) == [*busy, *left]
        for chat_id in chats:
            await clients[0].post(f"/coze/chats/{chat_id}/cancel")


async def test_the_least_recently_active_one_goes_even_if_that_was_a_moment_ago(
    redis: RedisServer, start_app: StartApp
) -> None:
    async with replicas(start_app, redis, COZE_MAX_SESSIONS_PER_USER="3") as clients:
        first, second, third = await create_many(clients, "u", 3, 1)
        await clients[1].session(first)  # so it is the newest now, which the indexes do not know yet
        [fourth] = await create_many(clients, "u", 1, 1)
        assert await alive(clients[0], [first, second, third, fourth]) == [first, third, fourth]
        [fifth] = await create_many(clients, "u", 1, 1)
        assert await alive(clients[0], [first, third, fourth, fifth]) == [first, fourth, fifth]


async def test_places_are_right_while_a_clean_up_and_an_erasure_run(
    redis: RedisServer, start_app: StartApp
) -> None:
    limits = {"COZE_MAX_SESSIONS_PER_USER": "4", "COZE_MAX_TOTAL_SESSIONS": "8"}
    async with replicas(start_app, redis, COZE_USER_INACTIVE_TIMEOUT="1", **limits) as clients:
        over = asyncio.Event()

        async def disturb() -> None:
            while not over.is_set():
                assert (await clients[1].post("/coze/admin/cleanup")).status_code == 200
                assert (await clients[0].delete("/coze/users/v")).status_code == 200

        disturbing = asyncio.create_task(disturb())
        sessions = await create_many(clients, "u", 60, 5)
        others = await create_many(clients, "v", 20, 2)
        over.set()
        await disturbing
        left = await alive(clients[0], sessions + others)
        assert sorted(indexed(redis)) == sorted(left), "what lives is counted, and what is counted lives"
        assert len(set(left) & set(sessions)) <= 4
        # Others may have been idle for long enough to be cleaned away; what comes now is neither.
        [newest] = await create_many(clients, "u", 1, 1)
        assert newest in indexed(redis)
        assert await alive(clients[0], [newest]) == [newest]


async def test_a_session_that_is_just_being_opened_is_neither_evicted_nor_cleaned_away(
    redis: RedisServer, start_app: StartApp
) -> None:
    """It is entered in the indexes and its hash is not written yet."""
    async with replicas(start_app, redis, COZE_MAX_SESSIONS_PER_USER="2") as clients:
        [session] = await create_many(clients, "u", 1, 1)
        opening = new_id("session")
        with redis.client() as store:
            [own] = store.scan_iter("coze:{index}:user:*")
            store.zadd("coze:{index}:sessions", {opening: store.zscore("coze:{index}:sessions", session)})
            store.zadd(own, {opening: store.zscore(own, session)})
        await clients[0].post("/coze/admin/cleanup")
        [newcomer] = await create_many(clients, "u", 1, 1)
        assert sorted(indexed(redis)) == sorted([opening, newcomer])
        assert await alive(clients[0], [session]) == []


async def test_the_place_of_what_is_over_is_taken_before_anything_idle_goes(
    redis: RedisServer, start_app: StartApp
) -> None:
    """A process that died between ending a session and taking its place leaves such a one."""
    async with replicas(start_app, redis, COZE_MAX_SESSIONS_PER_USER="2") as clients:
        [kept, gone] = await create_many(clients, "u", 2, 1)
        with redis.client() as store:
            [key] = store.scan_iter(f"*:session:{gone}")
            store.hset(key, mapping={"status": "terminated", "reason": "evicted", "updated": 1})
        [newcomer] = await create_many(clients, "u", 1, 1)
        assert await alive(clients[0], [kept, gone, newcomer]) == [kept, newcomer]
        await wait_until(lambda: sorted(indexed(redis)) == sorted([kept, newcomer]))


@pytest.mark.parametrize("how", ["get", "history", "clear", "rename"])
async def test_a_session_that_is_only_used_in_one_way_stays_in_the_indexes_as_long_as_it_lives(
    how: str, redis: RedisServer, start_app: StartApp
) -> None:
    """An index that forgets it would not count it, and an erasure would not find it."""
    async with replicas(start_app, redis) as clients:
        [session_id] = await create_many(clients, "u", 1, 1)
        use = {
            "get": lambda: clients[1].get(f"/coze/sessions/{session_id}"),
            "history": lambda: clients[1].get(f"/coze/sessions/{session_id}/history"),
            "clear": lambda: clients[1].post(f"/coze/sessions/{session_id}/clear"),
            "rename": lambda: clients[1].http.patch(f"/coze/sessions/{session_id}", json={"title": "t"}),
        }[how]
        with redis.client() as store:
            hashes = (key for key in store.scan_iter("coze:*") if store.type(key) == b"hash")
            [key] = [key for key in hashes if store.hexists(key, "indexed")]
            store.hset(key, "indexed", 0)
            store.zadd("coze:{index}:sessions", {session_id: 1})
            assert (await use()).status_code == 200
            await wait_until(lambda: store.zscore("coze:{index}:sessions", session_id) > 1)
