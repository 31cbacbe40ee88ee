"""Simulators for the tests of this folder: one of each kind for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .helpers import SimClient, sim_client


@pytest.fixture(scope="session")
def sim_shared() -> Iterator[SimClient]:
    with sim_client() as client:
        yield client


@pytest.fixture
def sim_cloud(sim_shared: SimClient) -> Iterator[SimClient]:
    """The cloud's dialect at full speed; knobs, log and mode as new."""
    yield sim_shared
    sim_shared.control("POST", "upstream", json={"mode": "ok"})
    sim_shared.control("DELETE", "knobs")
    sim_shared.control("DELETE", "log")


@pytest.fixture(scope="session")
def sim_studio() -> Iterator[SimClient]:
    with sim_client(dialect="studio") as client:
        yield client
