"""What the pages about size say is what the calculator prints, and what was measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.report import with_costs
from scripts.capacity import COSTS, plan, row
from scripts.capacity_model import Costs, Demand, dealt, fair_ranges, usual_ranges

from .pages import LANGUAGES, ROOT, blocks, differs

COST = json.loads(COSTS.read_text(encoding="utf-8"))
PER_HOUR = 6


def page(language: str) -> str:
    return (ROOT / "docs" / language / "capacity.md").read_text(encoding="utf-8")


def table(language: str, mark: str) -> list[list[str]]:
    """The cells of the rows between two marks, without head and rule."""
    text = page(language).partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_of_users_is_what_the_calculator_says(language: str) -> None:
    costs = Costs.of(COST)
    assert table(language, "capacity") == [
        row(plan(Demand(10**power, PER_HOUR), costs)) for power in range(3, 7)
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_of_costs_is_what_was_measured(language: str) -> None:
    listed = {name: value for _, name, value in table(language, "costs")}
    assert len(listed) > 20
    measured = {f"`{part}.{name}`": f"{value:,.4g}" for part in COST for name, value in values_of(part)}
    assert listed == {name: measured[name] for name in listed}


def values_of(part: str) -> list[tuple[str, float]]:
    return [] if part == "about" else [*COST[part].items()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_program_that_writes_the_tables_has_nothing_to_change(language: str) -> None:
    assert with_costs(page(language), COST, language) == page(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_costs_come_into_the_tables(language: str) -> None:
    other = json.loads(json.dumps(COST))
    other["about"]["redis"], other["cpu_us"]["delta"] = "8.8.8", 300_000.0
    text = with_costs(page(language), other, language)
    assert "Redis 8.8.8" in text
    assert "`cpu_us.delta` | 3e+05 |" in text
    assert with_costs(text, COST, language) == page(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_of_masters_is_where_the_shards_are(language: str) -> None:
    text = page(language)
    for masters in (3, 5):
        for part in fair_ranges(masters):
            assert f"{part.start}-{part.stop - 1}" in text
    for masters in (3, 4, 5, 8):
        [line] = [line for line in text.splitlines() if line.startswith(f"| {masters} |")]
        shown = line.split("|")[2].replace("`{index}`", "")
        numbers = [int(each) for each in "".join(c if c.isdigit() else " " for c in shown).split()]
        assert numbers == [count for count, _ in dealt(usual_ranges(masters))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_command_of_the_page_says_what_it_shows(language: str) -> None:
    shown = blocks(ROOT / "docs" / language / "capacity.md", "bash", "text")
    command = shown[0].text.split()
    assert command[0] == "python3"
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert differs(shown[1], done.stdout) == ""
