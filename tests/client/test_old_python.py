"""The Python client on the oldest Python that it promises: its syntax, its types, and a conversation."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import RunningApp

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "client"
PROGRAM = Path(__file__).parent / "python/program.py"
OLDEST = (3, 9)
MYPY = "mypy==1.19.1"
"""The last one that knows Python 3.9."""


def test_the_package_promises_the_oldest_python() -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == ">={}.{}".format(*OLDEST)
    assert project["tool"]["ruff"]["target-version"] == "py{}{}".format(*OLDEST)


def test_every_file_has_the_syntax_of_the_oldest_python() -> None:
    files = [*(CLIENT / "src").rglob("*.py"), PROGRAM]
    assert len(files) > 10
    for file in files:
        ast.parse(file.read_text(encoding="utf-8"), feature_version=OLDEST)


@pytest.mark.full
def test_a_program_is_typed_strictly(tmp_path: Path) -> None:
    """By the type checker of the project, for the oldest Python that it knows."""
    command = ("-m", "mypy", "--strict", "--config-file=", "--python-version", "3.10")
    done = subprocess.run(
        [sys.executable, *command, f"--cache-dir={tmp_path}", str(PROGRAM)],
        env=os.environ | {"MYPYPATH": str(CLIENT / "src")},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_oldest_python_installs_it_types_it_and_talks(service: RunningApp, tmp_path: Path) -> None:
    name = "python{}.{}".format(*OLDEST)
    found = shutil.which(name)
    if found is None or subprocess.run([found, "--version"], capture_output=True).returncode:
        pytest.skip(f"no {name} on PATH")
    subprocess.run([found, "-m", "venv", tmp_path / "venv"], check=True, capture_output=True)
    python = str(tmp_path / "venv/bin/python")
    source = tmp_path / "client"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("__pycache__"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *arguments],
            cwd=tmp_path,
            env=os.environ | {"BASE_URL": service.base_url, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    installed = run("-m", "pip", "install", "-q", "./client", MYPY)
    if installed.returncode:
        pytest.skip(f"the packages cannot be installed here ({installed.stderr.strip().splitlines()[-1]})")
    talked = run("-W", "error", str(PROGRAM))
    assert talked.returncode == 0, talked.stderr
    assert "= 7" in talked.stdout
    assert "= 11" in talked.stdout
    typed = run("-m", "mypy", "--strict", "--python-version", "3.9", str(PROGRAM))
    assert typed.returncode == 0, typed.stdout + typed.stderr
