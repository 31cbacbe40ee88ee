"""The previous version as files, and a replica of each version on one Redis."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.faults.folding import Checked
from tests.faults.support import Clients, Cluster, cluster
from tests.support import Client, SimControl
from tests.support.service import ROOT

PREVIOUS = (Path(__file__).parent / "previous").read_text().strip()


def _previous_code() -> bytes | None:
    """``app`` of the previous version as a tar file; None where git or the commit is not to be had."""
    git = shutil.which("git")
    if git is None:
        return None
    made = subprocess.run([git, "-C", str(ROOT), "archive", PREVIOUS, "app"], capture_output=True)
    return made.stdout if made.returncode == 0 else None


@pytest.fixture(scope="session")
def previous_code() -> Iterator[Path]:
    """A directory with the previous version's ``app``."""
    packed = _previous_code()
    if packed is None:
        pytest.skip(f"the previous version ({PREVIOUS[:7]}) is not to be had: no git, or a shallow clone")
    directory = Path(tempfile.mkdtemp(prefix="coze-test-previous-"))
    try:
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            archive.extractall(directory, filter="data")
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _done_of_the_version_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checked, "done_ends_the_ids", False)


@pytest.fixture(scope="session")
def mixed_cluster(previous_code: Path, shared_simulator: SimControl) -> Iterator[Cluster]:
    with cluster(simulator=shared_simulator, codes=[previous_code, ROOT]) as running:
        yield running


@pytest.fixture
async def mixed(mixed_cluster: Cluster, simulator: SimControl) -> AsyncIterator[Cluster]:
    """Replica 0 is of the previous version, replica 1 of this one. Afterwards both run, nothing is left, and
    neither has logged an error."""
    mixed_cluster.repair()
    before = [len(replica.log) for replica in mixed_cluster.replicas]
    yield mixed_cluster
    mixed_cluster.repair()
    await mixed_cluster.settle(20)
    for replica, start in zip(mixed_cluster.replicas, before, strict=True):
        written = replica.log[start:]
        assert "Traceback" not in written, written[-3000:]
        assert '"level": "ERROR"' not in written, written[-3000:]
    mixed_cluster.redis.flush()


@pytest.fixture
async def sides(mixed: Cluster) -> AsyncIterator[list[Client]]:
    """A client of each version."""
    async with Clients(mixed.urls) as opened:
        yield opened
