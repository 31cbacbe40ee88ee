"""Tool outputs with an Idempotency-Key: whoever lost the answer sends them again and gets it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support import Client, Event, RedisServer, SimControl, data_of, error_of, outputs_for, wait_until

SUBMIT = "/v3/chat/submit_tool_outputs"
KEY = {"Idempotency-Key": "tools-1"}


async def waiting(client: Client, knobs: str = "", user_id: str = "u-1") -> dict[str, Any]:
    session_id = await client.open_session(user_id)
    chat: dict[str, Any] = data_of(
        await client.send(session_id, f"[[sim:requires_action=function;tool_calls=2;{knobs}]] weather?")
    )
    assert chat["status"] == "requires_action"
    return chat


async def read(
    client: Client, chat: dict[str, Any], output: str, headers: dict[str, str]
) -> tuple[list[Event], dict[str, Any]]:
    """The streamed continuation: its frames (compared byte for byte), and the chat at its end."""
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    body = outputs_for(chat, output, stream=True)
    async with client.streaming("POST", path, json=body, headers=headers) as events:
        await events.all()
        assert events.chat_id == chat["chat_id"]
        return [event for event in events.seen if event.event not in ("result", "done")], events.result()


async def test_the_same_outputs_with_the_same_key_lead_to_the_same_answer(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client)
    first = await each_client.answer_tools(chat, "21", headers=KEY)
    again = await each_client.answer_tools(chat, "21", headers=KEY)
    assert (first.status_code, again.status_code) == (200, 200)
    assert data_of(again) == data_of(first)
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_a_repeated_stream_has_the_same_frames(each_client: Client, simulator: SimControl) -> None:
    chat = await waiting(each_client, "deltas=8")
    first, first_chat = await read(each_client, chat, "21", KEY)
    again, again_chat = await read(each_client, chat, "21", KEY)
    assert (first[0].id, first[0].event) == ("2-1", "snapshot")
    assert again == first
    assert again_chat == first_chat
    assert again_chat["status"] == "completed"
    # How the answer is to come does not make it another call.
    whole = await each_client.answer_tools(chat, "21", headers=KEY)
    assert (whole.status_code, data_of(whole)) == (200, first_chat)
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_a_repetition_while_the_chat_goes_on_joins_it(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client, "deltas=30;gap=0.03;reasoning=0")
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    body, later = outputs_for(chat, "21"), {**KEY, "Prefer": "respond-async"}
    begun = await each_client.post(path, json=body, headers=later)
    assert (begun.status_code, begun.headers["location"]) == (202, f"/coze/chats/{chat['chat_id']}/result")
    again = await each_client.post(path, json=body, headers=later)
    assert again.status_code == 202, again.text
    assert again.headers["location"] == begun.headers["location"]
    readings = await asyncio.gather(*(read(each_client, chat, "21", KEY) for _ in range(3)))
    assert all(reading == readings[0] for reading in readings)
    assert readings[0][1]["status"] == "completed"
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_of_many_equal_submissions_at_once_one_reaches_coze(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client)
    answers = await asyncio.gather(*(each_client.answer_tools(chat, "21", headers=KEY) for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert len({data_of(answer)["content"] for answer in answers}) == 1
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_other_outputs_with_the_same_key_are_refused(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client)
    first = await each_client.answer_tools(chat, "21", headers=KEY)
    for _ in range(2):
        other = await each_client.answer_tools(chat, "22", headers=KEY)
        assert (other.status_code, error_of(other)["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (await each_client.answer_tools(chat, "21", headers=KEY)).status_code == 200
    assert data_of(await each_client.result(chat["chat_id"])) == data_of(first)
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_without_a_key_or_with_another_one_a_second_submission_is_a_conflict(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client)
    assert (await each_client.answer_tools(chat, "21", headers=KEY)).status_code == 200
    for headers in (None, {"Idempotency-Key": "tools-2"}):
        second = await each_client.answer_tools(chat, "21", headers=headers)
        assert (second.status_code, error_of(second)["code"]) == (409, "COZE_CHAT_STATE")
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_a_refused_submission_does_not_use_its_key_up(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client)
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    body = outputs_for(chat, "21")
    short = {"tool_outputs": body["tool_outputs"][:1]}
    refused = await each_client.post(path, json=short, headers=KEY)
    assert (refused.status_code, error_of(refused)["code"]) == (409, "COZE_CHAT_STATE")
    assert (await each_client.post(path, json=body, headers=KEY)).status_code == 200


async def test_the_same_key_means_something_else_for_another_chat_and_for_messages(
    each_client: Client, simulator: SimControl
) -> None:
    chats = [await waiting(each_client, user_id=f"u-{number}") for number in range(2)]
    for number, chat in enumerate(chats):
        answer = await each_client.answer_tools(chat, f"{number} degrees", headers=KEY)
        assert f"{number} degrees" in data_of(answer)["content"]
    message = await each_client.send(chats[0]["session_id"], "hello", headers=KEY)
    assert message.status_code == 200
    assert data_of(message)["chat_id"] != chats[0]["chat_id"]
    assert len(simulator.requests(path=SUBMIT)) == 2


async def test_each_round_of_outputs_has_a_key_of_its_own(each_client: Client, simulator: SimControl) -> None:
    chat = await waiting(each_client, "rounds=2")
    second = data_of(await each_client.answer_tools(chat, "first", headers=KEY))
    assert second["status"] == "requires_action"
    reused = await each_client.answer_tools(second, "second", headers=KEY)
    assert (reused.status_code, error_of(reused)["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    # Who lost the answer to the first round is told that the chat asks for the second.
    again = data_of(await each_client.answer_tools(chat, "first", headers=KEY))
    assert (again["status"], again["required_action"]) == ("requires_action", second["required_action"])
    headers = {"Idempotency-Key": "tools-2"}
    ended = data_of(await each_client.answer_tools(second, "second", headers=headers))
    assert ended["status"] == "completed"
    assert data_of(await each_client.answer_tools(second, "second", headers=headers)) == ended
    assert data_of(await each_client.answer_tools(chat, "first", headers=KEY)) == ended
    assert len(simulator.requests(path=SUBMIT)) == 2


async def test_a_repetition_after_a_failure_tells_that_failure(
    each_client: Client, simulator: SimControl
) -> None:
    chat = await waiting(each_client, "deltas=6;fail_at=2;reasoning=0")
    first = await each_client.answer_tools(chat, "21", headers=KEY)
    again = await each_client.answer_tools(chat, "21", headers=KEY)
    assert (first.status_code, error_of(first)["code"]) == (502, "COZE_API_ERROR")
    assert (again.status_code, error_of(again)["details"]) == (502, error_of(first)["details"])
    assert len(simulator.requests(path=SUBMIT)) == 1


async def test_a_key_that_is_too_long_is_refused(each_client: Client) -> None:
    chat = await waiting(each_client)
    refused = await each_client.answer_tools(chat, headers={"Idempotency-Key": "k" * 256})
    assert (refused.status_code, error_of(refused)["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert data_of(await each_client.answer_tools(chat, headers=KEY))["status"] == "completed"


async def test_erasing_the_user_erases_the_keys_of_tool_outputs(client: Client, redis: RedisServer) -> None:
    chat = await waiting(client, user_id="forget-me")
    before = set(redis.key_names("*idem:*"))
    assert data_of(await client.answer_tools(chat, headers=KEY))["status"] == "completed"
    assert set(redis.key_names("*idem:*")) > before, "the key was kept somewhere else: look there instead"

    async def erased() -> bool:
        return bool(data_of(await client.delete("/coze/users/forget-me"))["remaining_sessions"] == 0)

    await wait_until(erased)
    assert redis.key_names("*idem:*") == []
    assert [key for key in redis.key_names() if chat["chat_id"] in key] == []
