"""How the files of playground and console are served; needs no browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import RunningApp, error_of, open_client

Start = Callable[..., RunningApp]
HERE = Path(__file__).resolve().parent
ROUTES = HERE.parents[1] / "app" / "routes"
FILES, DOCS = ROUTES / "pages", ROUTES / "apidocs"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
SERVED = sorted(path for path in FILES.rglob("*") if path.suffix in TYPES)
MAX_LINES = 450


@pytest.mark.parametrize("values", [{}, {"ENABLE_PLAYGROUND": "false"}])
async def test_switched_off_it_is_an_unknown_route(start_app: Start, values: dict[str, Any]) -> None:
    async with open_client(start_app(**values).base_url) as client:
        for name in (
            "",
            "/",
            "/playground.js",
            "/vendor/purify.min.js",
            "/coze-stream.js",
            "/coze-client.js",
        ):
            response = await client.get(f"/coze/playground{name}")
            assert response.status_code == 404
            assert error_of(response)["code"] == "NOT_FOUND"


async def test_the_console_is_there_unless_it_is_switched_off(start_app: Start) -> None:
    async with open_client(start_app(ENABLE_AUTH="true").base_url) as client:
        page = await client.get("/coze/console")
        assert page.status_code == 200
        for name in re.findall(r'(?:src|href)="(console/[^"]+)"', page.text):
            assert (await client.get(f"/coze/{name}")).status_code == 200
    async with open_client(start_app(ENABLE_CONSOLE="false", ENABLE_PLAYGROUND="true").base_url) as client:
        for name in ("", "/", "/console.js", "/base.css"):
            response = await client.get(f"/coze/console{name}")
            assert (response.status_code, error_of(response)["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", ["playground", "console"])
async def test_each_file_comes_with_its_type_a_policy_and_an_etag(start_app: Start, name: str) -> None:
    async with open_client(start_app(ENABLE_PLAYGROUND="true", ENABLE_AUTH="true").base_url) as client:
        page = await client.get(f"/coze/{name}")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        for rule in (
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ):
            assert rule in policy
        assert "unsafe" not in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        for path in SERVED:
            url = f"/coze/{name}/{path.relative_to(FILES).as_posix()}"
            response = await client.get(url)
            assert response.content == path.read_bytes()
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-cache"
            assert response.headers["content-type"].startswith(TYPES[path.suffix])
            again = await client.get(url, headers={"If-None-Match": response.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            head = await client.http.head(url)
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(response.content)))
            part = await client.get(url, headers={"Range": "bytes=1-2"})
            assert (part.status_code, part.content) == (200, response.content)
        slash = await client.get(f"/coze/{name}/")
        assert slash.headers["location"] == f"../{name}"


async def test_nothing_else_can_be_read(start_app: Start) -> None:
    async with open_client(start_app(ENABLE_PLAYGROUND="true").base_url) as client:
        for name in (
            "../config.py",
            "%2e%2e/config.py",
            "..%2f..%2fpyproject.toml",
            "vendor/VENDOR.md",
            "vendor",
            "nothing.js",
            "a%00.js",
            "%2fetc%2fpasswd",
            "a" * 3000 + ".js",
        ):
            response = await client.get(f"/coze/playground/{name}")
            assert response.status_code == 404, name
            assert error_of(response)["code"] == "NOT_FOUND"
        assert (await client.post("/coze/playground")).status_code == 405


def test_the_page_names_no_outside_address() -> None:
    for path in [*SERVED, *FILES.glob("*.html"), DOCS / "index.html", DOCS / "docs.js"]:
        if "vendor" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        found = set(re.findall(r"https?://[^\s\"'`)<>]+", text))
        assert found <= {"http://www.w3.org/2000/svg", "https://api.example.com"}, path.name
        assert text.count("\n") <= MAX_LINES, path.name


@pytest.mark.parametrize(
    ("folder", "least"),
    [(FILES / "vendor", 2), (DOCS / "vendor", 2), (HERE / "vendor", 1)],
    ids=["playground", "docs", "tests"],
)
def test_vendored_files_are_the_ones_that_are_written_down(folder: Path, least: int) -> None:
    table = (folder / "VENDOR.md").read_text(encoding="utf-8")
    there = sorted(path for path in folder.rglob("*") if path.suffix in TYPES)
    assert len(there) >= least
    for path in there:
        name, digest = path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
        [row] = [row for row in table.splitlines() if row.startswith(f"| `{name}` |")]
        assert f"`{digest}`" in row, name
        licence = re.search(r"`([\w.-]+\.LICENSE)`", row)
        assert licence is not None
        assert (folder / licence[1]).exists()


async def test_the_documentation_loads_nothing_from_elsewhere(start_app: Start) -> None:
    async with open_client(start_app(APP_MODE="local").base_url) as client:
        page = await client.get("/docs")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
            assert (await client.get(f"/{name}")).status_code == 200
        assert (await client.get("/redoc")).status_code == 404
        assert (await client.get("/docs/vendor/VENDOR.md")).status_code == 404
