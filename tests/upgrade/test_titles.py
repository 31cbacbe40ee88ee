"""Titles and the list of conversations, which only this version knows, beside the version before."""

from __future__ import annotations

from typing import Any

import httpx

from tests.faults.support import Cluster, open_session
from tests.support import Client, data_of, error_of, wait_until

OLD, NEW = 0, 1


async def listed(client: Client, user_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data_of(await client.get(f"/coze/users/{user_id}/conversations"))[
        "conversations"
    ]
    return found


async def reopen(client: Client, user_id: str, conversation: str) -> httpx.Response:
    return await client.post("/coze/sessions", json={"user_id": user_id, "conversation_id": conversation})


async def talked(client: Client, user_id: str, words: str) -> str:
    session_id = await client.open_session(user_id)
    chat = data_of(await client.send(session_id, words))
    conversation: str = chat["metadata"]["conversation_id"]
    return conversation


async def test_a_session_goes_on_at_either_version_and_has_the_title_of_the_first_that_knows_titles(
    mixed: Cluster, sides: list[Client]
) -> None:
    for first, later in ((OLD, NEW), (NEW, OLD)):
        session_id = await open_session(sides[first])
        await sides[first].send(session_id, f"first words at {first}")
        chat = data_of(await sides[later].send(session_id, f"later words at {later}"))
        assert chat["status"] == "completed"
        expected = f"first words at {NEW}" if first == NEW else f"later words at {NEW}"
        assert (await sides[NEW].session(session_id))["title"] == expected
        assert "title" not in await sides[OLD].session(session_id)
        answer = await sides[NEW].http.patch(f"/coze/sessions/{session_id}", json={"metadata": {"a": "b"}})
        assert data_of(answer)["metadata"] == (await sides[OLD].session(session_id))["metadata"]


async def test_a_conversation_of_either_version_can_be_gone_on_with_at_the_other(
    mixed: Cluster, sides: list[Client]
) -> None:
    for first, later in ((OLD, NEW), (NEW, OLD)):
        user = f"u-either-{first}"
        conversation = await talked(sides[first], user, "hello")
        again = data_of(await reopen(sides[later], user, conversation))
        chat = data_of(await sides[later].send(again["session_id"], "and again"))
        assert chat["metadata"]["conversation_id"] == conversation
        [shown] = await wait_until(lambda user=user: listed(sides[NEW], user))
        assert shown["conversation_id"] == conversation


async def test_what_the_version_before_erases_is_gone_from_the_list_with_its_title(
    mixed: Cluster, sides: list[Client]
) -> None:
    user = "u-erased"
    conversation = await talked(sides[NEW], user, "a secret of the user")
    await wait_until(lambda: listed(sides[NEW], user))
    assert (await sides[OLD].delete(f"/coze/users/{user}")).status_code == 200
    assert await listed(sides[NEW], user) == []
    answer = await reopen(sides[NEW], user, conversation)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "COZE_CONVERSATION_NOT_FOUND")
    with mixed.redis.client() as store:
        left = [value for key in store.scan_iter("*.about") for value in store.hgetall(key).values()]
        assert b"a secret of the user" not in left


async def test_what_this_version_deletes_is_unknown_to_the_version_before(
    mixed: Cluster, sides: list[Client]
) -> None:
    user = "u-deleted"
    conversation = await talked(sides[NEW], user, "hello")
    path = f"/coze/users/{user}/conversations/{conversation}"
    assert (await sides[NEW].delete(path)).status_code == 200
    answer = await reopen(sides[OLD], user, conversation)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "COZE_CONVERSATION_NOT_FOUND")
