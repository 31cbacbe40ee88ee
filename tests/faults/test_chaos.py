"""Everything at once, for a short while; ``python -m tests.faults.chaos`` for as long as one likes."""

from __future__ import annotations

import pytest

from .chaos import chaos


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_twenty_seconds_of_random_faults_lose_nothing(seed: int) -> None:
    report = await chaos(20, seed)
    assert report.wrong == [], report.text()
    assert report.counts["completed"] > 20, report.text()
