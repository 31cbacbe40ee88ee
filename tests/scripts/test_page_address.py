"""The addresses that test mode prints, opened in the browser that refuses some ports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.support import ARGUMENTS, find_browser

from .harness import Checkout, is_free, make_checkout

IRC = range(6665, 6670)
"""Refused by browsers, as 6000 is, which may well be in use where tests run."""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """The real service, at a port that browsers refuse."""
    made = make_checkout(tmp_path, stub=False, venv=Path(sys.prefix))
    made.without("redis-server", "tmux")
    port = next((port for port in IRC if is_free(port)), None)
    if port is None:
        pytest.skip("all ports from 6665 to 6669 are in use")
    made.ports["service"] = port
    made.env["PORT"] = str(port)
    yield made
    made.run("stop")


def printed(output: str, name: str) -> str:
    [address] = re.findall(rf"^  {name} +(http://\S+)", output, re.MULTILINE)
    return str(address)


def opened(address: str, home: Path) -> str:
    """What Chromium shows of a page, as HTML."""
    browser = find_browser()
    if browser is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    command = [browser, "--headless", f"--user-data-dir={home}", *ARGUMENTS, "--dump-dom", address]
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_pages_open_in_a_browser_and_curl_goes_on_at_the_port_of_before(
    checkout: Checkout, tmp_path: Path
) -> None:
    out = checkout.ok("test")
    service = f"http://127.0.0.1:{checkout.env['PORT']}"
    assert printed(out, "service") == service
    assert f"curl -s {service}/coze/sessions " in out
    assert checkout.health()["status"] == "healthy"
    playground, docs = printed(out, "playground"), printed(out, "API docs")
    home = tmp_path / "browser"
    assert 'id="composer"' in opened(playground, home)
    assert "swagger-ui" in opened(docs, home)
    assert 'id="composer"' not in opened(f"{service}/coze/playground", home), "that port is refused"

    browsers = playground.removesuffix("/coze/playground").rpartition(":")[2]
    again = checkout.ok("test", PORT=browsers)
    assert "already up" in again
    assert printed(again, "playground") == playground
    said = checkout.refused("test", PORT="7999")
    assert f"(for a browser: http://127.0.0.1:{browsers})" in said
    assert "To move it: PORT=7999 ./run-service.sh restart" in said

    assert printed(checkout.ok("restart"), "playground") == playground
    checkout.ok("stop")
    assert is_free(int(browsers))


def test_where_the_port_is_taken_the_next_one_that_browsers_open_is_named(
    checkout: Checkout, tmp_path: Path
) -> None:
    checkout.ok("test")
    said = checkout.refused("test", COZE_RUN_DIR=str(tmp_path / "run"))  # as another checkout sees it
    assert f"port {checkout.env['PORT']} is taken" in said
    [port] = re.findall(r"choose another port: PORT=(\d+) ", said)
    assert int(port) not in IRC
    assert is_free(int(port))
