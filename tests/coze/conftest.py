"""Clients over a transport that a test may name, with a clock of their own."""

from collections.abc import AsyncIterator

import pytest

from app.coze.client import CozeClient
from app.coze.transport import PooledClient, TransportName

from .support import Sleeps, http_client, make_client


@pytest.fixture
def transport() -> TransportName:
    """What respx can play for; see ``OVER_BOTH_TRANSPORTS``."""
    return "httpx"


@pytest.fixture
async def http(transport: TransportName) -> AsyncIterator[PooledClient]:
    async with http_client(transport) as made:
        yield made


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
def coze(http: PooledClient, sleeps: Sleeps) -> CozeClient:
    return make_client(http, sleep=sleeps)
