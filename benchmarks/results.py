"""What a part has found: rows of figures, curves, and checks against the limits."""

import operator
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ROOT

_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {"<=": operator.le, ">=": operator.ge}


@dataclass
class Check:
    """``text`` says what ``value`` is, with its unit."""

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

    scenario: str
    contestant: str
    values: dict[str, float]


@dataclass
class Results:
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def row(self, scenario: str, contestant: str, **values: float) -> None:
        self.rows.append(Row(scenario, contestant, values))

    def check(
        self, number: str, text: str, value: float, sign: str, limit: float, *, quick: bool = False
    ) -> None:
        self.checks.append(Check(number, text, value, sign, limit, quick))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def missed(self, *, quick: bool) -> list[Check]:
        """The checks that fail the run."""
        return [check for check in self.checks if not check.passed and (check.quick or not quick)]

    def as_json(self, measured: str) -> dict[str, Any]:
        """``measured``: when and how."""
        found = asdict(self) | {"measured": measured}
        for check, asked in zip(found["checks"], self.checks, strict=True):
            check["passed"] = asked.passed
        return found


def as_json(parts: Mapping[str, Results], rounds: int, load: float) -> dict[str, Any]:
    """What goes into ``results/latest.json``: ``about`` the machine, and ``parts`` by name. ``load``: the
    system's load average before the run, which is that of other programs."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    measured = f"{date}, commit {_commit()}, {rounds} rounds, load average before it {load:.1f}"
    return {
        "about": about_this_machine(),
        "parts": {name: results.as_json(measured) for name, results in parts.items()},
    }


def about_this_machine() -> dict[str, Any]:
    """Hardware and versions; no names of hosts or users."""
    import fastapi
    import httpx
    import uvicorn

    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "fastapi": fastapi.__version__,
        "httpx": httpx.__version__,
        "uvicorn": uvicorn.__version__,
    }


def _commit() -> str:
    """That of the sources. What a run writes, some of it before it is over, makes them no others."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        commit = git("describe", "--always")
        changed = git("status", "--porcelain", "--", "app", "benchmarks", ":!benchmarks/results")
    except FileNotFoundError:  # no git here
        return "unknown"
    return f"{commit}-dirty" if changed else commit or "unknown"
