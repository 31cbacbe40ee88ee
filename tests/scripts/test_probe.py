"""What scripts/probe.py tells run-service.sh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import free_port
from tests.support.service import ROOT

STUB = ROOT / "tests/scripts/stub"
pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc on this system")


def started(directory: Path, name: str, program: list[str], **env: str) -> Path:
    """A process in a group of its own, as run-service.sh starts it; returns its pid file."""
    pid_file = directory / f"{name}.pid"
    command = [sys.executable, str(ROOT / "scripts/launch.py"), "detach", "--pid", str(pid_file)]
    command += ["--log", str(directory / f"{name}.log"), "--rotate-mb", "0", "--", *program]
    subprocess.run(command, check=True, env=env, cwd=STUB, timeout=30)
    return pid_file


def end(pid_file: Path) -> None:
    process = [sys.executable, str(ROOT / "scripts/process.py"), "end", str(pid_file), "5", str(STUB)]
    subprocess.run(process, check=False, timeout=30)


def waited(question: str, argument: str, pid_file: Path) -> tuple[int, str]:
    probe = [sys.executable, str(ROOT / "scripts/probe.py"), "wait", question, argument, "20", str(pid_file)]
    done = subprocess.run(probe, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip()


def test_the_answer_of_somebody_else_s_service_is_not_its_own(tmp_path: Path) -> None:
    port = free_port()
    service = [sys.executable, "-m", "app"]
    theirs = started(tmp_path, "theirs", service, PORT=str(port), HOST="127.0.0.1")
    try:
        assert waited("health", f"http://127.0.0.1:{port}", theirs) == (0, "healthy")
        ours = started(tmp_path, "ours", [sys.executable, "-c", "import time; time.sleep(2)"])
        code, reason = waited("health", f"http://127.0.0.1:{port}", ours)
        assert (code, reason) == (1, "its process has ended")
    finally:
        end(theirs)
