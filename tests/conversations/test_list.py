"""A user's conversations as a list that outlives sessions: look, go on, rename, delete."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support import Client, RedisServer, SimControl, data_of, error_of, wait_until

LONG = "word " * 40


async def listed(client: Client, user_id: str = "u-1", **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data_of(
        await client.get(f"/coze/users/{user_id}/conversations", params=params)
    )["conversations"]
    return found


async def some(client: Client, many: int, user_id: str = "u-1") -> list[dict[str, Any]]:
    """Waits until so many are listed: they are written down in the background when a chat has ended."""

    async def there() -> list[dict[str, Any]] | None:
        found = await listed(client, user_id)
        return found if len(found) == many else None

    found: list[dict[str, Any]] = await wait_until(there)
    return found


async def talk(client: Client, message: str, user_id: str = "u-1", **body: Any) -> tuple[str, str]:
    """A session in which something was said, and its conversation."""
    session_id = await client.open_session(user_id, **body)
    chat = data_of(await client.send(session_id, message))
    return session_id, chat["metadata"]["conversation_id"]


async def rename(client: Client, conversation: str, title: Any, user_id: str = "u-1") -> httpx.Response:
    return await client.http.patch(
        f"/coze/users/{user_id}/conversations/{conversation}", json={"title": title}
    )


def assert_unknown(response: httpx.Response) -> None:
    assert (response.status_code, error_of(response)["code"]) == (404, "COZE_CONVERSATION_NOT_FOUND")


async def test_past_conversations_are_found_again_when_their_sessions_are_long_gone(
    client: Client, redis: RedisServer
) -> None:
    session_id, conversation = await talk(client, "a trip to Hangzhou")
    [before] = await some(client, 1)
    await client.delete(f"/coze/sessions/{session_id}")
    with redis.client() as store:
        store.delete(*store.scan_iter("*:session:*"), *store.scan_iter("*:chats:*"))
    assert await listed(client) == [before]
    assert before["conversation_id"] == conversation
    assert before["title"] == "a trip to Hangzhou"
    assert before["bot_id"]
    assert before["created_at"] <= before["last_used_at"]
    again = data_of(
        await client.post("/coze/sessions", json={"user_id": "u-1", "conversation_id": conversation})
    )
    assert (again["conversation_id"], again["title"]) == (conversation, "a trip to Hangzhou")


async def test_a_conversation_that_nobody_has_spoken_in_is_not_listed(client: Client) -> None:
    session_id = await client.open_session()

    async def made() -> Any:
        return (await client.session(session_id))["conversation_id"]

    await wait_until(made)
    assert await listed(client) == []
    await client.send(session_id, "now I say something")
    assert [each["title"] for each in await some(client, 1)] == ["now I say something"]


async def test_a_conversation_that_coze_made_with_the_first_chat_is_listed_too(
    client: Client, simulator: SimControl
) -> None:
    simulator.knob(path="/v1/conversation/create", fail=4101)
    _, conversation = await talk(client, "hello")
    assert [each["conversation_id"] for each in await some(client, 1)] == [conversation]


async def test_the_last_used_one_comes_first_and_pages_follow_one_another(client: Client) -> None:
    made = [(await talk(client, f"number {n}"))[1] for n in range(5)]
    await some(client, 5)
    await client.post("/coze/sessions", json={"user_id": "u-1", "conversation_id": made[1]})
    order = [made[1], *(each for each in reversed(made) if each != made[1])]
    assert [each["conversation_id"] for each in await listed(client)] == order
    pages, before = [], ""
    for _ in range(3):
        page = data_of(
            await client.get("/coze/users/u-1/conversations", params={"limit": 2, "before": before})
        )
        pages.append([each["conversation_id"] for each in page["conversations"]])
        assert page["has_more"] is (page["next_before"] is not None)
        before = page["next_before"] or ""
    assert pages == [order[:2], order[2:4], order[4:]]
    assert await listed(client, before="7380000000000000001") == []


@pytest.mark.parametrize("through", ["the list", "its session"])
async def test_a_new_title_shows_in_the_list_in_its_session_and_in_the_next_one(
    client: Client, through: str
) -> None:
    session_id, conversation = await talk(client, "first words")
    await some(client, 1)
    if through == "the list":
        renamed = data_of(await rename(client, conversation, "  周末去杭州  "))
        assert renamed == (await listed(client))[0]
    else:
        answer = await client.http.patch(f"/coze/sessions/{session_id}", json={"title": "周末去杭州"})
        assert data_of(answer)["title"] == "周末去杭州"
    assert (await listed(client))[0]["title"] == "周末去杭州"
    assert (await client.session(session_id))["title"] == "周末去杭州"
    await client.send(session_id, "more words")
    assert (await client.session(session_id))["title"] == "周末去杭州"
    body = {"user_id": "u-1", "conversation_id": conversation}
    later = data_of(await client.post("/coze/sessions", json=body))
    await client.send(later["session_id"], "other words")
    assert (await client.session(later["session_id"]))["title"] == "周末去杭州"
    assert [each["title"] for each in await listed(client)] == ["周末去杭州"]


@pytest.mark.parametrize("title", ["", "   ", "x" * 101, 5, None, "two\nlines", "turned \u202e round"])
async def test_what_is_no_title_is_refused_and_says_so(client: Client, title: Any) -> None:
    session_id, conversation = await talk(client, "hello")
    await some(client, 1)
    for response in (
        await rename(client, conversation, title),
        await client.http.patch(f"/coze/sessions/{session_id}", json={"title": title}),
    ):
        assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert (await listed(client))[0]["title"] == "hello"


async def test_a_deleted_conversation_is_gone_here_and_at_coze_and_its_sessions_are_over(
    client: Client, simulator: SimControl, redis: RedisServer
) -> None:
    session_id, conversation = await talk(client, "hello")
    _, other = await talk(client, "another one")
    await some(client, 2)
    response = await client.delete(f"/coze/users/u-1/conversations/{conversation}")
    assert data_of(response) == {"conversation_id": conversation, "deleted": True}
    assert response.headers["X-Coze-Logid"]
    assert [each["conversation_id"] for each in await listed(client)] == [other]
    kept = simulator.running.app.core.store.conversations
    assert (conversation in kept, other in kept) == (False, True)
    assert (await client.get(f"/coze/sessions/{session_id}")).status_code == 410
    body = {"user_id": "u-1", "conversation_id": conversation}
    assert_unknown(await client.post("/coze/sessions", json=body))
    assert_unknown(await client.delete(f"/coze/users/u-1/conversations/{conversation}"))
    assert_unknown(await rename(client, conversation, "again"))
    with redis.client() as store:
        left = [each for key in store.scan_iter("*.about") for each in store.hgetall(key).values()]
        assert conversation.encode() not in left


async def test_a_chat_that_ends_in_a_conversation_while_it_is_deleted_does_not_bring_it_back(
    client: Client, simulator: SimControl, redis: RedisServer
) -> None:
    simulator.knob(path="/v1/conversation/create", fail=4101)
    session_id = await client.open_session()
    chat_id = await client.start(session_id, "slowly [[sim:deltas=100;gap=0.1]]")
    async with client.events(chat_id) as reader:
        await reader.until("conversation.message.delta")
    conversation = await wait_until(lambda: _conversation(client, session_id))
    await some(client, 1)
    assert (await client.delete(f"/coze/users/u-1/conversations/{conversation}")).status_code == 200
    assert data_of(await client.result(chat_id))["status"] == "cancelled"
    # The end of a chat in another session whose conversation this is, however it came by it.
    with redis.client() as store:
        [key] = store.scan_iter(f"*:session:{session_id}")
        store.hset(key, mapping={"status": "active", "kept": "0"})
    assert (await client.session(session_id))["conversation_id"] == conversation
    assert await listed(client) == []


async def _conversation(client: Client, session_id: str) -> Any:
    return (await client.session(session_id))["conversation_id"]


async def test_where_coze_cannot_delete_it_the_conversation_stays_and_it_can_be_tried_again(
    client: Client, simulator: SimControl
) -> None:
    _, conversation = await talk(client, "hello")
    await some(client, 1)
    path = f"/v1/conversations/{conversation}"
    simulator.knob(path=path, fail=4101)
    response = await client.delete(f"/coze/users/u-1/conversations/{conversation}")
    assert (response.status_code, error_of(response)["code"]) == (502, "COZE_API_ERROR")
    assert len(await listed(client)) == 1
    simulator.reset()
    simulator.knob(path=path, fail=4002)  # it is not there any more: that is what was wanted
    assert (await client.delete(f"/coze/users/u-1/conversations/{conversation}")).status_code == 200
    assert await listed(client) == []


async def test_erasing_the_user_leaves_nothing_of_the_list(client: Client, redis: RedisServer) -> None:
    _, conversation = await talk(client, "a secret")
    await talk(client, "of another", "u-2")
    await some(client, 1)
    [kept] = await some(client, 1, "u-2")
    await client.delete("/coze/users/u-1")
    assert await listed(client) == []
    assert_unknown(await rename(client, conversation, "again"))
    assert await listed(client, "u-2") == [kept]
    with redis.client() as store:
        assert len(list(store.scan_iter("*.about"))) == len(list(store.scan_iter("*:listed:*"))) == 1


async def test_a_title_is_the_begin_of_the_first_message_as_one_line(client: Client) -> None:
    titles = []
    for message in ("  two\n\nlines\tand tabs ", LONG, "turned \u202e round"):
        session_id = await client.open_session()
        assert (await client.session(session_id))["title"] is None
        await client.send(session_id, message)
        await client.send(session_id, "a second message changes nothing")
        titles.append((await client.session(session_id))["title"])
    assert titles == ["two lines and tabs", LONG[:59].rstrip() + "…", "turned round"]
    sessions = data_of(await client.get("/coze/users/u-1/sessions"))["sessions"]
    assert {each["title"] for each in sessions} == set(titles)


async def test_a_session_gets_other_metadata_as_a_whole_and_that_counts_as_activity(client: Client) -> None:
    session_id = await client.open_session(meta_data={"app": "web", "page": "1"})
    before = await client.session(session_id)
    answer = await client.http.patch(f"/coze/sessions/{session_id}", json={"metadata": {"app": "phone"}})
    changed = data_of(answer)
    assert (changed["metadata"], changed["title"]) == ({"app": "phone"}, None)
    assert changed["expires_at"] > before["expires_at"]
    assert (await client.session(session_id))["metadata"] == {"app": "phone"}
    nothing = await client.http.patch(f"/coze/sessions/{session_id}", json={})
    assert (nothing.status_code, error_of(nothing)["code"]) == (400, "COZE_VALIDATION_ERROR")
    await client.delete(f"/coze/sessions/{session_id}")
    over = await client.http.patch(f"/coze/sessions/{session_id}", json={"title": "late"})
    assert (over.status_code, error_of(over)["code"]) == (410, "COZE_SESSION_TERMINATED")
