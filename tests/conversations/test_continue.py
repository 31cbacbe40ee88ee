"""A conversation outlives its session: whoever has had it goes on with it in another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    SimControl,
    data_of,
    error_of,
    open_client,
    wait_until,
)

OTHER_BOT = "7380000000000000010"


async def reopen(client: Client, conversation_id: str, user_id: str = "u-1", **body: Any) -> httpx.Response:
    return await client.post(
        "/coze/sessions", json={"user_id": user_id, "conversation_id": conversation_id, **body}
    )


async def talked(
    client: Client, user_id: str = "u-1", word: str = "pineapple", **body: Any
) -> tuple[str, str]:
    """A session in which something was said, and its conversation."""
    session_id = await client.open_session(user_id, **body)
    chat = data_of(await client.send(session_id, f"my word is {word}"))
    assert chat["status"] == "completed"
    return session_id, chat["metadata"]["conversation_id"]


def bots(simulator: SimControl) -> list[str]:
    """Whom each chat at Coze was with."""
    stored = simulator.running.app.core.store.chats
    return [stored[request["chat_id"]].bot_id for request in simulator.requests(path="/v3/chat")]


def assert_unknown(response: httpx.Response) -> None:
    assert response.status_code == 404
    assert error_of(response)["code"] == "COZE_CONVERSATION_NOT_FOUND"


@pytest.mark.parametrize("end", ["deleted", "expired", "still there"])
async def test_a_new_session_goes_on_with_the_conversation_of_one_that_is(
    client: Client, redis: RedisServer, simulator: SimControl, end: str
) -> None:
    session_id, conversation = await talked(client, bot_id=OTHER_BOT)
    if end == "deleted":
        await client.delete(f"/coze/sessions/{session_id}")
    elif end == "expired":
        with redis.client() as store:
            store.delete(*store.scan_iter("*:session:*"), *store.scan_iter("*:chats:*"))
    session = data_of(await reopen(client, conversation))
    assert session["session_id"] != session_id
    assert session["conversation_id"] == conversation
    assert session["context"]["bot_id"] == OTHER_BOT
    assert (session["chat_count"], session["chat_history"]) == (0, [])
    chat = data_of(await client.send(session["session_id"], "What did I say before?"))
    assert "pineapple" in chat["content"]
    assert chat["metadata"]["conversation_id"] == conversation
    assert bots(simulator) == [OTHER_BOT] * 2
    assert len(simulator.requests(path="/v1/conversation/create")) == 1


async def test_another_bot_and_messages_of_before_go_along_only_where_they_are_given(
    client: Client, simulator: SimControl
) -> None:
    opening = [{"role": "user", "content": "opening words", "content_type": "text"}]
    _, conversation = await talked(client, additional_messages=opening)
    plain = data_of(await reopen(client, conversation))["session_id"]
    await client.send(plain, "plain")
    told = data_of(await reopen(client, conversation, bot_id=OTHER_BOT, additional_messages=opening))
    assert told["context"]["bot_id"] == OTHER_BOT
    await client.send(told["session_id"], "told")
    assert bots(simulator)[-1] == OTHER_BOT
    history = data_of(await client.get(f"/coze/sessions/{plain}/history", params={"order": "asc"}))
    asked = [message["content"] for message in history["messages"] if message["role"] == "user"]
    assert asked == ["opening words", "my word is pineapple", "plain", "opening words", "told"]


async def test_nobody_goes_on_with_a_conversation_that_this_user_has_not_had(client: Client) -> None:
    _, conversation = await talked(client)
    assert_unknown(await reopen(client, conversation, "u-2"))
    assert_unknown(await reopen(client, "7380000000000000001"))
    assert_unknown(await reopen(client, conversation + "0"))
    assert (await reopen(client, conversation)).status_code == 200


@pytest.mark.parametrize("name", ["", "abc", "1" * 33, "12 34", "１２", 12, "../5"])
async def test_what_is_no_conversation_id_is_refused(client: Client, name: Any) -> None:
    response = await reopen(client, name)
    assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert error_of(response)["details"]["fields"][0]["field"] == "conversation_id"


async def test_a_conversation_that_coze_made_with_the_first_chat_can_be_gone_on_with(
    client: Client, simulator: SimControl
) -> None:
    simulator.knob(path="/v1/conversation/create", fail=4101)
    _, conversation = await talked(client)

    async def known() -> bool:
        return (await reopen(client, conversation)).status_code == 200

    await wait_until(known)


async def test_a_conversation_that_a_session_shows_is_one_to_come_back_to_even_while_its_first_chat_runs(
    client: Client, simulator: SimControl
) -> None:
    simulator.knob(path="/v1/conversation/create", fail=4101)
    session_id = await client.open_session()
    chat_id = await client.start(session_id, "hello [[sim:deltas=100;gap=0.1]]")
    async with client.events(chat_id) as reader:
        await reader.until("conversation.message.delta")
    conversation = await wait_until(lambda: _conversation(client, session_id))
    assert (await reopen(client, conversation)).status_code == 200
    await client.post(f"/coze/chats/{chat_id}/cancel")


async def _conversation(client: Client, session_id: str) -> Any:
    return (await client.session(session_id))["conversation_id"]


async def test_an_idempotency_key_stands_for_its_conversation(client: Client) -> None:
    _, first = await talked(client)
    _, second = await talked(client)
    key = {"Idempotency-Key": "again"}

    def body(conversation: str) -> dict[str, str]:
        return {"user_id": "u-1", "conversation_id": conversation}

    answers = [await client.post("/coze/sessions", json=body(first), headers=key) for _ in range(2)]
    assert len({data_of(answer)["session_id"] for answer in answers}) == 1
    other = await client.post("/coze/sessions", json=body(second), headers=key)
    assert (other.status_code, error_of(other)["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    unknown = await client.post("/coze/sessions", json=body("1"), headers={"Idempotency-Key": "new"})
    assert_unknown(unknown)
    assert (
        await client.post("/coze/sessions", json=body(first), headers={"Idempotency-Key": "new"})
    ).status_code == 200


async def test_ownership_is_kept_for_the_days_of_the_settings_and_anew_with_each_use(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_CONVERSATION_DAYS="2")
    async with open_client(service.base_url) as client:
        session_id, conversation = await talked(client)
        with redis.client() as store:
            [about] = await wait_until(lambda: _listed(store))
            record = about.removesuffix(b".about")
            [index] = store.scan_iter("*:conversations")
            days = 2 * 86_400
            assert days - 60 < store.ttl(record) <= days
            assert conversation.encode() not in record
            store.expire(record, 100)
            store.zadd(
                index,
                {
                    member: 1 + index_time
                    for member, index_time in store.zrange(index, 0, -1, withscores=True)
                },
            )
            await reopen(client, conversation)
            assert store.ttl(record) > days - 60
            # A session that goes on for longer than a day says so, too.
            store.expire(record, 100)
            [key] = store.scan_iter("*:session:" + session_id)
            store.hincrby(key, "kept", -2 * 86_400_000)
            await client.send(session_id, "still here")
            await wait_until(lambda: store.ttl(record) > days - 60)
            store.delete(record)
            assert_unknown(await reopen(client, conversation))


async def test_after_erasing_the_user_the_conversation_is_unknown_and_nothing_tells_of_it(
    client: Client, redis: RedisServer
) -> None:
    session_id, conversation = await talked(client)
    await client.delete(f"/coze/sessions/{session_id}")
    with redis.client() as store:  # long ago: no session of the user is left
        store.delete(
            *store.scan_iter("*:session:*"), *store.scan_iter("*:chats:*"), *store.scan_iter("*{index}*")
        )
        _, of_another = await talked(client, "u-2")
        await client.delete("/coze/users/u-1")
        assert_unknown(await reopen(client, conversation))
        assert (await reopen(client, of_another, "u-2")).status_code == 200
        await wait_until(lambda: _listed(store))
        assert len(list(store.scan_iter("*:conversation*"))) == 3
        assert len(list(store.scan_iter("*:listed:*"))) == 1


async def _listed(store: Any) -> list[bytes]:
    return list(store.scan_iter("*:conversation:*.about"))


async def test_a_chat_in_a_conversation_that_is_written_down_writes_nothing_down_again(
    client: Client, redis: RedisServer
) -> None:
    session_id, _ = await talked(client)
    with redis.client() as store:
        await wait_until(lambda: _listed(store))
        before = _calls(store)
        await client.send(session_id, "again")
        assert _calls(store)["set"] - before["set"] == 0


def _calls(store: Any) -> dict[str, int]:
    stats = store.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("set",)}


async def test_two_sessions_on_one_conversation_take_turns(client: Client, simulator: SimControl) -> None:
    """Coze refuses the second chat (4016) while the first one runs; it is begun when that is over."""
    first, conversation = await talked(client)
    second = data_of(await reopen(client, conversation))["session_id"]
    running = await client.start(first, "slowly [[sim:deltas=20;gap=0.05;reasoning=0]]")
    async with client.events(running) as reader:
        await reader.until("conversation.message.delta")
    chat = data_of(await client.send(second, "and me?"))
    assert chat["status"] == "completed"
    assert data_of(await client.result(running))["status"] == "completed"
    assert any(request["code"] == 4016 for request in simulator.requests(path="/v3/chat"))


@pytest.mark.parametrize("made", ["with the session", "with the first chat"])
async def test_a_conversation_is_gone_on_with_in_the_name_of_the_credential_that_made_it(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp], made: str
) -> None:
    """At Coze nobody else sees it: a wrong one would be told 4002."""
    if made == "with the first chat":
        simulator.knob(path="/v1/conversation/create", fail=4101)
    values = {"REDIS_URL": redis.url, "COZE_API_TOKEN": "", "COZE_API_TOKENS": "pat_one,pat_two,pat_three"}
    first, second = start_app(**values), start_app(**values)
    async with open_client(first.base_url) as one, open_client(second.base_url) as two:
        had = [await talked(one, word=f"word-{number}") for number in range(4)]
        for session_id, _ in had:
            await one.delete(f"/coze/sessions/{session_id}")
        for number, (_, conversation) in enumerate(had):
            again = await wait_until(partial(_reopened, two, conversation))
            chat = data_of(await two.send(again, "What did I say before?"))
            assert f"word-{number}" in chat["content"]
            assert len(data_of(await two.get(f"/coze/sessions/{again}/history"))["messages"]) == 4
            assert (await two.post(f"/coze/sessions/{again}/clear")).status_code == 200
    stored = simulator.running.app.core.store.chats
    identities = [stored[request["chat_id"]].identity for request in simulator.requests(path="/v3/chat")]
    assert identities[:4] == identities[4:]
    assert len(set(identities)) > 1


async def _reopened(client: Client, conversation: str) -> str | None:
    response = await reopen(client, conversation)
    return data_of(response)["session_id"] if response.status_code == 200 else None
