"""DELETE /coze/users/{user_id}: afterwards nothing of that user is left, and all of everybody else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from coze_simulator.auth_server import RunningAuth
from tests.support import Client, RedisServer, RunningApp, SimControl, data_of, wait_until

from .helpers import ADMIN, ALICE, ALICE_ELSEWHERE, BOB, calling, contents, settle_in, settled_contents

GOES = "the one who goes/with a slash"


async def erase(client: Client, user_id: str = GOES) -> dict[str, Any]:
    """Repeats while anything remains, as the contract says; returns the sums."""
    total = {"erased_sessions": 0, "erased_chats": 0}
    for _ in range(50):
        answer = data_of(await client.delete("/coze/users/" + user_id.replace("/", "%2F")))
        for name in total:
            total[name] += answer[name]
        if not answer["remaining_sessions"]:
            return total
    raise AssertionError("erasing comes to no end")


def left_of(redis: RedisServer, *before: dict[str, Any]) -> list[str]:
    """Names of the keys that were not there before, but for the marks that something was erased."""
    old = set().union(*before) if before else set()
    return [name for name in contents(redis) if name not in old and ":erased:" not in name]


@pytest.fixture
def running_at_coze(simulator: SimControl) -> Callable[[], int]:
    """How many chats run there that did not run before the test: those of other tests may still end."""
    others = {chat["id"] for chat in simulator.state()["running_chats"]}

    def count() -> int:
        chats = simulator.state()["running_chats"]
        return sum(chat["status"] == "in_progress" and chat["id"] not in others for chat in chats)

    return count


async def live_richly(client: Client, user_id: str, secret: str) -> list[str]:
    """Sessions in every state, with Idempotency-Keys and a queue. Returns all ids."""
    own = await settle_in(client, user_id)
    ids = [*own.sessions, *own.chats, *own.files, *(name.removeprefix("resp_") for name in own.responses)]
    for n in range(3):
        key = {"Idempotency-Key": f"{user_id} {n}"}
        body = {"user_id": user_id, "meta_data": {"n": str(n)}}
        session_id = data_of(await client.post("/coze/sessions", json=body, headers=key))["session_id"]
        ids.append(session_id)
        for m in range(3):
            answer = await client.send(session_id, secret, headers={"Idempotency-Key": f"m{m}"})
            ids.append(data_of(answer)["chat_id"])
        if n == 0:
            await client.delete(f"/coze/sessions/{session_id}")
    ids.append(await client.start(own.sessions[2], "waits in line", on_busy="enqueue"))
    return ids


async def test_after_erasing_no_key_of_that_user_is_left_and_all_others_keep_theirs(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, running_at_coze: Callable[[], int]
) -> None:
    async with calling(secured, auth, ALICE, BOB, ALICE_ELSEWHERE) as [alice, bob, elsewhere]:
        for args in (
            (alice, "stays", "I stay"),
            (bob, GOES, "I am bob"),
            (elsewhere, GOES, "I am elsewhere"),
        ):
            await live_richly(*args)
        before = settled_contents(redis)
        ids = await live_richly(alice, GOES, "what nobody may read again")
        erased = await erase(alice)
        assert erased["erased_sessions"] == 7, "six, and that of a response"
        assert erased["erased_chats"] == sum(value.startswith("coze_chat") for value in ids)

        assert left_of(redis, before) == []
        now = settled_contents(redis)
        assert {name: now[name] for name in before} == before, "somebody else's things were touched"
        everything = repr({name: value for name, value in now.items() if ":erased:" not in name})
        assert [text for text in [*ids, "what nobody may read again"] if text in everything] == []
        for value in ids:
            kind = value.split("_")[1] + "s"
            path = f"/coze/{kind}/{value}" + ("/result" if kind == "chats" else "")
            assert (await alice.get(path)).status_code == 404
        listed = await alice.get("/coze/users/" + GOES.replace("/", "%2F") + "/sessions")
        assert data_of(listed)["sessions"] == []

        assert await erase(alice) == {"erased_sessions": 0, "erased_chats": 0}
        for client, user_id in ((alice, "stays"), (bob, GOES), (elsewhere, GOES)):
            await erase(client, user_id)
        assert left_of(redis) == [], "the indexes name somebody who is gone"
        assert running_at_coze() == 0


async def test_the_buckets_that_limit_a_user_outlive_erasing_by_a_minute_at_most_and_hold_a_count_alone(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    """Otherwise erasing oneself would be the way around the limits."""
    async with calling(secured, auth, ALICE) as [alice]:
        await alice.send(await alice.open_session(GOES), "hello")
        await erase(alice)
    with redis.client() as store:
        buckets = list(store.scan_iter("coze:{index}:rate:*"))
        assert len(buckets) == 3 * 4, "of messages, sessions and erasures, in each layer"
        for bucket in buckets:
            assert 0 < store.pttl(bucket) <= 61_000
            assert store.hkeys(bucket) == [b"tokens", b"at"]
            assert not any(name.encode() in bucket for name in (GOES, ALICE.name, ALICE.root))


async def test_a_running_chat_is_cancelled_at_coze_before_it_is_erased_and_the_context_is_cleared(
    secured: RunningApp, auth: RunningAuth, simulator: SimControl, running_at_coze: Callable[[], int]
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        own = await settle_in(alice, GOES)
        conversations = {(await alice.session(session_id))["conversation_id"] for session_id in own.sessions}
        assert len(conversations) == 3
        for name in own.responses:
            chat = data_of(await alice.result(name.removeprefix("resp_")))
            conversations.add(chat["metadata"]["conversation_id"])
        assert running_at_coze() == 1
        await erase(alice)
        assert running_at_coze() == 0
        seen = [record["path"] for record in simulator.requests()]
        assert "/v3/chat/cancel" in seen
        cleared = {
            record["path"].split("/")[3]
            for record in simulator.requests()
            if record["path"].endswith("/clear")
        }
        assert cleared == conversations
        await wait_until(lambda: not secured.resources.chats.running)


async def test_an_idempotency_key_of_before_the_erasure_makes_something_new_after_it(
    secured: RunningApp, auth: RunningAuth
) -> None:
    key = {"Idempotency-Key": "once"}
    async with calling(secured, auth, ALICE) as [alice]:
        first = data_of(await alice.post("/coze/sessions", json={"user_id": GOES}, headers=key))
        await erase(alice)
        second = data_of(
            await alice.post("/coze/sessions", json={"user_id": GOES, "meta_data": {"a": "b"}}, headers=key)
        )
        assert second["session_id"] != first["session_id"]


async def test_coze_being_away_does_not_keep_anything_here(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, simulator: SimControl
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        await alice.send(await alice.open_session(GOES), "hello")
        simulator.upstream("refuse")
        await erase(alice)
        assert left_of(redis) == []


async def test_one_call_erases_a_bounded_number_and_says_what_remains(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        for _ in range(45):
            await alice.open_session(GOES)
        url = "/coze/users/" + GOES.replace("/", "%2F")
        answers = [data_of(await alice.delete(url)) for _ in range(4)]
        assert [(a["erased_sessions"], a["remaining_sessions"]) for a in answers] == [
            (20, 25),
            (20, 5),
            (5, 0),
            (0, 0),
        ]
        assert left_of(redis) == []


async def test_erasing_twice_at_once_is_erasing_once(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        for _ in range(10):
            await alice.send(await alice.open_session(GOES), "hello")
        url = "/coze/users/" + GOES.replace("/", "%2F")
        answers = await asyncio.gather(*(alice.delete(url) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        await erase(alice)
        assert left_of(redis) == []


async def test_an_admin_erases_all_of_that_name_in_its_tenant_and_nobody_in_another(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, BOB, ALICE_ELSEWHERE, ADMIN) as [alice, bob, elsewhere, admin]:
        for client in (alice, bob):
            await client.send(await client.open_session(GOES), "hello")
        kept = await elsewhere.open_session(GOES)
        await elsewhere.send(kept, "hello")
        assert await erase(admin) == {"erased_sessions": 2, "erased_chats": 2}
        assert (await elsewhere.session(kept))["chat_count"] == 1
        assert await erase(elsewhere) == {"erased_sessions": 1, "erased_chats": 1}
        assert left_of(redis) == []


async def test_a_session_with_more_idempotency_keys_than_one_script_can_name_can_be_erased(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session(GOES)
        await alice.send(session_id, "hello", headers={"Idempotency-Key": "k"})
        with redis.client() as store:
            [used] = store.scan_iter("*:used:*")
            shard = used.split(b"used:")[0]
            many = [shard + b"idem:%040x" % n for n in range(20_000)]
            with store.pipeline() as pipe:
                for key in many:
                    pipe.set(key, "f x", px=60_000)
                pipe.sadd(used, *many)
                pipe.execute()
        await erase(alice)
        assert left_of(redis) == []


@pytest.mark.full
async def test_the_logs_of_chats_that_a_long_session_no_longer_lists_go_with_the_user(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session(GOES)
        for n in range(130):
            await alice.send(session_id, f"message {n}")
        await erase(alice)
        assert left_of(redis) == []
