"""Coze's SDK for Node, in a process and an environment of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.openai_clients.support import NotToBeHad, node_environment, run
from tests.support import RedisServer, ServiceProcess, SimControl

from .conftest import VALUES
from .support import BOT, KEY

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]


@pytest.fixture(scope="session")
def node() -> Iterator[list[str]]:
    try:
        with node_environment(Path(__file__).parent / "node") as command:
            yield command
    except NotToBeHad as missing:
        pytest.skip(str(missing))


def test_cozes_sdk_for_node(
    node: list[str],
    redis: RedisServer,
    simulator: SimControl,
    start_process: Callable[..., ServiceProcess],
) -> None:
    service = start_process(REDIS_URL=redis.url, **VALUES)
    told = run([node[0], f"{node[1]}/coze.mjs"], service.base_url, KEY, BOT)
    assert told["streamed"] == told["polled"] != ""
    assert (told["usage"] > 0, told["status"], told["messages"], told["rounds"]) == (True, True, 4, 2)
    assert "Li" in told["again"]
    assert "22 degrees" in told["weather"]
    assert "what is this?" in told["picture"]
    assert told["errors"] == {
        "token": ["AuthenticationError", 4100, True],
        "busy": ["APIError", 4016, True],
        "unknown": ["APIError", 4002, True],
        "not offered": ["NotFoundError", 4200, True],
    }
    assert told["refused"]["event"] == "error"
    assert told["refused"]["data"]["code"] == 4028
    assert len(simulator.requests(path="/v3/chat", contains="weather")) == 1
