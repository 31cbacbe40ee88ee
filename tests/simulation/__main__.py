"""Runs scenarios: ``python -m tests.simulation --seeds 1-500 --fail-fast``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.runner import Task, Totals, run_tasks, seconds_since, show_failure, split

_FOR_EVER = 1 << 40


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.simulation", description=__doc__)
    parser.add_argument("--seeds", help="A-B or A: these and no others")
    parser.add_argument("--minutes", type=float, help="S, S+1, ... for so long")
    parser.add_argument("--seed", type=int, help="where --minutes begins (default: anywhere; it is printed)")
    parser.add_argument("--replay", type=int, metavar="S", help="one seed, with its trace")
    parser.add_argument("--files", nargs="+", default=[], metavar="FILE", help="scenarios as data")
    parser.add_argument("--kind", default="", help="all seeds of this kind (see generate.KINDS)")
    parser.add_argument("--ignore", default="", help="rules not to look at (see oracle.RULES), with commas")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--fail-fast", action="store_true", help="end at the first violation")
    parser.add_argument("--shrink", type=float, default=60.0, help="seconds for shortening a failure; 0: not")
    parser.add_argument("--save", type=Path, help="a directory for shortened scenarios")
    parser.add_argument("--traces", action="store_true", help="print the hash of each seed's trace")
    return parser


def _task(chosen: argparse.Namespace) -> Task:
    ignore = [rule for rule in chosen.ignore.split(",") if rule]
    common = {"kind": chosen.kind, "ignore": ignore, "shrink": chosen.shrink, "fail_fast": chosen.fail_fast}
    if chosen.files:
        return Task(
            last=len(chosen.files) - 1, files=[str(Path(f).resolve()) for f in chosen.files], **common
        )
    if chosen.replay is not None:
        return Task(chosen.replay, chosen.replay, **(common | {"keep": True, "shrink": 0.0}))
    if chosen.seeds:
        first, _, last = chosen.seeds.partition("-")
        return Task(int(first), int(last or first), **common)
    seed = (
        chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1_000_000, 1_000_000_000)
    )
    return Task(seed, _FOR_EVER, seconds=(chosen.minutes or 1.0) * 60.0, **common)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a rule was violated."""
    chosen = build_parser().parse_args(arguments)
    task, totals, began = _task(chosen), Totals(), time.monotonic()
    print(
        f"seeds from {task.first}" if task.last == _FOR_EVER else f"seeds {task.first} to {task.last}",
        flush=True,
    )
    for line in run_tasks(split(task, chosen.jobs), fail_fast=chosen.fail_fast):
        totals.add(line)
        if chosen.traces:
            print(f"seed {line['seed']} {line['kind']} {line['trace']} {line['cpu_seconds']:.2f} s of CPU")
        if chosen.replay is not None:
            print("\n".join(line["lines"]))
        if line["violations"]:
            show_failure(line, trace=chosen.fail_fast)
            if chosen.save and "short" in line:
                chosen.save.mkdir(parents=True, exist_ok=True)
                name = f"{line['violations'][0]['rule']}-{line['seed']}.json"
                (chosen.save / name).write_text(line["short"], encoding="utf-8")
        sys.stdout.flush()
    print(totals.text(seconds_since(began)))
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
