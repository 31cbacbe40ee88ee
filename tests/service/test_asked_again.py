"""The session's last message asked once more, and what users think of an answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support import Client, SimControl, data_of, error_of

A_FILE = {"file": ("a.txt", b"a file of the test")}


async def again(
    client: Client, chat_id: str, headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    return await client.post(f"/coze/chats/{chat_id}/regenerate", json=body, headers=headers)


def asked(simulator: SimControl) -> list[str]:
    return [request["message"] for request in simulator.requests(path="/v3/chat")]


def assert_refused(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, error_of(response)["code"]) == (status, code)


# -- regenerate --------------------------------------------------------------------------------------------


async def test_the_last_message_is_asked_once_more_and_coze_keeps_both_turns(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    file_id = data_of(await client.post("/coze/files", files=A_FILE))["file_id"]
    first = data_of(
        await client.send(
            session_id, "look at it", attachments=[{"file_id": file_id}], meta_data={"page": "1"}
        )
    )
    second = data_of(await again(client, first["chat_id"], custom_variables={"mood": "calm"}))
    assert second["status"] == "completed"
    assert second["chat_id"] != first["chat_id"]
    assert second["metadata"]["regenerates"] == first["chat_id"]
    for name in ("content", "attachments", "metadata"):
        assert second["user_message"][name] == first["user_message"][name]
    assert asked(simulator) == [asked(simulator)[0]] * 2
    history = data_of(await client.get(f"/coze/sessions/{session_id}/history"))["messages"]
    assert [message["type"] for message in history] == ["answer", "question"] * 2
    third = data_of(await again(client, second["chat_id"]))
    assert third["metadata"]["regenerates"] == second["chat_id"]
    assert (await client.session(session_id))["chat_count"] == 3


async def test_it_streams_where_a_stream_is_wanted(client: Client) -> None:
    session_id = await client.open_session()
    first = data_of(await client.send(session_id, "3 + 4"))
    path = f"/coze/chats/{first['chat_id']}/regenerate"
    async with client.streaming("POST", path, json={"stream": True}) as reader:
        await reader.all()
    assert reader.result()["content"] == reader.text() == first["content"]
    assert reader.result()["metadata"]["regenerates"] == first["chat_id"]


async def test_a_repeated_call_leads_to_the_chat_of_the_first_whatever_came_after_it(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    first = data_of(await client.send(session_id, "hello"))["chat_id"]
    key = {"Idempotency-Key": "again-1"}
    second = data_of(await again(client, first, key))["chat_id"]
    await client.send(session_id, "something else")
    assert data_of(await again(client, first, key))["chat_id"] == second
    assert len(asked(simulator)) == 3
    assert_refused(await again(client, first, key, parameters={"a": 1}), 422, "IDEMPOTENCY_KEY_REUSED")
    assert_refused(await again(client, second, key), 422, "IDEMPOTENCY_KEY_REUSED")


async def test_only_the_newest_chat_that_is_over_can_be_asked_again(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session()
    first = data_of(await client.send(session_id, "one"))["chat_id"]
    running = await client.start(session_id, "two [[sim:deltas=100;gap=0.1]]")
    assert_refused(await again(client, first), 409, "COZE_CHAT_STATE")
    assert_refused(await again(client, running), 409, "COZE_CHAT_STATE")
    await client.post(f"/coze/chats/{running}/cancel")
    assert_refused(await again(client, first), 409, "COZE_CHAT_STATE")
    assert len(asked(simulator)) == 2
    assert data_of(await again(client, running, {"Prefer": "respond-async"}))["session_id"] == session_id


async def test_a_chat_that_failed_can_be_asked_again(client: Client, simulator: SimControl) -> None:
    session_id = await client.open_session()
    simulator.knob(path="/v3/chat", fail=4101, times=1)
    failed = error_of(await client.send(session_id, "hello"))["details"]["chat_id"]
    assert data_of(await again(client, failed))["status"] == "completed"


# -- feedback ----------------------------------------------------------------------------------------------


def kept(simulator: SimControl, chat: dict[str, Any]) -> Any:
    """What Coze keeps with the answer."""
    ids = chat["metadata"]["conversation_id"], chat["assistant_message"]["message_id"]
    messages = simulator.running.app.core.store.conversations[ids[0]].messages
    return next(message.feedback for message in messages if message.id == ids[1])


async def feedback(client: Client, chat_id: str, **body: Any) -> httpx.Response:
    return await client.post(f"/coze/chats/{chat_id}/feedback", json=body)


async def test_feedback_reaches_coze_the_last_one_counts_and_it_can_be_taken_back(
    client: Client, simulator: SimControl
) -> None:
    chat = data_of(await client.send(await client.open_session(), "hello"))
    response = await feedback(client, chat["chat_id"], feedback_type="like")
    assert response.headers["X-Coze-Logid"]
    assert data_of(response) == {
        "chat_id": chat["chat_id"],
        "feedback_type": "like",
        "reason_types": [],
        "comment": "",
    }
    assert kept(simulator, chat)["feedback_type"] == "like"
    worse = {"feedback_type": "unlike", "reason_types": ["wrong"], "comment": "不对"}
    assert data_of(await feedback(client, chat["chat_id"], **worse)) == {"chat_id": chat["chat_id"], **worse}
    assert kept(simulator, chat) == worse
    gone = data_of(await client.delete(f"/coze/chats/{chat['chat_id']}/feedback"))
    assert gone == {"chat_id": chat["chat_id"], "feedback_type": None}
    assert kept(simulator, chat) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"feedback_type": "meh"},
        {"feedback_type": "like", "comment": "x" * 2001},
        {"feedback_type": "like", "reason_types": ["x"] * 21},
        {"feedback_type": "like", "reason_types": [""]},
    ],
)
async def test_what_is_no_feedback_is_refused(client: Client, body: dict[str, Any]) -> None:
    chat = data_of(await client.send(await client.open_session(), "hello"))
    assert_refused(await feedback(client, chat["chat_id"], **body), 400, "COZE_VALIDATION_ERROR")


async def test_there_is_no_feedback_where_coze_keeps_no_answer(client: Client, simulator: SimControl) -> None:
    unsaved = await client.open_session(auto_save_history=False)
    chat = data_of(await client.send(unsaved, "hello"))
    assert_refused(await feedback(client, chat["chat_id"], feedback_type="like"), 409, "COZE_CHAT_STATE")
    simulator.knob(path="/v3/chat", fail=4101, times=1)
    failed = error_of(await client.send(await client.open_session(), "hello"))["details"]["chat_id"]
    assert_refused(await feedback(client, failed, feedback_type="like"), 409, "COZE_CHAT_STATE")
    lost = data_of(await client.send(await client.open_session(), "hello"))
    simulator.running.app.core.store.conversations[lost["metadata"]["conversation_id"]].messages.clear()
    response = await feedback(client, lost["chat_id"], feedback_type="like")
    assert_refused(response, 404, "COZE_CONVERSATION_NOT_FOUND")
    assert error_of(response)["details"]["logid"]
