"""Completions as OpenAI's SDK reads them: whole, in chunks, with thoughts, usage, several messages, tools."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from app.doors.openai.texts import notice_of
from tests.support import Client, RedisServer, RunningApp, SimControl, data_of, open_client

from .support import APP_KEY, MODEL, WEBUI_KEY, Told, chat_id_of, said


def record(door: RunningApp, chat_id: str) -> dict[str, Any]:
    """The chat as the service keeps it; nobody but its owner sees it through the routes."""

    async def read() -> Any:
        keys = [key async for key in door.store.scan_iter("*:chats:*")]
        found = [await door.store.hget(key, chat_id) for key in keys]
        return json.loads(next(filter(None, found)))

    chat: dict[str, Any] = door.call(read)
    return chat


def test_the_bots_are_listed_as_models(ai: OpenAI) -> None:
    assert [(m.id, m.owned_by, m.object) for m in ai.models.list()] == [
        ("helper", "coze", "model"),
        ("助手", "coze", "model"),
    ]


def test_each_listed_model_can_be_retrieved_and_no_other(ai: OpenAI) -> None:
    for listed in ai.models.list():
        assert ai.models.retrieve(listed.id) == listed
    for name in ("nope", "helper ", "helper/x", "HELPER"):
        with pytest.raises(NotFoundError) as caught:
            ai.models.retrieve(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_whole_answer_has_text_thoughts_usage_and_the_chat_in_its_id(ai: OpenAI, door: RunningApp) -> None:
    completion = ai.chat.completions.create(model=MODEL, messages=[said("3 + 4 是多少")])
    chat = record(door, chat_id_of(completion.id))
    [choice] = completion.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert choice.message.content == chat["content"] != ""
    assert choice.message.reasoning_content == chat["reasoning_content"] != ""  # type: ignore[attr-defined]
    assert completion.usage is not None
    counts = completion.usage
    assert chat["usage"] == {
        "token_count": counts.total_tokens,
        "input_count": counts.prompt_tokens,
        "output_count": counts.completion_tokens,
    }
    assert counts.total_tokens == counts.prompt_tokens + counts.completion_tokens > 0
    assert (completion.object, completion.model) == ("chat.completion", MODEL)
    assert abs(completion.created - int(chat_id_of(completion.id).split("_")[2]) / 1000) < 1


def test_a_streamed_answer_is_the_whole_answer_in_pieces(ai: OpenAI, door: RunningApp) -> None:
    with ai.chat.completions.create(model=MODEL, messages=[said("讲个故事")], stream=True) as stream:
        told = Told.of(stream)
        assert stream.response.headers["x-coze-chat-id"] == told.chat_id
    chat = record(door, told.chat_id)
    assert (told.content, told.reasoning) == (chat["content"], chat["reasoning_content"])
    assert told.deltas[0].role == "assistant"
    assert told.finish == ["stop"]
    assert all(chunk.usage is None and chunk.choices for chunk in told.chunks)
    assert {(chunk.model, chunk.object) for chunk in told.chunks} == {(MODEL, "chat.completion.chunk")}


async def test_the_asynchronous_sdk_gets_the_same(async_ai: AsyncOpenAI) -> None:
    whole = await async_ai.chat.completions.create(model=MODEL, messages=[said("你好")])
    told = Told()
    stream = await async_ai.chat.completions.create(
        model=MODEL, messages=[said("你好")], stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        told.take(chunk)
    assert told.content == whole.choices[0].message.content
    assert told.chunks[-1].usage == whole.usage
    assert told.chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in told.chunks[:-1])


def test_usage_that_coze_does_not_tell_is_not_made_up(ai: OpenAI) -> None:
    question = [said("[[sim:no_usage=1]] hi")]
    assert ai.chat.completions.create(model=MODEL, messages=question).usage is None
    told = Told.of(
        ai.chat.completions.create(
            model=MODEL, messages=question, stream=True, stream_options={"include_usage": True}
        )
    )
    assert told.chunks[-1].usage is None
    assert told.finish == ["stop"]


def every_key(door: RunningApp) -> list[str]:
    async def read() -> list[str]:
        return [key.decode() async for key in door.store.scan_iter(count=1000)]

    found: list[str] = door.call(read)
    return found


def keys_with(door: RunningApp, chat_id: str) -> list[str]:
    """Where something of the chat is kept."""

    async def read() -> list[str]:
        client = door.store
        records = [key async for key in client.scan_iter("*:chats:*") if await client.hexists(key, chat_id)]
        return [key.decode() for key in records] + [key for key in every if chat_id in key]

    every = every_key(door)
    found: list[str] = door.call(read)
    return found


SHAPES = ["multi=3", "plugin=1", "card=1", "huge=70000", "deltas=400", "reasoning=0", "cut=900"]
SHAPES += ["deltas=30;gap=0.003", "multi=2;cut=2600", "no_terminal=1"]
MORE = [
    "object_string=1",
    "verbose=knowledge",
    "deltas=0",
    "audio=1",
    "chunk=7",
    "no_done=1",
    "shell_action=1",
]


@pytest.mark.parametrize("shape", [*SHAPES, *(pytest.param(shape, marks=pytest.mark.full) for shape in MORE)])
async def test_no_character_is_lost_or_doubled_whatever_shape_the_answer_has(
    shape: str, async_ai: AsyncOpenAI, door: RunningApp
) -> None:
    told = Told()
    stream = await async_ai.chat.completions.create(
        model=MODEL, messages=[said(f"[[sim:{shape}]] 你好 🙂 a\u2028b")], stream=True
    )
    async for chunk in stream:
        told.take(chunk)
    chat = record(door, told.chat_id)
    assert chat["status"] == "completed"
    notice = notice_of((chat["assistant_message"] or {}).get("content_type"))
    assert told.content == notice + chat["content"]
    assert told.reasoning == chat["reasoning_content"]
    assert told.finish == ["stop"]


async def test_the_bytes_are_what_any_client_reads(door: RunningApp) -> None:
    """Lines that begin with ``data: ``, one JSON object each, then [DONE]; nothing else but comments."""
    body = {"model": MODEL, "messages": [said("[[sim:delay=0.4]] hi")], "stream": True}
    async with httpx.AsyncClient(base_url=door.base_url, trust_env=False) as http:
        response = await http.post("/coze/openai/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store, no-transform"
    text = response.text
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert blocks.pop() == "data: [DONE]"
    for block in blocks:
        assert block.startswith("data: {")
        assert "\n" not in block
        json.loads(block[6:])


async def raw(service: RunningApp, text: str, **options: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [said(text)], "stream": True, **options}
    async with httpx.AsyncClient(base_url=service.base_url, trust_env=False) as http:
        return await http.post("/coze/openai/v1/chat/completions", json=body)


def choices_of(response: httpx.Response) -> list[Any]:
    blocks = response.text.split("\n\n")
    assert (blocks.pop(), blocks.pop()) == ("", "data: [DONE]")
    chunks = [json.loads(block.removeprefix("data: ")) for block in blocks]
    return [choice for chunk in chunks for choice in chunk["choices"]]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
async def test_silence_is_filled_with_chunks_that_say_nothing(options: Any, open_door: Any) -> None:
    """No comments: some decoders read each blank line as the end of an event with data."""
    service = open_door(SSE_HEARTBEAT_SECONDS="0.1")
    choices = choices_of(await raw(service, "[[sim:reasoning=0;stall=1:2]] hi", **options))
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    silent = [n for n, choice in enumerate(choices) if is_silent(choice)]
    assert silent[:4] == [2, 3, 4, 5]


async def test_a_bot_that_says_nothing_for_long_is_waited_for_in_a_stream(
    open_door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is only held back for so long: a proxy would take the connection for a dead one."""
    monkeypatch.setattr("app.doors.openai.completions.PATIENCE", 0.3)
    service = open_door(SSE_HEARTBEAT_SECONDS="0.1")
    choices = choices_of(await raw(service, "[[sim:delay=2]] hi"))
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [n for n, choice in enumerate(choices) if is_silent(choice)][:4] == [1, 2, 3, 4]
    failing = await raw(service, "[[sim:delay=1;fail_at=0]] hi")
    assert failing.status_code == 200
    assert json.loads(failing.text.split("\n\n")[-2].removeprefix("data: "))["error"]["code"]


async def test_the_head_leaves_with_the_first_word_of_any_kind(door: RunningApp) -> None:
    """Held until then, and not a moment longer: there is no silence of 100 s to wait for."""
    for first in (
        "[[sim:stall=1:100]] hi",
        "[[sim:reasoning=0;stall=1:100]] hi",
        "[[sim:plugin=1;stall=0:100]]",
    ):
        body = {"model": MODEL, "messages": [said(f"{first} hi")], "stream": True}
        url = f"{door.base_url}/coze/openai/v1/chat/completions"
        async with (
            httpx.AsyncClient(trust_env=False) as http,
            http.stream("POST", url, json=body) as response,
        ):
            assert response.status_code == 200
            assert (await anext(response.aiter_text())).startswith("data: {")


async def test_hanging_up_before_the_first_word_is_the_stop_button_too(
    async_ai: AsyncOpenAI, door: RunningApp, simulator: Any
) -> None:
    question = [said("[[sim:delay=100]] otter")]
    asking = asyncio.create_task(
        async_ai.chat.completions.create(model=MODEL, messages=question, stream=True)
    )
    while not simulator.requests(path="/v3/chat", contains="otter"):
        await asyncio.sleep(0.01)
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    door.wait_idle()
    assert [r for r in simulator.requests() if r["path"] == "/v3/chat/cancel"]


def is_silent(choice: Any) -> bool:
    return bool(choice["delta"] == {} and choice["finish_reason"] is None)


# -- what is asked ----------------------------------------------------------------------------------------


def asked(simulator: SimControl, word: str) -> dict[str, Any]:
    """The one request for a chat with this word: how it was recorded, and ``messages`` as Coze has them."""
    [request] = simulator.requests(path="/v3/chat", contains=word)
    store = simulator.running.app.core.store
    messages = store.conversations[request["conversation_id"]].messages
    return request | {"messages": [message for message in messages if message.type != "verbose"]}


def spoken(simulator: SimControl, word: str) -> list[str]:
    """What Coze was sent, up to the question itself."""
    texts = [message.content for message in asked(simulator, word)["messages"]]
    return texts[: next(n for n, text in enumerate(texts) if word in text) + 1]


def test_the_history_goes_along_and_the_system_text_comes_first(ai: OpenAI, simulator: SimControl) -> None:
    ai.chat.completions.create(
        model=MODEL,
        messages=[
            said("first question"),
            said("Answer briefly.", "system"),
            said("first answer", "assistant"),
            {"role": "assistant", "content": None, "tool_calls": []},  # type: ignore[typeddict-item]
            said([{"type": "text", "text": "second"}, {"type": "text", "text": "question"}]),
            said("In English.", "developer"),
            said("zebra?"),
        ],
        user="u-77",
        temperature=0.3,
        max_tokens=5,
        metadata={"app": "test", "empty": ""},
    )
    body = asked(simulator, "zebra")
    sent = [(m.role, m.type, m.content, m.content_type) for m in body["messages"][:5]]
    assert sent == [
        ("user", "question", "Answer briefly.\n\nIn English.", "text"),
        ("user", "question", "first question", "text"),
        ("assistant", "answer", "first answer", "text"),
        ("user", "question", "second\nquestion", "text"),
        ("user", "question", "zebra?", "text"),
    ]
    assert body["user_id"] == "api_key:webui:u-77"
    assert body["meta_data"]["app"] == "test"
    assert "empty" not in body["meta_data"]


def test_of_a_long_history_the_newest_hundred_messages_go_along(ai: OpenAI, simulator: SimControl) -> None:
    history = [said(f"m{n}", "user" if n % 2 == 0 else "assistant") for n in range(240)]
    ai.chat.completions.create(model=MODEL, messages=[said("rules", "system"), *history, said("okapi")])
    assert spoken(simulator, "okapi") == ["rules", *(f"m{n}" for n in range(142, 240)), "okapi"]
    ai.chat.completions.create(model=MODEL, messages=[*history, said("lynx")])
    assert spoken(simulator, "lynx") == [*(f"m{n}" for n in range(141, 240)), "lynx"]


def test_images_go_along_as_addresses(ai: OpenAI, simulator: SimControl) -> None:
    url = "https://example.com/cat.png?x=1"
    picture = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    ai.chat.completions.create(
        model=MODEL,
        messages=[
            said([{"type": "text", "text": "look"}, picture]),
            said("nice", "assistant"),
            said([picture, {"type": "text", "text": "giraffe?"}]),
        ],
    )
    first, _, last = asked(simulator, "giraffe")["messages"][:3]
    for message, words in ((first, "look"), (last, "giraffe?")):
        assert message.content_type == "object_string"
        assert json.loads(message.content) == [
            {"type": "text", "text": words},
            {"type": "image", "file_url": url},
        ]


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def test_images_inside_the_request_are_uploaded_once(ai: OpenAI, simulator: SimControl) -> None:
    """Open WebUI sends pictures so, those of the history with each request again."""
    picture = {"type": "image_url", "image_url": {"url": PIXEL}}
    messages: list[Any] = [
        said([{"type": "text", "text": "look"}, picture]),
        said("nice", "assistant"),
        said([picture, {"type": "text", "text": "okapi?"}]),
    ]
    key = {"Idempotency-Key": "pixels"}
    done = ai.chat.completions.create(model=MODEL, messages=messages, extra_headers=key)
    first, _, last = asked(simulator, "okapi")["messages"][:3]
    for message in (first, last):
        text, image = json.loads(message.content)
        assert (text["type"], image["type"]) == ("text", "image")
        assert image["file_id"].isdigit()
    again = ai.chat.completions.create(model=MODEL, messages=messages, extra_headers=key)
    assert again.id == done.id
    ai.chat.completions.create(model=MODEL, messages=messages)
    assert len(simulator.requests(path="/v1/files/upload")) == 1
    ai.chat.completions.create(model=MODEL, messages=messages, user="another")
    assert len(simulator.requests(path="/v1/files/upload")) == 2


@pytest.mark.parametrize("data", ["AAAA", "PGh0bWw+"])
def test_what_is_no_image_is_refused(data: str, ai: OpenAI, simulator: SimControl) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    messages: list[Any] = [said([picture, {"type": "text", "text": "?"}])]
    with pytest.raises(BadRequestError):
        ai.chat.completions.create(model=MODEL, messages=messages)
    assert simulator.requests(path="/v3/chat") == []


def test_the_user_is_the_key_where_none_is_named(ai: OpenAI, simulator: SimControl) -> None:
    ai.chat.completions.create(model=MODEL, messages=[said("puma")])
    ai.chat.completions.create(
        model=MODEL, messages=[said("jaguar")], extra_headers={"X-OpenWebUI-User-Id": "w-1"}
    )
    assert asked(simulator, "puma")["user_id"] == "api_key:webui:webui"
    assert asked(simulator, "jaguar")["user_id"] == "api_key:webui:w-1"


# -- sessions ---------------------------------------------------------------------------------------------


async def test_with_a_session_id_the_conversation_goes_on(async_ai: AsyncOpenAI, door: RunningApp) -> None:
    """With authentication off, whoever has no key is the local user: the session's owner."""
    local = async_ai.with_options(api_key="anything")
    async with open_client(door.base_url) as client:
        session_id = await client.open_session("u-1")
        await client.send(session_id, "我叫小明")
        completion = await local.chat.completions.create(
            model=MODEL,
            messages=[said("this is not sent again"), said("我叫什么")],
            metadata={"session_id": session_id},
        )
        assert "小明" in (completion.choices[0].message.content or "")
        session = await client.session(session_id)
        assert session["chat_count"] == 2
        newest = session["chat_history"][0]
        assert newest["chat_id"] == chat_id_of(completion.id)
        assert newest["user_message"]["content"] == "我叫什么"


@pytest.mark.parametrize("store", ["redis-server", "memory"])
async def test_a_chat_without_a_session_is_neither_listed_nor_in_anybodys_way(
    store: str, async_ai: AsyncOpenAI, open_door: Any, redis: RedisServer
) -> None:
    service = open_door(
        COZE_MAX_SESSIONS_PER_USER="2",
        COZE_MAX_TOTAL_SESSIONS="2",
        REDIS_URL="memory://" if store == "memory" else redis.url,
    )
    local = async_ai.with_options(api_key="anything", base_url=f"{service.base_url}/coze/openai/v1")
    async with open_client(service.base_url) as client:
        mine = [await client.open_session("u-1") for _ in range(2)]
        ids = []
        for n in range(5):
            done = await local.chat.completions.create(model=MODEL, messages=[said(f"q{n}")], user="u-1")
            ids.append(chat_id_of(done.id))
        listed = data_of(await client.get("/coze/users/u-1/sessions"))["sessions"]
        assert {session["session_id"] for session in listed} == {*mine}
        assert {session["status"] for session in listed} == {"active"}
        stats = data_of(await client.get("/coze/admin/stats"))
        assert stats["sessions"] == 2
        # They are chats as all others: found by their id, and erased with the user.
        chat = data_of(await client.result(ids[0]))
        assert chat["status"] == "completed"
        refused = await client.send(chat["session_id"], "one more")
        assert refused.status_code == 404
        erased = data_of(await client.delete("/coze/users/u-1"))
        assert (erased["erased_sessions"], erased["remaining_sessions"]) == (7, 0)
        assert all([(await client.result(chat_id)).status_code == 404 for chat_id in ids])


async def test_a_key_erases_its_own_users(async_ai: AsyncOpenAI, door: RunningApp) -> None:
    mine = await async_ai.chat.completions.create(model=MODEL, messages=[said("hi")], user="u-1")
    other = await async_ai.with_options(api_key=APP_KEY).chat.completions.create(
        model=MODEL, messages=[said("hi")], user="u-1", extra_headers={"Idempotency-Key": "k"}
    )
    async with open_client(door.base_url, headers={"Authorization": f"Bearer {WEBUI_KEY}"}) as client:
        erased = data_of(await client.delete("/coze/users/u-1"))
        assert (erased["erased_chats"], erased["remaining_sessions"]) == (1, 0)
    assert keys_with(door, chat_id_of(mine.id)) == []
    assert keys_with(door, chat_id_of(other.id)) != []
    async with open_client(door.base_url, headers={"Authorization": f"Bearer {APP_KEY}"}) as client:
        assert data_of(await client.delete("/coze/users/u-1"))["erased_chats"] == 1
    left = [key for key in every_key(door) if "erased:" not in key and "bell:" not in key]
    assert [key for key in left if "session:" in key or "idem:" in key or "kept:" in key] == []


# -- tools ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bots_tool_calls_are_answered_by_the_next_request(
    streamed: bool, async_ai: AsyncOpenAI
) -> None:
    messages: list[Any] = [said("[[sim:requires_action=function;tool_calls=2]] weather?")]
    if streamed:
        told = Told()
        stream = await async_ai.chat.completions.create(model=MODEL, messages=messages, stream=True)
        async for chunk in stream:
            told.take(chunk)
        assert told.finish == ["tool_calls"]
        calls = [call for delta in told.deltas for call in delta.tool_calls or []]
        assert [call.index for call in calls] == [0, 1]
        before, completion_id = told.content, told.completion_id
    else:
        first = await async_ai.chat.completions.create(model=MODEL, messages=messages)
        assert first.choices[0].finish_reason == "tool_calls"
        calls = first.choices[0].message.tool_calls or []  # type: ignore[assignment]
        before, completion_id = first.choices[0].message.content or "", first.id
    chat_id = chat_id_of(completion_id)
    assert all(call.function.name and json.loads(call.function.arguments) is not None for call in calls)
    messages += [{"role": "assistant", "tool_calls": [call.model_dump() for call in calls]}]
    messages += [
        {"role": "tool", "tool_call_id": c.id, "content": f"{n}1 degrees"} for n, c in enumerate(calls)
    ]
    if streamed:
        told = Told()
        stream = await async_ai.chat.completions.create(model=MODEL, messages=messages, stream=True)
        async for chunk in stream:
            told.take(chunk)
        assert told.finish == ["stop"]
        content, same = told.content, told.completion_id
    else:
        second = await async_ai.chat.completions.create(model=MODEL, messages=messages)
        content, same = second.choices[0].message.content or "", second.id
    assert (same != completion_id, chat_id_of(same)) == (True, chat_id)
    assert "01 degrees" in content
    assert "11 degrees" in content
    assert not before or not content.startswith(before)


# -- leaving ----------------------------------------------------------------------------------------------


async def test_hanging_up_is_the_stop_button(async_ai: AsyncOpenAI, door: RunningApp, simulator: Any) -> None:
    question = [said("[[sim:deltas=200;gap=0.05]] badger")]
    stream = await async_ai.chat.completions.create(model=MODEL, messages=question, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    door.wait_idle()
    assert record(door, chat_id_of(chunk.id))["status"] == "cancelled"
    assert [r for r in simulator.requests() if r["path"] == "/v3/chat/cancel"]


async def test_hanging_up_on_a_whole_answer_is_the_stop_button_too(
    async_ai: AsyncOpenAI, door: RunningApp, simulator: Any
) -> None:
    waiting = asyncio.create_task(
        async_ai.chat.completions.create(model=MODEL, messages=[said("[[sim:deltas=200;gap=0.05]] bison")])
    )
    while not simulator.requests(path="/v3/chat", contains="bison"):
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    door.wait_idle()
    assert [r for r in simulator.requests() if r["path"] == "/v3/chat/cancel"]


async def test_with_an_idempotency_key_hanging_up_stops_nothing(
    async_ai: AsyncOpenAI, door: RunningApp, simulator: Any
) -> None:
    key = {"Idempotency-Key": "call-1"}
    question = [said("[[sim:deltas=40;gap=0.01]] lemur")]
    stream = await async_ai.chat.completions.create(
        model=MODEL, messages=question, stream=True, extra_headers=key
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    again = Told()
    stream = await async_ai.chat.completions.create(
        model=MODEL, messages=question, stream=True, extra_headers=key
    )
    async for piece in stream:
        again.take(piece)
    whole = await async_ai.chat.completions.create(model=MODEL, messages=question, extra_headers=key)
    assert again.chat_id == chat_id_of(chunk.id) == chat_id_of(whole.id)
    assert again.content == whole.choices[0].message.content != ""
    assert len(simulator.requests(path="/v3/chat", contains="lemur")) == 1


async def test_a_chat_that_somebody_cancels_is_no_whole_answer(
    async_ai: AsyncOpenAI, door: RunningApp
) -> None:
    local = async_ai.with_options(api_key="anything")
    stream = await local.chat.completions.create(
        model=MODEL, messages=[said("[[sim:deltas=200;gap=0.05]] hi")], stream=True
    )

    async def read_and_cancel(client: Client) -> None:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                await client.post(f"/coze/chats/{chat_id_of(chunk.id)}/cancel")

    async with open_client(door.base_url) as client:
        with pytest.raises(APIError) as caught:
            await read_and_cancel(client)
    assert caught.value.code == "chat_cancelled"
