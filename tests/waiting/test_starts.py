"""A Redis that answers and refuses: the service starts and says so, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.support import RedisServer, ServiceProcess, SimControl, error_of, redis_server, service_process

ENDED_BY_SIGTERM = {0, -signal.SIGTERM}
AT_ONCE = 4
BOUND = 60.0
"""Seconds that nothing here takes unless it hangs."""

REFUSALS = {
    "SELECT is forbidden": ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-select"],
    "SELECT is unknown": ["--rename-command", "SELECT", ""],
}
"""What goes wrong before a connection can be used; the address names a database."""
UNNAMED = {
    "CLIENT is unknown": ["--rename-command", "CLIENT", ""],
    "CLIENT is forbidden": ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-client"],
}
"""Servers where a connection cannot be given a name, which is all that is missing there."""


@pytest.fixture(params=sorted(REFUSALS))
def refusing_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_server(options=REFUSALS[request.param]) as server:
        yield server


def start(process: ServiceProcess) -> httpx.Response:
    """Its health, once it listens. Raises RuntimeError if it ends, or neither listens nor ends."""
    process.start()
    return httpx.get(process.base_url + "/coze/health", timeout=BOUND)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.full)])
async def test_each_start_against_a_redis_that_refuses_connections_listens_and_ends(
    refusing_redis: RedisServer, simulator: SimControl, rounds: int
) -> None:
    values = {"REDIS_URL": refusing_redis.url_of(3), "COZE_API_URL": simulator.chat_url}
    for _ in range(rounds):
        with ExitStack() as stack:
            some = [
                stack.enter_context(service_process(values, wait_for="/coze/health/live", start=False))
                for _ in range(AT_ONCE)
            ]
            answers = await asyncio.gather(*(asyncio.to_thread(start, process) for process in some))
            for answer in answers:
                assert (answer.status_code, error_of(answer)["code"]) == (503, "COZE_REDIS_ERROR")
            for process in some:
                process.terminate()
            for process in some:
                assert await asyncio.to_thread(process.wait, BOUND) in ENDED_BY_SIGTERM
                assert "Traceback" not in process.log
                assert "Redis is away" in process.log


@pytest.mark.parametrize("options", UNNAMED.values(), ids=list(UNNAMED))
async def test_where_a_connection_cannot_have_a_name_all_the_rest_works(
    options: list[str], simulator: SimControl
) -> None:
    with redis_server(options=options) as server, ExitStack() as stack:
        values = {"REDIS_URL": server.url_of(3), "COZE_API_URL": simulator.chat_url}
        process = stack.enter_context(service_process(values, wait_for="/coze/health/live", start=False))
        assert (await asyncio.to_thread(start, process)).status_code == 200
        process.terminate()
        assert await asyncio.to_thread(process.wait, BOUND) in ENDED_BY_SIGTERM
        assert "Traceback" not in process.log
