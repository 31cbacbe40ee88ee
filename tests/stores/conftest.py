"""Each test runs on an embedded Redis whose clock stands still, and once more on a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis import FakeServer
from loguru import logger

from app.redis_client import Servers, open_embedded, open_redis

from .place import FOR_EVER, Clock, Place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "at" not in metafunc.fixturenames:
        return
    exact = (
        "clock" in metafunc.fixturenames
    )  # only an embedded Redis has a clock that can be moved by milliseconds
    metafunc.parametrize("store", ["memory"] if exact else ["memory", "redis-server"])


@pytest.fixture(scope="session")
def embedded_server() -> FakeServer:
    """One for all tests, emptied by each: its Lua is slow to start."""
    return FakeServer()


@pytest.fixture
async def at(
    store: str, embedded_server: FakeServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    server: FakeServer | None = None
    clock: Clock | None = None
    servers: Servers | None = None
    url = "memory://"
    if store == "memory":
        server, clock = embedded_server, Clock()
        clock.install(monkeypatch)
        servers = open_embedded(5.0, server)
    else:
        url = request.getfixturevalue("redis").url
    broken: list[str] = []
    sink = logger.add(lambda message: broken.append(str(message)), level="ERROR", filter=_step_broke)
    async with open_redis(url, pool_size=16, reply_timeout=5.0, servers=servers) as gate:
        await gate.on_each("FLUSHALL")
        place = Place(gate, server, clock)
        place.writer.start()
        yield place
        await place.writer.stop()
        logger.remove(sink)
        assert broken == []
        forever = [name for name, left in (await place.dump()).items() if left == FOR_EVER]
        assert forever == [], "keys without a time to live"


def _step_broke(record: Any) -> bool:
    """An error of ours in the writer's loop, which goes on after it."""
    return bool(record["exception"])


@pytest.fixture
def clock(at: Place) -> Clock:
    """To be moved by single milliseconds; a test that takes it runs on the embedded Redis alone."""
    assert at.clock is not None
    return at.clock
