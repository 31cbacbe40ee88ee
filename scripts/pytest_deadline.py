"""pytest plugin of run-tests.sh: a run that takes longer than TEST_DEADLINE_SECONDS fails.

A suite that only ever grows stops being run. When the time is over the run ends after the test that is
running, as a failure, and names the slowest tests, so that whoever added them makes them quicker or marks
them ``full``.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest


class Deadline:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds
        self.spent: Counter[str] = Counter()
        self.passed = False

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.spent[report.nodeid] += report.duration  # type: ignore[assignment]

    @pytest.hookimpl
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        if time.monotonic() > self.until:
            self.passed = True
            item.session.shouldfail = f"the tests took longer than their {self.seconds:.0f} seconds"

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        used = self.seconds - (self.until - time.monotonic())
        if not self.passed and used < 0.8 * self.seconds:
            return
        terminalreporter.section(f"{used:.0f} of {self.seconds:.0f} seconds used; the slowest tests")
        for name, seconds in self.spent.most_common(15):
            terminalreporter.line(f"{seconds:7.2f}s {name}")
        terminalreporter.line("Make them quicker, or mark them @pytest.mark.full.")


def pytest_configure(config: pytest.Config) -> None:
    seconds = float(os.environ.get("TEST_DEADLINE_SECONDS", "0"))
    if seconds > 0:
        config.pluginmanager.register(Deadline(seconds), "run-tests-deadline")
