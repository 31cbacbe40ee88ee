"""The service as a process of its own, as the clients' programs meet it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.openai.support import KEYS
from tests.support import RedisServer, ServiceProcess, SimControl, service_process

from .support import NotToBeHad, node_environment, python_environment

PLACE = '```json\n{"name": "Wuhan", "people": 13000000}\n```'


@pytest.fixture(scope="session")
def shared_process(shared_redis: RedisServer, shared_simulator: SimControl) -> Iterator[ServiceProcess]:
    values = {
        "REDIS_URL": shared_redis.url,
        "COZE_API_URL": shared_simulator.chat_url,
        "COZE_OPENAI_API_KEYS": KEYS,
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
    }
    with service_process(values) as service:
        yield service


@pytest.fixture
def service(redis: RedisServer, simulator: SimControl, shared_process: ServiceProcess) -> ServiceProcess:  # type: ignore[override]
    """Whoever asks its bot for "a place, please" gets JSON in a fence."""
    simulator.knob(match="a place, please", text=PLACE)
    return shared_process


@pytest.fixture(scope="session")
def python() -> Iterator[list[str]]:
    try:
        with python_environment() as command:
            yield command
    except NotToBeHad as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def node() -> Iterator[list[str]]:
    try:
        with node_environment() as command:
            yield command
    except NotToBeHad as missing:
        pytest.skip(str(missing))
