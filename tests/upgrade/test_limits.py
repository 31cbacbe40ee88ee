"""The limits while both versions run: those of the whole service hold for them together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.stores.index import owner_key, user_key
from tests.faults.support import Cluster, open_session
from tests.support import Client, SimControl, data_of, error_of, wait_until

from .support import both_versions

OLD, NEW = 0, 1
OWNER = "local|"
LAYERS = [f":{owner_key(OWNER)}", f":{owner_key('local')}", ""]


@pytest.fixture
async def pair(previous_code: Path, simulator: SimControl) -> AsyncIterator[tuple[Cluster, list[Client]]]:
    """With room for three users."""
    async with both_versions(previous_code, simulator, COZE_MAX_ACTIVE_USERS="3") as opened:
        yield opened


async def open_for(client: Client, user: str) -> httpx.Response:
    return await client.post("/coze/sessions", json={"user_id": user})


async def test_the_users_of_both_versions_are_counted_together(pair: tuple[Cluster, list[Client]]) -> None:
    _, sides = pair
    opened = [await open_for(sides[n % 2], f"u{n}") for n in range(3)]
    assert [answer.status_code for answer in opened] == [200] * 3
    for side in sides:
        refused = await open_for(side, "u3")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "SESSION_LIMIT_REACHED")
    made_by_new = data_of(opened[1])["session_id"]
    assert (await sides[OLD].delete(f"/coze/sessions/{made_by_new}")).status_code == 200
    assert (await open_for(sides[NEW], "u3")).status_code == 200
    made_by_old = data_of(opened[0])["session_id"]
    assert (await sides[NEW].delete(f"/coze/sessions/{made_by_old}")).status_code == 200
    assert (await open_for(sides[OLD], "u4")).status_code == 200


async def test_a_session_of_the_version_before_is_entered_in_all_layers_when_it_is_used(
    pair: tuple[Cluster, list[Client]],
) -> None:
    running, sides = pair
    session_id = await open_session(sides[OLD])
    with running.redis.client() as store:

        def entered() -> list[bool]:
            sets = [f"coze:{{index}}:sessions{layer}" for layer in LAYERS]
            return [store.zscore(name, session_id) is not None for name in sets]

        assert entered() == [False, False, True]
        [key] = store.scan_iter(f"*:session:{session_id}")
        store.hset(key, "indexed", 1)  # as if more than a minute had passed
        user = store.hget(key, "user").decode()
        assert (await sides[NEW].get(f"/coze/sessions/{session_id}")).status_code == 200
        await wait_until(lambda: entered() == [True] * 3)
        assert user == user_key(OWNER, (await sides[NEW].session(session_id))["user_id"])
        users = [f"coze:{{index}}:users{layer}" for layer in LAYERS]
        assert all(store.zscore(name, user) is not None for name in users)
