"""A scenario is data: a configuration and steps at times. So it can be printed, kept and shortened."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Step:
    """Something that happens ``at`` virtual seconds after the beginning, whatever else is under way.

    ``do`` names a method of ``actions.Clients`` or ``faults.Faults``, ``args`` are its arguments. Clients'
    steps name sessions and chats by labels; a step whose label nobody has made does nothing, so that any step
    can be left out."""

    at: float
    do: str
    args: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        return f"{self.at:10.3f}  {self.do}({given})"


@dataclass(frozen=True)
class Scenario:
    """``settings``: by variable name. ``world``: see ``WORLD``. ``calm_after``: virtual seconds after which
    all faults have ended; an hour later everything is looked at."""

    seed: int
    kind: str
    settings: dict[str, str]
    world: dict[str, Any]
    steps: list[Step]
    calm_after: float

    def without(self, left_out: set[int]) -> Scenario:
        return replace(self, steps=[step for place, step in enumerate(self.steps) if place not in left_out])

    def to_json(self) -> str:
        values = asdict(self)
        steps = values.pop("steps")
        lines = ",\n  ".join(json.dumps(step, ensure_ascii=False) for step in steps)
        head = json.dumps(values, ensure_ascii=False, indent=1)
        return f'{head[:-2]},\n "steps": [\n  {lines}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        values = json.loads(text)
        return cls(**{**values, "steps": [Step(**step) for step in values["steps"]]})

    def text(self) -> str:
        chosen = " ".join(f"{name}={value}" for name, value in sorted(self.settings.items()))
        world = " ".join(f"{name}={value}" for name, value in sorted(self.world.items()))
        lines = [f"seed {self.seed}, {self.kind}", f"settings: {chosen}", f"world: {world}"]
        return "\n".join([*lines, *(step.text() for step in self.steps), f"{self.calm_after:10.3f}  calm"])


WORLD: dict[str, Any] = {
    "replicas": 2,
    "skew": 0.0,
    "scan_seconds": 2.0,
    "on_disconnect": "continue",
    "tuned": True,
    "hour": 3600.0,
}
"""``skew``: at most so many seconds between the replicas' wall clocks. ``scan_seconds``: between two looks
for lost leases. ``on_disconnect``: what Coze does when a stream's reader leaves. ``hour``: what passes after
the faults."""


@dataclass(frozen=True)
class Violation:
    """``rule``: one of ``oracle.RULES``."""

    rule: str
    at: float
    text: str


@dataclass
class Outcome:
    """``trace``: a hash of all that happened; ``lines``: the same in words, where it was asked for."""

    seed: int
    kind: str
    violations: list[Violation]
    trace: str
    chats: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    virtual_seconds: float = 0.0
    cpu_seconds: float = 0.0
    lines: list[str] = field(default_factory=list)

    def rules(self) -> list[str]:
        return sorted({violation.rule for violation in self.violations})
