"""Environments of the clients' own, and how a script is run in one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
_INSTALL_SECONDS = 900
_SCRIPT_SECONDS = 180
_QUIET = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "NO_PROXY": "127.0.0.1",
}
"""Nothing goes anywhere but to the service."""


class NotToBeHad(Exception):
    """What is missing on this machine."""


@contextmanager
def python_environment(folder: Path = HERE / "python") -> Iterator[list[str]]:
    """An interpreter with the packages of the folder's requirements.txt, from the registry that pip is set up
    for.

    Raises ``NotToBeHad``.
    """
    with TemporaryDirectory(prefix="coze-clients-") as directory:
        python = f"{directory}/bin/python"
        _install([sys.executable, "-m", "venv", directory])
        _install([python, "-m", "pip", "install", "-q", "-r", str(folder / "requirements.txt")])
        yield [python]


@contextmanager
def node_environment(folder: Path = HERE / "node") -> Iterator[list[str]]:
    """Node with the packages of the folder's package.json, from the registry that npm is set up for; its
    scripts are in the folder that is the last element.

    Raises ``NotToBeHad``.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotToBeHad("node and npm are not installed")
    with TemporaryDirectory(prefix="coze-clients-") as directory:
        shutil.copytree(folder, directory, dirs_exist_ok=True)
        _install([npm, "install", "--prefix", directory, "--no-audit", "--no-fund", "--no-package-lock"])
        yield [node, directory]


def _install(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
        raise NotToBeHad(f"the clients' packages cannot be installed here ({last[:200]})") from None
    except subprocess.TimeoutExpired:
        raise NotToBeHad("the clients' packages could not be installed in time") from None


def run(command: list[str], service: str, key: str, model: str) -> Any:
    """What a script tells of its conversations: the last line that it prints, as JSON."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "COZE_"))}
    environment = kept | _QUIET | {"SERVICE": service, "API_KEY": key, "MODEL": model}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_SCRIPT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
