"""Both versions for a single test, with settings of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.support import Clients, Cluster, cluster
from tests.support import Client, SimControl
from tests.support.service import ROOT


@asynccontextmanager
async def both_versions(
    previous_code: Path, simulator: SimControl, **values: str
) -> AsyncIterator[tuple[Cluster, list[Client]]]:
    """A replica of each version for one test, with a client of each; ``values``: settings of both."""
    with cluster(simulator=simulator, codes=[previous_code, ROOT], **values) as running:
        async with Clients(running.urls) as clients:
            yield running, clients
        await running.settle(20)
