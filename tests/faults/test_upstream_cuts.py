"""Coze's stream cut, stalled or ended too early: the answer is fetched, and only then does a chat fail."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN
from tests.support import Client, SimControl, data_of

from .support import Cluster, Reader, check_completed, nonce, open_session, posts

ANSWER = "deltas=3;reasoning=0;followups=1;verbose=none;text=Short, but the whole of it: 完整的回答。"
AT_ONCE = 16


def wire_of(simulator: SimControl, message: str) -> bytes:
    """Coze's own bytes for ``message``."""
    body = {
        "bot_id": SIMULATOR_BOT_ID,
        "user_id": "u",
        "stream": True,
        "additional_messages": [{"role": "user", "content": message, "content_type": "text"}],
    }
    answer = httpx.post(
        simulator.chat_url, json=body, headers={"authorization": f"Bearer {SIMULATOR_TOKEN}"}, timeout=10
    )
    return answer.content


def essence(chat: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however the answer arrived."""
    return {
        "status": chat["status"],
        "content": chat["content"],
        "reasoning_content": chat["reasoning_content"],
        "follow_up_questions": chat["follow_up_questions"],
        "usage": chat["usage"],
        "error": chat["error"],
        "assistant": (chat["assistant_message"] or {}).get("content"),
    }


async def cut_upstream(pair: Cluster, clients: list[Client], step: int) -> int:
    """A chat cut at every ``step``-th byte of Coze's stream; returns how many."""
    whole = wire_of(pair.simulator, f"the same words [[sim:{ANSWER}]]")
    terminal = whole.index(b"\n\n", whole.index(b"event:conversation.chat.completed")) + 2
    places = list(range(0, len(whole) + 1, step))
    places += [place for place in (terminal - 1, terminal, len(whole)) if place not in places]
    queue = list(places)
    outcomes: dict[int, dict[str, Any]] = {}

    async def work(number: int) -> None:
        while queue:
            place = queue.pop()
            client = clients[place % 2]
            session_id = await open_session(client)
            message = f"the same words [[sim:{ANSWER};cut={place}]]"
            reader = Reader(clients, first=place % 2)
            outcomes[place] = await reader.whole(session_id, message)
            assert posts(pair.simulator, f"cut={place}]]") == 1

    await asyncio.gather(*(work(number) for number in range(AT_ONCE)))
    expected = essence(outcomes[len(whole)])
    assert expected["status"] == "completed"
    assert "完整的回答" in expected["content"]
    for place in places:
        assert essence(outcomes[place]) == expected, place
        assert outcomes[place]["recovered"] or place >= terminal, place
    assert len(outcomes) == len(places)
    return len(places)


async def test_the_upstream_may_be_cut_at_any_place(pair: Cluster, clients: list[Client]) -> None:
    await cut_upstream(pair, clients, step=97)


@pytest.mark.full
@pytest.mark.timeout(400)
async def test_the_upstream_may_be_cut_at_every_byte(pair: Cluster, clients: list[Client]) -> None:
    assert await cut_upstream(pair, clients, step=1) > 1800


async def send(clients: list[Client], knobs: str, **session: Any) -> tuple[dict[str, Any], str]:
    """The chat that a streaming client ends up with, and its word."""
    session_id, word = await open_session(clients[0], **session), nonce()
    reader = Reader(clients)
    chat = await reader.whole(session_id, f"{word} [[sim:{knobs}]]")
    assert data_of(await clients[1].result(chat["chat_id"])) == chat
    return chat, word


@pytest.mark.parametrize(
    "knobs",
    [
        "deltas=6;reasoning=0;stall=3:2.2;followups=1",
        "deltas=6;reasoning=0;no_terminal=1",
        "deltas=6;reasoning=0;cut=900;empty_list=2",
        "deltas=6;reasoning=0;cut=900;status_lag=1",
        "deltas=6;reasoning=0;cut=0",
        "multi=3;deltas=4;reasoning=0;cut=1800",
    ],
)
async def test_a_stream_that_does_not_end_as_it_should_is_repaired(
    knobs: str, pair: Cluster, clients: list[Client]
) -> None:
    chat, word = await send(clients, knobs)
    await check_completed(chat, pair.simulator, word, recovered=True)


@pytest.mark.full
async def test_a_stored_answer_is_asked_for_until_coze_gives_it(pair: Cluster, clients: list[Client]) -> None:
    """For about two seconds nothing but sending works."""
    pair.simulator.knob(path="/v3/chat/retrieve", times=7, http=502)
    pair.simulator.knob(path="/v3/chat/message/list", times=2, fail=720700801)
    chat, word = await send(clients, "deltas=6;reasoning=0;cut=900")
    await check_completed(chat, pair.simulator, word, recovered=True)


@pytest.mark.full
async def test_a_chat_whose_id_never_came_is_searched_for_until_coze_answers(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    pair.simulator.knob(path="/v1/conversation/message/list", times=5, http=502)
    reader = Reader(clients)
    chat = await reader.whole(session_id, f"{word} [[sim:deltas=6;reasoning=0;cut=0]]")
    await check_completed(chat, pair.simulator, word, recovered=True)


async def test_with_auto_save_history_off_a_cut_answer_fails_and_says_why(
    pair: Cluster, clients: list[Client]
) -> None:
    chat, word = await send(clients, "deltas=6;reasoning=0;no_terminal=1", auto_save_history=False)
    assert (chat["status"], chat["recovered"]) == ("failed", False)
    assert "Coze keeps no answer" in chat["error"]["message"]
    assert chat["error"]["retryable"] is False  # it had begun: asked again it is paid again
    assert posts(pair.simulator, word) == 1
    # Uncut it is an answer like any other.
    chat, word = await send(clients, "deltas=6;reasoning=0", auto_save_history=False)
    assert (chat["status"], chat["recovered"]) == ("completed", False)
    assert word in chat["content"]


async def test_where_coze_stops_with_the_connection_the_chat_fails_and_is_not_called_worth_repeating(
    pair: Cluster, clients: list[Client]
) -> None:
    chat, word = await send(clients, "deltas=6;reasoning=0;stall=3:600;on_disconnect=stop")
    assert chat["status"] == "failed"
    assert chat["error"]["retryable"] is False  # it had begun: asked again it is paid again
    assert chat["error"]["coze_code"] == 5000
    assert posts(pair.simulator, word) == 1


async def test_what_coze_itself_has_ended_is_not_repaired_into_something_else(
    pair: Cluster, clients: list[Client]
) -> None:
    chat, _ = await send(clients, "deltas=6;fail_at=3;reasoning=0")
    assert (chat["status"], chat["recovered"]) == ("failed", False)
    chat, _ = await send(clients, "deltas=6;error_at=3;reasoning=0")
    assert chat["status"] == "failed"
