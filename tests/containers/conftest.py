"""One build for the whole run; skipped with a sentence where podman or the base image is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .podman import ROOT, Leftovers, copy_project, leftovers, ok, podman, unique, why_not


@pytest.fixture(scope="session")
def working_podman() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def image(working_podman: None) -> Iterator[str]:
    """The image's name without its tag (``latest``); NAME-proxy is there, too."""
    name = "localhost/" + unique("image")
    with leftovers() as made:
        made.images += [f"{name}:latest", f"{name}-proxy:latest"]
        ok(ROOT / "podman-build.sh", "--all", "-t", name, timeout=900)
        yield name


@pytest.fixture
def made() -> Iterator[Leftovers]:
    with leftovers() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project in which a test may do as it likes."""
    # pytest's own directories are closed to everyone else; the copy itself is what gets mounted.
    return copy_project(tmp_path / "project")


@pytest.fixture
def simulator_network(image: str, made: Leftovers) -> str:
    """A network on which a Coze answers as coze-sim:5000."""
    network, container = unique("net"), unique("sim")
    made.networks.append(network)
    made.containers.append(container)
    podman("network", "create", network)
    start_simulator(image, network, container)
    return network


def start_simulator(image: str, network: str, container: str) -> None:
    simulator = f"{ROOT / 'coze_simulator'}:/coze-fastapi/coze_simulator:ro"
    command = ["python", "-m", "coze_simulator", "--host", "0.0.0.0"]
    podman(
        *["run", "--detach", "--init", "--name", container, "--network", network],
        *["--network-alias", "coze-sim", "--no-healthcheck", "--volume", simulator, image, *command],
    )


@pytest.fixture(scope="session")
def shellcheck() -> str:
    found = shutil.which("shellcheck")
    if found is None:
        pytest.skip("shellcheck is not installed")
    return found
