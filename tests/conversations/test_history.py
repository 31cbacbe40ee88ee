"""What Coze keeps of a conversation, page by page, and a new context in it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support import Client, SimControl, data_of, error_of


async def page(client: Client, session_id: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = data_of(await client.get(f"/coze/sessions/{session_id}/history", params=params))
    return found


async def walk(client: Client, session_id: str, **params: Any) -> list[dict[str, Any]]:
    """All messages, page after page."""
    messages: list[dict[str, Any]] = []
    after = ""
    for _ in range(50):
        found = await page(client, session_id, after=after, **params)
        messages += found["messages"]
        if not found["has_more"]:
            return messages
        after = found["last_id"]
    raise AssertionError("the pages come to no end")


async def said(client: Client, *words: str, **body: Any) -> tuple[str, list[str]]:
    """A session in which these messages were answered; its chats."""
    session_id = await client.open_session(**body)
    return session_id, [data_of(await client.send(session_id, word))["chat_id"] for word in words]


async def test_history_tells_questions_and_answers_with_our_chat_ids_and_nothing_internal(
    client: Client,
) -> None:
    session_id, chats = await said(client, "one [[sim:plugin=true]]", "two")
    response = await client.get(f"/coze/sessions/{session_id}/history")
    assert response.headers["X-Coze-Logid"]
    found = data_of(response)
    assert [message["type"] for message in found["messages"]] == ["answer", "question"] * 2
    assert [message["chat_id"] for message in found["messages"]] == [chats[1]] * 2 + [chats[0]] * 2
    assert (found["has_more"], found["conversation_id"]) == (
        False,
        (await client.session(session_id))["conversation_id"],
    )
    newest = found["messages"][0]
    assert newest["content"] == data_of(await client.result(chats[1]))["content"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", newest["created_at"])
    assert set(newest) == {
        *("message_id", "role", "type", "content", "content_type", "reasoning_content"),
        *("created_at", "chat_id", "meta_data"),
    }
    assert "coze_fastapi_chat_id" not in response.text
    assert "bot_id" not in response.text
    assert "verbose" not in response.text


@pytest.mark.parametrize("order", ["desc", "asc"])
async def test_pages_follow_one_another_forth_and_back_in_the_order_asked_for(
    client: Client, order: str
) -> None:
    session_id, _ = await said(client, "one", "two", "three")
    whole = await walk(client, session_id, order=order, limit=50)
    assert len(whole) == 6
    times = [int(message["message_id"]) for message in whole]
    assert times == sorted(times, reverse=order == "desc")
    for limit in (1, 4):
        assert await walk(client, session_id, order=order, limit=limit) == whole
    back = await page(client, session_id, order=order, limit=2, before=whole[4]["message_id"])
    assert back["messages"] == whole[2:4]
    assert back["has_more"] is True
    first = await page(client, session_id, order=order, limit=2, before=back["first_id"])
    assert (first["messages"], first["has_more"]) == (whole[:2], False)


async def test_a_session_without_a_conversation_has_an_empty_history_and_nothing_to_clear(
    client: Client, simulator: SimControl
) -> None:
    session_id = await client.open_session(auto_save_history=False)
    found = await page(client, session_id)
    assert (found["messages"], found["has_more"], found["first_id"], found["last_id"]) == (
        [],
        False,
        None,
        None,
    )
    cleared = data_of(await client.post(f"/coze/sessions/{session_id}/clear"))
    assert cleared == {"session_id": session_id, "conversation_id": None, "section_id": None}
    assert simulator.requests() == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=51",
        "order=up",
        "before=x",
        "after=0",
        "before=1&after=2",
        "after=" + "9" * 33,
        "after=7",
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(client: Client, query: str) -> None:
    session_id, _ = await said(client, "one")
    response = await client.get(f"/coze/sessions/{session_id}/history?{query}")
    assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert error_of(response)["details"]["fields"][0]["field"].split(".")[-1] in query


async def test_a_message_of_another_conversation_is_no_place_in_this_one(client: Client) -> None:
    other, _ = await said(client, "one")
    own, _ = await said(client, "two")
    place = (await page(client, other))["last_id"]
    response = await client.get(f"/coze/sessions/{own}/history", params={"after": place})
    assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")


async def test_clearing_makes_the_bot_forget_while_the_messages_stay(
    each_client: Client, simulator: SimControl
) -> None:
    client = each_client
    session_id, chats = await said(client, "my word is pineapple")
    assert "pineapple" in data_of(await client.send(session_id, "What did I say before?"))["content"]
    sections = set()
    for _ in range(2):
        response = await client.post(f"/coze/sessions/{session_id}/clear")
        assert response.headers["X-Coze-Logid"]
        cleared = data_of(response)
        sections.add(cleared["section_id"])
        assert cleared["conversation_id"] == (await client.session(session_id))["conversation_id"]
    assert len(sections) == 2
    assert "pineapple" not in data_of(await client.send(session_id, "What did I say before?"))["content"]
    assert len((await page(client, session_id))["messages"]) == 6
    assert data_of(await client.result(chats[0]))["status"] == "completed"
    assert (await client.session(session_id))["chat_count"] == 3
    conversation = (await client.session(session_id))["conversation_id"]
    again = {"user_id": "u-1", "conversation_id": conversation}
    assert (await client.post("/coze/sessions", json=again)).status_code == 200
    await client.delete("/coze/users/u-1")
    assert (await client.post("/coze/sessions", json=again)).status_code == 404
    assert data_of(await client.get("/coze/usage"))["rows"] == []


async def test_a_busy_session_is_not_cleared(client: Client, simulator: SimControl) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, "hello [[sim:deltas=100;gap=0.1]]")
    response = await client.post(f"/coze/sessions/{session_id}/clear")
    assert (response.status_code, error_of(response)["code"]) == (409, "COZE_SESSION_BUSY")
    assert error_of(response)["details"]["chat_id"] == chat_id
    assert [request for request in simulator.requests() if request["path"].endswith("/clear")] == []
    await client.post(f"/coze/chats/{chat_id}/cancel")
    assert (await client.post(f"/coze/sessions/{session_id}/clear")).status_code == 200


@pytest.mark.parametrize(("method", "what"), [("GET", "history"), ("POST", "clear")])
async def test_what_coze_refuses_is_told_as_an_error_with_its_logid(
    client: Client, simulator: SimControl, method: str, what: str
) -> None:
    session_id, _ = await said(client, "one")
    conversation = (await client.session(session_id))["conversation_id"]
    path = "/v1/conversation/message/list" if what == "history" else f"/v1/conversations/{conversation}/clear"
    for code, status, name in (
        (4101, 502, "COZE_API_ERROR"),
        (4002, 404, "COZE_CONVERSATION_NOT_FOUND"),
        (4011, 503, "COZE_QUOTA_EXHAUSTED"),
    ):
        simulator.knob(path=path, fail=code)
        response = await client.http.request(method, f"/coze/sessions/{session_id}/{what}")
        assert (response.status_code, error_of(response)["code"]) == (status, name)
        assert error_of(response)["details"]["logid"]
        simulator.clear_knobs()
    assert (await client.http.request(method, f"/coze/sessions/{session_id}/{what}")).status_code == 200


@pytest.mark.parametrize(("method", "what"), [("GET", "history"), ("POST", "clear")])
async def test_a_session_that_is_over_or_unknown_has_neither(client: Client, method: str, what: str) -> None:
    session_id, _ = await said(client, "one")
    await client.delete(f"/coze/sessions/{session_id}")
    gone = await client.http.request(method, f"/coze/sessions/{session_id}/{what}")
    assert (gone.status_code, error_of(gone)["code"]) == (410, "COZE_SESSION_TERMINATED")
    unknown = await client.http.request(method, f"/coze/sessions/nonsense/{what}")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "COZE_SESSION_NOT_FOUND")
