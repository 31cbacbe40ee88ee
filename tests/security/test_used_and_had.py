"""What was used, and conversations of before: each caller's own, an admin's root, and gone with the user."""

from __future__ import annotations

from typing import Any

import pytest

from coze_simulator.auth_server import RunningAuth
from tests.support import Client, RedisServer, RunningApp, data_of, error_of

from .helpers import (
    ADMIN,
    ADMIN_ELSEWHERE,
    ALICE,
    BOB,
    NO_PERSON,
    OWNERS,
    TESTER,
    calling,
    settled_contents,
)

USERS = ("u-1", "u-2")


async def talk(client: Client, user_id: str) -> tuple[str, int]:
    """One message of that user; the conversation, and the tokens it took."""
    chat = data_of(await client.send(await client.open_session(user_id), "hello"))
    return chat["metadata"]["conversation_id"], chat["usage"]["token_count"]


async def used(client: Client) -> dict[str, tuple[int, int]]:
    """Chats and tokens by user."""
    rows = data_of(await client.get("/coze/usage?group_by=user"))["rows"]
    return {row["user_id"]: (row["chats"], row["tokens"]) for row in rows}


async def reopen(client: Client, user_id: str, conversation: str) -> Any:
    return await client.post("/coze/sessions", json={"user_id": user_id, "conversation_id": conversation})


async def test_two_tenants_with_two_callers_and_two_users_each_go_on_with_their_own_conversations_alone(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    strangers = (TESTER, NO_PERSON, ADMIN, ADMIN_ELSEWHERE)
    async with calling(secured, auth, *OWNERS, *strangers) as clients:
        had = {
            (n, user): (await talk(client, user))[0]
            for n, client in enumerate(clients[: len(OWNERS)])
            for user in USERS
        }
        before = settled_contents(redis)
        for (n, user), conversation in had.items():
            for m, client in enumerate(clients):
                for name in USERS:
                    if (m, name) != (n, user):
                        refused = await reopen(client, name, conversation)
                        assert refused.status_code == 404
                        assert error_of(refused)["code"] == "COZE_CONVERSATION_NOT_FOUND"
                        assert conversation not in refused.text
        assert settled_contents(redis) == before, "a stranger changed something"
        for (n, user), conversation in had.items():
            session = data_of(await reopen(clients[n], user, conversation))
            assert session["conversation_id"] == conversation


async def test_a_foreign_conversation_is_answered_as_an_unknown_one_is(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, BOB) as [alice, bob]:
        conversation, _ = await talk(alice, "u-1")
        answers = [await reopen(bob, "u-1", name) for name in (conversation, "1" + conversation[1:])]
        told = [error_of(answer) for answer in answers]
        for error in told:
            del error["timestamp"], error["request_id"]
        assert told[0] == told[1]


async def test_everybody_is_told_what_is_his_and_an_admin_what_is_the_roots(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, *OWNERS, ADMIN, ADMIN_ELSEWHERE, TESTER) as clients:
        tokens = [[(await talk(client, user))[1] for user in USERS] for client in clients[: len(OWNERS)]]
        for client, own in zip(clients, tokens, strict=False):
            assert await used(client) == {user: (1, n) for user, n in zip(USERS, own, strict=True)}
        admin, elsewhere, tester = clients[len(OWNERS) :]
        for client, root in ((admin, "moicen.com"), (elsewhere, "huiwings.cn")):
            ours = [t for who, t in zip(OWNERS, tokens, strict=True) if who.root == root]
            assert await used(client) == {
                user: (2, sum(of_one[n] for of_one in ours)) for n, user in enumerate(USERS)
            }
            [row] = data_of(await client.get("/coze/usage?group_by=root"))["rows"]
            assert (row["root"], row["chats"]) == (root, 4)
        assert await used(tester) == {}


@pytest.mark.parametrize("who", ["the owner", "an admin"])
async def test_erasing_takes_a_users_usage_and_conversations_and_nobody_elses(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, who: str
) -> None:
    """Long after the sessions are gone, too."""
    async with calling(secured, auth, *OWNERS, ADMIN) as clients:
        had = [[(await talk(client, user))[0] for user in USERS] for client in clients[: len(OWNERS)]]
        with redis.client() as store:
            store.delete(
                *store.scan_iter("*:session:*"), *store.scan_iter("*:chats:*"), *store.scan_iter("*{index}*")
            )
        eraser = clients[-1] if who == "an admin" else clients[0]
        assert data_of(await eraser.delete("/coze/users/u-1"))["remaining_sessions"] == 0
        for n, client in enumerate(clients[: len(OWNERS)]):
            gone = n == 0 or (who == "an admin" and OWNERS[n].root == "moicen.com")
            assert set(await used(client)) == ({"u-2"} if gone else {"u-1", "u-2"})
            assert (await reopen(client, "u-1", had[n][0])).status_code == (404 if gone else 200)
            assert (await reopen(client, "u-2", had[n][1])).status_code == 200
        assert (await used(clients[-1]))["u-2"][0] == 2
        for client in clients[: len(OWNERS)]:
            for user in USERS:
                while data_of(await client.delete(f"/coze/users/{user}"))["remaining_sessions"]:
                    pass
        with redis.client() as store:
            for kind in ("usage", "owners", "conversation"):
                assert list(store.scan_iter(f"*:{kind}*")) == []
