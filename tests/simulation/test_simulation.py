"""Some seeds of the simulated world: the fixed ones, some that nobody has run before, and what once failed.

They run in processes of their own, since their clocks are virtual. ``./run-tests.sh --simulate`` runs more.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.runner import Task, run_tasks, split

KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))
FIXED = (1, 16)
"""Seeds that always run."""
FRESH_SECONDS = 15.0
"""No fresh seed is begun after so many seconds: a slow machine runs fewer of them."""


def violations(line: dict[str, Any]) -> list[str]:
    return [f"{found['rule']}: {found['text']}" for found in line["violations"]]


def ran(tasks: list[Task]) -> dict[str, list[str]]:
    """What was violated, by seed and kind."""
    lines = list(run_tasks(tasks))
    assert lines, "nothing ran"
    return {f"seed {line['seed']} ({line['kind']})": violations(line) for line in lines if line["violations"]}


@pytest.mark.timeout(600)
def test_nothing_is_violated_in_the_fixed_seeds() -> None:
    assert ran(split(Task(*FIXED, shrink=0.0), 2)) == {}


@pytest.mark.timeout(600)
def test_nothing_is_violated_in_fresh_seeds() -> None:
    first = random.SystemRandom().randrange(1_000_000, 1_000_000_000)
    task = Task(first, first + 1000, seconds=FRESH_SECONDS, shrink=0.0)
    assert ran(split(task, 2)) == {}, f"./run-tests.sh --simulate --minutes 1 --seed {first}"


@pytest.mark.timeout(600)
def test_the_same_seed_is_the_same_run_in_every_process() -> None:
    """Over processes, hash seeds and what ran before in the process."""

    def traces(hash_seed: str, first: int) -> dict[int, str]:
        before = os.environ.get("PYTHONHASHSEED")
        os.environ["PYTHONHASHSEED"] = hash_seed
        try:
            return {line["seed"]: line["trace"] for line in run_tasks([Task(first, 4, shrink=0.0)])}
        finally:
            os.environ.pop("PYTHONHASHSEED")
            if before is not None:
                os.environ["PYTHONHASHSEED"] = before

    once, again = traces("1", 2), traces("4711", 3)
    assert {seed: once[seed] for seed in again} == again


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_was_violated_once_is_not_any_more(path: Path) -> None:
    assert ran([Task(files=[str(path)], shrink=0.0)]) == {}


def test_virtual_time_stays_in_its_own_processes() -> None:
    began = time.monotonic()
    time.sleep(0.01)
    assert time.monotonic() > began
