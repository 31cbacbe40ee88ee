"""Without authentication: what a browser can be made to send, and what programs send."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.support import RunningApp

Start = Callable[..., RunningApp]
EVIL = "https://evil.example"
FOREIGN = {
    "a form, by its origin": {"Origin": EVIL},
    "a page without an origin": {"Origin": "null"},
    "a form of another site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Origin": EVIL},
    "a form that is sent by a click": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    "another port of this machine": {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
}
ACTIONS: list[tuple[str, str, dict[str, object]]] = [
    ("POST", "/coze/files?user_id=u", {"files": {"file": ("a.txt", b"text")}}),
    ("POST", "/coze/sessions", {"json": {"user_id": "u"}}),
    ("POST", "/coze/admin/cleanup", {}),
    ("DELETE", "/coze/users/u", {}),
]


@pytest.mark.parametrize("name", FOREIGN)
async def test_foreign_pages_can_do_nothing(service: RunningApp, name: str) -> None:
    async with httpx.AsyncClient(base_url=service.base_url, headers=FOREIGN[name]) as page:
        for method, path, body in ACTIONS:
            answer = await page.request(method, path, **body)  # type: ignore[arg-type]
            assert answer.status_code == 403, (method, path)
            assert answer.json()["error"]["code"] == "AUTH_FORBIDDEN"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:6000", "127.0.0.1.evil.example", "localhost.evil"]
)
async def test_a_name_that_was_made_to_lead_here_is_refused(service: RunningApp, host: str) -> None:
    async with httpx.AsyncClient(base_url=service.base_url, headers={"Host": host}) as page:
        for headers in ({}, {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}):
            answer = await page.get("/coze/users/u/sessions", headers=headers)
            assert answer.status_code == 403
            assert "COZE_ALLOWED_HOSTS" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:6001"},
        {"Host": "app.localhost"},
        {"Host": "coze-fastapi:6000"},
        {"Host": "[::1]:6000"},
        {"Host": "192.168.1.7:6000"},
        {"Host": "localhost:6001", "Origin": "http://localhost:6001"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    ],
)
async def test_programs_and_our_own_pages_are_served(service: RunningApp, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=service.base_url, headers=headers) as page:
        answer = await page.post("/coze/sessions", json={"user_id": "u"})
    assert answer.status_code == 200, answer.text


async def test_a_link_from_elsewhere_may_be_followed(service: RunningApp) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with httpx.AsyncClient(base_url=service.base_url, headers=headers) as page:
        assert (await page.get("/coze/health")).status_code == 200


async def test_what_the_settings_name_is_let_in(start_app: Start) -> None:
    service = start_app(COZE_ALLOWED_HOSTS="coze.internal, other", CORS_ALLOW_ORIGINS="https://app.example")
    headers = {"Host": "coze.internal:6000", "Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    async with httpx.AsyncClient(base_url=service.base_url, headers=headers) as page:
        answer = await page.post("/coze/sessions", json={"user_id": "u"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert (await page.get("/coze/health", headers={"Host": "else.internal"})).status_code == 403


async def test_with_authentication_on_tokens_decide_and_nothing_else(secured: RunningApp) -> None:
    headers = {"Host": "any.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
    async with httpx.AsyncClient(base_url=secured.base_url, headers=headers) as page:
        assert (await page.post("/coze/sessions", json={"user_id": "u"})).status_code == 401
        assert (await page.get("/coze/health")).status_code == 200
