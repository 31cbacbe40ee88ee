"""What is refused, in the words and with the exceptions that OpenAI's SDK has for it; and who may call."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from coze_simulator.auth_server import RunningAuth, running_auth
from tests.security.hostile import fixed
from tests.support import RunningApp, SimControl, open_client, wait_until

from .support import APP_KEY, MODEL, WEBUI_KEY, Told, async_client, chat_id_of, said, sync_client

HOST = {"HtyHost": "music.moicen.com"}
OpenDoor = Callable[..., RunningApp]


@pytest.fixture(scope="module")
def auth() -> Iterator[RunningAuth]:
    with running_auth() as running:
        yield running


@pytest.fixture
def guarded(open_door: OpenDoor, auth: RunningAuth) -> RunningApp:
    """A service that asks who calls."""
    auth.app.reset()
    return open_door(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)


def checked(caught: Any, code: str, kind: str, param: str | None = None) -> str:
    """OpenAI's shape, no more and no less; returns the message."""
    body = caught.value.response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["type"], body["error"]["param"]) == (code, kind, param)
    message: str = body["error"]["message"]
    assert message
    return message


# -- what is asked ----------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found(ai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ai.chat.completions.create(model="gpt-5", messages=[said("hi")])
    assert "gpt-5" in checked(caught, "model_not_found", "invalid_request_error", "model")


CAT = "https://example.com/cat.png"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [said("hi", "nobody")]}, "messages.0.role"),
    ({"messages": [said("hi"), said("hello", "assistant")]}, "messages.1.role"),
    ({"messages": [said("")]}, "messages"),
    ({"messages": [said([{"type": "input_audio", "input_audio": {}}])]}, "messages.0.content.0.type"),
    ({"messages": [said([{"type": "text"}])]}, "messages.0.content.0.text"),
    ({"messages": [said([{"type": "image_url", "image_url": {"url": CAT}}] * 20)] * 6}, "messages"),
    ({"messages": [said([{"type": "image_url", "image_url": {}}])]}, "messages.0.content.0.image_url.url"),
    (
        {"messages": [said([{"type": "image_url", "image_url": {"url": CAT.replace("https", "http")}}])]},
        "messages.0.content.0.image_url.url",
    ),
    (
        {"messages": [said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}])]},
        "messages.0.content.0.image_url.url",
    ),
    ({"messages": [said("21", "tool")]}, "messages.0.tool_call_id"),
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"function_call": {}}, "function_call"),
    ({"user": "a\nb"}, "user"),
    ({"stream": "yes"}, "stream"),
    ({"metadata": {"a" * 65: "x"}}, "metadata"),
]


@pytest.mark.parametrize(("wrong", "param"), WRONG, ids=[f"{n}-{p}" for n, (_, p) in enumerate(WRONG)])
def test_what_cannot_be_done_is_a_bad_request_that_names_the_field(
    wrong: dict[str, Any], param: str, ai: OpenAI, simulator: SimControl
) -> None:
    body = {"model": MODEL, "messages": [said("hi")]} | wrong
    with pytest.raises(openai.BadRequestError) as caught:
        ai.chat.completions.create(**body)
    checked(caught, "invalid_request", "invalid_request_error", param)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert simulator.requests(path="/v3/chat") == []


PYDANTIC = ("String should", "Input should", "Value error", "list[", "dict[", "str:", ".str", "^[", "\\x")


@pytest.mark.parametrize(
    ("field", "given", "told"),
    [
        ("messages", [said(True)], "messages.0.content: must be a text, or an array of parts"),
        ("messages", [said(1.5)], "messages.0.content: must be a text, or an array of parts"),
        ("messages", [said(["x"] * 1001)], "messages.0.content: must have at most 1000 parts, has 1001"),
        ("messages", [said("x", "nobody")], "messages.0.role: must be "),
        ("messages", [said("")], "messages: message must not be blank"),
        ("messages", [said("x" * 100_001), said("x")], "messages: must have at most 100000 characters"),
        ("user", "a\nb", "user: must not hold control characters"),
        ("user", "\u202eb", "user: must not hold control characters"),
        ("user", "x" * 129, "user: must have at most 128 characters"),
        ("metadata", {"k" * 65: "v"}, "metadata: must have at most 64 characters"),
        ("metadata", {"k": "v" * 513}, "metadata: must have at most 512 characters"),
        ("metadata", {"k": ["v"]}, "metadata.k: must be a string"),
        ("metadata", {str(n): "v" for n in range(17)}, "metadata: must have at most 16 items"),
        ("stream_options", True, "stream_options: must be an object"),
        ("response_format", "xml", "response_format: must have the type"),
    ],
)
async def test_what_is_wrong_is_told_in_plain_words(
    field: str, given: Any, told: str, door: RunningApp
) -> None:
    body = {"model": MODEL, "messages": [said("x")], field: given}
    async with open_client(door.base_url) as client:
        answer = await client.post("/coze/openai/v1/chat/completions", json=body)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert told in message
    assert [word for word in PYDANTIC if word in message] == []


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "messages",
    [
        [said("a" * 100_001)],
        [said("short"), said("a" * 100_001, "system")],
        [said("a" * 100_001), said("hi")],
        [said("a" * 60_000, "system"), said("a" * 60_000, "system"), said("hi")],
        [said([{"type": "text", "text": "a" * 40_000}] * 3)],
    ],
)
def test_what_is_too_long_has_the_code_that_clients_shorten_at(
    messages: list[Any], streamed: bool, ai: OpenAI, simulator: SimControl
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ai.chat.completions.create(model=MODEL, messages=messages, stream=streamed)
    checked(caught, "context_length_exceeded", "invalid_request_error", "messages")
    assert simulator.requests(path="/v3/chat") == []


def test_a_message_may_hold_whole_documents(ai: OpenAI, simulator: SimControl) -> None:
    """A limit of this door's own: the sessions' (COZE_MAX_MESSAGE_LENGTH, 4000) is for what people type."""
    text = "heron " + "a" * 99_000
    assert ai.chat.completions.create(model=MODEL, messages=[said(text)]).choices
    [request] = simulator.requests(path="/v3/chat", contains="heron")
    assert text[-100:] in str(request)


@pytest.mark.parametrize(
    "harmless",
    [
        {"temperature": 0.1, "top_p": 1, "max_tokens": 5, "stop": ["x"], "seed": 3, "presence_penalty": 1},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto"},
        {"n": 1, "logprobs": False, "response_format": {"type": "text"}, "user": "", "metadata": {}},
        {"stream_options": None, "extra_body": {"chat_id": "x", "features": {"web": False}, "nonsense": [1]}},
    ],
)
def test_what_clients_send_along_without_harm_is_read_over(harmless: dict[str, Any], ai: OpenAI) -> None:
    assert ai.chat.completions.create(model=MODEL, messages=[said("hi")], **harmless).choices


def test_every_failure_under_the_prefix_has_openais_shape(door: RunningApp, ai: OpenAI) -> None:
    base = f"{door.base_url}/coze/openai"
    with httpx.Client(trust_env=False) as http:
        for response, status, code in (
            (http.get(f"{base}/v1/engines"), 404, "not_found"),
            (http.get(base), 404, "not_found"),
            (http.get(f"{base}/v1/chat/completions"), 405, "method_not_allowed"),
            (http.post(f"{base}/v1/chat/completions", content=b"{"), 415, "unsupported_media_type"),
            (http.post(f"{base}/v1/chat/completions", json=["{"]), 400, "invalid_request"),
            (http.post(f"{base}/v1/chat/completions", json="x" * (17 << 20)), 413, "body_too_large"),
            (http.get(f"{base}/v1/models", headers={"x": "y" * 140_000}), 431, "headers_too_large"),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        # An unknown route names those that there are.
        for path in ("/v1/engines", "/chat/completions", "/v1/responses_"):
            message = http.get(base + path).json()["error"]["message"]
            assert "POST /coze/openai/v1/chat/completions" in message
            assert "GET /coze/openai/v1/models/{model}" in message
        # Beside the prefix all is as before.
        assert http.get(f"{base}x").json()["success"] is False


HOLE = "<<here>>"
SHAPES: list[dict[str, Any]] = [
    {"model": HOLE},
    {"messages": HOLE},
    {"messages": [HOLE]},
    {"messages": [{"role": HOLE, "content": "x"}]},
    {"messages": [said(HOLE)]},
    {"messages": [said(HOLE, "system"), said("x")]},
    {"messages": [said([HOLE])]},
    {"messages": [said([{"type": "image_url", "image_url": HOLE}])]},
    {"messages": [said([{"type": "image_url", "image_url": {"url": HOLE}}])]},
    {"messages": [{"role": "tool", "content": "x", "tool_call_id": HOLE}]},
    {"stream": HOLE},
    {"stream_options": HOLE},
    {"user": HOLE},
    {"metadata": HOLE},
    {"metadata": {"session_id": HOLE}},
    {"metadata": {"a": HOLE}},
    {"n": HOLE},
    {"tool_choice": HOLE},
    {"response_format": HOLE},
    {"response_format": {"type": "json_schema", "json_schema": HOLE}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": HOLE}}},
    {"tools": HOLE, "tool_choice": "required"},
    {"tools": [HOLE], "tool_choice": "required"},
    {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": HOLE}}],
        "tool_choice": "required",
    },
    {"functions": HOLE, "function_call": {"name": "f"}},
    {"messages": [{"role": "function", "name": HOLE, "content": "x"}]},
    {"messages": [{"role": "assistant", "tool_calls": HOLE}, {"role": "function", "content": "x"}]},
]


async def throw(base_url: str, values: list[bytes]) -> dict[int, int]:
    """Each field gets its share of the values; counts the answers by status."""
    counts: dict[int, int] = {}
    async with httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as http:
        for shape, value in zip(itertools.cycle(SHAPES), values, strict=False):
            body = json.dumps({"model": MODEL, "messages": [said("x")]} | shape).encode()
            before, after = body.split(json.dumps(HOLE).encode())
            response = await http.post(
                "/coze/openai/v1/chat/completions",
                content=before + value + after,
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {WEBUI_KEY}"},
            )
            counts[response.status_code] = counts.get(response.status_code, 0) + 1
            assert response.status_code in (200, 400, 404), (shape, value[:100], response.text[:300])
            if response.status_code != 200:
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return counts


async def test_hostile_values_are_answered_and_leave_nothing_behind(door: RunningApp) -> None:
    values = [value for value in fixed() if len(value) < 200_000]
    counts = await throw(door.base_url, values * 3)  # their number is no divisor: each field gets others
    assert counts[200] > 0
    assert counts[400] > 0


@pytest.mark.full
async def test_every_field_takes_every_hostile_value(door: RunningApp) -> None:
    await throw(door.base_url, [value for value in fixed() for _ in SHAPES])


# -- who may call -----------------------------------------------------------------------------------------


def test_a_token_with_its_host_or_a_key_opens_the_door(guarded: RunningApp, auth: RunningAuth) -> None:
    token = auth.app.issue("alice")
    for client in (
        sync_client(guarded.base_url, token, default_headers=HOST),
        sync_client(guarded.base_url, WEBUI_KEY),
    ):
        with client:
            assert client.chat.completions.create(model=MODEL, messages=[said("hi")]).choices
            assert len(list(client.models.list())) == 2


@pytest.mark.parametrize("key", ["sk-nobody-0123456789abcdef", WEBUI_KEY[:-1], "webui"])
def test_a_wrong_key_or_a_token_without_its_host_does_not(key: str, guarded: RunningApp) -> None:
    for headers in ({}, HOST):
        with sync_client(guarded.base_url, key, default_headers=headers) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.chat.completions.create(model=MODEL, messages=[said("hi")])
            message = checked(caught, "invalid_api_key", "authentication_error")
            assert key not in message.split()
            with pytest.raises(openai.AuthenticationError):
                client.models.list()


def test_an_hty_token_counts_before_a_key_and_of_two_keys_none_does(
    guarded: RunningApp, auth: RunningAuth
) -> None:
    url, token = f"{guarded.base_url}/coze/openai/v1/models", auth.app.issue("alice")
    with httpx.Client(trust_env=False) as http:
        for headers in (
            [("Authorization", f"Bearer {WEBUI_KEY}"), ("Authorization", f"Bearer {APP_KEY}")],
            [("Authorization", f"Bearer {WEBUI_KEY}"), ("HtySudoerToken", "x.y.z"), *HOST.items()],
        ):
            assert http.get(url, headers=headers).status_code == 401
        for proxys in ("Basic cHJveHk6eA==", f"Bearer {WEBUI_KEY}", "Bearer of-a-proxy"):
            hers = [("Authorization", proxys), ("HtySudoerToken", token), *HOST.items()]
            assert http.get(url, headers=hers).status_code == 200
        # A key opens this door alone, but for erasing.
        for path in ("/coze/users/webui/sessions", "/coze/admin/stats"):
            bearer = {"Authorization": f"Bearer {WEBUI_KEY}", **HOST, "HtySudoerToken": WEBUI_KEY}
            assert http.get(guarded.base_url + path, headers=bearer).status_code == 401


def test_an_auth_service_that_is_away_is_a_server_error(guarded: RunningApp, auth: RunningAuth) -> None:
    auth.app.mode = "500"
    client = sync_client(guarded.base_url, auth.app.issue("zoe"), default_headers=HOST)
    with client, pytest.raises(openai.InternalServerError) as caught:
        client.models.list()
    assert caught.value.status_code == 503
    checked(caught, "auth_unavailable", "server_error")
    assert caught.value.response.headers["retry-after"]


async def test_nobody_goes_on_with_what_is_somebody_elses(guarded: RunningApp, auth: RunningAuth) -> None:
    alice, bob = ({"HtySudoerToken": auth.app.issue(name), **HOST} for name in ("alice", "bob"))
    async with open_client(guarded.base_url, headers=alice) as client:
        session_id = await client.open_session("u-1")
        before = await client.session(session_id)

    def calls(key: str, headers: dict[str, str]) -> AsyncOpenAI:
        return async_client(guarded.base_url, key, default_headers=headers)

    async def refusals(stranger: AsyncOpenAI, session: str, call: str) -> list[Any]:
        found = []
        for streamed in (False, True):
            for more in (
                {"messages": [said("hi")], "metadata": {"session_id": session}},
                {"messages": [{"role": "tool", "tool_call_id": call, "content": "x"}]},
            ):
                with pytest.raises(openai.NotFoundError) as caught:
                    await stranger.chat.completions.create(model=MODEL, stream=streamed, **more)  # type: ignore[call-overload]
                found.append(caught.value.response.json())
        return found

    async with calls(alice["HtySudoerToken"], HOST) as hers:
        asking = await hers.chat.completions.create(
            model=MODEL, messages=[said("[[sim:requires_action=function]] weather?")]
        )
        [call] = asking.choices[0].message.tool_calls or []
    nothing = "coze_session_1795372833115_7l4mgyuf3lw2iispuvavf"
    nowhere = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n:x"
    for key, headers in ((bob["HtySudoerToken"], HOST), (WEBUI_KEY, {}), (APP_KEY, {})):
        async with calls(key, headers) as stranger:
            assert await refusals(stranger, session_id, call.id) == await refusals(stranger, nothing, nowhere)
    async with open_client(guarded.base_url, headers=alice) as client:
        after = await client.session(session_id)
        assert (after["chat_count"], after["status"]) == (before["chat_count"], "active")
        await client.post(f"/coze/chats/{chat_id_of(asking.id)}/cancel")


async def test_a_key_and_its_idempotency_keys_mean_nothing_to_another(
    async_ai: AsyncOpenAI, door: RunningApp
) -> None:
    ids = set()
    for key in (WEBUI_KEY, APP_KEY):
        for body in ({"user": "a"}, {"user": "a"}):
            done = await async_ai.with_options(api_key=key).chat.completions.create(
                model=MODEL, messages=[said("hi")], extra_headers={"Idempotency-Key": "one"}, **body
            )
            ids.add(done.id)
    assert len(ids) == 2
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await async_ai.chat.completions.create(
            model=MODEL, messages=[said("other")], user="a", extra_headers={"Idempotency-Key": "one"}
        )
    checked(caught, "idempotency_key_reused", "invalid_request_error")


def test_keys_in_a_file_are_read_again_when_they_change(open_door: OpenDoor, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one:sk-first-0123456789abcdef\n")
    service = open_door(ENABLE_AUTH="true", COZE_OPENAI_API_KEYS="", COZE_OPENAI_API_KEYS_FILE=str(file))

    def works(key: str) -> bool:
        with sync_client(service.base_url, key) as client:
            try:
                return bool(list(client.models.list()))
            except openai.AuthenticationError:
                return False

    assert [works("sk-first-0123456789abcdef"), works("sk-second-0123456789abcdef")] == [True, False]
    file.write_text("two:sk-second-0123456789abcdef, three:sk-third-0123456789abcdef\n")
    assert [works("sk-first-0123456789abcdef"), works("sk-second-0123456789abcdef")] == [False, True]
    file.write_text("broken")  # the last good ones hold
    assert works("sk-third-0123456789abcdef")


# -- what goes wrong --------------------------------------------------------------------------------------


def test_a_failure_after_some_text_ends_the_stream_with_an_exception(ai: OpenAI) -> None:
    told = Told()
    stream = ai.chat.completions.create(
        model=MODEL, messages=[said("[[sim:error_at=5;error_code=5000;gap=0.01]] hi")], stream=True
    )
    with pytest.raises(openai.APIError) as caught:
        told.take_all(stream)
    assert told.content
    assert told.finish == []
    assert caught.value.type == "server_error"


def test_the_rate_of_a_user_is_limited_and_says_when_to_come_back(open_door: OpenDoor) -> None:
    service = open_door(RATE_LIMIT_MESSAGES_PER_MINUTE="2", RATE_LIMIT_SESSIONS_PER_MINUTE="1")
    with sync_client(service.base_url) as client:
        for _ in range(2):
            client.chat.completions.create(model=MODEL, messages=[said("hi")], user="a")
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=MODEL, messages=[said("hi")], user="a")
        checked(caught, "rate_limit_exceeded", "rate_limit_error")
        assert int(caught.value.response.headers["retry-after"]) > 0
        client.chat.completions.create(model=MODEL, messages=[said("hi")], user="b")


async def test_a_busy_session_is_a_conflict(async_ai: AsyncOpenAI, door: RunningApp) -> None:
    local = async_ai.with_options(api_key="anything")
    async with open_client(door.base_url) as client:
        session_id = await client.open_session()
        chat_id = await client.start(session_id, "[[sim:delay=100]] slow")
        with pytest.raises(openai.ConflictError) as caught:
            await local.chat.completions.create(
                model=MODEL, messages=[said("hi")], metadata={"session_id": session_id}
            )
        checked(caught, "coze_session_busy", "invalid_request_error")
        await client.post(f"/coze/chats/{chat_id}/cancel")
        await client.ended(chat_id)


@pytest.mark.parametrize(
    ("headers", "status", "retried"),
    [({}, 400, "false"), ({"Idempotency-Key": "leaving"}, 503, "true")],
    ids=["without a key", "with a key"],
)
async def test_a_process_that_leaves_before_the_first_word_has_a_status_by_which_nothing_is_paid_twice(
    headers: dict[str, str], status: int, retried: str, open_door: OpenDoor, simulator: SimControl
) -> None:
    """Only with a key the same call leads to the same chat, which another process goes on with."""
    # Another service on this Redis would take the chat over, and be at work when its next test ends.
    service = open_door(DRAIN_SECONDS="0.1", COZE_REDIS_PREFIX="leaving:")
    async with async_client(service.base_url) as ai:
        asking = asyncio.create_task(
            ai.chat.completions.create(
                model=MODEL, messages=[said("[[sim:delay=100]] heron")], stream=True, extra_headers=headers
            )
        )
        await wait_until(lambda: simulator.requests(path="/v3/chat", contains="heron"))
        await asyncio.to_thread(service.call, service.resources.shutdown.drain)
        with pytest.raises(openai.APIStatusError) as caught:
            await asking
    assert caught.value.code == "shutting_down"
    assert caught.value.status_code == status
    assert caught.value.response.headers["x-should-retry"] == retried
