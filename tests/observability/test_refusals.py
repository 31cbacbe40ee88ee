"""Whoever is refused because of a limit is counted: by the limit and the layer, never by a name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from app.coze.credentials.accounts import Accounts
from app.coze.credentials.sources import StaticToken
from app.exceptions import CozeRateLimited
from app.observing.metrics import Metrics
from app.stores.layers import LAYERS
from coze_simulator.auth_server import running_auth
from tests.support import Client, RedisServer, RunningApp, data_of, error_of, open_client

from .support import Scrape, parse, scrape

StartApp = Callable[..., RunningApp]


def refused(counted: Scrape) -> dict[tuple[str, str], float]:
    """Those that have happened."""
    return {
        (dict(labels)["limit"], dict(labels)["layer"]): value
        for (name, labels), value in counted.samples.items()
        if name == "coze_refusals_total" and value
    }


def limited(response: httpx.Response, code: str) -> None:
    assert error_of(response)["code"] == code, response.text


async def test_each_refusal_is_counted_by_its_limit_and_layer(start_app: StartApp) -> None:
    service = start_app(COZE_MAX_SESSIONS_PER_USER="1", COZE_MAX_ACTIVE_USERS="2", MAX_CONCURRENT_CHATS="1")
    assert refused(scrape(service.base_url)) == {}
    async with open_client(service.base_url) as client:
        busy = await client.open_session("u-1")
        chat_id = await client.start(busy, "[[sim:delay=30]]")
        limited(await client.post("/coze/sessions", json={"user_id": "u-1"}), "SESSION_LIMIT_REACHED")
        other = await client.open_session("u-2")
        for _ in range(2):
            refusal = await client.post("/coze/sessions", json={"user_id": "u-3"})
            limited(refusal, "SESSION_LIMIT_REACHED")
        limited(await client.send(other, "hello"), "OVERLOADED")
        await client.post(f"/coze/chats/{chat_id}/cancel")
    await asyncio.to_thread(service.wait_idle)
    assert refused(scrape(service.base_url)) == {
        ("sessions", "user"): 1,
        ("active_users", "service"): 2,
        ("running_chats", "service"): 1,
    }


async def refused_message(client: Client, code: str) -> None:
    session = await client.open_session()
    data_of(await client.send(session, "hello"))
    limited(await client.send(session, "hello"), code)


async def test_rates_and_quotas_are_counted_too(start_app: StartApp) -> None:
    service = start_app(RATE_LIMIT_MESSAGES_PER_MINUTE="1", RATE_LIMIT_SESSIONS_PER_MINUTE="1")
    async with open_client(service.base_url) as client:
        await refused_message(client, "RATE_LIMITED")
        limited(await client.post("/coze/sessions", json={"user_id": "u-1"}), "RATE_LIMITED")
    found = refused(scrape(service.base_url))
    assert found == {("message_rate", "user"): 1, ("session_rate", "user"): 1}
    service = start_app(COZE_DAILY_TOKEN_QUOTA="1")
    async with open_client(service.base_url) as client:
        await refused_message(client, "QUOTA_EXCEEDED")
    assert refused(scrape(service.base_url)) == {("daily_tokens", "user"): 1}


async def test_a_callers_share_is_told_from_what_all_may_have(start_app: StartApp) -> None:
    with running_auth() as auth:
        service = start_app(
            ENABLE_AUTH="true",
            HTY_VERIFY_URL=auth.verify_url,
            COZE_OWNER_SHARE="0.1",
            COZE_ROOT_SHARE="0.2",
            COZE_MAX_ACTIVE_USERS="10",
        )
        for owner, expected in (("one", ["200", "429"]), ("two", ["200", "429"]), ("three", ["429"])):
            headers = {"HtySudoerToken": auth.app.issue(owner), "HtyHost": "app.moicen.com"}
            async with open_client(service.base_url, headers=headers) as client:
                for n, status in enumerate(expected):
                    response = await client.post("/coze/sessions", json={"user_id": f"u-{n}"})
                    assert str(response.status_code) == status
    counted = scrape(service.base_url)
    assert refused(counted) == {("active_users", "owner"): 2, ("active_users", "root"): 1}
    assert counted.labels("coze_refusals_total", "layer") == set(LAYERS)


async def test_what_may_be_refused_is_shown_before_anybody_is(start_app: StartApp) -> None:
    """Prometheus sees no increase in a counter that appears with its first event."""
    counted = scrape(start_app(COZE_DAILY_TOKEN_QUOTA="1000", MAX_OPEN_STREAMS="10").base_url)
    assert counted.labels("coze_refusals_total", "limit") == {
        *("message_rate", "session_rate", "file_rate", "call_rate", "report_rate"),
        *("daily_tokens", "sessions", "active_users", "running_chats", "open_streams", "uploads", "bodies"),
    }
    assert counted("coze_session_evictions_total") == 0


async def test_an_idle_session_that_makes_room_is_counted(start_app: StartApp, redis: RedisServer) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_MAX_SESSIONS_PER_USER="2")
    async with open_client(service.base_url) as client:
        for _ in range(5):
            await client.open_session("u-1")
    counted = scrape(service.base_url)
    assert counted("coze_session_evictions_total") == 3
    assert refused(counted) == {}


def test_a_credential_that_rests_is_shown_until_it_is_used_again() -> None:
    now = 100.0
    accounts = Accounts([("a", StaticToken("a")), ("b", StaticToken("b"))], ticks=lambda: now)
    metrics = Metrics()
    metrics.watch_credentials(accounts.times)

    def rests() -> list[float]:
        page = parse(metrics.render()[0].decode())
        return [page("coze_credential_cooldown_seconds", credential=place) for place in ("0", "1")]

    assert rests() == [0, 0]
    second = accounts._accounts[1]
    assert accounts.cool_if_limited(second, CozeRateLimited(coze_code=4013, retry_after=60))
    assert rests() == [0, 60]
    now += 61
    assert rests() == [0, 0]
