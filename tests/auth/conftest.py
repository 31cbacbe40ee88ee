from __future__ import annotations

from collections.abc import Iterator

import pytest

from coze_simulator.auth_server import RunningAuth, running_auth

from .helpers import Clock


@pytest.fixture(scope="session")
def shared_auth() -> Iterator[RunningAuth]:
    with running_auth() as running:
        yield running


@pytest.fixture
def auth(shared_auth: RunningAuth) -> RunningAuth:
    """An auth service in good health that nobody has asked yet."""
    shared_auth.app.reset()
    return shared_auth


@pytest.fixture
def clock() -> Clock:
    return Clock()
