"""Small doors that stay shut: CORS, headers, docs pages, other tenants' ids at Coze, log lines, addresses."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from app.config import Settings
from coze_simulator.auth_server import RunningAuth
from tests.support import (
    RunningApp,
    ServiceProcess,
    SimControl,
    data_of,
    error_of,
    make_settings,
    open_client,
)

from .conftest import secured_values
from .helpers import ADMIN, ALICE, ALICE_ELSEWHERE, BOB, UNKNOWN, Who, calling

Start = Callable[..., RunningApp]
ORIGIN = "https://app.moicen.com"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "htysudoertoken,htyhost,content-type,idempotency-key,last-event-id",
}


# -- CORS --------------------------------------------------------------------------------------------------


async def test_without_a_setting_no_origin_is_allowed_anything(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        for origin in (ORIGIN, "null", "*"):
            for method, path in (
                ("GET", "/coze/health"),
                ("OPTIONS", "/coze/sessions"),
                ("POST", "/coze/sessions"),
            ):
                headers = {"Origin": origin, **PREFLIGHT}
                response = await alice.http.request(method, path, headers=headers, json={"user_id": "u"})
                assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_only_listed_origins_are_allowed_and_never_with_credentials(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(CORS_ALLOW_ORIGINS=f"{ORIGIN}, https://other.moicen.com")
    async with calling(service, auth, ALICE) as [alice]:
        response = await alice.http.options("/coze/sessions", headers={"Origin": ORIGIN, **PREFLIGHT})
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in response.headers
        allowed = response.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in PREFLIGHT["Access-Control-Request-Headers"].split(","))
        assert "*" not in allowed
        assert set(response.headers["access-control-allow-methods"].replace(" ", "").split(",")) == {
            *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        }
        response = await alice.post("/coze/sessions", json={"user_id": "u"}, headers={"Origin": ORIGIN})
        exposed = response.headers["access-control-expose-headers"].lower()
        for name in ("x-request-id", "x-coze-chat-id", "retry-after", "ratelimit-remaining", "location"):
            assert name in exposed
        assert "origin" in response.headers["vary"].lower()
        for stranger in (
            *("https://evil.example", f"{ORIGIN}.evil.example", "https://evil-moicen.com", "null"),
            *(ORIGIN.upper(), ORIGIN.replace("https", "http"), ORIGIN + ":444"),
        ):
            for method in ("OPTIONS", "POST"):
                response = await alice.http.request(
                    method, "/coze/sessions", headers={"Origin": stranger, **PREFLIGHT}, json={"user_id": "u"}
                )
                assert "access-control-allow-origin" not in response.headers, stranger


async def test_any_origin_may_be_listed_but_still_without_credentials(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(CORS_ALLOW_ORIGINS="*")
    async with calling(service, auth, ALICE) as [alice]:
        response = await alice.get("/coze/health", headers={"Origin": ORIGIN, "Cookie": "a=b"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


# -- headers and pages -------------------------------------------------------------------------------------


async def test_every_answer_has_the_security_headers(secured: RunningApp, auth: RunningAuth) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        answers = [
            await alice.get("/"),
            await alice.get("/coze/health"),
            await alice.get("/nowhere"),
            await alice.get("/coze/nowhere"),
            await alice.http.put("/coze/sessions"),
            await alice.post("/coze/sessions", content="{", headers={"Content-Type": "application/json"}),
            await alice.post("/coze/sessions", content=b"x", headers={"Content-Type": "text/plain"}),
            await alice.get("/coze/health", headers={"HtySudoerToken": ""}),
            await alice.get(f"/coze/sessions/{session_id}", headers={"HtySudoerToken": "bad"}),
            await alice.get(f"/coze/sessions/{session_id}"),
            await alice.get("/coze/metrics"),
            await alice.send(session_id, "hello", stream=True),
        ]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-request-id"]
            assert "server" not in answer.headers
            assert "x-powered-by" not in answer.headers
            if answer.url.path.startswith("/coze"):
                assert answer.headers["cache-control"] in ("no-store", "no-store, no-transform")
                assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_fault_of_ours_says_nothing_of_the_inside_and_has_the_same_headers(
    start_secured: Start, auth: RunningAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_secured()

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("pat_secret at /usr/lib/inside.py")

    monkeypatch.setattr(type(service.resources.sessions), "get", broken)
    async with calling(service, auth, ALICE) as [alice]:
        answer = await alice.get(f"/coze/sessions/{UNKNOWN['session_id']}")
        assert (answer.status_code, error_of(answer)["code"]) == (500, "INTERNAL_ERROR")
        assert error_of(answer)["details"] == {}
        assert not re.search("pat_|inside|RuntimeError|Traceback", answer.text)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == error_of(answer)["request_id"]


@pytest.mark.parametrize(
    ("mode", "enable", "status"), [("remote", "false", 404), ("remote", "true", 200), ("local", "false", 200)]
)
async def test_docs_pages_are_off_in_remote_mode_unless_asked_for(
    start_app: Start, simulator: SimControl, mode: str, enable: str, status: int
) -> None:
    service = start_app(APP_MODE=mode, ENABLE_DOCS=enable)
    async with open_client(service.base_url) as client:
        for page in ("/docs", "/docs/docs.js", "/openapi.json"):
            assert (await client.get(page)).status_code == status
        assert (await client.get("/docs/oauth2-redirect")).status_code == 404


async def test_a_slash_too_many_leads_to_no_address_that_the_caller_chose(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        for path in ("/coze/sessions/", "/coze/health/", "/coze/admin/stats/", "//evil.example/coze/health"):
            response = await alice.get(
                path, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
            )
            assert "evil.example" not in response.headers.get("location", "")


# -- what Coze sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["root", "owner", "none"])
async def test_the_user_that_coze_sees_is_scoped_by_tenant_unless_told_otherwise(
    start_secured: Start, auth: RunningAuth, simulator: SimControl, scope: str
) -> None:
    service = start_secured(COZE_USER_ID_SCOPE=scope)
    seen = []
    async with calling(service, auth, ALICE, ALICE_ELSEWHERE, BOB) as clients:
        for n, client in enumerate(clients):
            await client.send(await client.open_session("u-1"), f"message {n}")
            [request] = simulator.requests(path="/v3/chat", contains=f"message {n}")
            seen.append(request["user_id"])
    if scope == "none":
        assert seen == ["u-1"] * 3
    else:
        assert seen[0] != seen[1]
        # By default people of one tenant that name one user mean one user.
        assert (seen[0] == seen[2]) == (scope == "root")


async def test_no_two_people_have_one_user_at_coze_whatever_their_names_hold(
    start_secured: Start, auth: RunningAuth, simulator: SimControl
) -> None:
    service = start_secured(COZE_USER_ID_SCOPE="owner")
    pairs = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c")]
    async with calling(service, auth, *(Who(name, "moicen.com", name) for name, _ in pairs)) as clients:
        for n, (client, (_, user_id)) in enumerate(zip(clients, pairs, strict=True)):
            await client.send(await client.open_session(user_id), f"message {n}")
    assert len({request["user_id"] for request in simulator.requests(path="/v3/chat")}) == len(pairs)


async def test_no_header_of_the_caller_reaches_coze(
    secured: RunningApp, auth: RunningAuth, simulator: SimControl
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        headers = {
            "Authorization": "Bearer mine",
            "Cookie": "a=b",
            "X-Evil": "yes",
            "Forwarded": "for=1.2.3.4",
        }
        session_id = await alice.open_session()
        await alice.send(session_id, "hello", headers=headers)
        token = alice.http.headers["HtySudoerToken"]
        for request in simulator.requests():
            sent = {name.lower(): value for name, value in request["headers"].items()}
            assert not {"cookie", "x-evil", "forwarded", "htysudoertoken", "htyhost"} & set(sent)
            assert "mine" not in sent.get("authorization", "")
            assert token not in json.dumps(request)


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.png",
        "file:///etc/passwd",
        "ftp://example.org/a",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "//example.org/a.png",
        "javascript:alert(1)",
        " https://example.org/a.png",
        "data:text/plain,hello",
        7,
        ["https://example.org/a.png"],
    ],
)
async def test_a_file_address_that_is_not_https_is_refused(
    secured: RunningApp, auth: RunningAuth, url: object
) -> None:
    content = json.dumps([{"type": "text", "text": "look"}, {"type": "image", "file_url": url}])
    message = {"role": "user", "content": content, "content_type": "object_string"}
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        answers = [
            await alice.send(session_id, "look", additional_messages=[message]),
            await alice.post("/coze/sessions", json={"user_id": "u", "additional_messages": [message]}),
        ]
        for answer in answers:
            assert (answer.status_code, error_of(answer)["code"]) == (400, "COZE_VALIDATION_ERROR")


async def test_a_file_address_is_passed_on_and_never_fetched(
    secured: RunningApp, auth: RunningAuth, simulator: SimControl
) -> None:
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.3)
        url = f"https://127.0.0.1:{trap.getsockname()[1]}/a.png"
        message = {
            "role": "user",
            "content": json.dumps([{"type": "image", "file_url": url}]),
            "content_type": "object_string",
        }
        async with calling(secured, auth, ALICE) as [alice]:
            session_id = await alice.open_session(additional_messages=[message])
            answer = await alice.send(session_id, f"look at {url}", additional_messages=[message])
            assert answer.status_code == 200
        with pytest.raises(TimeoutError):
            trap.accept()


# -- log lines ---------------------------------------------------------------------------------------------

FORGED = "FORGED-LINE"
BREAKS = [
    "%0A",
    "%0D%0A",
    "%0D",
    "%C2%85",
    "%E2%80%A8",
    "%E2%80%A9",
    "%0B",
    "%0C",
    "%1B%5B2K",
    "%C2%9B2K",
    "%00",
    "%ED%A0%80",
]


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_nothing_that_a_caller_writes_begins_a_log_line_of_its_own(
    start_process: Callable[..., ServiceProcess], auth: RunningAuth, log_format: str
) -> None:
    service = start_process(**secured_values(auth, COZE_LOG_FORMAT=log_format, COZE_LOG_LEVEL="DEBUG"))
    async with open_client(service.base_url, headers=ALICE.headers(auth)) as alice:
        for mark in BREAKS:
            evil = f"x{mark}{FORGED}"
            for path in (
                f"/coze/users/{evil}/sessions",
                f"/coze/sessions/{evil}",
                f"/{evil}",
                f"/coze/metrics?{evil}",
            ):
                assert (await alice.get(path)).status_code in (200, 400, 404)
            await alice.delete(f"/coze/users/{evil}")
        for header in (
            "X-Request-Id",
            "Last-Event-ID",
            "Idempotency-Key",
            "Prefer",
            "User-Agent",
            "traceparent",
        ):
            for value in (f"a\tb{FORGED}", f"\x85{FORGED}", f'"}}\\n{{"level":"{FORGED}'):
                await alice.get("/coze/health", headers={header: value.encode("latin-1")})
        for user_id in ("a\u2028" + FORGED, "a\n" + FORGED, "a\u202e" + FORGED):
            assert (await alice.post("/coze/sessions", json={"user_id": user_id})).status_code == 400
        session_id = await alice.open_session('x","level":"' + FORGED)
        await alice.send(session_id, f"hello\n{FORGED}", meta_data={"a": f"\n{FORGED}"})
        service.stop()
    lines = service.log.splitlines()  # str.splitlines: at every end of line that Unicode knows
    assert len(lines) > 50
    for line in lines:
        if log_format == "json":
            assert json.loads(line)["level"] != FORGED
        else:
            assert re.match(r"\d\d:\d\d:\d\d\.\d{3} [A-Z]+ ", line), line
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", line)


# -- secrets -----------------------------------------------------------------------------------------------


def test_no_secret_shows_in_the_repr_of_the_settings_or_in_the_openapi() -> None:
    secret = "s3cr3t-that-nobody-sees"
    values = {
        "COZE_API_TOKEN": f"pat_{secret}",
        "COZE_AUTHORIZATION": f"Bearer {secret}",
        "HTY_JWT_KEY": secret * 2,
        "REDIS_URL": f"redis://:{secret}@localhost:6379/0",
    }
    settings: Settings = make_settings(**values)
    from app.main import create_app

    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        json.dumps(create_app(settings).openapi()),
    ):
        assert secret not in text


async def test_an_admin_gets_numbers_and_no_ids(secured: RunningApp, auth: RunningAuth) -> None:
    async with calling(secured, auth, ALICE, ADMIN) as [alice, admin]:
        session_id = await alice.open_session("a-user-by-name")
        text = json.dumps(data_of(await admin.get("/coze/admin/stats")))
        assert session_id not in text
        assert "a-user-by-name" not in text
        assert "alice" not in text
