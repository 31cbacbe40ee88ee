"""Everything at once, for a short while; ``python -m tests.faults.chaos`` for as long as one likes."""

from __future__ import annotations

import random

import pytest

from .chaos import chaos


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_twenty_seconds_of_random_faults_lose_nothing() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    report = await chaos(20, seed)
    print(report.text())
    assert report.wrong == []
    assert report.counts["completed"] > 20
