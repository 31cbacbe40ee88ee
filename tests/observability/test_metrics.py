"""Scraped after a scripted load, each metric has the value that the load implies."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable

import pytest

from app.exceptions import CozeApiError
from app.observing.metrics import MAX_LABELS, CredentialTimes, Metrics
from coze_simulator import SIMULATOR_BOT_ID
from coze_simulator.auth_server import running_auth
from tests.support import RedisServer, RunningApp, SimControl, data_of, error_of, open_client, wait_until
from tests.support.service import ROOT

from .support import parse, scrape

BOT = {"bot": SIMULATOR_BOT_ID}
MESSAGES = "/coze/sessions/{session_id}/messages"

StartApp = Callable[..., RunningApp]


async def test_a_scripted_load_is_what_is_counted(redis: RedisServer, start_app: StartApp) -> None:
    service = start_app(REDIS_URL=redis.url, COZE_MAX_RETRIES="2")
    usage, characters = [], 0
    async with open_client(service.base_url) as client:
        session = await client.open_session()
        for n in range(3):
            chat = data_of(await client.send(session, f"message {n}"))
            usage.append(chat["usage"])
            characters += len(chat["content"])
        for n in range(2):
            async with client.stream(session, f"stream {n}") as reader:
                await reader.all()
            usage.append(reader.result()["usage"])
            characters += len(reader.result()["content"])
        # Coze refuses: 4015 for good; the connection breaks and the answer is fetched.
        assert (await client.send(session, "[[sim:fail=4015]]")).status_code == 502
        cut = data_of(await client.send(session, "[[sim:no_terminal=1]] cut"))
        assert cut["recovered"] is True
        usage.append(cut["usage"])
        characters += len(cut["content"])
        failed = error_of(await client.send(session, "[[sim:fail_at=2;fail_code=5000]]"))
        assert failed["code"] == "COZE_API_ERROR"
        usage.append(data_of(await client.result(failed["details"]["chat_id"]))["usage"])
        chat_id = await client.start(session, "[[sim:delay=30]]")
        cancelled = data_of(await client.post(f"/coze/chats/{chat_id}/cancel"))
        assert cancelled["status"] == "cancelled"
        usage.append(cancelled["usage"])
        assert (await client.get("/coze/sessions/none")).status_code == 404
        assert (await client.get("/not/a/route")).status_code == 404
    await asyncio.to_thread(service.wait_idle)
    counted = scrape(service.base_url)

    assert counted("coze_http_requests_total", method="POST", route="/coze/sessions", status="200") == 1
    assert counted("coze_http_requests_total", route=MESSAGES, status="200") == 6
    assert counted("coze_http_requests_total", route=MESSAGES, status="502") == 2
    assert counted("coze_http_requests_total", route=MESSAGES, status="202") == 1
    assert counted("coze_http_requests_total", route="/coze/sessions/{session_id}", status="404") == 1
    assert counted("coze_http_request_duration_seconds_count", route=MESSAGES) == 9
    routes = counted.labels("coze_http_requests_total", "route")
    assert "/not/a/route" not in routes
    assert not any("coze_session_" in route for route in routes)

    assert counted("coze_chats_total", outcome="completed", **BOT) == 6
    assert counted("coze_chats_total", outcome="failed", **BOT) == 2
    assert counted("coze_chats_total", outcome="cancelled", **BOT) == 1
    assert counted("coze_chats_total") == 9
    assert counted("coze_chat_duration_seconds_count", outcome="completed") == 6
    # Three, two streamed, the one that was cut and the one that failed in the middle had a delta.
    assert counted("coze_chat_first_delta_seconds_count") == 7
    assert counted("coze_recoveries_total") == 1
    assert counted("coze_takeovers_total") == 0
    assert counted("coze_answer_characters_count") == 6
    assert counted("coze_answer_characters_sum") == characters

    for direction, name in (("input", "input_count"), ("output", "output_count")):
        known = sum(each[name] for each in usage if each)
        assert counted("coze_tokens_total", direction=direction, **BOT) == known

    assert counted("coze_upstream_errors_total", code="4015") == 1
    assert counted("coze_upstream_errors_total", code="5000") == 1
    assert counted("coze_upstream_errors_total") == 2
    assert counted("coze_upstream_retries_total") == 0
    assert counted("coze_redis_duration_seconds_count", command="chat_create") >= 9
    assert counted("coze_redis_duration_seconds_sum", command="chat_create") > 0
    assert counted("coze_redis_outages_total") == 0
    assert counted("coze_build_info") == 1


async def test_retries_are_counted(start_app: StartApp, simulator: SimControl) -> None:
    service = start_app()
    simulator.knob(path="/v3/chat", http=503, times=2)
    async with open_client(service.base_url) as client:
        data_of(await client.send(await client.open_session(), "again"))
    counted = scrape(service.base_url)
    assert counted("coze_upstream_retries_total") == 2
    assert (
        counted("coze_upstream_errors_total", code="OVERLOADED")
        + counted("coze_upstream_errors_total", code="COZE_API_ERROR")
        == 2
    )
    assert counted("coze_chats_total", outcome="completed") == 1


async def test_what_is_open_is_shown_while_it_is(start_app: StartApp) -> None:
    service = start_app()
    async with open_client(service.base_url) as client:
        session = await client.open_session()
        async with client.stream(session, "[[sim:stall=2:30;reasoning=0]]") as reader:
            await reader.until("conversation.message.delta")
            for n in range(2):
                await client.start(session, f"queued {n}", on_busy="enqueue")
            counted = await asyncio.to_thread(scrape, service.base_url)
            assert counted("coze_open_streams") == 1
            assert counted("coze_running_chats") == 1
            assert counted("coze_queued_chats") == 2
        await client.delete(f"/coze/sessions/{session}")
    await asyncio.to_thread(service.wait_idle)

    def is_over() -> bool:
        counted = scrape(service.base_url)
        return not any(
            counted(name) for name in ("coze_open_streams", "coze_running_chats", "coze_queued_chats")
        )

    await wait_until(lambda: asyncio.to_thread(is_over))


async def test_a_takeover_is_counted_where_it_happens(
    redis: RedisServer, simulator: SimControl, start_app: StartApp
) -> None:
    # A prefix of its own: another service of this run must not be the one that takes over.
    values = {
        "REDIS_URL": redis.url,
        "COZE_REDIS_PREFIX": "takeover:",
        "LEASE_SECONDS": "1",
        "DRAIN_SECONDS": "0",
    }
    leaving, staying = start_app(**values), start_app(**values)
    async with open_client(leaving.base_url) as client, open_client(staying.base_url) as other:
        chat_id = await client.start(await client.open_session(), "[[sim:delay=4]] taken over")
        await wait_until(lambda: simulator.requests(path="/v3/chat", contains="taken over"))
        await asyncio.to_thread(leaving.call, leaving.resources.shutdown.drain)
        chat = await other.ended(chat_id)
    assert chat["status"] == "completed"
    counted = scrape(staying.base_url)
    assert counted("coze_takeovers_total") == 1
    assert counted("coze_recoveries_total") == 1
    assert scrape(leaving.base_url)("coze_chats_total") == 0


async def test_who_got_in_and_what_the_cache_spared(start_app: StartApp) -> None:
    with running_auth() as auth:
        service = start_app(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        headers = {"HtySudoerToken": auth.app.issue("u-7"), "HtyHost": "app.moicen.com"}
        async with open_client(service.base_url) as client:
            assert (await client.get("/coze/users/u/sessions")).status_code == 401
            token = headers["HtySudoerToken"]
            wrong = {
                **headers,
                "HtySudoerToken": token[:-9] + ("A" if token[-9] != "A" else "B") + token[-8:],
            }
            assert (await client.get("/coze/users/u/sessions", headers=wrong)).status_code == 401
            for _ in range(4):
                assert (await client.get("/coze/users/u/sessions", headers=headers)).status_code == 200
    counted = scrape(service.base_url)
    assert counted("coze_auth_total", outcome="OK") == 4
    assert counted("coze_auth_total", outcome="AUTH_MISSING") == 1
    assert counted("coze_auth_total", outcome="AUTH_INVALID") == 1
    assert counted("coze_auth_cache_total", result="hit") == 3
    assert counted("coze_auth_cache_total", result="miss") == 2


async def test_two_apps_in_one_process_count_apart(start_app: StartApp) -> None:
    one, other = start_app(), start_app()
    async with open_client(one.base_url) as client:
        await client.open_session()
    assert scrape(one.base_url)("coze_http_requests_total", route="/coze/sessions") == 1
    assert scrape(other.base_url)("coze_http_requests_total", route="/coze/sessions") == 0


async def test_while_redis_is_away_the_rest_is_shown(own_redis: RedisServer, start_app: StartApp) -> None:
    service = start_app(REDIS_URL=own_redis.url)
    assert scrape(service.base_url)("coze_redis_away") == 0
    own_redis.kill()
    async with open_client(service.base_url) as client:
        assert (await client.get("/coze/health")).status_code == 503
    counted = scrape(service.base_url)
    assert math.isnan(counted("coze_queued_chats"))
    assert (counted("coze_redis_outages_total"), counted("coze_redis_away")) == (1, 1)
    own_redis.start()
    await wait_until(lambda: asyncio.to_thread(lambda: scrape(service.base_url)("coze_redis_away") == 0))


def test_the_number_of_labels_is_bounded() -> None:
    metrics = Metrics()
    for n in range(MAX_LABELS + 50):
        metrics.chat_ended("completed", f"bot-{n}", 1.0, recovered=False, characters=1)
        metrics.upstream_error(CozeApiError(coze_code=n))
        metrics.request(f"M{n}", "/", 200, 0.1)
    counted = parse(metrics.render()[0].decode())
    assert len(counted.labels("coze_chats_total", "bot")) == MAX_LABELS + 1
    assert counted("coze_chats_total", bot="other") == 50
    assert len(counted.labels("coze_upstream_errors_total", "code")) == MAX_LABELS + 1
    assert counted.labels("coze_http_requests_total", "method") == {"other"}


def test_the_credential_is_shown_once_its_end_is_known() -> None:
    metrics = Metrics()
    times = {"0": CredentialTimes(None), "1": CredentialTimes(None)}
    metrics.watch_credentials(lambda: times)
    assert parse(metrics.render()[0].decode()).labels("coze_credential_expiry_seconds", "credential") == set()
    times["1"] = CredentialTimes(int(time.time()) + 900)
    counted = parse(metrics.render()[0].decode())
    assert counted.labels("coze_credential_expiry_seconds", "credential") == {"1"}
    left = counted("coze_credential_expiry_seconds")
    assert left == pytest.approx(900, abs=5)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_page_about_operation_lists_every_metric(language: str) -> None:
    page = (ROOT / "docs" / language / "operation.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `coze_")]
    listed = {name for row in rows for name in re.findall(r"`(coze_\w+)`", row.split("|")[1])}
    helped = re.findall(r"^# TYPE (coze_\w+)", Metrics().render()[0].decode(), re.MULTILINE)
    assert set(helped) == listed
