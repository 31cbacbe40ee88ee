"""The service with API keys, and the Coze behind it for comparison."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from coze_simulator import SIMULATOR_TOKEN
from tests.support import RedisServer, RunningApp, SimControl, make_settings, running_app

from .support import KEY, KEYS, OTHER_KEY, CozeCaller, calling

VALUES = {"COZE_API_KEYS": KEYS, "ENABLE_AUTH": "true", "RATE_LIMIT_MESSAGES_PER_MINUTE": "0"}


@pytest.fixture(scope="session")
def shared_coze_door(shared_redis: RedisServer, shared_simulator: SimControl) -> Iterator[RunningApp]:
    values = {"REDIS_URL": shared_redis.url, "COZE_API_URL": shared_simulator.chat_url}
    with running_app(make_settings(**values | VALUES)) as service:
        yield service


@pytest.fixture
def door(redis: RedisServer, simulator: SimControl, shared_coze_door: RunningApp) -> Iterator[RunningApp]:
    """A service with two API keys, shared; its store is empty before, and afterwards no chat runs."""
    shared_coze_door.flush()
    yield shared_coze_door
    shared_coze_door.wait_idle()


@pytest.fixture
def open_door(start_app: Callable[..., RunningApp], redis: RedisServer) -> Callable[..., RunningApp]:
    """``open_door(SSE_HEARTBEAT_SECONDS="0.1")``: a service of this test alone."""
    return lambda **values: start_app(**{"REDIS_URL": redis.url} | VALUES | values)


def base_of(service: Any) -> str:
    """What an SDK takes as ``base_url``."""
    return f"{service.base_url}/coze/api"


@pytest.fixture
async def app(door: RunningApp) -> AsyncIterator[CozeCaller]:
    """An app with a key of its own."""
    async with calling(base_of(door), KEY) as caller:
        yield caller


@pytest.fixture
async def other(door: RunningApp) -> AsyncIterator[CozeCaller]:
    """Another one."""
    async with calling(base_of(door), OTHER_KEY) as caller:
        yield caller


@pytest.fixture
async def coze(simulator: SimControl) -> AsyncIterator[CozeCaller]:
    """Coze itself, asked directly."""
    async with calling(simulator.running.base_url, SIMULATOR_TOKEN) as caller:
        yield caller
