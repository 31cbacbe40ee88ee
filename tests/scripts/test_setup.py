"""The set-up that run-service.sh and run-tests.sh share, and the scripts themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import ROOT, Checkout

SCRIPTS = [
    ROOT / "run-service.sh",
    ROOT / "run-tests.sh",
    ROOT / "run-bench.sh",
    ROOT / ".ci/run",
    *sorted((ROOT / "scripts").glob("*.sh")),
]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name", ["run-service.sh", "run-tests.sh", "run-bench.sh", ".ci/run", "scripts/lock.sh"]
)
def test_commands_are_executable(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111 == 0o111


LOCKS = ["requirements.lock", "requirements-otel.lock", "requirements-dev.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_every_package_by_hash_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    pins = re.split(r"\n(?=[a-z0-9])", text)
    assert all("--hash=sha256:" in pin for pin in pins if "==" in pin.splitlines()[0])


def test_the_locks_pin_the_same_versions() -> None:
    service, traced, everything = (
        set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS
    )
    assert service < traced < everything
    assert "opentelemetry-sdk" in {pin.partition("==")[0] for pin in traced - service}


def check_env(lock: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/check_env.py"), str(lock)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_pin_that_is_not_met_is_noticed_and_one_for_other_systems_is_not(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("pytest==0.1 \\\n    --hash=sha256:00\nnothing-like-it==1 ; sys_platform == 'none' \\\n")
    done = check_env(lock)
    assert done.returncode == 1
    assert "pytest: " in done.stdout
    assert "nothing-like-it" not in done.stdout
    assert check_env(ROOT / "requirements-dev.lock").returncode == 0


def test_set_up_changes_nothing_when_nothing_changed(checkout: Checkout) -> None:
    said = checkout.ok("--setup", script="run-tests.sh")
    assert "Ready" in said
    assert "Setting up" not in said


def test_a_directory_that_is_no_environment_is_not_cleared(checkout: Checkout) -> None:
    precious = checkout.root / "precious"
    precious.mkdir()
    (precious / "file").touch()
    done = checkout.run("--setup", script="run-tests.sh", UV_PROJECT_ENVIRONMENT="precious")
    assert "is not a virtual environment" in done.stderr
    assert (precious / "file").exists()


def test_without_a_new_enough_python_it_says_what_to_install(checkout: Checkout) -> None:
    checkout.without("python3")
    done = checkout.run("--setup", script="run-tests.sh", UV_PROJECT_ENVIRONMENT="new")
    assert done.returncode == 1
    assert "no Python 3.11 or newer found" in done.stderr
