"""What only a mock can show: requests to the real addresses, and their exact bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from tests.support import RunningApp, data_of, error_of, make_settings, open_client, running_app

EVENTS = (
    b'event:conversation.chat.created\ndata:{"id":"71","conversation_id":"70","status":"created"}\n\n'
    b'event:conversation.message.delta\ndata:{"id":"72","role":"assistant","type":"answer",'
    b'"content":"Good morning.","content_type":"text","chat_id":"71","conversation_id":"70"}\n\n'
    b'event:conversation.message.completed\ndata:{"id":"72","role":"assistant","type":"answer",'
    b'"content":"Good morning.","content_type":"text","chat_id":"71","conversation_id":"70"}\n\n'
    b'event:conversation.chat.completed\ndata:{"id":"71","conversation_id":"70","status":"completed"}\n\n'
    b"event:done\ndata:[DONE]\n\n"
)


@pytest.fixture
def coze() -> Iterator[respx.MockRouter]:
    """No request leaves this machine; those to the service pass."""
    with respx.mock(assert_all_called=False) as router:
        router.route(host="127.0.0.1").pass_through()
        yield router


@pytest.fixture
def start(coze: respx.MockRouter) -> Iterator[Callable[..., Any]]:
    running = []

    def start(**values: str) -> RunningApp:
        chosen = {"REDIS_URL": "memory://", "COZE_HTTP_TRANSPORT": "httpx", "COZE_MAX_RETRIES": "0"} | values
        context = running_app(make_settings(**chosen))
        running.append(context)
        return context.__enter__()

    yield start
    for context in running:
        context.__exit__(None, None, None)


def conversation(base: str, coze: respx.MockRouter) -> respx.Route:
    answer = {"code": 0, "msg": "", "data": {"id": "70", "created_at": 1, "meta_data": {}}}
    return coze.post(f"{base}/v1/conversation/create").mock(httpx.Response(200, json=answer))


def chat(base: str, coze: respx.MockRouter) -> respx.Route:
    headers = {"Content-Type": "text/event-stream", "x-tt-logid": "L7"}
    return coze.post(f"{base}/v3/chat").mock(httpx.Response(200, content=EVENTS, headers=headers))


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ({}, "https://api.coze.cn"),
        ({"COZE_API_URL": "https://api.coze.com/v3/chat"}, "https://api.coze.com"),
        ({"COZE_API_URL": "http://studio.internal/coze/v3/chat"}, "http://studio.internal/coze"),
        ({"APP_MODE": "local"}, "http://localhost:5000/coze"),
    ],
    ids=["default", "com", "prefix", "local"],
)
async def test_requests_go_to_the_configured_address(
    values: dict[str, str], base: str, coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    made, asked = conversation(base, coze), chat(base, coze)
    async with open_client(start(**values).base_url) as client:
        session_id = await client.open_session()
        response = await client.send(session_id, "hello")
        assert data_of(response)["content"] == "Good morning."
        assert response.headers["X-Coze-Logid"] == "L7"
    assert made.call_count == asked.call_count == 1


async def test_a_chat_is_asked_for_with_exactly_these_fields(
    coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    conversation("https://api.coze.cn", coze)
    asked = chat("https://api.coze.cn", coze)
    async with open_client(start(COZE_BOT_ID="42").base_url) as client:
        session_id = await client.open_session(
            "user-9", additional_messages=[{"role": "assistant", "content": "Welcome.", "type": "answer"}]
        )
        body = {
            "additional_messages": [{"role": "user", "content": "By the way."}],
            "custom_variables": {"city": "Lisbon"},
            "meta_data": {"app": "web"},
            "parameters": {"depth": {"of": [1, 2]}},
        }
        chat_id = data_of(await client.send(session_id, "汉字 “hello”", **body))["chat_id"]
    request = asked.calls[0].request
    assert dict(request.url.params) == {"conversation_id": "70"}
    assert request.headers["Authorization"] == "Bearer pat_simulator"
    assert request.headers["Content-Type"] == "application/json"
    sent = json.loads(request.content)
    messages = [(m["role"], m["type"], m["content"]) for m in sent.pop("additional_messages")]
    assert messages == [
        ("assistant", "answer", "Welcome."),
        ("user", "question", "By the way."),
        ("user", "question", "汉字 “hello”"),
    ]
    assert sent == {
        "bot_id": "42",
        "user_id": "local:user-9",  # the caller's root in front: users of two apps never meet at Coze
        "stream": True,
        "auto_save_history": True,
        "custom_variables": {"city": "Lisbon"},
        "meta_data": {"app": "web", "coze_fastapi_chat_id": chat_id},
        "parameters": {"depth": {"of": [1, 2]}},
    }


async def test_opening_messages_are_sent_once(
    coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    conversation("https://api.coze.cn", coze)
    asked = chat("https://api.coze.cn", coze)
    async with open_client(start().base_url) as client:
        opening = [{"role": "user", "content": "I live in Lisbon."}]
        session_id = await client.open_session(additional_messages=opening)
        for _ in range(2):
            assert (await client.send(session_id, "hello")).status_code == 200
    sent = [len(json.loads(call.request.content)["additional_messages"]) for call in asked.calls]
    assert sent == [2, 1]


@pytest.mark.parametrize("written", ["Bearer pat_other", "pat_other", "bearer pat_other"])
async def test_the_token_may_come_as_an_authorization(
    written: str, coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    conversation("https://api.coze.cn", coze)
    asked = chat("https://api.coze.cn", coze)
    async with open_client(start(COZE_API_TOKEN="", COZE_AUTHORIZATION=written).base_url) as client:
        assert (await client.send(await client.open_session(), "hello")).status_code == 200
    assert asked.calls[0].request.headers["Authorization"] == "Bearer pat_other"


async def test_a_token_in_a_file_is_read_again_when_it_changes(
    coze: respx.MockRouter, start: Callable[..., RunningApp], tmp_path: Path
) -> None:
    conversation("https://api.coze.cn", coze)
    asked = chat("https://api.coze.cn", coze)
    token = tmp_path / "token"
    token.write_text("pat_first\n")
    async with open_client(start(COZE_API_TOKEN="", COZE_API_TOKEN_FILE=str(token)).base_url) as client:
        session_id = await client.open_session()
        await client.send(session_id, "hello")
        token.write_text("pat_second_one\n")
        await client.send(session_id, "hello")
        token.unlink()
        assert (await client.send(session_id, "hello")).status_code == 200
    bearers = [call.request.headers["Authorization"] for call in asked.calls]
    assert bearers == ["Bearer pat_first", "Bearer pat_second_one", "Bearer pat_second_one"]


async def test_a_redirect_is_not_followed_with_the_token(
    coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    conversation("https://api.coze.cn", coze)
    elsewhere = coze.post("https://elsewhere.example/v3/chat").mock(httpx.Response(200))
    redirect = httpx.Response(307, headers={"Location": "https://elsewhere.example/v3/chat"})
    coze.post("https://api.coze.cn/v3/chat").mock(redirect)
    async with open_client(start().base_url) as client:
        response = await client.send(await client.open_session(), "hello")
        assert (response.status_code, error_of(response)["code"]) == (502, "COZE_API_ERROR")
        assert "redirect" in error_of(response)["details"]["hint"]
    assert elsewhere.call_count == 0


async def test_cozes_own_text_is_never_shown(
    coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    conversation("https://api.coze.cn", coze)
    answer = {"code": 4000, "msg": "inner words of the server", "detail": {"logid": "L8"}}
    coze.post("https://api.coze.cn/v3/chat").mock(httpx.Response(200, json=answer))
    async with open_client(start().base_url) as client:
        response = await client.send(await client.open_session(), "hello")
        assert error_of(response)["details"]["coze_code"] == 4000
        assert error_of(response)["details"]["logid"] == response.headers["X-Coze-Logid"] == "L8"
        assert "inner words" not in response.text


MESSAGE = EVENTS[
    EVENTS.index(b"event:conversation.message.delta") : EVENTS.index(b"event:conversation.chat.comp")
]
STORED = {
    "id": "72",
    "role": "assistant",
    "type": "answer",
    "content": "Good morning.",
    "content_type": "text",
}
WITHOUT_ANSWER = {
    "no message": b"",
    "another type": MESSAGE.replace(b'"answer"', b'"text"'),
    "another name": MESSAGE.replace(b"conversation.message.", b"message."),
    "a blank behind the name": MESSAGE.replace(b"delta\n", b"delta \n").replace(
        b"completed\n", b"completed \n"
    ),
    "the user's": MESSAGE.replace(b'"assistant"', b'"user"').replace(b'"answer"', b'"question"'),
    "verbose alone": MESSAGE.replace(b'"answer"', b'"verbose"'),
}


@pytest.mark.parametrize("kind", WITHOUT_ANSWER)
@pytest.mark.parametrize(
    ("stored", "content"),
    [
        ({"code": 0, "msg": "", "data": [STORED]}, "Good morning."),
        ({"code": 0, "msg": "", "data": []}, ""),
        ({"code": 0, "msg": "", "data": [STORED | {"content": ""}]}, ""),
        ({"code": 5000, "msg": "x"}, ""),
    ],
    ids=["stored", "not stored", "empty", "refused"],
)
async def test_a_chat_that_ends_without_an_answer_in_its_stream_is_asked_for_it(
    kind: str, stored: Any, content: str, coze: respx.MockRouter, start: Callable[..., RunningApp]
) -> None:
    base = "https://api.coze.cn"
    conversation(base, coze)
    asked = chat(base, coze).mock(
        httpx.Response(
            200,
            content=EVENTS.replace(MESSAGE, WITHOUT_ANSWER[kind]),
            headers={"Content-Type": "text/event-stream"},
        )
    )
    told = {"id": "71", "conversation_id": "70", "status": "completed"}
    coze.get(f"{base}/v3/chat/retrieve").mock(httpx.Response(200, json={"code": 0, "data": told}))
    listed = coze.get(f"{base}/v3/chat/message/list").mock(httpx.Response(200, json=stored))
    async with open_client(start().base_url) as client:
        found = data_of(await client.send(await client.open_session(), "hi"))
    assert (found["status"], found["content"]) == ("completed", content)
    assert found["recovered"] is bool(content)
    assert (asked.call_count, listed.call_count) == (1, 1)
