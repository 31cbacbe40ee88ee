"""Each route's whole answer, as old clients depend on it: ids and times are masked, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support import Client, EventReader, Golden, RunningApp, SimControl, data_of, open_client

UNKNOWN_SESSION = "coze_session_1795381793123_" + "a" * 21
UNKNOWN_CHAT = "coze_chat_1795381793123_" + "a" * 41
_KEPT = {
    "allow",
    "cache-control",
    "content-type",
    "location",
    "preference-applied",
    "retry-after",
    "x-accel-buffering",
    "x-coze-chat-id",
    "x-coze-logid",
    "x-request-id",
}
SAY = "[[sim:deltas=2;text=Good morning.;followups=1]]"


def answer_of(response: httpx.Response) -> dict[str, Any]:
    headers = {name: value for name, value in sorted(response.headers.items()) if name in _KEPT}
    return {"status": response.status_code, "headers": headers, "body": response.json()}


def stream_of(reader: EventReader) -> dict[str, Any]:
    response = reader.response
    headers = {name: value for name, value in sorted(response.headers.items()) if name in _KEPT}
    events = [{"id": e.id, "event": e.event, "data": e.json()} for e in reader.seen]
    return {"status": response.status_code, "headers": headers, "retry": reader.retry, "events": events}


@pytest.mark.parametrize("path", ["/", "/coze/health", "/coze/health/live", "/coze/health/ready"])
async def test_the_states_of_the_process(path: str, client: Client, golden: Golden) -> None:
    name = path.strip("/").replace("coze/", "").replace("/", "_") or "root"
    golden(name, answer_of(await client.get(path)))


async def test_the_life_of_a_session(each_client: Client, golden: Golden) -> None:
    client = each_client
    body = {
        "user_id": "u-1",
        "bot_id": "7380000000000000009",
        "additional_messages": [{"role": "user", "content": "Hello.", "content_type": "text"}],
        "meta_data": {"app": "web"},
    }
    created = await client.post("/coze/sessions", json=body)
    golden("session_created", answer_of(created))
    session_id = data_of(created)["session_id"]
    golden("message_answered", answer_of(await client.send(session_id, f"Good day. {SAY}")))
    golden("session_with_history", answer_of(await client.get(f"/coze/sessions/{session_id}")))
    golden("chats_page", answer_of(await client.get(f"/coze/sessions/{session_id}/chats")))
    golden("session_terminated", answer_of(await client.delete(f"/coze/sessions/{session_id}")))
    again = await client.delete(f"/coze/sessions/{session_id}")
    golden("session_terminated", answer_of(again))


async def test_a_message_that_is_still_at_work(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    started = await client.send(session_id, "[[sim:delay=8]] Take your time.", headers={"Prefer": "wait=0"})
    golden("message_processing", answer_of(started))
    chat_id = data_of(started)["chat_id"]
    golden("result_processing", answer_of(await client.result(chat_id)))
    busy = await client.send(session_id, "And now?")
    golden("message_busy", answer_of(busy))
    await client.delete(f"/coze/sessions/{session_id}")
    golden("result_cancelled", answer_of(await client.result(chat_id)))


async def test_a_message_that_failed(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    failed = await client.send(session_id, "[[sim:fail_at=1;fail_code=4014;deltas=3]] Good day.")
    golden("message_failed", answer_of(failed))
    chat_id = failed.json()["error"]["details"]["chat_id"]
    golden("result_failed", answer_of(await client.result(chat_id)))


async def test_a_result(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    chat_id = data_of(await client.send(session_id, f"Good day. {SAY}"))["chat_id"]
    golden("result_completed", answer_of(await client.result(chat_id)))


async def test_a_streamed_message(each_client: Client, golden: Golden) -> None:
    session_id = await each_client.open_session()
    async with each_client.stream(session_id, f"Good day. {SAY}[[sim:reasoning=0]]") as reader:
        await reader.all()
    golden("stream_completed", stream_of(reader))


async def test_a_stream_that_fails(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    message = "[[sim:fail_at=1;fail_code=4014;deltas=3;reasoning=0]] Good day."
    async with client.stream(session_id, message, headers={"X-Request-Id": "from-the-test"}) as reader:
        await reader.all()
    golden("stream_failed", stream_of(reader))


async def test_a_stream_that_waits_for_tool_outputs(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    async with client.stream(session_id, "[[sim:requires_action=function]] Good day.") as reader:
        await reader.all()
    for event in reader.seen:
        assert event.event != "error"
    answer = stream_of(reader)
    golden("stream_requires_action", _without_call_ids(answer))


def _without_call_ids(value: Any) -> Any:
    """Coze's opaque id of a tool call."""
    if isinstance(value, dict):
        calls = {"id": "<tool_call_id>"} if "function" in value else {}
        return {key: _without_call_ids(item) for key, item in value.items()} | calls
    return [_without_call_ids(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("name", "method", "path", "options"),
    [
        ("not_json", "POST", "/coze/sessions", {"content": b'{"user_id": '}),
        ("wrong_fields", "POST", "/coze/sessions", {"json": {"bot_id": 7, "meta_data": {"a": ""}}}),
        ("wrong_type", "POST", "/coze/sessions", {"content": b"a=b", "type": "text/plain"}),
        ("too_large", "POST", "/coze/sessions", {"content": b" " * (1024 * 1024 + 1)}),
        ("unknown_session", "GET", f"/coze/sessions/{UNKNOWN_SESSION}", {}),
        ("unknown_chat", "GET", f"/coze/chats/{UNKNOWN_CHAT}/result", {}),
        ("unknown_route", "GET", "/coze/nothing", {}),
        ("wrong_method", "PUT", "/coze/sessions", {}),
        ("wrong_query", "GET", f"/coze/chats/{UNKNOWN_CHAT}/result?wait=61", {}),
    ],
)
async def test_what_is_refused(
    name: str, method: str, path: str, options: dict[str, Any], client: Client, golden: Golden
) -> None:
    headers = {"Content-Type": options.pop("type", "application/json")} if method == "POST" else None
    response = await client.http.request(method, path, headers=headers, **options)
    golden(f"error_{name}", answer_of(response))


async def test_what_a_terminated_session_answers(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    await client.delete(f"/coze/sessions/{session_id}")
    golden("error_terminated", answer_of(await client.get(f"/coze/sessions/{session_id}")))


async def test_what_a_message_over_the_limit_answers(client: Client, golden: Golden) -> None:
    session_id = await client.open_session()
    golden("error_too_long", answer_of(await client.send(session_id, "字" * 4001)))


async def test_what_is_answered_while_redis_is_away(
    start_app: Callable[..., RunningApp], simulator: SimControl, golden: Golden
) -> None:
    service = start_app(REDIS_URL="redis://127.0.0.1:1/0")  # nobody listens there
    async with open_client(service.base_url) as client:
        golden("error_redis", answer_of(await client.post("/coze/sessions", json={"user_id": "u"})))
        golden("health_redis_away", answer_of(await client.get("/coze/health")))


async def test_what_is_answered_where_nobody_can_be_checked(
    start_app: Callable[..., RunningApp], golden: Golden
) -> None:
    service = start_app(ENABLE_AUTH="true")
    async with open_client(service.base_url) as client:
        assert (await client.get("/coze/health")).status_code == 200
        response = await client.post("/coze/sessions", json={"user_id": "u"})
        assert response.status_code in (401, 503)
        assert response.json()["error"]["code"].startswith("AUTH_")
