"""HEAD, Allow, WWW-Authenticate, 204, paths, encodings, CORS: what the RFCs ask of every route."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import Client, RunningApp, error_of, open_client, outputs_for

ORIGIN = "https://app.example"


async def test_every_get_answers_head_with_its_headers_and_no_body(client: Client) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, "hi")
    await client.ended(chat_id)
    for path in (
        *("/", "/coze/health", "/coze/health/live", "/coze/health/ready", "/coze/metrics", "/openapi.json"),
        *("/docs", "/coze/openai/v1/models", "/coze/usage", "/coze/admin/stats", "/coze/users/u-1/sessions"),
        *(f"/coze/sessions/{session_id}{more}" for more in ("", "/chats", "/history")),
        *(f"/coze/chats/{chat_id}/{what}" for what in ("result", "events")),
        *("/coze/sessions/nope", "/coze/chats/nope/events", "/nope"),
    ):
        head = await client.http.head(path)
        got = await client.get(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path


async def test_head_waits_for_nothing_opens_no_stream_and_extends_no_session(
    client: Client, service: RunningApp
) -> None:
    session_id = await client.open_session()
    before = (await client.session(session_id))["expires_at"]
    chat_id = await client.start(session_id, "[[sim:deltas=3;gap=0.3]]")
    expires = service.store.hget
    key = next(
        k
        for k in service.call(lambda: service.store.keys("*"))
        if k.endswith(b":session:" + session_id.encode())
    )
    at = service.call(lambda: expires(key, "expires"))
    assert (await client.http.head(f"/coze/chats/{chat_id}/result?wait=60")).status_code == 200
    assert (await client.result(chat_id)).json()["data"]["task_status"] == "processing"
    assert (await client.http.head(f"/coze/chats/{chat_id}/events")).status_code == 200
    for path in ("", "/history", "/chats"):
        assert (await client.http.head(f"/coze/sessions/{session_id}{path}")).status_code == 200
    assert service.call(lambda: expires(key, "expires")) == at
    await client.ended(chat_id)
    assert (await client.session(session_id))["expires_at"] > before


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/coze/sessions/s-1", "DELETE, GET, HEAD, PATCH"),
        ("POST", "/coze/files/f-1", "DELETE, GET, HEAD"),
        ("GET", "/coze/sessions", "POST"),
        ("HEAD", "/coze/sessions", "POST"),
        ("OPTIONS", "/coze/sessions", "POST"),
        ("PATCH", "/coze/chats/c-1/cancel", "POST"),
        ("DELETE", "/coze/chats/c-1/events", "GET, HEAD"),
        ("GET", "/coze/users/u-1", "DELETE"),
        ("POST", "/coze/users/u-1/sessions", "GET, HEAD"),
        ("DELETE", "/coze/users/u-1/sessions", "GET, HEAD"),
        ("TRACE", "/coze/health", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
async def test_405_names_all_methods_of_the_path(
    client: Client, method: str, path: str, allowed: str
) -> None:
    answer = await client.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert error_of(answer)["message"].endswith(f"it takes {allowed}")


@pytest.mark.parametrize(
    "user",
    [
        "u-1/sessions",
        "a/b",
        "/",
        "sessions",
        "100%",
        "%2F",
        "a%2Fb",
        "中/文",
        "a b/c",
        "../x",
        "u-1/sessions/",
    ],
)
async def test_a_slash_in_a_user_id_belongs_to_it_where_it_is_escaped(client: Client, user: str) -> None:

    other = await client.open_session("u-1")
    mine = await client.open_session(user)
    where = f"/coze/users/{quote(user, safe='')}"
    found = (await client.get(f"{where}/sessions")).json()["data"]["task_result"]["data"]["sessions"]
    assert [each["session_id"] for each in found] == [mine]
    erased = (await client.delete(where)).json()["data"]["task_result"]["data"]
    assert erased["erased_sessions"] == 1
    assert (await client.get(f"/coze/sessions/{mine}")).status_code in (404, 410)
    assert (await client.get(f"/coze/sessions/{other}")).status_code == 200


async def test_an_escaped_slash_in_an_id_is_no_other_route(client: Client) -> None:
    session_id = await client.open_session()
    for path in (f"/coze/sessions/{session_id}%2Fchats", f"/coze/sessions/{session_id}%2fhistory"):
        assert error_of(await client.get(path))["code"] == "COZE_SESSION_NOT_FOUND"


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip"])
@pytest.mark.parametrize("path", ["/coze/sessions", "/coze/openai/v1/chat/completions"])
async def test_a_compressed_body_is_a_415_that_says_so(client: Client, coding: str, path: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = await client.post(path, content=gzip.compress(b'{"user_id":"u"}'), headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "Content-Encoding" in answer.json()["error"]["message"]


async def test_a_body_that_is_said_to_be_plain_is_taken(client: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "identity"}
    answer = await client.post("/coze/sessions", content=b'{"user_id":"u"}', headers=headers)
    assert answer.status_code == 200


async def test_who_comes_back_with_the_id_of_done_is_told_that_there_is_no_more(client: Client) -> None:
    session_id = await client.open_session()
    async with client.stream(session_id, "[[sim:requires_action=function]] weather?") as reader:
        events = await reader.all()
    done, path = events[-1].id, f"/coze/chats/{reader.chat_id}/events"
    assert [event.event for event in events[-2:]] == ["result", "done"]
    for method in ("GET", "HEAD"):
        answer = await client.http.request(method, path, headers={"Last-Event-ID": done or ""})
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get(path, params={"after": done or ""})).status_code == 204
    asked = reader.result()
    if asked["status"] == "requires_action":
        await client.post(f"/coze/chats/{reader.chat_id}/tool_outputs", json=outputs_for(asked))
        await client.ended(reader.chat_id)
        async with client.events(reader.chat_id, done) as more:
            going_on = await more.all()
        assert going_on[-1].event == "done"
        assert all((event.id or "").startswith("2-") for event in going_on)


async def test_cors_headers_are_on_every_answer(start_app: Callable[..., RunningApp]) -> None:
    service = start_app(CORS_ALLOW_ORIGINS=ORIGIN)

    @service.app.get("/coze/broken")
    async def broken() -> None:
        raise RuntimeError

    async with open_client(service.base_url) as client:
        large: dict[str, Any] = {"X-A": "a" * 60_000, "X-B": "a" * 60_000, "X-C": "b" * 20_000}
        for status, method, path, headers in (
            (500, "GET", "/coze/broken", {}),
            (431, "GET", "/coze/health/live", large),
            (404, "GET", "/nope", {}),
            (405, "PUT", "/coze/sessions", {}),
            (415, "POST", "/coze/sessions", {}),
            (404, "GET", "/coze/sessions/nope", {}),
            (200, "HEAD", "/coze/health", {}),
        ):
            answer = await client.http.request(method, path, headers={"Origin": ORIGIN, **headers})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN, path
            assert answer.headers["x-request-id"], path


@pytest.mark.parametrize(
    "asked",
    [
        *("x-stainless-arch,x-stainless-os", "x-requested-with", "x-request-id", "traceparent,tracestate"),
        *("cache-control,pragma", "htysudoertoken,htyhost", "last-event-id", "idempotency-key", "prefer"),
        *("authorization,content-type", "x-openwebui-user-id", "baggage"),
    ],
)
async def test_a_preflight_allows_whatever_header_is_asked_for(
    start_app: Callable[..., RunningApp], asked: str
) -> None:
    async with open_client(start_app(CORS_ALLOW_ORIGINS=ORIGIN).base_url) as client:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            headers = {
                "Origin": ORIGIN,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": asked,
                "Access-Control-Request-Private-Network": "true",
            }
            answer = await client.http.options("/coze/sessions", headers=headers)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-headers"] == asked
            assert answer.headers["access-control-allow-private-network"] == "true"
            assert "access-control-allow-credentials" not in answer.headers
