"""Chromium, and replicas of the service behind a proxy, for all browser tests of a worker."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from coze_simulator.auth_server import RunningAuth, running_auth
from tests.faults.support import start_all
from tests.security.helpers import ADMIN, Who
from tests.support import Client, RedisServer, ServiceProcess, SimControl, open_client, service_process

from .support import ARGUMENTS, Proxy, Tab, find_browser

OpenTab = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="coze-test-browser-", ignore_cleanup_errors=True) as home:
        async with async_playwright() as playwright:
            started = await playwright.chromium.launch(
                executable_path=path, args=ARGUMENTS, env={"HOME": home, "PATH": "/usr/bin:/bin"}
            )
            yield started
            await started.close()


@pytest.fixture(scope="session")
def _replicas(shared_redis: RedisServer, shared_simulator: SimControl) -> Iterator[list[ServiceProcess]]:
    values = {
        "REDIS_URL": shared_redis.url,
        "COZE_API_URL": shared_simulator.chat_url,
        "ENABLE_PLAYGROUND": "true",
        "ENABLE_DOCS": "true",
        "LEASE_SECONDS": "1",
        "COZE_IDLE_TIMEOUT": "1.5",
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
        "RATE_LIMIT_SESSIONS_PER_MINUTE": "0",
    }
    with ExitStack() as stack:
        yield [stack.enter_context(service_process(values, start=False)) for _ in range(2)]


@pytest.fixture(scope="session")
def auth() -> Iterator[RunningAuth]:
    with running_auth() as running:
        yield running


@pytest.fixture(scope="session")
def _secured(
    shared_redis: RedisServer, shared_simulator: SimControl, auth: RunningAuth
) -> Iterator[ServiceProcess]:
    values = {
        "REDIS_URL": shared_redis.url,
        "COZE_API_URL": shared_simulator.chat_url,
        "ENABLE_AUTH": "true",
        "ENABLE_PLAYGROUND": "true",
        "HTY_VERIFY_URL": auth.verify_url,
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
        "RATE_LIMIT_SESSIONS_PER_MINUTE": "0",
        "COZE_MAX_SESSIONS_PER_USER": "100",
    }
    with service_process(values) as process:
        yield process


@pytest.fixture
def secured(redis: RedisServer, simulator: SimControl, _secured: ServiceProcess) -> ServiceProcess:
    """A service that asks who calls, with ``auth`` as its judge."""
    return _secured


@pytest.fixture
def replica(redis: RedisServer, simulator: SimControl, _replicas: list[ServiceProcess]) -> ServiceProcess:
    """The one in front, unless a test changes that."""
    start_all([each for each in _replicas[:1] if not each.running])
    return _replicas[0]


@pytest.fixture
def pair(replica: ServiceProcess, _replicas: list[ServiceProcess]) -> list[ServiceProcess]:
    """``replica`` and another one. Started only where a test needs it: that takes a second or two."""
    start_all([each for each in _replicas if not each.running])
    return _replicas


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(replica: ServiceProcess) -> AsyncIterator[Proxy]:
    running = Proxy(replica.port)
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def open_tab(browser: Browser) -> AsyncIterator[OpenTab]:
    """``open_tab(base_url, locale="zh-CN")``: a tab of its own; afterwards nothing must be wrong in it.
    ``page``: another one than the playground."""
    tabs: list[Tab] = []

    async def start(base_url: str, page: str = "playground", **options: Any) -> Tab:
        context = await browser.new_context(**{"locale": "en-GB"} | options)
        context.set_default_timeout(60_000)  # bounds what hangs: a busy machine is slow
        tab = Tab(await context.new_page(), context, f"{base_url}/coze/{page}")
        tabs.append(tab)
        await tab.open()
        return tab

    yield start
    for tab in tabs:
        await tab.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(proxy: Proxy, open_tab: OpenTab) -> Tab:
    """The playground, through the proxy."""
    return await open_tab(proxy.base_url)


@pytest_asyncio.fixture(loop_scope="session")
async def api(replica: ServiceProcess) -> AsyncIterator[Client]:
    """The service without the proxy, to compare with what the page shows."""
    async with open_client(replica.base_url) as client:
        yield client


@dataclass
class Office:
    """A service, and who may come in."""

    base_url: str
    auth: RunningAuth
    open_tab: OpenTab
    stack: AsyncExitStack

    async def caller(self, who: Who) -> Client:
        client = open_client(self.base_url, headers=who.headers(self.auth))
        return await self.stack.enter_async_context(client)

    async def page(self, **options: Any) -> Tab:
        """The console before anybody has said who he is: it asks."""
        tab = await self.open_tab(self.base_url, page="console", **options)
        tab.may_fail = True  # the 401 before the dialog, and what is refused on purpose
        await tab.page.wait_for_selector("#credentials-dialog[open]")
        return tab

    async def console(self, who: Who = ADMIN, **options: Any) -> Tab:
        tab = await self.page(**options)
        await tab.sign_in(who.headers(self.auth))
        await tab.page.wait_for_selector("[data-tile=running]")
        return tab


@pytest_asyncio.fixture(loop_scope="session")
async def office(
    redis: RedisServer, simulator: SimControl, secured: ServiceProcess, auth: RunningAuth, open_tab: OpenTab
) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        yield Office(secured.base_url, auth, open_tab, stack)
