"""Bodies, ids and queries that are wrong: a clear answer each, and nothing lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import Client, RunningApp, SimControl, data_of, error_of, open_client, wait_until

UNKNOWN_SESSION = "coze_session_1795381793123_" + "a" * 21
UNKNOWN_CHAT = "coze_chat_1795381793123_" + "a" * 41
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b"{'message': 'x'}", b'{"message": "\xed\xa0\x80"}'],
)
async def test_a_body_that_is_no_json_object_is_refused(body: bytes, client: Client) -> None:
    session_id = await client.open_session()
    for path in ("/coze/sessions", f"/coze/sessions/{session_id}/messages"):
        response = await client.post(path, content=body, headers=JSON)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (400, "COZE_VALIDATION_ERROR")
        assert error["details"]["fields"], error
        assert error["retryable"] is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message", None),
        ("message", ""),
        ("message", " \n\t "),
        ("message", 7),
        ("message", ["text"]),
        ("stream", "yes"),
        ("stream", 1),
        ("additional_messages", "text"),
        ("additional_messages", [{"role": "system", "content": "x"}]),
        ("additional_messages", [{"role": "assistant", "type": "question", "content": "x"}]),
        ("additional_messages", [{"role": "user", "content": "x"}] * 100),
        ("custom_variables", {"a": 1}),
        ("meta_data", {"a": "b" * 513}),
        ("meta_data", {str(n): "x" for n in range(16)}),
        ("parameters", []),
    ],
)
async def test_a_wrong_field_of_a_message_is_named(
    field: str, value: Any, client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    response = await client.post(
        f"/coze/sessions/{session_id}/messages", json={"message": "hello"} | {field: value}
    )
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "COZE_VALIDATION_ERROR")
    named = [fault["field"].split(".")[0] for fault in error["details"]["fields"]]
    assert named in ([field], ["body"]), error["details"]
    assert simulator.requests(path="/v3/chat") == []
    assert (await client.session(session_id))["chat_count"] == 0
    assert (await client.send(session_id, "hello")).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", None),
        ("user_id", ""),
        ("user_id", 1),
        ("user_id", "a\nb"),
        ("user_id", "u" * 129),
        ("bot_id", "a b"),
        ("auto_save_history", "true"),
        ("additional_messages", {}),
        ("meta_data", {"": "x"}),
    ],
)
async def test_a_wrong_field_of_a_session_is_named(field: str, value: Any, client: Client) -> None:
    response = await client.post("/coze/sessions", json={"user_id": "u"} | {field: value})
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert error["details"]["fields"][0]["field"].split(".")[0] == field


async def test_a_missing_field_is_named_and_an_unknown_one_ignored(client: Client) -> None:
    missing = error_of(await client.post("/coze/sessions", json={}))
    assert [fault["field"] for fault in missing["details"]["fields"]] == ["user_id"]
    assert (await client.post("/coze/sessions", json={"user_id": "u", "colour": "red"})).status_code == 200


async def test_what_was_sent_is_never_quoted_back(client: Client) -> None:
    response = await client.post(
        "/coze/sessions", json={"user_id": {"secret": "tell-nobody"}, "bot_id": "tell nobody"}
    )
    assert response.status_code == 400
    assert "tell" not in response.text


async def test_the_longest_message_is_taken_and_one_more_character_is_not(
    start_app: Callable[..., RunningApp],
) -> None:
    service = start_app(COZE_MAX_MESSAGE_LENGTH="50")
    async with open_client(service.base_url) as client:
        session_id = await client.open_session()
        assert (await client.send(session_id, "字" * 50)).status_code == 200
        response = await client.send(session_id, "字" * 51)
        assert response.status_code == 400
        assert error_of(response)["details"]["fields"][0]["field"] == "message"
        assert "50" in error_of(response)["details"]["fields"][0]["message"]


async def test_a_body_may_not_be_larger_than_allowed_whether_it_says_so_or_not(
    start_app: Callable[..., RunningApp],
) -> None:
    async def unannounced() -> Any:
        for _ in range(64):
            yield b" " * 1024

    service = start_app(MAX_BODY_BYTES="2048")
    async with open_client(service.base_url) as client:
        for content in (b" " * 2049, unannounced()):
            response = await client.post("/coze/sessions", content=content, headers=JSON)
            assert (response.status_code, error_of(response)["code"]) == (413, "BODY_TOO_LARGE")
        exact = b'{"user_id": "u"}'.ljust(2048)
        assert (await client.post("/coze/sessions", content=exact, headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_only_json_is_taken(kind: str | None, client: Client) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = await client.post("/coze/sessions", content=b'{"user_id": "u"}', headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_charset_and_a_json_dialect_are_taken(client: Client) -> None:
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"):
        response = await client.post(
            "/coze/sessions", content=b'{"user_id": "u"}', headers={"Content-Type": kind}
        )
        assert response.status_code == 200, kind


@pytest.mark.parametrize(
    "wrong", [UNKNOWN_SESSION, "x", "coze_session_1_a", UNKNOWN_SESSION.upper(), "..%2fx"]
)
async def test_an_unknown_session_is_a_404_however_it_is_written(wrong: str, client: Client) -> None:
    for response in (
        await client.get(f"/coze/sessions/{wrong}"),
        await client.get(f"/coze/sessions/{wrong}/chats"),
        await client.delete(f"/coze/sessions/{wrong}"),
        await client.send(wrong, "hello"),
        await client.send(wrong, "hello", stream=True),
    ):
        assert response.status_code == 404
        assert error_of(response)["code"] in ("COZE_SESSION_NOT_FOUND", "NOT_FOUND")


@pytest.mark.parametrize("wrong", [UNKNOWN_CHAT, "x", "coze_chat_1_a", UNKNOWN_SESSION])
async def test_an_unknown_chat_is_a_404_however_it_is_written(wrong: str, client: Client) -> None:
    for wait in (None, 1):
        response = await client.result(wrong, wait)
        assert (response.status_code, error_of(response)["code"]) == (404, "COZE_CHAT_NOT_FOUND")


@pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan", "inf"])
async def test_a_wait_that_makes_no_sense_is_a_400(wait: str, client: Client) -> None:
    response = await client.get(f"/coze/chats/{UNKNOWN_CHAT}/result", params={"wait": wait})
    assert response.status_code == 400
    assert error_of(response)["details"]["fields"][0]["field"] == "wait"


async def test_a_terminated_session_says_so_and_keeps_saying_so(each_client: Client) -> None:
    client = each_client
    session_id = await client.open_session()
    chat_id = data_of(await client.send(session_id, "hello"))["chat_id"]
    first = await client.delete(f"/coze/sessions/{session_id}")
    assert (first.status_code, data_of(first)["status"]) == (200, "terminated")
    second = await client.delete(f"/coze/sessions/{session_id}")
    assert data_of(second) == data_of(first)
    for response in (
        await client.get(f"/coze/sessions/{session_id}"),
        await client.get(f"/coze/sessions/{session_id}/chats"),
        await client.send(session_id, "more"),
        await client.send(session_id, "more", stream=True),
    ):
        assert (response.status_code, error_of(response)["code"]) == (410, "COZE_SESSION_TERMINATED")
    assert data_of(await client.result(chat_id))["status"] == "completed"


async def test_a_second_message_is_refused_while_the_first_runs_and_neither_is_lost(
    each_client: Client, simulator: SimControl
) -> None:
    client = each_client
    session_id = await client.open_session()
    async with client.stream(session_id, "first [[sim:deltas=20;gap=0.05;reasoning=0]]") as reader:
        await reader.until("conversation.message.delta")
        for stream in (False, True):
            response = await client.send(session_id, "second", stream=stream)
            error = error_of(response)
            assert (response.status_code, error["code"]) == (409, "COZE_SESSION_BUSY")
            assert error["details"]["chat_id"] == reader.chat_id
            assert error["retryable"] is True
            assert int(response.headers["Retry-After"]) >= 1
        await reader.all()
    assert reader.result()["status"] == "completed"
    assert "first" in reader.text()
    after = data_of(await client.send(session_id, "second"))
    assert "second" in after["content"]
    session = await client.session(session_id)
    assert session["chat_count"] == 2
    assert [chat["user_message"]["content"].split()[0] for chat in session["chat_history"]] == [
        "second",
        "first",
    ]
    assert len(simulator.requests(path="/v3/chat")) == 2


async def test_of_many_messages_at_once_exactly_one_starts(
    each_client: Client, simulator: SimControl
) -> None:
    session_id = await each_client.open_session()
    sent = [
        asyncio.create_task(each_client.send(session_id, f"number {n} [[sim:delay=60]]")) for n in range(10)
    ]
    await wait_until(lambda: sum(each.done() for each in sent) == 9)
    # The one that started holds the session until all others have been answered.
    [chat] = (await each_client.session(session_id))["chat_history"]
    await each_client.post(f"/coze/chats/{chat['chat_id']}/cancel")
    answers = await asyncio.gather(*sent)
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    [won] = [data_of(answer) for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer.status_code == 409:
            assert error_of(answer)["details"]["chat_id"] == won["chat_id"]
    assert len(simulator.requests(path="/v3/chat")) == 1


async def test_every_answer_has_a_request_id(client: Client) -> None:
    for path in ("/", "/coze/health", "/coze/nothing", f"/coze/sessions/{UNKNOWN_SESSION}"):
        ours = await client.get(path)
        assert ours.headers["X-Request-Id"].startswith("req_")
        theirs = await client.get(path, headers={"X-Request-Id": "trace-1.2_3"})
        assert theirs.headers["X-Request-Id"] == "trace-1.2_3"
        insane = await client.get(path, headers={"X-Request-Id": "a b\t" + "c" * 100})
        assert insane.headers["X-Request-Id"].startswith("req_")
        if ours.status_code == 404:
            assert error_of(theirs)["request_id"] == "trace-1.2_3"


async def test_a_fault_of_ours_says_nothing_of_the_inside(start_app: Callable[..., RunningApp]) -> None:
    service = start_app()

    async def broken() -> None:
        raise RuntimeError("inner words")

    service.app.router.add_api_route("/coze/broken", broken)
    async with open_client(service.base_url) as client:
        response = await client.get("/coze/broken")
        error = error_of(response)
        assert (response.status_code, error["code"]) == (500, "INTERNAL_ERROR")
        assert "inner" not in response.text
        assert response.headers["X-Request-Id"] == error["request_id"]
        assert (await client.get("/coze/health")).status_code == 200
