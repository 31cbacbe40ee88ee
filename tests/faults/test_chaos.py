"""Everything at once, for a short while; ``python -m tests.faults.chaos`` for as long as one likes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .chaos import chaos


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_minute_of_random_faults_at_all_doors_loses_nothing(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    report = await chaos(60, seed, record=file)
    assert report.wrong == [], report.text()
    assert report.counts["completed"] > 60, report.text()
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["samples"][-1]["redis"]["keys"] > 0
    assert not record["dashboard"] or len(record["dashboard"]) > 40  # empty where there is no Prometheus
