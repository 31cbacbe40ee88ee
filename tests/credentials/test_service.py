"""Credentials as the running service uses them, against a Coze that knows whose a conversation is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    ServiceProcess,
    SimControl,
    data_of,
    error_of,
    open_client,
    wait_until,
)

TOKENS = {"pat_one": 0, "pat_two": 1}
SEVERAL = {"COZE_API_TOKEN": "", "COZE_API_TOKENS": ",".join(TOKENS)}


async def session_with_conversation(client: Client) -> tuple[str, str]:
    session_id = await client.open_session()

    async def conversation() -> str | None:
        found: str | None = (await client.session(session_id))["conversation_id"]
        return found

    return session_id, await wait_until(conversation)


def owner_of(simulator: SimControl, conversation_id: str) -> str:
    """The token whose conversation it is: to all others it does not exist."""
    owners = [
        token
        for token in TOKENS
        if httpx.get(
            f"{simulator.running.base_url}/v1/conversation/retrieve",
            params={"conversation_id": conversation_id},
            headers={"authorization": f"Bearer {token}"},
        ).json()["code"]
        == 0
    ]
    [owner] = owners
    return owner


async def states(client: Client) -> list[dict[str, Any]]:
    response = await client.get("/coze/admin/stats")
    assert not any(token in response.text for token in TOKENS)
    found: list[dict[str, Any]] = data_of(response)["credentials"]
    return found


async def test_each_conversation_keeps_its_credential_on_every_replica(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    apps = [start_app(REDIS_URL=redis.url, **SEVERAL) for _ in range(2)]
    async with open_client(apps[0].base_url) as one, open_client(apps[1].base_url) as two:
        made = [await session_with_conversation(one) for _ in range(4)]
        assert {owner_of(simulator, conversation) for _, conversation in made} == set(TOKENS)
        for session_id, conversation in made:
            for client in (two, one, two):
                chat = data_of(await client.send(session_id, "hello"))
                assert (chat["status"], chat["metadata"]["conversation_id"]) == ("completed", conversation)
        # Cancelled, and erased at Coze, by the one that did not make it.
        for session_id, _ in made:
            chat_id = await one.start(session_id, "slow [[sim:delay=20]]")
            await wait_until(lambda c=chat_id: _known(one, c))
            assert data_of(await two.post(f"/coze/chats/{chat_id}/cancel"))["status"] == "cancelled"
        cancelled = [request for request in simulator.requests() if request["path"].endswith("/cancel")]
        assert [request["code"] for request in cancelled] == [0] * 4
        await two.delete("/coze/users/u-1")
        cleared = [request for request in simulator.requests() if request["path"].endswith("/clear")]
        assert [request["code"] for request in cleared] == [0] * 4


async def _known(client: Client, chat_id: str) -> bool:
    """Whether Coze has the chat."""
    async with client.events(chat_id) as events:
        await events.until("conversation.chat.created")
    return True


async def test_after_a_restart_a_conversation_still_has_its_credential(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    first = start_app(REDIS_URL=redis.url, **SEVERAL)
    async with open_client(first.base_url) as client:
        made = [await session_with_conversation(client) for _ in range(2)]
    first.stop()
    # One more credential since, and in another order.
    again = start_app(REDIS_URL=redis.url, COZE_API_TOKEN="", COZE_API_TOKENS="pat_new,pat_two,pat_one")
    async with open_client(again.base_url) as client:
        for session_id, conversation in made:
            chat = data_of(await client.send(session_id, "hello"))
            assert (chat["status"], chat["metadata"]["conversation_id"]) == ("completed", conversation)


async def test_new_conversations_leave_a_credential_that_has_hit_its_limit(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    app = start_app(REDIS_URL=redis.url, **SEVERAL)
    async with open_client(app.base_url) as client:
        session_id, conversation = await session_with_conversation(client)
        poor = owner_of(simulator, conversation)
        response = await client.send(session_id, "spent [[sim:fail=4028]]")
        assert error_of(response)["code"] == "COZE_QUOTA_EXHAUSTED"
        by_name = {state["name"][0]: state for state in await states(client)}
        assert by_name[str(TOKENS[poor])]["state"] == "cooling"
        assert by_name[str(TOKENS[poor])]["last_code"] == 4028
        others = [await session_with_conversation(client) for _ in range(3)]
        assert {owner_of(simulator, other) for _, other in others} == set(TOKENS) - {poor}
        # What was begun goes on where it was begun.
        chat = data_of(await client.send(session_id, "again"))
        assert chat["metadata"]["conversation_id"] == conversation


async def test_a_limit_told_by_an_event_counts_too(
    redis: RedisServer, simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    app = start_app(REDIS_URL=redis.url, **SEVERAL)
    async with open_client(app.base_url) as client:
        session_id, _ = await session_with_conversation(client)
        await client.send(session_id, "spent [[sim:fail_at=2;fail_code=4028;reasoning=0]]")
        assert sorted(state["state"] for state in await states(client)) == ["cooling", "ready"]


@pytest.mark.timeout(60)
async def test_a_chat_is_taken_over_with_the_credential_that_began_it(
    redis: RedisServer, simulator: SimControl, start_process: Callable[..., ServiceProcess]
) -> None:
    # Under a prefix of its own: a service that other tests share on this Redis has other credentials, and
    # would take the chats over.
    values = {"REDIS_URL": redis.url, "COZE_REDIS_PREFIX": "several:", "LEASE_SECONDS": "1", **SEVERAL}
    first, second = await asyncio.gather(
        *(asyncio.to_thread(lambda: start_process(**values)) for _ in range(2))
    )
    async with open_client(first.base_url) as one, open_client(second.base_url) as two:
        made = [await session_with_conversation(one) for _ in range(2)]
        chats = [
            await one.start(session_id, "long [[sim:deltas=40;gap=0.05;reasoning=0]]")
            for session_id, _ in made
        ]
        for chat_id in chats:
            await _known(one, chat_id)
        first.kill()
        for chat_id in chats:
            chat = await two.ended(chat_id)
            assert (chat["status"], chat["recovered"]) == ("completed", True), chat["error"]


async def test_a_token_in_a_file_may_change_while_the_service_runs(
    tmp_path: Path, start_app: Callable[..., RunningApp]
) -> None:
    path = tmp_path / "token"
    path.write_text("pat_wrong\n")
    app = start_app(COZE_API_TOKEN_FILE=str(path))
    async with open_client(app.base_url) as client:
        session_id = await client.open_session()
        assert error_of(await client.send(session_id, "hello"))["details"]["coze_code"] == 4100
        path.write_text("pat_good_now\n")
        assert data_of(await client.send(session_id, "hello"))["status"] == "completed"
        [state] = await states(client)
        assert state["kind"] == "file"


@pytest.fixture
def oauth(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "key.pem"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return {
        "COZE_API_TOKEN": "",
        "COZE_OAUTH_APP_ID": "app-1",
        "COZE_OAUTH_KEY_ID": "kid-1",
        "COZE_OAUTH_PRIVATE_KEY_FILE": str(path),
    }


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_an_oauth_app_buys_tokens_and_replaces_a_refused_one(
    transport: str, oauth: dict[str, str], simulator: SimControl, start_app: Callable[..., RunningApp]
) -> None:
    app = start_app(COZE_HTTP_TRANSPORT=transport, **oauth)
    async with open_client(app.base_url) as client:
        session_id, conversation = await session_with_conversation(client)
        assert data_of(await client.send(session_id, "hello"))["status"] == "completed"
        httpx.delete(simulator.running.root_url + "/_sim/tokens")
        chat = data_of(await client.send(session_id, "after the token was revoked"))
        assert (chat["status"], chat["metadata"]["conversation_id"]) == ("completed", conversation)
        bought = [r for r in simulator.requests() if r["path"] == "/api/permission/oauth2/token"]
        assert [request["status"] for request in bought] == [200, 200]
        [state] = await states(client)
        assert (state["kind"], state["state"]) == ("oauth", "ready")
        assert state["expires_at"] > 1_700_000_000


async def test_an_oauth_app_that_coze_refuses_fails_with_a_hint(
    oauth: dict[str, str], start_app: Callable[..., RunningApp]
) -> None:
    Path(oauth["COZE_OAUTH_PRIVATE_KEY_FILE"]).write_text("not a key")
    app = start_app(**oauth)
    async with open_client(app.base_url) as client:
        error = error_of(await client.send(await client.open_session(), "hello"))
        assert error["code"] == "COZE_API_ERROR"
        assert "COZE_OAUTH_PRIVATE_KEY_FILE" in error["details"]["hint"]
