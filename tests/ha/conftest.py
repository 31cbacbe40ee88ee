"""Two replicas of the service on a Redis Cluster, and two on a master that Sentinels watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.faults.support import Clients, cluster
from tests.support import Client, SimControl

from . import groups

KINDS = {"cluster": groups.Cluster, "sentinel": groups.Sentinels}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """These start a dozen servers: they run only where they are asked for (-m ha)."""
    if "ha" in str(config.getoption("markexpr")).split():
        return
    asked_not = [item for item in items if item.get_closest_marker("ha")]
    config.hook.pytest_deselected(items=asked_not)
    items[:] = [item for item in items if item not in asked_not]


@pytest.fixture(scope="session")
def _stands(shared_simulator: SimControl) -> Iterator[Callable[[str], Any]]:
    """By kind, servers and replicas, started when first asked for."""
    running: dict[str, Any] = {}
    with ExitStack() as stack:

        def get(kind: str) -> Any:
            if kind not in running:
                group = stack.enter_context(groups.running_group(KINDS[kind]))
                running[kind] = stack.enter_context(cluster(simulator=shared_simulator, redis=group))
            return running[kind]

        yield get


async def _use(stand: Any) -> AsyncIterator[Any]:
    stand.repair()
    before = [len(replica.log) for replica in stand.replicas]
    yield stand
    stand.repair()
    await stand.settle()
    for replica, start in zip(stand.replicas, before, strict=True):
        written = replica.log[start:]
        assert "Traceback" not in written, written[-3000:]
        assert '"level": "ERROR"' not in written, written[-3000:]
        assert '"level":"ERROR"' not in written, written[-3000:]


@pytest.fixture(params=[*KINDS])
async def pair(
    request: pytest.FixtureRequest, _stands: Callable[[str], Any], simulator: SimControl
) -> AsyncIterator[Any]:
    """Two replicas with leases of a second, over each kind of Redis in turn."""
    async for stand in _use(_stands(request.param)):
        yield stand


@pytest.fixture
async def on_cluster(_stands: Callable[[str], Any], simulator: SimControl) -> AsyncIterator[Any]:
    async for stand in _use(_stands("cluster")):
        yield stand


@pytest.fixture
async def on_sentinel(_stands: Callable[[str], Any], simulator: SimControl) -> AsyncIterator[Any]:
    async for stand in _use(_stands("sentinel")):
        yield stand


@pytest.fixture
async def clients(pair: Any) -> AsyncIterator[list[Client]]:
    """A client of each replica."""
    async with Clients(pair.urls) as opened:
        yield opened
