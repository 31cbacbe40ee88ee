"""From nothing: an empty home, no environment, the real service and simulator, packages from the index."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .harness import Checkout

SYSTEM_PYTHON = Path("/usr/bin/python3")

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(600),
]


def python_refuses_pip() -> bool:
    code = "import sys, sysconfig; print(sysconfig.get_path('stdlib')); sys.exit(sys.version_info < (3, 11))"
    if not SYSTEM_PYTHON.exists():
        return False
    asked = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, text=True)
    return asked.returncode == 0 and (Path(asked.stdout.strip()) / "EXTERNALLY-MANAGED").exists()


def try_the_examples(checkout: Checkout, out: str) -> None:
    if not (checkout.tools / "curl").exists():
        pytest.skip("curl is not installed, so the printed lines cannot be tried")
    lines = "\n".join(re.findall(r"^  ((?:SID=|curl ).*)$", out, re.MULTILINE))
    assert lines.count("curl -") == 3
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        env=checkout.env,
        cwd=checkout.root,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"success":true' in done.stdout.replace(" ", "")
    assert "event: done" in done.stdout


@pytest.mark.parametrize(
    "missing", [(), ("redis-server", "tmux"), ("uv",)], ids=lambda tools: "no " + ",".join(tools)
)
def test_one_command_starts_it_and_the_printed_lines_work(
    fresh_checkout: Checkout, missing: tuple[str, ...]
) -> None:
    checkout = fresh_checkout
    checkout.without(*missing)
    out = checkout.ok("test")
    assert (checkout.root / ".venv/bin/python").exists()
    assert ("tmux attach" in out) is ((checkout.tools / "tmux").exists())
    assert ("USING memory://" in out) is (not (checkout.tools / "redis-server").exists())
    try_the_examples(checkout, out)
    again = checkout.ok("test")
    assert "already up" in again
    assert "Setting up" not in again
    pids = checkout.pids()
    checkout.ok("stop")
    checkout.assert_nothing_left(pids)


@pytest.mark.skipif(not python_refuses_pip(), reason="no system Python that is externally managed (PEP 668)")
def test_a_python_that_refuses_pip_outside_an_environment_will_do(fresh_checkout: Checkout) -> None:
    checkout = fresh_checkout
    checkout.without("uv", "python3")
    (checkout.tools / "python3").symlink_to(SYSTEM_PYTHON)
    assert "installing it with pip into .run" in checkout.ok("--setup", script="run-tests.sh")
    assert "(test mode)" in checkout.ok("test")


def test_set_up_of_the_tests_serves_the_service_too(fresh_checkout: Checkout) -> None:
    checkout = fresh_checkout
    assert "Setting up" in checkout.ok("--setup", script="run-tests.sh")
    assert "Setting up" not in checkout.ok("test", "--no-tmux")
    assert "Setting up" not in checkout.ok("--setup", script="run-tests.sh")


def test_an_environment_whose_set_up_was_cut_short_is_made_whole(fresh_checkout: Checkout) -> None:
    checkout = fresh_checkout
    checkout.ok("--setup", script="run-tests.sh")
    (checkout.root / ".venv/.coze-setup-unfinished").touch()
    assert "Setting up" in checkout.ok("--setup", script="run-tests.sh")
    assert "Setting up" not in checkout.ok("--setup", script="run-tests.sh")


def test_an_environment_whose_python_is_gone_is_made_anew(fresh_checkout: Checkout) -> None:
    checkout = fresh_checkout
    broken = checkout.root / ".venv"
    (broken / "bin").mkdir(parents=True)
    (broken / "pyvenv.cfg").write_text("home = /nowhere\n")
    (broken / "bin/python").symlink_to("/nowhere/python3")
    assert "making it anew" in checkout.ok("--setup", script="run-tests.sh")
