"""A service as the pages expect it: test mode, with a simulator that takes a little time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coze_simulator import SimulatorOptions, running_simulator
from coze_simulator.auth_server import running_auth
from tests.support import RunningApp, make_settings, running_app


@pytest.fixture(scope="module")
def simulated_coze() -> Iterator[str]:
    """The address of a simulator that is quick, but not so quick that nothing can be cancelled."""
    with running_simulator(SimulatorOptions(speed=20)) as running:
        yield f"{running.base_url}/v3/chat"


@pytest.fixture
def open_service(simulated_coze: str) -> Iterator[RunningApp]:
    """What ``./run-service.sh test`` starts: everybody may call it."""
    with running_app(make_settings(COZE_API_URL=simulated_coze, REDIS_URL="memory://")) as service:
        yield service


@pytest.fixture
def secured_service(simulated_coze: str) -> Iterator[tuple[RunningApp, str]]:
    """A service that asks who calls, and the address of the stand-in that issues tokens."""
    with running_auth() as auth:
        settings = make_settings(
            COZE_API_URL=simulated_coze,
            REDIS_URL="memory://",
            ENABLE_AUTH="true",
            HTY_VERIFY_URL=auth.verify_url,
        )
        with running_app(settings) as service:
            yield service, auth.root_url
