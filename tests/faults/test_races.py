"""The same thing from two replicas at once: keys, queues, interrupts, cancels, tool outputs, session ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import Client, data_of, error_of, outputs_for, wait_until

from .support import (
    AWAY,
    Cluster,
    Reader,
    Stored,
    check_completed,
    nonce,
    open_session,
    posts,
    submissions,
    waiting_chat,
)


async def test_a_hundred_equal_requests_with_one_key_are_one_chat(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    headers = {"Idempotency-Key": nonce()}

    async def ask(number: int) -> tuple[str, str]:
        client, message = clients[number % 2], f"{word} [[sim:delay=0.3;deltas=4]]"
        if number % 3:
            response = await client.send(session_id, message, headers=headers)
            assert response.status_code == 200, response.text
            chat = data_of(response)
        else:
            reader = Reader(clients, first=number % 2)
            assert await reader.send(session_id, message, headers=headers)
            chat = reader.checked.check_whole()
        return chat["chat_id"], chat["content"]

    answers = await asyncio.gather(*(ask(number) for number in range(100)))
    assert len(set(answers)) == 1
    assert posts(pair.simulator, word) == 1
    assert (await clients[0].session(session_id))["chat_count"] == 1


async def test_fifty_messages_enqueued_from_two_replicas_keep_their_order(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    running = await clients[0].start(session_id, f"{word} no 0 [[sim:delay=60]]")
    chats = [running]
    for number in range(1, 51):
        message = f"{word} no {number} [[sim:deltas=2;reasoning=0;followups=0]]"
        chats.append(await clients[number % 2].start(session_id, message, on_busy="enqueue"))
    full = await clients[0].send(session_id, f"{word} too many", on_busy="enqueue")
    assert (full.status_code, error_of(full)["code"]) == (409, "COZE_SESSION_BUSY")
    await cancel(clients[0], running)  # it has held the others up until all were there
    ended = await asyncio.gather(*(clients[n % 2].ended(chat_id, 60) for n, chat_id in enumerate(chats)))
    assert [chat["status"] for chat in ended] == ["cancelled"] + ["completed"] * 50
    asked = [r["message"] for r in pair.simulator.requests(contains=word, path="/v3/chat")]
    assert [int(message.split("no ")[1].split()[0]) for message in asked] == list(range(51))
    moments = [chat["completed_at"] for chat in ended]
    assert moments == sorted(moments)
    history = (await clients[1].session(session_id, history_limit=100))["chat_history"]
    assert [chat["chat_id"] for chat in history] == chats[::-1], "the newest first"


@pytest.mark.full
async def test_messages_enqueued_at_once_from_two_replicas_run_one_by_one(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    readers = [Reader(clients, first=number % 2) for number in range(20)]
    chats = await asyncio.gather(
        *(
            reader.whole(session_id, f"{word} [[sim:deltas=3;gap=0.01;reasoning=0]]", on_busy="enqueue")
            for reader in readers
        )
    )
    assert {chat["status"] for chat in chats} == {"completed"}
    assert posts(pair.simulator, word) == 20
    assert pair.simulator.requests(contains=word, path="/v3/chat", code="4016") == []


async def test_of_two_interrupts_the_later_wins_and_goes_before_the_queue(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    running = await clients[0].start(session_id, f"{word} running [[sim:delay=20]]")
    await wait_until(lambda: posts(pair.simulator, f"{word} running"))
    queued = await clients[1].start(session_id, f"{word} queued", on_busy="enqueue")
    # The first interrupt finds the running chat slow to go, so that it still waits when the second comes.
    pair.simulator.knob(path="/v3/chat/cancel", times=1, first_byte=0.7)
    first = await clients[0].start(session_id, f"{word} first", on_busy="interrupt")
    second = await clients[1].start(session_id, f"{word} second", on_busy="interrupt")
    ended = {
        name: await clients[0].ended(chat_id)
        for name, chat_id in (("running", running), ("queued", queued), ("first", first), ("second", second))
    }
    assert {name: chat["status"] for name, chat in ended.items()} == {
        "running": "cancelled",
        "first": "cancelled",
        "second": "completed",
        "queued": "completed",
    }
    assert ended["second"]["completed_at"] < ended["queued"]["completed_at"]
    asked = [r["message"].split()[1] for r in pair.simulator.requests(contains=word, path="/v3/chat")]
    assert [name for name in asked if name != "running"] == ["second", "queued"]


@pytest.mark.full
async def test_ten_interrupts_at_once_leave_one_answer(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    running = await clients[0].start(session_id, f"{word} running [[sim:delay=20]]")

    async def interrupt(number: int) -> str:
        message = f"{word} no {number} [[sim:delay=0.2]]"
        headers = {"Prefer": "respond-async"}
        response = await clients[number % 2].send(session_id, message, headers=headers, on_busy="interrupt")
        # 200: a later one was so quick that this one is over already.
        assert response.status_code in (200, 202), response.text
        chat_id: str = data_of(response)["chat_id"]
        return chat_id

    chats = await asyncio.gather(*(interrupt(number) for number in range(10)))
    ended = await asyncio.gather(*(clients[0].ended(chat_id) for chat_id in [running, *chats]))
    states = [chat["status"] for chat in ended]
    assert states.count("completed") == 1
    assert states.count("cancelled") == 10
    assert word in data_of(await clients[1].send(session_id, f"{word} next"))["content"]


async def cancel(client: Client, chat_id: str) -> dict[str, Any]:
    chat: dict[str, Any] = data_of(await client.post(f"/coze/chats/{chat_id}/cancel"))
    return chat


async def test_a_chat_is_cancelled_from_the_other_replica(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    sending = asyncio.create_task(reader.send(session_id, f"{word} [[sim:deltas=100;gap=0.1;reasoning=0]]"))
    await wait_until(lambda: len(reader.checked.frames) >= 6)
    assert reader.chat_id is not None
    cancelled = await cancel(clients[1], reader.chat_id)
    assert cancelled["status"] == "cancelled"
    assert await asyncio.wait_for(sending, 20)
    assert reader.checked.check_whole() == cancelled == await cancel(clients[0], reader.chat_id)
    assert reader.checked.last_id is not None
    assert reader.checked.last_id.startswith("1-")
    async with Stored(pair.simulator) as stored:
        assert await stored.status(cancelled) == "canceled"
    assert (await clients[1].send(session_id, "next")).status_code == 200


@pytest.mark.full
async def test_a_chat_whose_owner_does_not_answer_is_cancelled_all_the_same(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    chat_id = await clients[0].start(session_id, f"{word} [[sim:deltas=100;gap=0.1;reasoning=0]]")
    await wait_until(lambda: posts(pair.simulator, word))
    pair.replicas[0].pause()
    try:
        cancelled = await cancel(clients[1], chat_id)
    finally:
        pair.replicas[0].resume()
    assert cancelled["status"] == "cancelled"
    async with Stored(pair.simulator) as stored:
        assert await stored.status(cancelled) == "canceled"
    assert await cancel(clients[0], chat_id) == cancelled


async def test_a_queued_chat_is_cancelled_from_either_replica(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    running = await clients[0].start(session_id, f"{word} running [[sim:delay=60]]")
    queued = [await clients[n % 2].start(session_id, f"{word} no {n}", on_busy="enqueue") for n in range(4)]
    for client, chat_id in ((clients[0], queued[0]), (clients[1], queued[2])):
        chat = await cancel(client, chat_id)
        assert (chat["status"], chat["content"]) == ("cancelled", "")
    await cancel(clients[0], running)
    ended = [await clients[1].ended(chat_id) for chat_id in (queued[1], queued[3])]
    assert [chat["status"] for chat in ended] == ["completed"] * 2
    asked = [r["message"].split("no ")[1] for r in pair.simulator.requests(contains=f"{word} no")]
    assert asked == ["1", "3"]
    # Read from the start, a chat that never ran: our frame, the end, the result.
    reader = Reader(clients)
    reader.chat_id = queued[0]
    assert await reader.resume(1)
    assert [event.event for event in reader.checked.frames] == ["chat", "conversation.chat.canceled"]


async def test_a_waiting_chat_is_cancelled_from_the_other_replica(
    pair: Cluster, clients: list[Client]
) -> None:
    chat = await waiting_chat(clients, nonce())
    cancelled = await cancel(clients[1], chat["chat_id"])
    assert cancelled["status"] == "cancelled"
    refused = await clients[0].post(f"/coze/chats/{chat['chat_id']}/tool_outputs", json=outputs_for(chat))
    assert (refused.status_code, error_of(refused)["code"]) == (409, "COZE_CHAT_STATE")
    assert (await clients[1].send(chat["session_id"], "next")).status_code == 200
    assert submissions(pair.simulator, chat) == 0


async def test_of_two_tool_outputs_at_once_one_is_taken(pair: Cluster, clients: list[Client]) -> None:
    for _ in range(5):
        word = nonce()
        chat = await waiting_chat(clients, word, calls=2)
        path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
        answers = await asyncio.gather(*(c.post(path, json=outputs_for(chat, word)) for c in clients))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        taken, refused = sorted(answers, key=lambda answer: answer.status_code)
        assert error_of(refused)["code"] == "COZE_CHAT_STATE"
        ended = data_of(taken)
        assert (ended["status"], word in ended["content"]) == ("completed", True)
        assert submissions(pair.simulator, chat) == 1


async def test_tool_outputs_on_the_other_replica_go_on_in_the_same_log(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    message = f"{word} [[sim:requires_action=function;deltas=6;gap=0.05;reasoning=0]]"
    assert await reader.send(session_id, message)
    waiting = reader.checked.check_whole()
    assert waiting["status"] == "requires_action"
    # It reads on from where the first reading ended.
    going_on = Reader(clients)
    going_on.chat_id, going_on.checked.last_id = reader.chat_id, reader.checked.last_id
    path = f"/coze/chats/{reader.chat_id}/tool_outputs"
    body = {**outputs_for(waiting, word), "stream": True}
    async with clients[1].streaming("POST", path, json=body) as events:
        names = [event.event async for event in events]
    assert names[0] == "snapshot"
    assert names[-3:] == ["conversation.chat.completed", "result", "done"]
    for where in (0, 1):
        again = Reader(clients)
        again.chat_id, again.checked.last_id = reader.chat_id, reader.checked.last_id
        assert await again.resume(where)
        chat = again.checked.check_whole()
        assert (chat["status"], word in chat["content"]) == ("completed", True)
    assert submissions(pair.simulator, waiting) == 1


async def test_an_owner_killed_after_tool_outputs_is_taken_over(pair: Cluster, clients: list[Client]) -> None:
    word = nonce()
    chat = await waiting_chat(clients, word, "deltas=30;gap=0.05;reasoning=0")
    reader = Reader(clients)
    reader.chat_id = chat["chat_id"]
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"

    async def submit() -> None:
        body = {**outputs_for(chat, word), "stream": True}
        async with clients[0].streaming("POST", path, json=body) as events:
            await reader._read(events, None)

    submitting = asyncio.create_task(submit())
    await wait_until(lambda: len(reader.checked.frames) >= 6)
    pair.replicas[0].kill()
    with pytest.raises(AWAY):
        await submitting
    ended = await reader.follow()
    assert (ended["status"], ended["recovered"], word in ended["content"]) == ("completed", True, True)
    assert submissions(pair.simulator, chat) == 1


@pytest.mark.parametrize("where", [0, 1])
async def test_the_end_of_a_session_ends_all_its_chats(
    where: int, pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    sending = asyncio.create_task(
        reader.send(session_id, f"{word} running [[sim:deltas=100;gap=0.1;reasoning=0]]")
    )
    await wait_until(lambda: len(reader.checked.frames) >= 6)
    queued = [await clients[n % 2].start(session_id, f"{word} no {n}", on_busy="enqueue") for n in range(4)]
    response = await clients[where].delete(f"/coze/sessions/{session_id}")
    assert (response.status_code, data_of(response)["status"]) == (200, "terminated")
    again = await clients[1 - where].delete(f"/coze/sessions/{session_id}")
    assert data_of(again)["status"] == "terminated"
    assert await asyncio.wait_for(sending, 20)
    assert reader.checked.check_whole()["status"] == "cancelled"
    for chat_id in queued:
        assert (await clients[0].ended(chat_id))["status"] == "cancelled"
    assert len(pair.simulator.requests(contains=word, path="/v3/chat")) == 1
    async with Stored(pair.simulator) as stored:
        assert await stored.status(reader.checked.check_whole()) == "canceled"
    refused = await clients[where].send(session_id, "more")
    assert (refused.status_code, error_of(refused)["code"]) == (410, "COZE_SESSION_TERMINATED")


@pytest.mark.full
async def test_queued_chats_of_a_killed_process_run_elsewhere(pair: Cluster, clients: list[Client]) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    sending = asyncio.create_task(
        reader.send(session_id, f"{word} no 0 [[sim:deltas=20;gap=0.05;reasoning=0]]")
    )
    await wait_until(lambda: len(reader.checked.frames) >= 6)
    queued = [await clients[0].start(session_id, f"{word} no {n}", on_busy="enqueue") for n in (1, 2, 3)]
    pair.replicas[0].kill()
    with pytest.raises(AWAY):
        await sending
    assert (await reader.follow())["status"] == "completed"
    for number, chat_id in enumerate(queued, start=1):
        chat = await clients[1].ended(chat_id)
        await check_completed(chat, pair.simulator, f"{word} no {number}", recovered=False)
