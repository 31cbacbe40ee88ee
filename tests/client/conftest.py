"""Each test that takes ``kind`` runs with the asynchronous client and with the blocking one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.faults.support import Cluster, cluster
from tests.support import RunningApp, SimControl

from .support import make_client


@pytest.fixture(params=["async", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
async def coze(kind: str, service: RunningApp) -> AsyncIterator[Any]:
    """A client of ``service``."""
    client = make_client(kind, service.base_url)
    yield client
    await client.close()


@pytest.fixture(scope="module")
def _replicas(shared_simulator: SimControl) -> Iterator[Cluster]:
    with cluster(simulator=shared_simulator, SSE_HEARTBEAT_SECONDS="0.2") as running:
        yield running


@pytest.fixture
async def replicas(_replicas: Cluster, simulator: SimControl) -> AsyncIterator[Cluster]:
    """Two replicas as processes, with leases and heartbeats that are short; whole again before each test."""
    _replicas.repair()
    yield _replicas
    await _replicas.settle()
