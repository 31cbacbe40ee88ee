"""Every chat that is over counts once, with the tokens that Coze told, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest

from app.exceptions import RedisUnavailable
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

from .support import at_coze, counts, report, told, total

OTHER_BOT = "7380000000000000010"
SLOW = "[[sim:deltas=40;gap=0.05;reasoning=0]]"


def today(days: int = 0) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


async def test_chats_and_tokens_are_told_by_day_bot_user_and_root(
    each_client: Client, simulator: SimControl
) -> None:
    client, day, chats = each_client, today(), []
    for user, bot in (("u-1", None), ("u-1", None), ("u-1", OTHER_BOT), ("u-2", None)):
        session_id = await client.open_session(user, **({"bot_id": bot} if bot else {}))
        chats.append(data_of(await client.send(session_id, f"hello from {user}")))
    assert await total(client) == told(chats) == at_coze(simulator, chats)

    found = await report(client, group_by="user,bot,day", since=day)
    assert found["group_by"] == ["day", "bot", "user"]
    rows = {(row["bot_id"], row["user_id"]): counts(row) for row in found["rows"]}
    own = (await client.session(chats[0]["session_id"]))["context"]["bot_id"]
    assert rows == {
        (own, "u-1"): told(chats[:2]),
        (OTHER_BOT, "u-1"): told(chats[2:3]),
        (own, "u-2"): told(chats[3:]),
    }
    assert {row["day"] for row in found["rows"]} <= {day, today()}
    [by_root] = (await report(client, group_by="root"))["rows"]
    assert (by_root["root"], by_root["user_id"], by_root["day"]) == ("local", None, None)
    assert counts(by_root) == told(chats)
    [by_day] = (await report(client))["rows"][-1:]
    assert by_day["bot_id"] is None


async def test_without_dates_the_last_thirty_days_are_told_and_other_days_have_no_rows(
    client: Client,
) -> None:
    await client.send(await client.open_session(), "hello")
    found = await report(client)
    assert (found["from"], found["to"]) == (today(-29), today())
    assert found["total"]["chats"] == 1
    for span in (
        {"to": today(-2)},
        {"since": today(2), "to": today(9)},
        {"since": "2000-01-01", "to": today(-2)},
    ):
        assert (await report(client, **span))["rows"] == []
    assert (await report(client, since="2000-01-01", to="9999-12-31"))["total"]["chats"] == 1


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "to=2026-02-30",
        "from=2026-11-22&to=2026-11-21",
        "group_by=model",
        "group_by=day,",
        "from=0001-01-01",
    ],
)
async def test_a_report_that_makes_no_sense_is_refused(client: Client, query: str) -> None:
    response = await client.get(f"/coze/usage?{query}")
    assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert error_of(response)["details"]["fields"][0]["field"].split(".")[-1] in query


async def test_a_cancelled_chat_counts_with_what_coze_told_when_it_was_cancelled(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, f"never mind {SLOW}")
    async with client.events(chat_id) as reader:
        await reader.until("conversation.message.delta")
    chat = data_of(await client.post(f"/coze/chats/{chat_id}/cancel"))
    assert chat["status"] == "cancelled"
    assert await total(client) == told([chat]) == at_coze(simulator, [chat])
    assert told([chat])[2] > 0
    await client.post(f"/coze/chats/{chat_id}/cancel")
    await client.delete(f"/coze/sessions/{session_id}")
    assert await total(client) == told([chat])


async def test_a_failed_chat_counts_with_the_tokens_that_coze_told_if_any(client: Client) -> None:
    session_id = await client.open_session()
    failed = await client.send(session_id, "no [[sim:fail=4101]]")
    assert failed.status_code == 502
    assert await total(client) == (1, 0, 0, 0)
    broken = await client.send(session_id, "half of it [[sim:last_error=5000]]")
    chat = data_of(await client.result(error_of(broken)["details"]["chat_id"]))
    assert await total(client) == (2, *told([chat])[1:])


async def test_a_chat_that_waits_for_tool_outputs_counts_once_and_when_it_is_over(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    waiting = data_of(await client.send(session_id, "[[sim:requires_action=function]] weather?"))
    assert await total(client) == (0, 0, 0, 0)
    [call] = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    body = {"tool_outputs": [{"tool_call_id": call["id"], "output": "21"}]}
    chat = data_of(await client.post(f"/coze/chats/{waiting['chat_id']}/tool_outputs", json=body))
    assert chat["status"] == "completed"
    assert await total(client) == told([chat]) == at_coze(simulator, [chat])


async def test_a_message_cancelled_in_the_queue_counts_as_a_chat_without_tokens(client: Client) -> None:
    session_id = await client.open_session()
    running = await client.start(session_id, f"first {SLOW}")
    queued = await client.start(session_id, "second", on_busy="enqueue")
    await client.post(f"/coze/chats/{queued}/cancel")
    await wait_until(lambda: _is(client, 1))
    assert await total(client) == (1, 0, 0, 0)
    await client.post(f"/coze/chats/{running}/cancel")
    assert (await total(client))[0] == 2


async def _is(client: Client, chats: int) -> bool:
    return (await total(client))[0] == chats


class LostReply:
    """Redis does what it is told, and the reply to one end never arrives."""

    def __init__(self, service: RunningApp, *, then: Callable[[], None] = lambda: None) -> None:
        self.lost = 0
        self._then = then
        self._service = service
        self._gate = service.resources.redis
        self._attempt = self._gate.attempt

    async def _lose(self, commands: Any) -> Any:
        replies = await self._attempt(commands)
        if not self.lost and any(command.name == "chat_end" for command in commands):
            self.lost += 1
            await asyncio.to_thread(self._then)
            raise RedisUnavailable
        return replies

    def __enter__(self) -> Self:
        self._gate.attempt = self._lose  # type: ignore[method-assign]
        return self

    def __exit__(self, *exc: object) -> None:
        self._gate.attempt = self._attempt  # type: ignore[method-assign]


async def test_an_end_whose_reply_was_lost_is_sent_again_and_counts_once(
    service: RunningApp, client: Client
) -> None:
    session_id = await client.open_session()
    with LostReply(service) as link:
        chat = await client.ended(await client.start(session_id, "hello"))
        await asyncio.to_thread(service.wait_idle)
    assert link.lost == 1
    assert await total(client) == told([chat])


async def test_an_end_that_expired_before_its_reply_came_is_neither_written_nor_counted_again(
    service: RunningApp, client: Client, redis: RedisServer
) -> None:
    def expire() -> None:
        with redis.client() as store:
            store.delete(*store.scan_iter("*:log:*"), *store.scan_iter("*:chats:*"))

    session_id = await client.open_session()
    with LostReply(service, then=expire) as link:
        await client.send(session_id, "hello", headers={"Prefer": "wait=1"})
        await asyncio.to_thread(service.wait_idle)
    assert link.lost == 1
    assert (await total(client))[0] == 1


async def test_a_chat_that_redis_lost_is_written_again_and_counts_once(
    client: Client, redis: RedisServer
) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, f"hello {SLOW}")
    async with client.events(chat_id) as reader:
        await reader.until("conversation.message.delta")
    redis.flush()
    chat = await client.ended(chat_id)
    assert chat["status"] == "completed"
    assert await total(client) == told([chat])


async def test_a_chat_that_ended_while_redis_was_away_is_counted_when_it_is_back(
    own_redis: RedisServer, start_app: Callable[..., RunningApp], simulator: SimControl
) -> None:
    service = start_app(REDIS_URL=own_redis.url, REDIS_TIMEOUT="0.5")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        async with client.stream(session_id, "hello [[sim:deltas=20;gap=0.05;reasoning=0]]") as reader:
            await reader.until("conversation.message.delta")
            own_redis.pause()
            try:
                await reader.all()
            finally:
                own_redis.resume()
        chat = reader.result()
        await asyncio.to_thread(service.wait_idle)
        await wait_until(lambda: _healthy(client))
        assert await total(client) == told([chat]) == at_coze(simulator, [chat])


async def _healthy(client: Client) -> bool:
    return (await client.get("/coze/health")).status_code == 200


async def test_days_are_kept_for_as_long_as_the_settings_say(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_USAGE_RETENTION_DAYS="3")
    async with open_client(service.base_url) as client:
        await client.send(await client.open_session(), "hello")
    with redis.client() as store:
        found = [*store.scan_iter("*:usage:*"), *store.scan_iter("*:owners:*")]
        assert len(found) == 2
        for key in found:
            assert 3 * 86_400 - 60 <= store.ttl(key) <= 4 * 86_400
            assert b"u-1" not in key
            assert b"local" not in key
        assert list(store.scan_iter("*:spent:*")) == []


async def test_the_daily_quota_holds_over_replicas_and_says_when_it_begins_anew(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    values = {"REDIS_URL": redis.url, "COZE_DAILY_TOKEN_QUOTA": "100"}
    services = [start_app(**values) for _ in range(2)]
    async with open_client(services[0].base_url) as one, open_client(services[1].base_url) as two:
        chats: list[dict[str, Any]] = []
        while told(chats)[1] < 100:
            session_id = await one.open_session("spender")
            chats.append(data_of(await one.send(session_id, "hello")))
        for client in (one, two):
            refused = await client.send(session_id, "more")
            error = error_of(refused)
            assert (refused.status_code, error["code"]) == (429, "QUOTA_EXCEEDED")
            assert (error["details"]["limit"], error["details"]["used"]) == (100, told(chats)[1])
            reset = datetime.fromisoformat(error["details"]["reset_at"])
            left = (reset - datetime.now(UTC)).total_seconds()
            assert reset.isoformat()[10:] == "T00:00:00+00:00"
            assert abs(left - int(refused.headers["Retry-After"])) <= 2
        other = await two.send(await two.open_session("saver"), "hello")
        assert other.status_code == 200
        # Erasing oneself is not the way around it.
        await one.delete("/coze/users/spender")
        again = await one.send(await one.open_session("spender"), "hello")
        assert again.status_code == 429
        assert (await report(one, group_by="user"))["rows"][0]["user_id"] == "saver"


ASYNC = {"Prefer": "respond-async"}


@pytest.mark.parametrize("where", ["message", "history"])
async def test_of_many_chats_that_are_begun_at_once_no_more_run_than_the_quota_has_room_for(
    start_app: Callable[..., RunningApp], where: str
) -> None:
    """What they cost is known once they are over; until then what they ask counts, wherever it stands."""
    service = start_app(COZE_DAILY_TOKEN_QUOTA="10000")
    text = "x" * 3500
    history = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
    more = {"additional_messages": history} if where == "history" else {}
    message = f"[[sim:delay=20]] {text if where == 'message' else 'on'}"
    async with open_client(service.base_url) as client:
        sessions = [await client.open_session("spender") for _ in range(8)]
        sent = [client.send(each, message, headers=ASYNC, **more) for each in sessions]
        answers = await asyncio.gather(*sent)
        begun = [data_of(answer)["chat_id"] for answer in answers if answer.status_code == 202]
        refused = [error_of(answer) for answer in answers if answer.status_code != 202]
        # Each is 5,500 with its answer: behind the second there is none left.
        assert len(begun) == 2
        assert {error["code"] for error in refused} == {"RATE_LIMITED"}
        assert {error["details"]["setting"] for error in refused} == {"COZE_DAILY_TOKEN_QUOTA"}
        other = await client.send(await client.open_session("saver"), "hello")
        assert other.status_code == 200
        for chat_id in begun:
            await client.post(f"/coze/chats/{chat_id}/cancel")
        service.wait_idle()
        assert (await client.send(sessions[0], "hello")).status_code == 200


async def test_a_chat_without_a_session_that_the_quota_refuses_leaves_nothing(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_DAILY_TOKEN_QUOTA="1")
    body = {"model": "coze", "user": "spender", "messages": [{"role": "user", "content": "hello"}]}
    async with open_client(service.base_url) as client:
        assert (await client.post("/coze/openai/v1/chat/completions", json=body)).status_code == 200
        before = {key for key in redis.key_names() if ":session:" in key}
        assert (await client.post("/coze/openai/v1/chat/completions", json=body)).status_code == 429
        assert {key for key in redis.key_names() if ":session:" in key} == before


@pytest.mark.parametrize(("users", "status"), [(9000, 200), (11_000, 400)])
async def test_a_report_has_as_many_rows_as_may_be_and_is_refused_with_more(
    redis: RedisServer, start_app: Callable[..., RunningApp], users: int, status: int
) -> None:
    service = start_app(REDIS_URL=redis.url)
    async with open_client(service.base_url) as client:
        await client.send(await client.open_session(), "hello")
        with redis.client() as store:
            [key] = store.scan_iter("*:usage:*")
            store.hset(key, mapping={f"u{n}\x1fbot": "1 4 3 1" for n in range(users)})
        answer = await client.get("/coze/usage?group_by=user,day")
        assert answer.status_code == status
        if status == 200:
            assert len(data_of(answer)["rows"]) == users + 1
        else:
            assert "10000 rows" in answer.text
        assert (await total(client))[0] == users + 1, "with fewer groups all of them are told"


async def test_what_finds_no_row_of_its_own_is_told_without_a_name(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_USAGE_ROWS_PER_DAY="32")
    async with open_client(service.base_url) as client:
        answers = [await client.send(await client.open_session(f"u{n}"), "hello") for n in range(80)]
        assert await total(client) == told([data_of(answer) for answer in answers])
        found = {row["user_id"]: row["chats"] for row in (await report(client, group_by="user"))["rows"]}
        assert len(found) <= 33
        assert found[""] == 81 - len(found)
