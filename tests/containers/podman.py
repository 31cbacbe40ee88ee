"""podman and the project's container scripts, as a person uses them; and what cleans up after a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import settings_names

ROOT = Path(__file__).resolve().parents[2]
BASE_IMAGE = "python:3.11-slim-bookworm"
OWN_NAMES = {"COZE_IMAGE", "COZE_TAG", "COZE_CONTAINER", "COZE_ENV_FILE", "PODMAN_NETWORK", "REPLICAS"}


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without anything that the service or the scripts read, and ``values``."""
    hidden = settings_names() | OWN_NAMES | {"HOST_PORT", "COMPOSE_REDIS_URL"}
    return {name: value for name, value in os.environ.items() if name not in hidden} | values


def run(
    *command: str | Path, timeout: float = 120, cwd: Path = ROOT, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(**environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def ok(*command: str | Path, **options: Any) -> str:
    """Standard output; fails with everything that was written when the command does."""
    done = run(*command, **options)
    said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, f"{command} -> {done.returncode}\n{said}"
    return done.stdout


def podman(*arguments: str, **options: Any) -> str:
    return ok("podman", *arguments, **options)


def why_not() -> str:
    """A sentence when containers cannot be tested here, else nothing."""
    if shutil.which("podman") is None:
        return "podman is not installed"
    if run("podman", "info").returncode != 0:
        return "podman is installed but does not work here (podman info)"
    if run("podman", "image", "exists", BASE_IMAGE).returncode != 0:
        return f"the base image {BASE_IMAGE} is not here (podman pull {BASE_IMAGE})"
    return ""


def compose_command() -> str | None:
    """podman-compose: $PODMAN_COMPOSE, else the one on PATH."""
    return os.environ.get("PODMAN_COMPOSE") or shutil.which("podman-compose")


def unique(word: str) -> str:
    return f"coze-test-{word}-{uuid.uuid4().hex[:8]}"


def inspect(kind: str, name: str) -> Any:
    return json.loads(podman(kind, "inspect", name))[0]


@dataclass
class Leftovers:
    """Names of what a test makes, each removed at its end, whether it came to be or not."""

    containers: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def remove(self) -> None:
        for name in reversed(self.containers):  # what was made later may depend on what was made before
            run("podman", "rm", "--force", "--time", "1", name)
        for name in self.volumes:
            run("podman", "volume", "rm", name)
        for name in self.networks:
            run("podman", "network", "rm", name)
        for name in self.secrets:
            run("podman", "secret", "rm", name)
        for name in self.images:
            run("podman", "rmi", name)


@contextmanager
def leftovers() -> Iterator[Leftovers]:
    found = Leftovers()
    try:
        yield found
    finally:
        found.remove()


@contextmanager
def measured(seconds: list[float]) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds.append(time.monotonic() - began)


def copy_project(target: Path) -> Path:
    """The project as it would be checked out, for a test that edits it or needs a ``.env`` of its own."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".run", ".env", "logs", "__pycache__", ".*_cache", ".hypothesis", "uv.lock"
    )
    shutil.copytree(ROOT, target, ignore=ignored)
    for path in [target, *target.rglob("*")]:  # as git makes them: readable by the container's user
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return target


def adapted(text: str, changes: Mapping[str, str]) -> str:
    """A file of the project as this machine can use it. Each of ``changes`` must be there to be made."""
    for written, here in changes.items():
        assert written in text, written
        text = text.replace(written, here)
    return text


def env_file(path: Path, values: Mapping[str, str]) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    path.chmod(0o644)
    return path
