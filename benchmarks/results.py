"""What a run has found: rows of figures, curves, and checks against the limits."""

import json
import operator
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ROOT

_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {"<=": operator.le, ">=": operator.ge}


@dataclass
class Check:
    """``text`` says what ``value`` is, with its unit."""

    part: str
    number: str
    text: str
    value: float
    sign: str
    limit: float
    quick: bool = False
    """A miss fails a ``--quick`` run, too."""

    @property
    def passed(self) -> bool:
        return _HOLDS[self.sign](self.value, self.limit)


@dataclass
class Row:
    """Figures of one contestant in one scenario. What was not measured is absent."""

    part: str
    scenario: str
    contestant: str
    values: dict[str, float]


@dataclass
class Results:
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def row(self, part: str, scenario: str, contestant: str, **values: float) -> None:
        self.rows.append(Row(part, scenario, contestant, values))

    def check(
        self, part: str, number: str, text: str, value: float, sign: str, limit: float, *, quick: bool = False
    ) -> None:
        self.checks.append(Check(part, number, text, value, sign, limit, quick))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def find(self, scenario: str, contestant: str) -> dict[str, float]:
        """The figures of one row; empty where it was not measured."""
        for row in self.rows:
            if (row.scenario, row.contestant) == (scenario, contestant):
                return row.values
        return {}

    def missed(self, *, quick: bool) -> list[Check]:
        """The checks that fail the run."""
        return [check for check in self.checks if not check.passed and (check.quick or not quick)]

    def as_json(self, about: dict[str, Any]) -> str:
        checks = [asdict(check) | {"passed": check.passed} for check in self.checks]
        found = {
            "about": about,
            "checks": checks,
            "rows": [asdict(row) for row in self.rows],
            "curves": self.curves,
            "notes": self.notes,
        }
        return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def about_this_machine(rounds: int, parts: list[str]) -> dict[str, Any]:
    """Date, hardware and versions; no names of hosts or users."""
    import fastapi
    import httpx
    import uvicorn

    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "fastapi": fastapi.__version__,
        "httpx": httpx.__version__,
        "uvicorn": uvicorn.__version__,
        "commit": _commit(),
        "rounds": rounds,
        "parts": parts,
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git here
        return "unknown"
    return done.stdout.strip() or "unknown"
