from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Checkout, make_checkout


def finish(checkout: Checkout) -> None:
    checkout.run("stop")
    if (checkout.tools / "tmux").exists():
        checkout.tmux("kill-server")  # a server of this test alone: TMUX_TMPDIR is its home


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """With quick stand-ins for service and simulator, and the environment that runs these tests."""
    made = make_checkout(tmp_path, stub=True, venv=Path(sys.prefix))
    yield made
    finish(made)


@pytest.fixture
def fresh_checkout(tmp_path: Path) -> Iterator[Checkout]:
    """The real service, no environment, an empty home."""
    made = make_checkout(tmp_path, stub=False, venv=None)
    yield made
    finish(made)
