"""Programs that are no part of the project, each in a virtual environment of its own under ``.run``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.processes import ROOT

_INSTALL_SECONDS: Final = 900
_COMPLETE: Final = ".complete"


def program(
    name: str, package: str, *, say: Callable[[str], None] = print, directory: Path | None = None
) -> Path:
    """The program ``name`` of ``package``: the newest there is when its environment is made, which is kept.

    pip installs it, with the user's own settings (index, certificate, proxy); no index is named here.

    Args:
        name: what is in the environment's ``bin``.
        package: as pip is asked for it, such as ``litellm[proxy]``.
        say: is told that something is being installed, which may take minutes.
        directory: where environments are kept instead.

    Raises:
        RuntimeError: it cannot be installed; the end of what pip said is in it.
    """
    home = directory or Path(os.environ.get("COZE_RUN_DIR") or ROOT / ".run")
    environment = home / f"{name}-venv"
    found = environment / "bin" / name
    if (environment / _COMPLETE).is_file():
        return found
    say(f"    installing the newest {package} into {environment.name} ...")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(environment, ignore_errors=True)
    try:
        _run([sys.executable, "-m", "venv", str(environment)], package)
        pip = [str(environment / "bin" / "python"), "-m", "pip"]
        _run([*pip, "install", "--disable-pip-version-check", package], package)
    except RuntimeError:
        shutil.rmtree(environment, ignore_errors=True)
        raise
    (environment / _COMPLETE).touch()
    return found


def _run(command: list[str], package: str) -> None:
    # What these say of packages that may not be installed beside others is meant for the system's Python.
    environment = os.environ | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"{package} cannot be installed here: no end within {_INSTALL_SECONDS} s"
        ) from None
    if done.returncode:
        last = " ".join((done.stderr or done.stdout).split())[-300:]
        raise RuntimeError(f"{package} cannot be installed here: {last}")


def version(program: Path, package: str) -> str:
    """Of ``package`` in the environment that ``program`` is in; empty where nobody knows."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(program.parent / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
