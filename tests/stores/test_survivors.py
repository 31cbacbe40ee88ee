"""The list of mutants that may survive stays true, and what makes mutants does what it says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scripts.lua_mutations import mutations
from scripts.mutants import ENOUGH, SURVIVORS, Mutant, Trial, all_mutants, survivors
from scripts.python_mutations import decisions


@pytest.fixture(scope="module")
def mutants() -> dict[tuple[str, str, str, int], Mutant]:
    return {mutant.key: mutant for mutant in all_mutants()}


def test_every_mutant_has_a_name_of_its_own(mutants: dict[tuple[str, str, str, int], Mutant]) -> None:
    assert len(mutants) == len(all_mutants())
    assert len({(mutant.path, mutant.source) for mutant in mutants.values()}) == len(mutants)


def test_every_listed_survivor_still_exists(mutants: dict[tuple[str, str, str, int], Mutant]) -> None:
    gone = [key for key in survivors() if key not in mutants]
    assert gone == [], f"take them out of {SURVIVORS}, or see what has become of them"


def test_every_listed_survivor_has_a_reason() -> None:
    assert [key for key, reason in survivors().items() if len(reason.split()) < 5] == []


def test_few_enough_may_survive(mutants: dict[tuple[str, str, str, int], Mutant]) -> None:
    assert len(survivors()) <= (1 - ENOUGH) * len(mutants)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_listed_survivor_does_survive_the_store_tests(
    mutants: dict[tuple[str, str, str, int], Mutant],
) -> None:
    """Else a test has come that notices it, and it must not stay on the list. Whoever is noticed is looked at
    once more: on a busy machine a test can fail for want of time."""
    noticed = list(survivors())
    for _ in range(2):
        trial = Trial([mutants[key] for key in noticed], jobs=1, seeds="", ends=None)
        trial.run()
        noticed = [result.mutant.key for result in trial.results if result.by]
    assert noticed == []


# -- what is made --------------------------------------------------------------------------------------


def made_of(source: str) -> list[tuple[str, str]]:
    found = []
    for each in mutations(source):
        changed = each.applied_to(source)
        found.append((each.kind, " ".join(changed.split())))
    return sorted(found)


LUA: list[tuple[str, Sequence[tuple[str, str]]]] = [
    ("f(x)", [("drop call", "")]),
    ("a.b[c] = x", [("drop assignment", "")]),
    ("local x = f(y) -- a < b", []),
    ("local x = a < b", [("move comparison", "local x = a <= b"), ("turn comparison", "local x = a >= b")]),
    ("local x = a == b", [("turn comparison", "local x = a ~= b")]),
    ("local x = not a", [("drop not", "local x = a")]),
    ("local x = a and b", [("swap", "local x = a or b")]),
    (
        "local x = math.max(0, y)",
        [("number", "local x = math.max(1, y)"), ("swap", "local x = math.min(0, y)")],
    ),
    ("local x = 1 + 60", [("number", "local x = 0 + 60"), ("number", "local x = 1 + 61")]),
    ("local x = KEYS[1]", []),
    ("local x = string.sub(y, 1, z)", []),
    (
        "if a then return b end",  # what is alone in an if is not dropped: it is the same as never
        [("always false", "if false then return b end"), ("always true", "if true then return b end")],
    ),
    (
        "if a then f() return b end",
        [
            ("always false", "if false then f() return b end"),
            ("always true", "if true then f() return b end"),
            ("drop call", "if a then return b end"),
            ("drop return", "if a then f() end"),
        ],
    ),
    (
        "if a then f() else g() end",
        [
            ("always false", "if false then f() else g() end"),
            ("always true", "if true then f() else g() end"),
            ("drop call", "if a then else g() end"),
            ("drop call", "if a then f() else end"),
        ],
    ),
    (
        "while a do f() end",
        [("always false", "while false do f() end"), ("drop call", "while a do end")],
    ),
    ("for i, x in ipairs(y) do f(x) end", [("drop call", "for i, x in ipairs(y) do end")]),
    ("local function f(a) g(a) return a end", [("drop call", "local function f(a) return a end")]),
]


@pytest.mark.parametrize(("source", "expected"), LUA, ids=[source for source, _ in LUA])
def test_lua_is_changed_in_one_place_at_a_time(source: str, expected: Sequence[tuple[str, str]]) -> None:
    assert made_of(source) == sorted(expected)


def test_what_is_not_understood_is_not_passed_over() -> None:
    for source in ("f(x", "goto a", "f(x) end", "x = [[text]]"):
        with pytest.raises((ValueError, KeyError, IndexError)):
            mutations(source)


def test_decisions_in_python_are_changed_in_one_place_at_a_time() -> None:
    source = (
        "class A:\n    def f(self, a):\n        if a is not None and not self.b:\n            return a < 1\n"
    )
    found = decisions(source, ["A.f"])
    lines = sorted(each.mutation.applied_to(source).splitlines()[2].strip() for each in found)
    assert [line for line in lines if line != "if a is not None and not self.b:"] == [
        "if False:",
        "if True:",
        "if a is None and not self.b:",
        "if a is not None and self.b:",
        "if a is not None or not self.b:",
    ]
    assert sum("a >= 1" in each.mutation.applied_to(source) for each in found) == 1
    assert len(found) == 6
    assert {each.function for each in found} == {"A.f"}
    assert decisions(source, ["A.g"]) == []
