"""One cluster for all fault tests: what a test breaks is whole again before the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support import Client, SimControl

from .support import Clients, Cluster, cluster


@pytest.fixture(scope="session")
def _shared_cluster(shared_simulator: SimControl) -> Iterator[Cluster]:
    with cluster(simulator=shared_simulator) as running:
        yield running


@pytest.fixture
async def pair(_shared_cluster: Cluster, simulator: SimControl) -> AsyncIterator[Cluster]:
    """Two replicas with leases of a second, on a Redis with AOF that may be stopped. Afterwards no chat, no
    lease and no key without TTL is left, and no replica has logged an error."""
    _shared_cluster.repair()
    before = [len(replica.log) for replica in _shared_cluster.replicas]
    yield _shared_cluster
    _shared_cluster.repair()
    await _shared_cluster.settle()
    for replica, start in zip(_shared_cluster.replicas, before, strict=True):
        written = replica.log[start:]
        assert "Traceback" not in written, written[-3000:]
        assert '"level": "ERROR"' not in written, written[-3000:]


@pytest.fixture
async def clients(pair: Cluster) -> AsyncIterator[list[Client]]:
    """A client of each replica."""
    async with Clients(pair.urls) as opened:
        yield opened
