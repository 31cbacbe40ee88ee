"""No token and no secret in any answer, log line or metric, whatever goes wrong: all of it is grepped."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from app.logging_config import redact
from coze_simulator.auth_server import RunningAuth
from tests.support import ServiceProcess, SimControl, open_client, redis_server, wait_until

from .conftest import secured_values
from .helpers import ADMIN, ALICE, UNKNOWN

Start = Callable[..., ServiceProcess]


def parts_of(token: str) -> list[str]:
    """What gives a token away: itself, its payload, its signature, and a piece of each:
    a log line may show no more than the beginning of a path."""
    _, payload, signature = token.split(".")
    pieces = [token, payload, payload[36:60], payload[-24:], signature, signature[:12]]
    return [piece for piece in pieces if piece]


def found_in(text: str, needles: dict[str, list[str]]) -> list[str]:
    return sorted({name for name, values in needles.items() for value in values if value in text})


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_token_and_no_secret_is_in_answers_logs_or_metrics(
    start_process: Start, auth: RunningAuth, simulator: SimControl, log_format: str
) -> None:
    coze, password = secrets.token_hex(16), secrets.token_hex(16)
    user = ["--user", "svc", "on", f">{password}", "~*", "&*", "+@all"]
    with redis_server(options=user) as redis_with_password:
        service = start_process(
            wait_for="/coze/health/live",
            **secured_values(
                auth,
                REDIS_URL=f"redis://svc:{password}@127.0.0.1:{redis_with_password.port}/0",
                COZE_API_TOKEN=f"pat_{coze}",
                COZE_LOG_FORMAT=log_format,
                COZE_LOG_LEVEL="TRACE",
                COZE_TIMEOUT="2",
                REDIS_TIMEOUT="1",
                APP_MODE="local",
                AUTH_CACHE_TTL="0",
                COZE_MAX_RETRIES="1",
            ),
        )
        good, admin = ALICE.headers(auth), ADMIN.headers(auth)
        refused = auth.app.issue("mallory", ["ROOT"])
        auth.app.revoke(refused)
        expired = auth.app.issue("old", expires_in=-60)
        tokens = {"caller": good, "admin": admin}
        needles = {name: parts_of(headers["HtySudoerToken"]) for name, headers in tokens.items()}
        needles |= {"refused token": parts_of(refused), "expired token": parts_of(expired)}
        needles |= {"coze token": [coze, coze[:12]], "redis password": [password], "jwt key": [auth.app.key]}
        seen: list[str] = []

        async with open_client(service.base_url, headers=good) as client:

            async def ask(method: str, path: str, **options: Any) -> Any:
                response = await client.http.request(method, path, **options)
                seen.append(f"{response.headers!r} {response.text}")
                return response

            async def everything() -> None:
                token = good["HtySudoerToken"]
                opened = await ask("POST", "/coze/sessions", json={"user_id": "u"})
                session_id = UNKNOWN["session_id"]
                if opened.status_code == 200:
                    session_id = opened.json()["data"]["task_result"]["data"]["session_id"]
                messages = f"/coze/sessions/{session_id}/messages"
                for text in (
                    "hello",
                    "[[sim:fail=4100]]",
                    "[[sim:cut=300]]",
                    "[[sim:http=502]]",
                    "[[sim:fail_at=1]]",
                ):
                    for stream in (False, True):
                        await ask("POST", messages, json={"message": text, "stream": stream})
                await ask("GET", f"/coze/sessions/{session_id}")
                for wrong in (refused, expired, token[:-3] + "AAA", token.split(".")[0] + "..", "x" * 20_000):
                    await ask("GET", f"/coze/sessions/{session_id}", headers={"HtySudoerToken": wrong})
                await ask("GET", "/coze/health", headers={"HtyHost": token})
                await ask("GET", f"/coze/sessions/{session_id}", headers={"HtyHost": "evil.example"})
                # Where a token does not belong, but where people put it.
                await ask("GET", f"/coze/sessions/{token}")
                await ask("GET", f"/coze/users/{token[:120]}/sessions")
                await ask("GET", f"/coze/chats/x/result?token={token}&wait={token}")
                await ask(
                    "GET",
                    "/coze/health",
                    headers={"Authorization": f"Bearer {token}", "X-Request-Id": token[:64]},
                )
                await ask("GET", "/coze/health", headers={"traceparent": token, "Last-Event-ID": token})
                await ask("POST", "/coze/sessions", json={"user_id": token * 3, "bot_id": token})
                await ask("POST", "/coze/sessions", json={token: token, "auto_save_history": token})
                await ask(
                    "POST", "/coze/sessions", content=token, headers={"Content-Type": "application/json"}
                )
                await ask("POST", "/coze/sessions", content=b"x", headers={"Content-Type": token})
                for path in ("/openapi.json", "/coze/metrics", "/coze/health", "/coze/health/ready", "/"):
                    await ask("GET", path)
                await ask("GET", "/coze/admin/stats", headers=admin)
                await ask("POST", "/coze/admin/cleanup", headers=admin)
                await ask("DELETE", "/coze/users/u")

            await everything()
            for mode in ("500", "html", "off", "redirect", "no"):
                auth.app.mode = mode
                headers = {"HtySudoerToken": refused} if mode == "no" else {}
                await ask("GET", f"/coze/sessions/{UNKNOWN['session_id']}", headers=headers)
            auth.app.mode = "ok"
            for upstream in ("refuse", "html502"):
                simulator.upstream(upstream)
                session = await ask("POST", "/coze/sessions", json={"user_id": "u"})
                session_id = session.json()["data"]["task_result"]["data"]["session_id"]
                await ask("POST", f"/coze/sessions/{session_id}/messages", json={"message": "hello"})
            simulator.upstream("ok")
            redis_with_password.stop()
            await ask("GET", "/coze/health")
            await everything()
            redis_with_password.start()

            async def back() -> bool:
                return bool((await client.get("/coze/health")).status_code == 200)

            await wait_until(back)
            await ask("GET", "/coze/metrics")
        service.stop()

    assert len(seen) > 60
    assert len(service.log.splitlines()) > 60
    answers = "\n".join(seen)
    assert found_in(answers, needles) == []
    assert found_in(service.log, needles) == []


def test_not_even_the_beginning_of_a_token_passes_into_a_log_line(auth: RunningAuth) -> None:
    token = ALICE.headers(auth)["HtySudoerToken"]
    for length in (64, 120, len(token) - 50, len(token)):
        assert "eyJ" not in redact(f"GET /coze/users/{token[:length]}/sessions").replace("***", "")


def test_a_wrong_setting_stops_the_start_without_showing_any_value(
    start_process: Start, auth: RunningAuth
) -> None:
    with pytest.raises(RuntimeError) as failure:
        start_process(
            **secured_values(
                auth, COZE_API_TOKEN="pat_hidden", HTY_JWT_KEY="hidden too", COZE_BOT_ID="not hidden!"
            )
        )
    assert "COZE_BOT_ID" in str(failure.value)
    assert "hidden" not in str(failure.value)


def test_the_grep_finds_what_it_looks_for() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhYWFhYWFhYWFhYWFhYWFhIn0.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw"
    needles = {"caller": parts_of(token)}
    assert found_in(f"message={token}", needles) == ["caller"]
    assert found_in("c2lnbmF0dXJl...", needles) == ["caller"]
    assert found_in("nothing here", needles) == []
