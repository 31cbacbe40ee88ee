"""The shortest scenario that still violates the same rule: steps are left out, half of them first."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.clock import real_seconds
from tests.simulation.scenario import Outcome, Scenario

Run = Callable[[Scenario], Outcome]


def shortest(
    scenario: Scenario, outcome: Outcome, run: Callable[..., Outcome], *, seconds: float
) -> tuple[Scenario, Outcome]:
    """Delta debugging for at most ``seconds`` of real time; the last run keeps its trace."""
    rule = outcome.violations[0].rule
    ends = real_seconds() + seconds

    def fails(candidate: Scenario) -> bool:
        return real_seconds() < ends and any(v.rule == rule for v in run(candidate).violations)

    size = max(1, len(scenario.steps) // 2)
    while size:
        begin = 0
        while begin < len(scenario.steps):
            candidate = scenario.without({*range(begin, begin + size)})
            if fails(candidate):
                scenario = candidate
            else:
                begin += size
        size //= 2
    return scenario, run(scenario, keep=True)
