"""Who stops the run of the mutants is not kept waiting, and finds nothing of it left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import block_until

from .harness import ROOT, runs

HANGS = """
import os, time
os.fork()
with open({pids!r}, "a") as pids:
    pids.write(f"{{os.getpid()}}\\n")
while True:
    time.sleep(60)
"""
"""Instead of a run of tests: it and a child of its own never end."""
WORKER = """
import json, sys
print(json.dumps({{"tests": 1}}), flush=True)
for line in sys.stdin:
    print(json.dumps({{"by": ""}}), flush=True)
"""
"""Notices no mutant."""


@dataclass
class Run:
    process: subprocess.Popen[bytes]
    pids: Path
    folder: Path

    def hanging(self) -> list[int]:
        return [int(line) for line in self.pids.read_text().split()] if self.pids.exists() else []


def checkout(root: Path, hangs_in: str, hangs: str) -> None:
    for name in ("scripts", "app"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("coze_simulator", "client", "tests/simulation"):
        (root / name).mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", root)
    worker, simulation = WORKER.format(), hangs
    if hangs_in == "start":
        worker = hangs
    elif hangs_in == "mutant":
        worker = WORKER.format().replace("for line in", f"sys.stdin.readline()\n{hangs}\nfor line in")
    (root / "scripts/mutant_worker.py").write_text(worker)
    (root / "tests/simulation/__main__.py").write_text(simulation)


@pytest.fixture(params=["start", "mutant", "simulation"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """One that hangs there."""
    root, folder, pids = tmp_path / "checkout", tmp_path / "temporary", tmp_path / "pids"
    folder.mkdir()
    checkout(root, request.param, HANGS.format(pids=str(pids)))
    process = subprocess.Popen(
        [sys.executable, "scripts/mutants.py", "--only", "chat_end", "--jobs", "2", "--seeds", "1-2"],
        cwd=root,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    made = Run(process, pids, folder)
    try:
        yield made
    finally:
        process.kill()
        process.wait()
        for pid in made.hanging():
            if runs(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_all_that_it_has_begun_though_a_mutant_hangs(
    run: Run, how: signal.Signals
) -> None:
    block_until(lambda: len(run.hanging()) >= 2, 60, 0.05)
    run.process.send_signal(how)
    told, _ = run.process.communicate(timeout=30)
    assert run.process.returncode == 128 + how
    assert b"Traceback" not in told
    block_until(lambda: not any(map(runs, run.hanging())), 10, 0.05)
    assert [*run.folder.iterdir()] == []
