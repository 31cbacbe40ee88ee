"""What each route of the door answers, and what it refuses, over plain HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from tests.support import RedisServer, RunningApp, SimControl, wait_until

from .conftest import base_of
from .support import BOT, KEY, CozeCaller, asking, calling, events_of

SLOW = "[[sim:delay=20]] slow"
TOOLS = "[[sim:requires_action=function]] weather"


async def begin(caller: CozeCaller, text: str, conversation_id: str = "", **more: object) -> dict[str, str]:
    """The ids of a chat that is not streamed."""
    params = {"conversation_id": conversation_id} if conversation_id else {}
    chat = await caller.data("POST", "/v3/chat", params=params, json=asking(text, stream=False, **more))
    assert chat["status"] == "in_progress"
    return {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}


async def ended(caller: CozeCaller, ids: dict[str, str]) -> dict[str, object]:
    async def look() -> dict[str, object] | None:
        chat: dict[str, object] = await caller.data("GET", "/v3/chat/retrieve", params=ids)
        return None if chat["status"] == "in_progress" else chat

    chat: dict[str, object] = await wait_until(look)
    return chat


# -- chats ------------------------------------------------------------------------------------------------


async def test_a_chat_that_is_not_streamed_is_retrieved_by_get_and_post_and_its_messages_are_listed(
    app: CozeCaller, coze: CozeCaller
) -> None:
    ids = await begin(app, "hello", meta_data={"mine": "yes"})
    chat = await ended(app, ids)
    assert (chat["status"], chat["last_error"], chat["meta_data"]) == (
        "completed",
        {"code": 0, "msg": ""},
        {"mine": "yes"},
    )
    assert await app.data("POST", "/v3/chat/retrieve", params=ids) == chat
    listed = await app.data("GET", "/v3/chat/message/list", params=ids)
    assert listed == await coze.data("GET", "/v3/chat/message/list", params=ids)
    assert {each["type"] for each in listed} == {"verbose", "answer", "follow_up"}
    direct = await coze.data("GET", "/v3/chat/retrieve", params=ids)
    assert chat["usage"] == direct["usage"]
    assert chat.keys() | {"section_id", "inserted_additional_messages"} == direct.keys()


async def test_messages_that_coze_does_not_list_yet_come_from_our_record(app: CozeCaller) -> None:
    text = "[[sim:empty_list=2;text=The whole of it.]] hello"
    ids = await begin(app, text)
    await ended(app, ids)
    for _ in range(3):
        listed = await app.data("GET", "/v3/chat/message/list", params=ids)
        assert [each["content"] for each in listed if each["type"] == "answer"] == ["The whole of it."]


async def test_what_coze_refuses_names_our_chat_which_counts_as_one_that_failed(app: CozeCaller) -> None:
    refused = await app.call("POST", "/v3/chat", json=asking("[[sim:fail=4015]] hello", stream=False))
    assert refused.json()["code"] == 4015
    chat_id = refused.headers["X-Coze-Chat-Id"]
    base = str(app.http.base_url).split("/coze/api")[0]
    chat = await app.call("GET", f"{base}/coze/chats/{chat_id}/result")
    assert chat.json()["data"]["task_result"]["data"]["status"] == "failed"


async def test_a_chat_that_fails_later_says_so_when_it_is_retrieved(app: CozeCaller) -> None:
    chat = await ended(app, await begin(app, "[[sim:last_error=4028]] hello"))
    assert chat["status"] == "failed"
    assert chat["last_error"]["code"] == 4028  # type: ignore[index]
    assert "failed_at" in chat


async def test_a_second_chat_in_a_busy_conversation_is_4016_also_of_two_that_come_at_once(
    app: CozeCaller, simulator: SimControl
) -> None:
    conversation_id = await app.conversation()
    params = {"conversation_id": conversation_id}
    answers = await asyncio.gather(
        *(app.call("POST", "/v3/chat", params=params, json=asking(SLOW, stream=False)) for _ in range(5))
    )
    codes = sorted(answer.json()["code"] for answer in answers)
    assert codes == [0, 4016, 4016, 4016, 4016]
    assert len(simulator.requests(path="/v3/chat")) == 1
    [ids] = [
        {"conversation_id": conversation_id, "chat_id": answer.json()["data"]["id"]}
        for answer in answers
        if answer.json()["code"] == 0
    ]
    cancelled = await app.data("POST", "/v3/chat/cancel", json=ids)
    assert (cancelled["status"], cancelled["id"]) == ("canceled", ids["chat_id"])
    assert await app.code("POST", "/v3/chat/cancel", json=ids) == 4104
    assert b"hello" in await app.chat("hello again", conversation_id)


async def test_a_stream_that_is_cancelled_ends_and_says_how(app: CozeCaller) -> None:
    async with app.streaming(asking("[[sim:gap=0.05;deltas=400]] hello")) as response:
        stream, ids = b"", None
        async for chunk in response.aiter_raw():
            stream += chunk
            if ids is None and b"message.delta" in stream:
                chat = events_of(stream)[0][1]
                ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
                assert (await app.data("POST", "/v3/chat/cancel", json=ids))["status"] == "canceled"
    names = [name for name, _ in events_of(stream)]
    assert names[-2:] == ["conversation.chat.canceled", "done"]


async def test_a_chat_that_waits_for_tools_cannot_be_cancelled_and_is_in_nobodys_way(
    app: CozeCaller,
) -> None:
    ids = await begin(app, TOOLS)
    chat = await ended(app, ids)
    assert chat["status"] == "requires_action"
    assert await app.code("POST", "/v3/chat/cancel", json=ids) == 4104
    assert b"hello" in await app.chat("hello", ids["conversation_id"])


async def test_tool_outputs_that_are_not_streamed_go_on_and_a_repeat_of_them_is_the_same_call(
    app: CozeCaller, simulator: SimControl
) -> None:
    ids = await begin(app, TOOLS)
    calls = (await ended(app, ids))["required_action"]["submit_tool_outputs"]["tool_calls"]  # type: ignore[index]
    body = {"tool_outputs": [{"tool_call_id": calls[0]["id"], "output": "21 degrees"}], "stream": False}
    for _ in range(2):
        chat = await app.data("POST", "/v3/chat/submit_tool_outputs", params=ids, json=body)
        assert (chat["id"], chat["status"]) == (ids["chat_id"], "in_progress")
    assert (await ended(app, ids))["status"] == "completed"
    assert len(simulator.requests(path="/v3/chat/submit_tool_outputs")) == 1
    other = {"tool_outputs": [{"tool_call_id": "x", "output": "y"}]}
    assert await app.code("POST", "/v3/chat/submit_tool_outputs", params=ids, json=other) == 4000


async def test_an_abandoned_stream_goes_on(app: CozeCaller) -> None:
    async with app.streaming(asking("[[sim:gap=0.01;deltas=40]] hello")) as response:
        stream = b""
        async for chunk in response.aiter_raw():
            stream += chunk
            if b"message.delta" in stream:
                break
    chat = events_of(stream)[0][1]
    ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
    assert (await ended(app, ids))["status"] == "completed"


async def test_without_history_and_without_a_stream_is_4007(app: CozeCaller) -> None:
    body = asking("hello", stream=False, auto_save_history=False)
    assert await app.code("POST", "/v3/chat", json=body) == 4007


@pytest.mark.parametrize(
    "change",
    [{"user_id": 7}, {"bot_id": None}, {"user_id": "a\nb"}, {"additional_messages": "x"}, {"stream": "yes"}],
)
async def test_a_body_that_cannot_be_read_is_4000(app: CozeCaller, change: dict[str, object]) -> None:
    response = await app.call("POST", "/v3/chat", json=asking("hello") | change)
    assert (response.status_code, response.json()["code"]) == (200, 4000)
    assert next(iter(change)) in response.json()["msg"]


async def test_a_conversation_in_the_body_is_ignored_as_coze_does(
    app: CozeCaller,
) -> None:
    mine = await app.conversation()
    response = await app.call("POST", "/v3/chat", json=asking("hello", conversation_id=mine))
    told = events_of(response.content)[0][1]["conversation_id"]
    assert told != mine


async def test_no_call_takes_somebody_elses_conversation_to_coze_in_its_body(
    app: CozeCaller, other: CozeCaller, simulator: SimControl
) -> None:
    mine, hers = await app.conversation(), await other.conversation()
    message = {"role": "user", "content": "hello", "content_type": "text"}
    await app.chat("hello", mine)
    listed = await app.data("GET", "/v1/conversation/message/list", params={"conversation_id": mine})
    answered = f"/v1/conversations/{mine}/messages/{listed[0]['id']}/feedback"
    bodies = {
        ("POST", "/v1/conversation/create"): {"bot_id": BOT},
        ("PUT", f"/v1/conversations/{mine}"): {"name": "mine"},
        ("POST", "/v1/conversation/message/create"): message,
        ("POST", "/v1/conversation/message/list"): {"limit": 5},
        ("POST", answered): {"feedback_type": "like"},
    }
    for (method, path), body in bodies.items():
        reply = await app.call(
            method, path, params={"conversation_id": mine}, json=body | {"conversation_id": hers}
        )
        assert reply.json()["code"] == 0, path
        [*_, sent] = simulator.requests(path=path)
        assert hers not in json.dumps(sent), path


def sessions_over(redis: RedisServer) -> bool:
    """Whether the time of all sessions is up, by Redis' clock."""
    with redis.client() as client:
        seconds, micros = client.time()
        ends = [int(client.hget(key, "expires") or 0) for key in client.scan_iter("coze:{*:session:*")]
    return bool(ends) and max(ends) < seconds * 1000 + micros // 1000


async def test_the_session_of_a_conversation_is_made_anew_when_it_is_over(
    open_door: Callable[..., RunningApp], redis: RedisServer
) -> None:
    service = open_door(COZE_SESSION_EXPIRE="1")
    async with calling(base_of(service), KEY) as caller:
        conversation_id = await caller.conversation()
        first = events_of(await caller.chat("my name is Li", conversation_id))[0][1]["id"]
        await wait_until(lambda: sessions_over(redis))
        assert b"Li" in await caller.chat("what is my name?", conversation_id)
        # What our records have forgotten Coze still knows.
        ids = {"conversation_id": conversation_id, "chat_id": first}
        assert (await caller.data("GET", "/v3/chat/retrieve", params=ids))["status"] == "completed"
        assert await caller.data("GET", "/v3/chat/message/list", params=ids)
        assert await caller.code("POST", "/v3/chat/cancel", json=ids) == 4104


async def test_sessions_of_conversations_count_in_no_limit(open_door: Callable[..., RunningApp]) -> None:
    service = open_door(COZE_MAX_SESSIONS_PER_USER="1", COZE_MAX_TOTAL_SESSIONS="1")
    async with calling(base_of(service), KEY) as caller:
        streams = [await caller.chat(f"hello {n}") for n in range(4)]
    assert len({events_of(stream)[0][1]["conversation_id"] for stream in streams}) == 4


# -- conversations and messages ----------------------------------------------------------------------------


async def test_conversations_are_made_named_listed_cleared_and_deleted(
    app: CozeCaller, coze: CozeCaller
) -> None:
    made = await app.data(
        "POST", "/v1/conversation/create", json={"bot_id": BOT, "name": "first", "meta_data": {"a": "b"}}
    )
    assert made == await coze.data("GET", "/v1/conversation/retrieve", params={"conversation_id": made["id"]})
    assert (made["name"], made["meta_data"]) == ("first", {"a": "b"})
    by_chat = events_of(await app.chat("hello"))[0][1]["conversation_id"]
    listed = await app.data("GET", "/v1/conversations", params={"bot_id": BOT})
    assert [each["id"] for each in listed["conversations"]] == [by_chat, made["id"]]
    assert listed["has_more"] is False
    page = await app.data(
        "GET", "/v1/conversations", params={"bot_id": BOT, "page_size": 1, "sort_order": "asc"}
    )
    assert ([each["id"] for each in page["conversations"]], page["has_more"]) == ([made["id"]], True)
    path = f"/v1/conversations/{made['id']}"
    await app.data("PUT", path, json={"name": "second"})
    ids = {"conversation_id": made["id"]}
    assert (await app.data("GET", "/v1/conversation/retrieve", params=ids))["name"] == "second"
    section = await app.data("POST", f"{path}/clear")
    listed = await app.data("GET", "/v1/conversations", params={"bot_id": BOT})
    [shown] = [each for each in listed["conversations"] if each["id"] == made["id"]]
    assert (shown["name"], shown["last_section_id"]) == ("second", section["id"])
    assert (await app.call("DELETE", path)).json()["code"] == 0
    assert await app.code("GET", "/v1/conversation/retrieve", params=ids) == 4002
    assert await coze.code("GET", "/v1/conversation/retrieve", params=ids) == 4002


async def test_messages_are_made_listed_and_retrieved_and_liked(app: CozeCaller, coze: CozeCaller) -> None:
    conversation_id = await app.conversation()
    ids = {"conversation_id": conversation_id}
    made = await app.data(
        "POST",
        "/v1/conversation/message/create",
        params=ids,
        json={"role": "user", "content": "hello", "content_type": "text"},
    )
    about = ids | {"message_id": made["id"]}
    assert await app.data("GET", "/v1/conversation/message/retrieve", params=about) == made
    await app.chat("and more", conversation_id)
    for limit in (1, 50):
        answers = [
            (
                await caller.call(
                    "POST",
                    "/v1/conversation/message/list",
                    params=ids,
                    json={"limit": limit, "order": "asc"},
                )
            ).json()
            for caller in (app, coze)
        ]
        for answer in answers:
            del answer["detail"]
        assert answers[0] == answers[1]
        assert answers[0]["has_more"] is (limit == 1)
    by_query = (await app.call("GET", "/v1/conversation/message/list", params=ids | {"order": "asc"})).json()
    assert by_query["data"] == answers[0]["data"]
    said = by_query["data"][-1]["id"]
    path = f"/v1/conversations/{conversation_id}/messages/{said}/feedback"
    assert (await app.call("POST", path, json={"feedback_type": "like"})).json()["code"] == 0
    assert (await app.call("POST", path, json={"feedback_type": "so-so"})).json()["code"] == 4000
    assert (await app.call("DELETE", path)).json()["code"] == 0
    assert await app.code("DELETE", path.replace(said, "x")) == 4005


async def test_a_conversation_is_not_cleared_while_a_chat_runs_in_it(app: CozeCaller) -> None:
    ids = await begin(app, SLOW)
    assert await app.code("POST", f"/v1/conversations/{ids['conversation_id']}/clear") == 4016
    await app.data("POST", "/v3/chat/cancel", json=ids)


async def test_deleting_a_conversation_ends_what_runs_in_it(app: CozeCaller, door: RunningApp) -> None:
    ids = await begin(app, SLOW)
    assert (await app.call("DELETE", f"/v1/conversations/{ids['conversation_id']}")).json()["code"] == 0
    door.wait_idle()
    assert await app.code("GET", "/v3/chat/retrieve", params=ids) == 4002


# -- files and bots ----------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


async def upload(caller: CozeCaller, data: bytes = PNG, name: str = "a.png") -> dict[str, object]:
    file: dict[str, object] = await caller.data("POST", "/v1/files/upload", files={"file": (name, data)})
    return file


def looking_at(file_id: object, key: str = "file_id") -> dict[str, object]:
    content = f'[{{"type":"text","text":"look"}},{{"type":"image","{key}":"{file_id}"}}]'
    return {"role": "user", "type": "question", "content": content, "content_type": "object_string"}


async def test_files_keep_cozes_ids_and_go_along_with_messages(app: CozeCaller, coze: CozeCaller) -> None:
    file = await upload(app)
    assert (file["bytes"], file["file_name"]) == (len(PNG), "a.png")
    params = {"file_id": file["id"]}
    assert await app.data("GET", "/v1/files/retrieve", params=params) == file
    assert (await coze.data("GET", "/v1/files/retrieve", params=params))["bytes"] == len(PNG)
    stream = await app.chat("x", additional_messages=[looking_at(file["id"])])
    assert b"look" in stream
    await app.conversation(messages=[looking_at(file["id"])])


@pytest.mark.parametrize("key", ["file_id", "File_ID", "file\\u005fid"])
async def test_a_file_of_somebody_else_is_refused_however_it_is_written(
    app: CozeCaller, other: CozeCaller, simulator: SimControl, key: str
) -> None:
    file = await upload(other)
    assert await app.code("GET", "/v1/files/retrieve", params={"file_id": file["id"]}) == 4200
    message = looking_at(file["id"], key)
    assert await app.code("POST", "/v3/chat", json=asking("x", additional_messages=[message])) == 4000
    hidden = {**message, "Content_Type": message["content_type"], "content_type": "text"}
    assert await app.code("POST", "/v3/chat", json=asking("x", additional_messages=[hidden])) == 4000
    command = {"command_id": "1", "parameters": {"picture": message["content"]}}
    assert await app.code("POST", "/v3/chat", json=asking("x", shortcut_command=command)) == 4000
    assert await app.code("POST", "/v1/conversation/create", json={"messages": [message]}) == 4000
    ids = {"conversation_id": await app.conversation()}
    assert await app.code("POST", "/v1/conversation/message/create", params=ids, json=message) == 4000
    assert simulator.requests(path="/v3/chat") == []


@pytest.mark.parametrize(
    "name",
    ["USER_ID", "Bot_Id", "u\u017fer_id", "ConversationID", "conversationid", "Conversation_Id", "Meta_Data"],
)
async def test_a_field_that_decides_is_taken_in_its_own_spelling_alone(
    app: CozeCaller, simulator: SimControl, name: str
) -> None:
    """To Coze it may be the same field, and whose conversation, user or file it is was not looked at."""
    assert await app.code("POST", "/v3/chat", json=asking("x", **{name: "7380000000000000001"})) == 4000
    assert simulator.requests(path="/v3/chat") == []


async def test_files_in_fields_of_another_spelling_are_looked_at_or_refused(
    app: CozeCaller, other: CozeCaller, simulator: SimControl
) -> None:
    message = looking_at((await upload(other))["id"], "file_id")
    command = {"command_id": "1", "Parameters": {"picture": message["content"]}}
    for more in (
        {"Additional_Messages": [message]},
        {"shortcut_command": command},
        {"Shortcut_Command": {"parameters": command["Parameters"]}},
    ):
        assert await app.code("POST", "/v3/chat", json=asking("x") | more) == 4000
    assert await app.code("POST", "/v1/conversation/create", json={"Messages": [message]}) == 4000
    assert simulator.requests(path="/v3/chat") == []


async def test_one_request_names_at_most_a_hundred_files_whosever_they_are(
    app: CozeCaller, simulator: SimControl
) -> None:
    file = await upload(app)

    def naming(number: int) -> dict[str, object]:
        items = [{"type": "text", "text": "look"}] + [{"type": "image", "file_id": file["id"]}] * number
        return {"role": "user", "content": json.dumps(items), "content_type": "object_string"}

    ids = {"conversation_id": await app.conversation(messages=[naming(50)] * 2)}
    for method, path, more in (
        ("POST", "/v3/chat", {"json": asking("x", additional_messages=[naming(50), naming(51)])}),
        ("POST", "/v1/conversation/create", {"json": {"messages": [naming(101)]}}),
        ("POST", "/v1/conversation/message/create", {"json": naming(101), "params": ids}),
    ):
        answer = (await app.call(method, path, **more)).json()
        assert answer["code"] == 4000
        assert "at most 100 files" in answer["msg"]
    assert simulator.requests(path="/v3/chat") == []


async def test_a_content_that_only_coze_might_understand_is_refused(
    app: CozeCaller, other: CozeCaller, simulator: SimControl
) -> None:
    file = await upload(other)
    for content in (
        f'[{{"type":"text","text":"\\ud800"}},{{"type":"image","file_id":"{file["id"]}"}}]',
        f'[{{"type":"image","file_id":"{file["id"]}"}},]',
        f'[{{"type":"image","file_id":"mine","FILE_ID":"{file["id"]}"}}]',
    ):
        message = {"role": "user", "content": content, "content_type": "object_string"}
        assert await app.code("POST", "/v3/chat", json=asking("x", additional_messages=[message])) == 4000
    assert simulator.requests(path="/v3/chat") == []


async def test_what_is_no_file_or_too_large_has_cozes_code(
    open_door: Callable[..., RunningApp], app: CozeCaller
) -> None:
    script = await app.call("POST", "/v1/files/upload", files={"file": ("a.html", b"<html><script>")})
    assert (script.status_code, script.json()["code"]) == (200, 4303)
    async with calling(base_of(open_door(MAX_FILE_BYTES="1024")), KEY) as caller:
        big = await caller.call("POST", "/v1/files/upload", files={"file": ("a.png", PNG + b"\0" * 2000)})
        assert (big.status_code, big.json()["code"]) == (200, 4302)


async def test_bots_are_told_of_without_how_they_are_made_and_asked_for_once(
    app: CozeCaller, simulator: SimControl
) -> None:
    for path, params in (("/v1/bot/get_online_info", {"bot_id": BOT}), (f"/v1/bots/{BOT}", {})):
        for _ in range(2):
            bot = await app.data("GET", path, params=params)
            assert bot["onboarding_info"]["prologue"]
            assert "prompt_info" not in bot
    assert len(simulator.requests(path="/v1/bot/get_online_info")) <= 1
    assert await app.code("GET", "/v1/bots/7380000000000000010") == 4006
    assert await app.code("GET", "/v1/bot/get_online_info", params={"bot_id": "../x"}) == 4006
    assert not simulator.requests(path="/v1/bots/7380000000000000010")


# -- callers, refusals, and what is not offered ------------------------------------------------------------


async def test_without_a_token_or_with_a_wrong_one_it_is_4100_and_401(app: CozeCaller) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer sk-wrong-0123456789abcd"}):
        response = await app.call("GET", "/v1/conversations", params={"bot_id": BOT}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, 4100)
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.json()["detail"]["logid"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/workflow/run", 404),
        ("GET", "/v1/workspaces", 404),
        ("POST", "/v1/conversation/message/modify", 404),
        ("GET", "/v3/chat", 405),
        ("PATCH", "/v1/conversations/1", 405),
    ],
)
async def test_what_is_not_offered_says_so_in_cozes_envelope(
    app: CozeCaller, method: str, path: str, status: int
) -> None:
    response = await app.call(method, path)
    assert response.status_code == status
    assert response.json()["code"] == 4200
    assert "does not offer" in response.json()["msg"]


async def test_each_call_that_goes_on_to_coze_takes_a_token(open_door: Callable[..., RunningApp]) -> None:
    async with calling(base_of(open_door(RATE_LIMIT_MESSAGES_PER_MINUTE="3")), KEY) as caller:
        made = await caller.data("POST", "/v1/conversation/create", json={})
        where = {"conversation_id": made["id"]}
        answers = [
            await caller.call("GET", "/v1/conversation/message/list", params=where) for _ in range(200)
        ]
    told = [(answer.status_code, answer.json()["code"]) for answer in answers]
    assert (told[0], told[-1]) == ((200, 0), (429, 4013))


async def test_a_rate_is_4013_and_429_with_its_time_and_a_quota_4008(
    open_door: Callable[..., RunningApp],
) -> None:
    async with calling(base_of(open_door(RATE_LIMIT_MESSAGES_PER_MINUTE="1")), KEY) as caller:
        await caller.chat("hello")
        response = await caller.call("POST", "/v3/chat", json=asking("hello"))
        assert (response.status_code, response.json()["code"]) == (429, 4013)
        assert int(response.headers["retry-after"]) >= 1
    async with calling(base_of(open_door(COZE_DAILY_TOKEN_QUOTA="1")), KEY) as caller:
        await caller.chat("hello", user_id="u-2")
        response = await caller.call("POST", "/v3/chat", json=asking("hello", user_id="u-2"))
        assert (response.status_code, response.json()["code"]) == (429, 4008)
        assert "retry-after" in response.headers


async def test_what_keeps_us_from_serving_is_503(
    app: CozeCaller, simulator: SimControl, open_door: Callable[..., RunningApp]
) -> None:
    async with calling(base_of(open_door(COZE_API_TOKEN="pat_wrong")), KEY) as caller:
        response = await caller.call("POST", "/v3/chat", json=asking("hello"))
        # That Coze does not take our token is not the caller's affair.
        assert (response.status_code, response.json()["code"]) == (503, 5000)
    simulator.upstream("html502")
    response = await app.call("POST", "/v1/conversation/create", json={})
    assert (response.status_code, response.json()["code"]) == (503, 5000)


async def test_the_first_chats_user_labels_usage_and_erasure_and_a_later_one_passes_through(
    app: CozeCaller, other: CozeCaller, door: RunningApp, simulator: SimControl
) -> None:
    conversation_id = await app.conversation()
    await app.chat("hello", conversation_id, user_id="first")
    await app.chat("hello", conversation_id, user_id="second")
    assert [each["user_id"].rpartition(":")[2] for each in simulator.requests(path="/v3/chat")] == [
        "first",
        "second",
    ]
    theirs = events_of(await other.chat("hello", user_id="first"))[0][1]["conversation_id"]
    headers = {"Authorization": f"Bearer {KEY}"}
    erase = f"{door.base_url}/coze/users/first"
    assert (await app.http.delete(erase.replace("first", "second"), headers=headers)).status_code == 200
    ids = {"conversation_id": conversation_id}
    assert await app.code("GET", "/v1/conversation/retrieve", params=ids) == 0
    erased = (await app.http.delete(erase, headers=headers)).json()["data"]["task_result"]["data"]
    assert (erased["erased_sessions"], erased["remaining_sessions"]) == (1, 0)
    assert await app.code("GET", "/v1/conversation/retrieve", params=ids) == 4002
    assert simulator.requests(path=f"/v1/conversations/{conversation_id}/clear")
    assert await other.code("GET", "/v1/conversation/retrieve", params={"conversation_id": theirs}) == 0
