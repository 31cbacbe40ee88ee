"""/docs in a browser that reaches nothing but the service."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.support import ServiceProcess

WATCH = """const { fetch } = window;
window.__followed = [];
window.fetch = (url, init) => {
  if (init?.redirect !== "error") window.__followed.push(String(url));
  return fetch(url, init);
};
"""

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_documentation_shows_every_route_from_this_service_alone(
    browser: Browser, replica: ServiceProcess
) -> None:
    context = await browser.new_context()
    try:
        page = await context.new_page()
        foreign: list[str] = []
        problems: list[str] = []
        await page.add_init_script(WATCH)
        page.on("request", lambda request: foreign.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(f"{replica.base_url}/docs")
        await page.wait_for_selector(".opblock-summary-path:has-text('/coze/sessions')", timeout=30_000)
        await page.click(".authorize")  # "Authorize" knows the ways in
        await page.wait_for_selector(".modal-ux :text('HtySudoerToken')")
        own = (replica.base_url, "data:")
        assert [url for url in foreign if not url.startswith(own)] == []
        assert problems == []
        # What is tried out there has credentials with it: they go to nowhere else.
        assert await page.evaluate("window.__followed") == []
    finally:
        await context.close()
