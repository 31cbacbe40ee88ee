"""One cluster for all fault tests: what a test breaks is whole again before the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support import Client, SimControl

from .support import Clients, Cluster, cluster, unharmed


@pytest.fixture(scope="session")
def _shared_cluster(shared_simulator: SimControl) -> Iterator[Cluster]:
    with cluster(simulator=shared_simulator) as running:
        yield running


@pytest.fixture
async def pair(_shared_cluster: Cluster, simulator: SimControl) -> AsyncIterator[Cluster]:
    """Two replicas with leases of a second, on a Redis with AOF that may be stopped. Afterwards no chat, no
    lease and no key without TTL is left, and no replica has logged an error."""
    async with unharmed(_shared_cluster):
        yield _shared_cluster


@pytest.fixture
async def clients(pair: Cluster) -> AsyncIterator[list[Client]]:
    """A client of each replica."""
    async with Clients(pair.urls) as opened:
        yield opened
