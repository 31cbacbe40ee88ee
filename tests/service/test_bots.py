"""The configured bots, as Coze describes them: asked for once, and nothing but what callers may know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coze_simulator import SIMULATOR_BOT_ID
from tests.support import Client, RedisServer, RunningApp, SimControl, data_of, error_of, open_client

OTHER = "7380000000000000010"
UNPUBLISHED = "7380000000000004015"
ASKED = "/v1/bot/get_online_info"


@pytest.fixture
async def several(redis: RedisServer, start_app: Callable[..., RunningApp]) -> AsyncIterator[Client]:
    """A service with three bots, fresh: nothing is cached."""
    bots = f"travel:{SIMULATOR_BOT_ID},other:{OTHER},hidden:{UNPUBLISHED}"
    service = start_app(REDIS_URL=redis.url, COZE_BOTS=bots)
    async with open_client(service.base_url) as client:
        yield client


async def bots_of(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data_of(await client.get("/coze/bots"))["bots"]
    return found


async def test_all_configured_bots_are_listed_the_default_first(several: Client) -> None:
    bots = await bots_of(several)
    assert [bot["bot_id"] for bot in bots] == [SIMULATOR_BOT_ID, OTHER, UNPUBLISHED]
    assert bots[0]["name"]
    assert bots[0]["icon_url"].startswith("https://")
    assert bots[0]["opening_text"]
    assert len(bots[0]["suggested_questions"]) == 3
    # Coze tells nothing of a bot that is not published; it can still be chosen.
    assert bots[2] == {
        "bot_id": UNPUBLISHED,
        "name": None,
        "description": "",
        "icon_url": None,
        "opening_text": "",
        "suggested_questions": [],
    }


async def test_one_bot_is_told_as_the_list_tells_it_and_its_prompt_is_nobodys_affair(several: Client) -> None:
    response = await several.get(f"/coze/bots/{SIMULATOR_BOT_ID}")
    assert response.headers["X-Coze-Logid"]
    assert data_of(response) == (await bots_of(several))[0]
    assert "instructions" not in response.text
    assert "model" not in response.text


@pytest.mark.parametrize("bot_id", ["7380000000000000011", "x", "%20", "7380000000000000009%00"])
async def test_of_a_bot_that_is_not_configured_nothing_is_told_and_coze_is_not_asked(
    several: Client, simulator: SimControl, bot_id: str
) -> None:
    response = await several.get(f"/coze/bots/{bot_id}")
    assert (response.status_code, error_of(response)["code"]) == (404, "COZE_BOT_NOT_FOUND")
    assert simulator.requests(path=ASKED) == []


async def test_coze_is_asked_once_however_many_want_to_know(several: Client, simulator: SimControl) -> None:
    simulator.knob(path=ASKED, first_byte=0.3)
    await asyncio.gather(*(bots_of(several) for _ in range(10)))
    await bots_of(several)
    assert len(simulator.requests(path=ASKED)) == 3, "once for each bot"


async def test_a_failure_is_told_and_not_asked_for_again_and_again(
    several: Client, simulator: SimControl
) -> None:
    simulator.knob(path=ASKED, fail=4101)
    for _ in range(3):
        response = await several.get(f"/coze/bots/{OTHER}")
        assert (response.status_code, error_of(response)["code"]) == (502, "COZE_API_ERROR")
        assert [bot["name"] for bot in await bots_of(several)] == [None] * 3
    assert len(simulator.requests(path=ASKED)) == 3


async def test_what_was_known_before_is_told_while_coze_fails(
    redis: RedisServer, start_app: Callable[..., RunningApp], simulator: SimControl
) -> None:
    service = start_app(REDIS_URL=redis.url)
    async with open_client(service.base_url) as client:
        before = await bots_of(client)

        async def forget_the_time() -> None:
            for known in service.resources.bots._known.values():
                known.until = 0.0

        await asyncio.to_thread(service.call, forget_the_time)
        simulator.knob(path=ASKED, fail=4101)
        assert await bots_of(client) == before
        assert len(simulator.requests(path=ASKED)) == 2
