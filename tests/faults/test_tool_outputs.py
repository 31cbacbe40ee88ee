"""Whoever was to send tool outputs on to Coze dies at the worst moments: Coze gets them once all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.support import Client, data_of, error_of, outputs_for, wait_until

from .support import AWAY, Cluster, Reader, check_completed, nonce, submissions, waiting_chat


async def submit_and_die(
    pair: Cluster, clients: list[Client], chat: dict[str, Any], body: dict[str, Any], headers: dict[str, str]
) -> None:
    """Replica 0 has claimed the chat and is at Coze's door with the outputs when it is killed."""
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    sending = asyncio.create_task(clients[0].post(path, json=body, headers=headers))
    await wait_until(lambda: submissions(pair.simulator, chat))
    pair.replicas[0].kill()
    with pytest.raises(AWAY):
        await sending


async def completed(client: Client, chat_id: str) -> dict[str, Any]:
    """The chat when it is over: waiting again is not enough."""

    async def look() -> dict[str, Any] | None:
        chat: dict[str, Any] = data_of(await client.result(chat_id, wait=1))
        return chat if chat["status"] in ("completed", "failed", "cancelled") else None

    chat: dict[str, Any] = await wait_until(look, 20)
    return chat


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "without a key"])
async def test_outputs_that_coze_has_not_got_when_their_process_dies_are_sent_by_the_next_owner(
    keyed: bool, pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    chat = await waiting_chat(clients, word, "deltas=6;reasoning=0", calls=2)
    headers = {"Idempotency-Key": word} if keyed else {}
    body = outputs_for(chat, word)
    pair.simulator.upstream("hang")  # a request arrives, and nothing is done with it
    await submit_and_die(pair, clients, chat, body, headers)
    pair.simulator.upstream("ok")
    ended = await completed(clients[1], chat["chat_id"])
    assert (ended["status"], word in ended["content"]) == ("completed", True)
    assert submissions(pair.simulator, chat, accepted=True) == 1
    again = await clients[1].answer_tools(chat, word, headers=headers)
    if keyed:
        assert (again.status_code, data_of(again)) == (200, ended)
    else:
        assert (again.status_code, error_of(again)["code"]) == (409, "COZE_CHAT_STATE")
    assert submissions(pair.simulator, chat, accepted=True) == 1


async def test_outputs_that_coze_had_got_when_their_process_died_are_not_sent_again(
    pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    chat = await waiting_chat(clients, word, "deltas=6;reasoning=0")
    # Taken, and the answer to them held back.
    pair.simulator.knob(path="/v3/chat/submit_tool_outputs", first_byte=30)
    body, headers = outputs_for(chat, word), {"Idempotency-Key": word}
    await submit_and_die(pair, clients, chat, body, headers)
    pair.simulator.clear_knobs()
    ended = await completed(clients[1], chat["chat_id"])
    assert (ended["status"], ended["recovered"], word in ended["content"]) == ("completed", True, True)
    assert submissions(pair.simulator, chat) == 1
    again = await clients[1].answer_tools(chat, word, headers=headers)
    assert (again.status_code, data_of(again)) == (200, ended)
    assert submissions(pair.simulator, chat) == 1


async def test_who_repeats_the_outputs_elsewhere_while_nobody_owns_the_chat_gets_its_answer(
    pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    chat = await waiting_chat(clients, word, "deltas=6;reasoning=0")
    body, headers = outputs_for(chat, word), {"Idempotency-Key": word}
    pair.simulator.upstream("hang")
    await submit_and_die(pair, clients, chat, body, headers)
    pair.simulator.upstream("ok")
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    repeats: list[httpx.Response] = await asyncio.gather(
        *(clients[1].post(path, json=body, headers=headers) for _ in range(3))
    )
    ended = await completed(clients[1], chat["chat_id"])
    assert [data_of(repeat) for repeat in repeats] == [ended] * 3
    reader = Reader([clients[1]])
    reader.chat_id = chat["chat_id"]
    assert await reader.follow(10) == ended
    assert submissions(pair.simulator, chat, accepted=True) == 1


async def test_outputs_of_a_process_that_is_told_to_leave_are_sent_by_the_next_owner(
    pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    chat = await waiting_chat(clients, word, "deltas=6;reasoning=0")
    body, headers = outputs_for(chat, word), {"Idempotency-Key": word}
    pair.simulator.upstream("hang")
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    sending = asyncio.create_task(clients[0].post(path, json=body, headers=headers))
    await wait_until(lambda: submissions(pair.simulator, chat))
    pair.replicas[0].terminate()
    [left] = await asyncio.gather(sending, return_exceptions=True)
    assert isinstance(left, AWAY) or left.status_code in (202, 503)  # type: ignore[union-attr]
    await asyncio.to_thread(pair.replicas[0].wait)
    pair.simulator.upstream("ok")
    ended = await completed(clients[1], chat["chat_id"])
    assert (ended["status"], word in ended["content"]) == ("completed", True)
    assert data_of(await clients[1].answer_tools(chat, word, headers=headers)) == ended
    assert submissions(pair.simulator, chat, accepted=True) == 1


async def test_two_replicas_given_the_same_outputs_with_one_key_send_them_once(
    pair: Cluster, clients: list[Client]
) -> None:
    for _ in range(5):
        word = nonce()
        chat = await waiting_chat(clients, word, calls=2)
        headers = {"Idempotency-Key": word}
        answers = await asyncio.gather(
            *(client.answer_tools(chat, word, headers=headers) for client in clients * 3)
        )
        assert [answer.status_code for answer in answers] == [200] * 6
        assert all(data_of(answer) == data_of(answers[0]) for answer in answers)
        assert submissions(pair.simulator, chat) == 1


async def test_what_is_queued_behind_outputs_whose_process_died_goes_on(
    pair: Cluster, clients: list[Client]
) -> None:
    word = nonce()
    chat = await waiting_chat(clients, word)
    queued = await clients[1].start(chat["session_id"], f"{word} queued", on_busy="enqueue")
    pair.simulator.upstream("hang")
    await submit_and_die(pair, clients, chat, outputs_for(chat, word), {})
    pair.simulator.upstream("ok")
    assert (await completed(clients[1], chat["chat_id"]))["status"] == "completed"
    await check_completed(await clients[1].ended(queued), pair.simulator, f"{word} queued", recovered=False)
