"""For all tests: golden files, and the servers that tests of the running service share."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from coze_simulator import SimulatorOptions, running_simulator

from .support import (
    Client,
    Golden,
    RedisServer,
    RunningApp,
    ServiceProcess,
    SimControl,
    make_settings,
    open_client,
    redis_server,
    running_app,
    service_process,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files in tests/data anew; read the diff",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(update=request.config.getoption("--update-golden"))


@pytest.fixture
def seed() -> int:
    """Another one in each run. An argument of a test that fails is shown with it, so this one is, too."""
    return random.SystemRandom().randrange(1 << 32)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One redis-server for the whole run. Do not stop it: take ``own_redis`` for that."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> Iterator[RedisServer]:
    """A real Redis, empty; afterwards every key in it must have a time to live."""
    shared_redis.flush()
    yield shared_redis
    forever = shared_redis.keys_without_ttl()
    shared_redis.flush()
    assert forever == [], "keys without a time to live"


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A redis-server of this test alone: to be stopped, paused, killed. Whatever is in it must expire."""
    with redis_server() as server:
        yield server
        if server.running:
            server.resume()
            assert server.keys_without_ttl() == [], "keys without a time to live"


@pytest.fixture(scope="session")
def shared_simulator() -> Iterator[SimControl]:
    with running_simulator(SimulatorOptions(speed=math.inf)) as running:
        control = SimControl(running)
        yield control
        control.close()


@pytest.fixture
def simulator(shared_simulator: SimControl) -> Iterator[SimControl]:
    """A Coze at full speed: no knobs, no requests seen yet, upstream ok."""
    shared_simulator.reset()
    yield shared_simulator
    shared_simulator.reset()


@pytest.fixture
def start_app(simulator: SimControl) -> Iterator[Callable[..., RunningApp]]:
    """``start_app(REDIS_URL=..., COZE_TIMEOUT="1")``: services in this process, stopped after the test."""
    with ExitStack() as stack:

        def start(**values: Any) -> RunningApp:
            settings = make_settings(
                **{"COZE_API_URL": simulator.chat_url, "REDIS_URL": "memory://"} | values
            )
            service = stack.enter_context(running_app(settings))
            stack.callback(_check_keys, service)
            return service

        yield start


def _check_keys(service: RunningApp) -> None:
    if service.settings.embedded_redis:  # the keys in a server are looked at by whoever started it
        assert service.keys_without_ttl() == [], "keys without a time to live"


@pytest.fixture
def start_process(simulator: SimControl) -> Iterator[Callable[..., ServiceProcess]]:
    """``start_process(REDIS_URL=...)``: services as processes, killed after the test."""
    with ExitStack() as stack:

        def start(*, wait_for: str = "/coze/health", **values: str) -> ServiceProcess:
            chosen = {"COZE_API_URL": simulator.chat_url, "REDIS_URL": "memory://"} | values
            return stack.enter_context(service_process(chosen, wait_for=wait_for))

        yield start


@pytest.fixture(scope="session")
def shared_services(
    shared_redis: RedisServer, shared_simulator: SimControl
) -> Iterator[Callable[[str], RunningApp]]:
    """By kind of store, one service each for the whole run, started when first asked for."""
    running: dict[str, RunningApp] = {}
    with ExitStack() as stack:

        def get(store: str) -> RunningApp:
            if store not in running:
                url = "memory://" if store == "memory" else shared_redis.url
                settings = make_settings(COZE_API_URL=shared_simulator.chat_url, REDIS_URL=url)
                running[store] = stack.enter_context(running_app(settings))
            return running[store]

        yield get


def _use_shared(service: RunningApp) -> Iterator[RunningApp]:
    """The store is empty before; afterwards no chat runs and every key has a time to live."""
    service.flush()
    yield service
    service.wait_idle()
    _check_keys(service)


@pytest.fixture
def service(
    redis: RedisServer, simulator: SimControl, shared_services: Callable[[str], RunningApp]
) -> Iterator[RunningApp]:
    """The service on a real Redis, in this process. It is shared: a test ends the chats that it starts."""
    yield from _use_shared(shared_services("redis-server"))


@pytest.fixture
async def client(service: RunningApp) -> AsyncIterator[Client]:
    """A client of ``service``."""
    async with open_client(service.base_url) as client:
        yield client


@pytest.fixture(params=["redis-server", "memory"])
def each_service(
    request: pytest.FixtureRequest,
    redis: RedisServer,
    simulator: SimControl,
    shared_services: Callable[[str], RunningApp],
) -> Iterator[RunningApp]:
    """The service, once on a real Redis and once on memory://; shared as ``service`` is."""
    yield from _use_shared(shared_services(request.param))


@pytest.fixture
async def each_client(each_service: RunningApp) -> AsyncIterator[Client]:
    """A client of ``each_service``."""
    async with open_client(each_service.base_url) as client:
        yield client


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured and put on record, also of those that ran in other processes."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(str(value))
