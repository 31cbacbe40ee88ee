"""A process that runs scenarios, one after the other, and writes what came of each as a line of JSON.

The clocks of this process are virtual from its first line on; whoever starts it keeps real ones.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.simulation import clock

_SHARDS = 2
"""Instead of 32: a look for lost leases asks each shard, and such looks are most of what hours consist of."""


def main(task: dict[str, Any]) -> None:
    """``task``: see ``runner.Task``."""
    clock.install()
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("COZE_REDIS_PREFIX", "coze:")
    import app.utils

    app.utils.SHARDS = _SHARDS  # type: ignore[misc]  # before anything reads it
    from loguru import logger

    from tests.simulation.generate import scenario_of
    from tests.simulation.scenario import Outcome, Scenario
    from tests.simulation.shrink import shortest
    from tests.simulation.world import Apps, run_scenario

    logger.remove()
    apps, ignore = Apps(), frozenset(task["ignore"])

    def run(scenario: Scenario, *, keep: bool = False) -> Outcome:
        return run_scenario(scenario, apps, ignore=ignore, keep=keep)

    ends = None if task["seconds"] is None else clock.real_seconds() + task["seconds"]
    for number, seed in enumerate(range(task["first"], task["last"] + 1, task["stride"])):
        if ends is not None and clock.real_seconds() >= ends:
            break
        scenario = scenario_of(seed, task["kind"])
        if task["files"]:
            scenario = Scenario.from_json(Path(task["files"][number]).read_text("utf-8"))
        outcome = run(scenario, keep=task["keep"])
        if number == 0:
            gc.freeze()  # what was imported need not be looked at after each scenario
        line: dict[str, Any] = asdict(outcome)
        if outcome.violations and task["shrink"]:
            short, again = shortest(scenario, outcome, run, seconds=task["shrink"])
            line |= {"short": short.to_json(), "text": short.text(), "again": asdict(again)}
        elif task["keep"]:
            line |= {"text": scenario.text()}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        if outcome.violations and task["fail_fast"]:
            break


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
