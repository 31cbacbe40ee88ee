"""Exact bytes and exact refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from coze_simulator import SIMULATOR_BOT_ID, UNPUBLISHED_BOT_ID, WRONG_TOKEN
from tests.support import block_until

from .helpers import SimClient, events_of, ids, sim_client, user_message

ID = rb"7[0-9]{18}"
TIME = rb"1[0-9]{9}"
NO_USAGE = rb'"usage":{"token_count":0,"output_count":0,"input_count":0}'


@pytest.fixture(scope="module")
def sim_spaced() -> Iterator[SimClient]:
    with sim_client(dialect="spaced") as client:
        yield client


def test_a_plain_stream_has_the_bytes_of_the_cloud(sim_cloud: SimClient) -> None:
    response = sim_cloud.chat("x[[sim:text=<b>&你好\u2028;deltas=1;reasoning=0;followups=1]]")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-tt-logid"]
    chat = rb'{"id":"%s","conversation_id":"%s","bot_id":"%s","created_at":%s,' % (ID, ID, ID, TIME)
    no_error = rb'"last_error":{"code":0,"msg":""},'
    message = rb'{"id":"%s","conversation_id":"%s","bot_id":"%s","role":"assistant","type":"%%s",' % (
        ID,
        ID,
        ID,
    )
    tail = rb'"content_type":"text","chat_id":"%s","section_id":"%s"' % (ID, ID)
    text = re.escape(rb'"content":"\u003cb\u003e\u0026' + "你好".encode() + rb'\u2028",')
    finish = re.escape(
        rb'"content":"{\"msg_type\":\"generate_answer_finish\",\"data\":\"{\\\"finish_reason\\\":0,'
        rb'\\\"FinData\\\":\\\"\\\"}\",\"from_module\":null,\"from_unit\":null}",'
    )
    section = rb',"section_id":"%s"}' % ID
    usage = rb'"usage":{"token_count":[0-9]+,"output_count":[0-9]+,"input_count":[0-9]+}'
    created, both = rb',"created_at":%s' % TIME, rb',"created_at":%s,"updated_at":%s' % (TIME, TIME)
    expected = [
        (b"conversation.chat.created", chat + no_error + rb'"status":"created",' + NO_USAGE + section),
        (
            b"conversation.chat.in_progress",
            chat + no_error + rb'"status":"in_progress",' + NO_USAGE + section,
        ),
        (b"conversation.message.delta", message % b"answer" + text + tail + b"}"),
        (b"conversation.message.completed", message % b"answer" + text + tail + created + b"}"),
        (b"conversation.message.completed", message % b"verbose" + finish + tail + both + b"}"),
        (
            b"conversation.message.completed",
            message % b"follow_up" + rb'"content":"[^"]+",' + tail + both + b"}",
        ),
        (
            b"conversation.chat.completed",
            chat + rb'"completed_at":%s,' % TIME + no_error + rb'"status":"completed",' + usage + section,
        ),
    ]
    pattern = b"".join(b"event:" + re.escape(event) + b"\ndata:" + data + b"\n\n" for event, data in expected)
    assert re.fullmatch(pattern + re.escape(b'event:done\ndata:"[DONE]"\n\n'), response.content)


def test_reasoning_deltas_come_first_with_empty_content_and_the_same_id(sim_cloud: SimClient) -> None:
    deltas = [data for name, data in events_of(sim_cloud.chat("你好").content) if name.endswith(".delta")]
    thinking = [item for item in deltas if "reasoning_content" in item]
    assert deltas[: len(thinking)] == thinking
    assert {item["content"] for item in thinking} == {""}
    assert len({item["id"] for item in deltas}) == 1
    assert all(item["content"] for item in deltas[len(thinking) :])


def test_spaced_dialect_has_a_space_after_each_colon(sim_spaced: SimClient) -> None:
    body = sim_spaced.chat("hello").content
    assert body.startswith(b'event: conversation.chat.created\ndata: {"id":"')
    assert body.endswith(b"\n\nevent: done\ndata: [DONE]\n\n")


def test_studio_streams_end_with_their_own_terminator_and_tell_no_usage(sim_studio: SimClient) -> None:
    body = sim_studio.http.post(sim_studio.url("/v3/chat"), json=without_stream(sim_studio, "hello")).content
    assert body.endswith(b"\n\nevent:conversation.stream.done\ndata:\n\n")
    assert b"event:done" not in body
    events = events_of(body.removesuffix(b"event:conversation.stream.done\ndata:\n\n"))
    chats = [data for name, data in events if ".chat." in name]
    assert all("usage" not in data and "last_error" not in data for data in chats)
    assert all(data["failed_at"] == 0 for data in chats)
    assert all("reasoning_content" in data for name, data in events if ".message." in name)


def without_stream(sim: SimClient, text: str) -> dict[str, Any]:
    body = sim.body(text)
    del body["stream"]
    return body


def test_studio_sends_completed_after_an_error(sim_studio: SimClient) -> None:
    body = sim_studio.chat("x[[sim:error_at=1]]").content
    tail = body[body.index(b"event:error") :]
    assert tail.startswith(b'event:error\ndata:{"code":103200002,')
    assert b"event:conversation.chat.completed\n" in tail
    assert tail.endswith(b"event:conversation.stream.done\ndata:\n\n")


def test_studio_json_has_its_oddities(sim_studio: SimClient) -> None:
    first = sim_studio.create("one[[sim:delay=60]]")
    second = sim_studio.create("two", first["conversation_id"])  # no lock
    canceled = sim_studio.cancel(first)
    assert canceled["ChatV3ChatDetail"]["status"] == "cancelled"
    assert sim_studio.status(first) == "conversation.chat.cancelled"
    assert "code" not in canceled
    sim_studio.ended(second)
    listed = sim_studio.messages(second)
    assert [item["role"] for item in listed["Messages"]][:2] == ["user", "assistant"]
    response = sim_studio.http.get(sim_studio.url("/v1/conversation/retrieve"), params=ids(first))
    assert "creator_d" in response.json()["ConversationData"]
    assert "x-log-id" in response.headers
    assert "x-tt-logid" not in response.headers
    unknown = {"conversation_id": first["conversation_id"], "chat_id": "7"}
    failed = sim_studio.http.get(sim_studio.url("/v3/chat/retrieve"), params=unknown)
    assert (failed.status_code, failed.headers["content-type"][:10]) == (500, "text/plain")
    wrong = sim_studio.http.post(sim_studio.url("/v3/chat"), json={}, headers={"authorization": "Bearer x"})
    assert (wrong.status_code, wrong.json()["code"]) == (200, 700012006)
    assert sim_studio.call("POST", "/v3/chat/submit_tool_outputs", ids(second), {})["code"] == 700012006
    assert sim_studio.http.post(sim_studio.url("/v3/chat"), json={}).status_code == 400


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"bot_id": "123"}, 4000),
        ({"bot_id": 7380000000000000009}, 4000),
        ({"bot_id": None}, 4000),
        ({"bot_id": UNPUBLISHED_BOT_ID}, 4015),
        ({"user_id": 7}, 4000),
        ({"user_id": ""}, 4000),
        ({"stream": "true"}, 4000),
        ({"custom_variables": {"a": 1}}, 4000),
        ({"parameters": "text"}, 4000),
        ({"meta_data": {str(number): "v" for number in range(17)}}, 4003),
        ({"meta_data": {"k": "v" * 513}}, 4000),
        ({"additional_messages": [user_message("m")] * 101}, 4004),
        ({"additional_messages": []}, 4000),
        ({"additional_messages": [{"role": "user", "content": "x"}]}, 4000),
        ({"additional_messages": [{"role": "system", "content": "x", "content_type": "text"}]}, 4000),
        ({"additional_messages": [user_message("x") | {"type": "follow_up"}]}, 4000),
        ({"additional_messages": [user_message("x") | {"content_type": "object_string"}]}, 4000),
        (
            {
                "additional_messages": [
                    user_message('[{"type":"image","file_id":"1"}]') | {"content_type": "object_string"}
                ]
            },
            4000,
        ),
        ({"stream": False, "auto_save_history": False}, 4007),
        ({"bot_version": "1", "publish_status": "unpublished_draft"}, 4000),
    ],
)
def test_a_wrong_chat_request_is_refused_as_json_with_200(
    sim_cloud: SimClient, change: dict[str, Any], code: int
) -> None:
    before = sim_cloud.control("GET", "state")["conversations"]
    response = sim_cloud.chat("hello", **change)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert body["code"] == code
    assert body["detail"]["logid"] == response.headers["x-tt-logid"]
    assert "data" not in body
    assert sim_cloud.control("GET", "state")["conversations"] == before


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer pat_", f"Bearer {WRONG_TOKEN}", "Bearer abc", "pat_x"]
)
def test_a_bad_token_is_refused_everywhere(sim_cloud: SimClient, authorization: str) -> None:
    for path in ("/v3/chat", "/v1/conversation/create", "/v3/chat/cancel"):
        response = httpx.post(sim_cloud.url(path), headers={"authorization": authorization}, json={})
        assert (response.status_code, response.json()["code"]) == (200, 4100)


def test_errors_can_have_real_http_statuses() -> None:
    with sim_client(http_errors=True) as sim:
        headers = {"authorization": "Bearer pat_wrong"}
        assert sim.http.post(sim.url("/v3/chat"), json={}, headers=headers).status_code == 401
        assert sim.chat("x", user_id=1).status_code == 400


def test_a_second_chat_in_a_running_conversation_is_refused(sim_cloud: SimClient) -> None:
    first = sim_cloud.create("slow[[sim:delay=60]]")
    refused = sim_cloud.chat("too early", first["conversation_id"])
    assert refused.json()["code"] == 4016
    sim_cloud.cancel(first)
    assert sim_cloud.create("in time", first["conversation_id"])["status"] == "in_progress"


def test_a_cancelled_conversation_may_stay_locked_for_a_while(sim_cloud: SimClient) -> None:
    first = sim_cloud.create("slow[[sim:delay=60;cancel_lag=0.5]]")
    sim_cloud.cancel(first)
    conversation_id = first["conversation_id"]
    assert sim_cloud.chat("early", conversation_id, stream=False).json()["code"] == 4016
    block_until(lambda: sim_cloud.chat("late", conversation_id, stream=False).json()["code"] == 0)


def test_a_conversation_id_in_the_body_is_ignored(sim_cloud: SimClient) -> None:
    first = sim_cloud.create("one")
    second = sim_cloud.create("two", conversation_id=None, meta_data={})
    body = sim_cloud.body("three", stream=False, conversation_id=first["conversation_id"])
    third = sim_cloud.http.post(sim_cloud.url("/v3/chat"), json=body).json()["data"]
    assert len({item["conversation_id"] for item in (first, second, third)}) == 3


def test_chats_belong_to_the_token_that_made_them(sim_cloud: SimClient) -> None:
    chat = sim_cloud.create("mine")
    other = {"authorization": "Bearer pat_other"}
    for path in ("/v3/chat/retrieve", "/v3/chat/message/list", "/v1/conversation/retrieve"):
        answer = httpx.get(sim_cloud.url(path), params=ids(chat), headers=other).json()
        assert answer["code"] == 4002
    unknown = {"conversation_id": chat["conversation_id"], "chat_id": "7380000000000000001"}
    assert sim_cloud.call("GET", "/v3/chat/retrieve", unknown)["code"] == 4001
    assert sim_cloud.chat("x", "7380000000000000001").json()["code"] == 4002


def test_retrieve_takes_get_and_post(sim_cloud: SimClient) -> None:
    chat = sim_cloud.create("hello", meta_data={"our": "id"})
    done = sim_cloud.ended(chat)
    posted = sim_cloud.call("POST", "/v3/chat/retrieve", ids(chat))["data"]
    assert posted == done
    assert done["meta_data"] == {"our": "id"}
    assert done["usage"]["token_count"] == done["usage"]["input_count"] + done["usage"]["output_count"]


def test_a_chat_without_history_cannot_be_asked_for(sim_cloud: SimClient) -> None:
    events = events_of(sim_cloud.chat("secret", auto_save_history=False).content)
    chat = events[0][1]
    assert events[-1] == ("done", "[DONE]")
    assert sim_cloud.retrieve(chat)["code"] == 4001
    assert sim_cloud.messages(chat)["code"] == 4001
    listed = sim_cloud.call("POST", "/v1/conversation/message/list", ids(chat), {})
    assert listed["data"] == []
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("0", "0", False)


def test_a_failed_chat_lists_without_data(sim_cloud: SimClient) -> None:
    chat = sim_cloud.create("poor[[sim:last_error=4028]]")
    failed = sim_cloud.ended(chat)
    assert (failed["status"], failed["last_error"]["code"]) == ("failed", 4028)
    assert "failed_at" in failed
    listed = sim_cloud.messages(chat)
    assert listed["code"] == 0
    assert "data" not in listed


def test_conversation_messages_are_paged_both_ways(sim_cloud: SimClient) -> None:
    messages = [user_message(str(number)) for number in range(7)]
    made = sim_cloud.call("POST", "/v1/conversation/create", body={"messages": messages})["data"]
    params = {"conversation_id": made["id"]}

    def page(**body: Any) -> dict[str, Any]:
        return sim_cloud.call("POST", "/v1/conversation/message/list", params, body)

    def contents(answer: dict[str, Any]) -> list[str]:
        return [item["content"] for item in answer["data"]]

    first = page(limit=3)
    assert (contents(first), first["has_more"]) == (["6", "5", "4"], True)
    assert first["last_id"] == first["data"][-1]["id"]
    second = page(limit=3, after_id=first["last_id"])
    assert (contents(second), second["has_more"]) == (["3", "2", "1"], True)
    third = page(limit=3, after_id=second["last_id"])
    assert (contents(third), third["has_more"]) == (["0"], False)
    assert contents(page(limit=3, before_id=third["first_id"])) == ["3", "2", "1"]
    assert contents(page(order="asc", limit=2)) == ["0", "1"]
    assert page(limit=51)["code"] == 4000
    assert page(after_id="7380000000000000001")["code"] == 4005


def test_with_a_chat_id_the_conversation_list_leaves_out_the_question(sim_cloud: SimClient) -> None:
    chat = sim_cloud.create("asked")
    sim_cloud.ended(chat)
    params = {"conversation_id": chat["conversation_id"]}
    path = "/v1/conversation/message/list"
    everything = sim_cloud.call("POST", path, params, {"order": "asc"})["data"]
    assert [(item["role"], item["chat_id"]) for item in everything] == [
        ("user", chat["id"]),
        ("assistant", chat["id"]),
    ]
    only = sim_cloud.call("POST", path, params, {"chat_id": chat["id"]})["data"]
    assert [item["role"] for item in only] == ["assistant"]


def test_uploads_that_are_no_single_file_are_refused(sim_cloud: SimClient) -> None:
    url = sim_cloud.url("/v1/files/upload")

    def code(**options: Any) -> int:
        return int(sim_cloud.http.post(url, **options).json()["code"])

    assert code(files={"file": ("a", b"")}) == 4300
    assert code(files={"other": ("a", b"x")}) == 4300
    assert code(files=[("file", ("a", b"x")), ("file", ("b", b"y"))]) == 4301
    assert code(json={}) == 4304
    assert code(content=b"broken", headers={"content-type": "multipart/form-data; boundary=x"}) in (
        4300,
        4304,
    )


def test_unknown_paths_are_404_json_and_nothing_redirects(sim_cloud: SimClient) -> None:
    for path in ("/v3/nothing", "/v3/chat/", "/v1/conversation/create/"):
        response = sim_cloud.http.post(sim_cloud.url(path), json={})
        assert (response.status_code, response.json()["code"]) == (404, 404)
        assert response.headers["x-tt-logid"]


def test_the_same_simulator_answers_at_the_root_and_says_what_it_is(sim_cloud: SimClient) -> None:
    for url in (sim_cloud.sim.root_url, sim_cloud.sim.base_url, sim_cloud.sim.root_url + "/_sim/health"):
        assert httpx.get(url).json()["service"] == "coze-simulator"
    body = sim_cloud.body("hi", stream=False)
    answer = sim_cloud.http.post(sim_cloud.sim.root_url + "/v3/chat", json=body).json()
    assert answer["data"]["bot_id"] == SIMULATOR_BOT_ID
    assert sim_cloud.status(answer["data"]) in ("in_progress", "completed")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"bot_id":"\xff"}'])
def test_a_body_that_is_no_json_object_is_refused(sim_cloud: SimClient, content: bytes) -> None:
    assert sim_cloud.http.post(sim_cloud.url("/v3/chat"), content=content).json()["code"] == 4000


def test_half_a_surrogate_pair_in_a_message_does_no_harm(sim_cloud: SimClient) -> None:
    content = json.dumps(sim_cloud.body("half \ud83d")).encode()
    assert b"event:done" in sim_cloud.http.post(sim_cloud.url("/v3/chat"), content=content).content
