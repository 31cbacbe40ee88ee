"""Records deploy/prometheus/alerts_test.yml anew: ``python -m tests.observability.record [name ...]``.

Each story of ``stories.py`` happens to a service of its own, with a simulated Coze and a Redis on 127.0.0.1.
All of them take about a quarter of an hour; those whose names are given are put in the place of theirs, and
the others stay.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from .queries import RULE_TESTS, rules
from .recording import HEALTHY, Recording, Story, record
from .stories import STORIES

_AT_ONCE = 5
_INTERVAL = 15
"""Seconds between two scrapes of Prometheus."""
HEAD = """\
# Tests of alerts.yml: promtool test rules deploy/prometheus/alerts_test.yml
#
# Written by a program: `.venv/bin/python -m tests.observability.record` records all of it anew, with names
# behind it those tests alone. The series are what a real service told at /coze/metrics while that failure was
# made (tests/observability/stories.py), a scrape every two seconds standing for one every fifteen; `up` is
# what Prometheus notes of each. Metrics that no alert looks at are left out, and so are, but for
# one of each metric and replica, counters that never moved in a test. Of each failure's alerts none fires
# before it, and at the end they fire and no other does.
rule_files: [alerts.yml]
evaluation_interval: 15s
tests:
"""


def as_test(story: Story, recording: Recording) -> str:
    """One test in the form of promtool: at its end these alerts fire, and no other."""
    lines = [f"  - name: {story.name}", f"    interval: {_INTERVAL}s", "    input_series:"]
    for name, values in recording.series():
        lines.append(f"      - series: '{name}'")
        lines.append(f"        values: '{values}'")
    lines.append("    alert_rule_test:")
    end = _INTERVAL * (recording.length - 1)
    for rule in rules():
        if story.fires:
            if rule["alert"] in story.fires:
                lines += _none(rule, _INTERVAL * (HEALTHY - 1))
            lines += _expected(rule, story, end)
        else:
            lines += [line for moment in range(300, end + 1, 300) for line in _none(rule, moment)]
    return "\n".join(lines) + "\n"


def _when(rule: dict[str, Any], moment: int) -> list[str]:
    return [f"      - alertname: {rule['alert']}", f"        eval_time: {moment}s"]


def _none(rule: dict[str, Any], moment: int) -> list[str]:
    return [*_when(rule, moment), "        exp_alerts: []"]


def _expected(rule: dict[str, Any], story: Story, moment: int) -> list[str]:
    """``moment``: seconds from the first scrape."""
    severity = rule["labels"]["severity"]
    labels = [{"severity": severity, **found} for found in story.fires.get(rule["alert"], ())]
    if not labels:
        return _none(rule, moment)
    lines = [*_when(rule, moment), "        exp_alerts:"]
    for each in labels:
        lines.append(f"          - exp_labels: {json.dumps(each)}")
        lines.append("            exp_annotations:")
        lines += [f"              {key}: {text}" for key, text in rule["annotations"].items()]
    return lines


def _kept() -> dict[str, str]:
    """The tests that are there, by name."""
    if not RULE_TESTS.exists():
        return {}
    text = RULE_TESTS.read_text(encoding="utf-8").partition("\ntests:\n")[2]
    tests = ["  - name: " + part for part in text.split("  - name: ")[1:]]
    return {test.partition("\n")[0].removeprefix("  - name: "): test for test in tests}


async def record_all(names: Sequence[str]) -> bool:
    """Whether all of them could be recorded."""
    tests, room = _kept(), asyncio.Semaphore(_AT_ONCE)

    async def one(story: Story) -> None:
        async with room:
            tests[story.name] = as_test(story, await record(story))
        print(f"recorded: {story.name}", flush=True)
        text = "".join(tests[each.name] for each in STORIES if each.name in tests)
        RULE_TESTS.write_text(HEAD + text, encoding="utf-8")

    chosen = [story for story in STORIES if not names or story.name in names]
    outcomes = await asyncio.gather(*map(one, chosen), return_exceptions=True)
    for story, outcome in zip(chosen, outcomes, strict=True):
        if outcome is not None:
            print(f"not recorded: {story.name}: {outcome!r}", flush=True)
    return not any(outcomes)


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - {story.name for story in STORIES}
    if unknown:
        sys.exit(f"no such story: {', '.join(sorted(unknown))}")
    sys.exit(not asyncio.run(record_all(sys.argv[1:])))
