"""The service with authentication on, in front of the stand-in of the auth service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coze_simulator.auth_server import RunningAuth, running_auth
from tests.support import RedisServer, RunningApp, SimControl, make_settings, running_app


def secured_values(auth: RunningAuth, **values: str) -> dict[str, str]:
    """Settings of a service that asks ``auth``. The limits are out of the way unless a test sets them."""
    return {
        "ENABLE_AUTH": "true",
        "HTY_VERIFY_URL": auth.verify_url,
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "1000000",
        "RATE_LIMIT_SESSIONS_PER_MINUTE": "1000000",
        "COZE_MAX_SESSIONS_PER_USER": "1000",
        **values,
    }


@pytest.fixture(scope="session")
def shared_auth() -> Iterator[RunningAuth]:
    with running_auth() as running:
        yield running


@pytest.fixture
def auth(shared_auth: RunningAuth) -> RunningAuth:
    """An auth service in good health that nobody has asked yet."""
    shared_auth.app.reset()
    return shared_auth


@pytest.fixture(scope="session")
def shared_secured(
    shared_redis: RedisServer, shared_simulator: SimControl, shared_auth: RunningAuth
) -> Iterator[RunningApp]:
    values = secured_values(
        shared_auth, REDIS_URL=shared_redis.url, COZE_API_URL=shared_simulator.chat_url, APP_MODE="local"
    )
    with running_app(make_settings(**values)) as service:
        yield service


@pytest.fixture
def secured(
    redis: RedisServer, simulator: SimControl, auth: RunningAuth, shared_secured: RunningApp
) -> Iterator[RunningApp]:
    """The service with authentication on a real Redis; shared, so what still runs is cancelled."""
    shared_secured.flush()
    yield shared_secured

    async def cancel_all() -> None:
        running = shared_secured.resources.chats._running
        for chat_id, _ in running.held():
            if (job := running.get(chat_id)) is not None:
                job.cancel()

    shared_secured.call(cancel_all)
    shared_secured.wait_idle()


@pytest.fixture
def start_secured(
    start_app: Callable[..., RunningApp], redis: RedisServer, auth: RunningAuth
) -> Callable[..., RunningApp]:
    """``start_secured(MAX_BODY_BYTES="1024")``: services of this test alone, all on one Redis."""

    def start(**values: Any) -> RunningApp:
        return start_app(**secured_values(auth, REDIS_URL=redis.url, **values))

    return start
