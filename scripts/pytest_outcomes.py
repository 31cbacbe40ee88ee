"""pytest plugin of run-tests.sh: writes what became of each test into the file $TEST_OUTCOMES.

One line for each test: outcome (passed, failed, skipped), seconds with its fixtures, id, and why it was
skipped, with tabs between. run-tests.sh makes its closing lines of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_WORST_LAST = ("passed", "skipped", "failed")


class Outcomes:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcome: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.reason: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Three times for each test: what came before it, itself, and what came after."""
        name = report.nodeid
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        self.outcome[name] = max(self.outcome.get(name, "passed"), report.outcome, key=_WORST_LAST.index)
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reason[name] = " ".join(report.longrepr[2].removeprefix("Skipped: ").split())

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        lines = [
            f"{outcome}\t{self.seconds.get(name, 0.0):.2f}\t{name}\t{self.reason.get(name, '')}\n"
            for name, outcome in self.outcome.items()
        ]
        self.path.write_text("".join(lines), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("TEST_OUTCOMES")
    if path and not hasattr(config, "workerinput"):  # the one process that hears of all tests
        config.pluginmanager.register(Outcomes(Path(path)), "run-tests-outcomes")
