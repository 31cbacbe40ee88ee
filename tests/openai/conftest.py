"""OpenAI's own SDK in front of the running service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support import RedisServer, RunningApp, SimControl, make_settings, running_app

from .support import BOTS, KEYS, async_client, sync_client


@pytest.fixture(scope="session")
def shared_door(shared_redis: RedisServer, shared_simulator: SimControl) -> Iterator[RunningApp]:
    settings = make_settings(
        REDIS_URL=shared_redis.url,
        COZE_API_URL=shared_simulator.chat_url,
        COZE_BOTS=BOTS,
        COZE_OPENAI_API_KEYS=KEYS,
        RATE_LIMIT_MESSAGES_PER_MINUTE="0",
    )
    with running_app(settings) as service:
        yield service


@pytest.fixture
def door(redis: RedisServer, simulator: SimControl, shared_door: RunningApp) -> Iterator[RunningApp]:
    """A service with two bots, shared; its store is empty before, and afterwards no chat runs."""
    shared_door.flush()
    yield shared_door
    shared_door.wait_idle()


@pytest.fixture
def ai(door: RunningApp) -> Iterator[OpenAI]:
    with sync_client(door.base_url) as client:
        yield client


@pytest.fixture
async def async_ai(door: RunningApp) -> AsyncIterator[AsyncOpenAI]:
    async with async_client(door.base_url) as client:
        yield client


@pytest.fixture
def open_door(start_app: Callable[..., RunningApp], redis: RedisServer) -> Callable[..., RunningApp]:
    """``open_door(ENABLE_AUTH="true")``: a service of this test alone."""

    def start(**values: Any) -> RunningApp:
        chosen = {"REDIS_URL": redis.url, "COZE_BOTS": BOTS, "COZE_OPENAI_API_KEYS": KEYS}
        return start_app(**chosen | values)

    return start
