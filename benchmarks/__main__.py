"""``python -m benchmarks``; use ``./run-bench.sh``, which sets up what it needs."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import plot, report
from benchmarks.bench import Bench
from benchmarks.options import Options
from benchmarks.parts import (
    capacity,
    capacity_check,
    cores,
    flat,
    latency,
    memory,
    reads,
    store,
    streams,
    whole,
)
from benchmarks.processes import ROOT, raise_file_limit
from benchmarks.profiling import profile
from benchmarks.results import Check, Results, as_json

Part = Callable[[Bench, Results, Options], None]

PARTS: Final[dict[str, Part]] = {
    "streams": streams.streams,
    "paced": streams.paced,
    "crowds": streams.crowds,
    "doors": streams.doors,
    "variants": streams.variants,
    "latency": latency.latency,
    "whole": whole.whole,
    "reads": reads.reads,
    "flat": flat.flat,
    "memory": memory.memory,
    "redis": store.store,
    "cores": cores.cores,
}
NAMED_ONLY: Final[dict[str, Part]] = {
    "capacity": capacity.capacity,
    "capacity-check": capacity_check.capacity_check,
}
"""Parts that run only where they are named."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run-bench.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 at once only, half a minute")
    parser.add_argument(
        "--only", default="", help="parts, with commas between: " + ", ".join([*PARTS, *NAMED_ONLY])
    )
    parser.add_argument("--rounds", type=int, default=0, help="interleaved rounds (5; quick: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a round is to take (3)")
    parser.add_argument("--minutes", type=float, default=1.0, help="of churn in the memory part (1)")
    parser.add_argument(
        "--stall", type=float, default=28.0, help="seconds in which a reader reads nothing (28)"
    )
    parser.add_argument("--streams", type=int, default=5000, help="open at once in the memory part (5000)")
    parser.add_argument(
        "--messages", type=int, default=10_000, help="of one session in the part flat (10000)"
    )
    parser.add_argument("--sessions", type=int, default=100_000, help="alive in the part flat (100000)")
    parser.add_argument("--tree", type=Path, default=ROOT, help="another checkout whose service is measured")
    parser.add_argument("--profile", action="store_true", help="flame graphs of ours instead")
    parser.add_argument("--keep-logs", type=Path, help="a directory for the logs of all processes")
    parser.add_argument(
        "--no-save", action="store_true", help="leave benchmarks/results and the pages as they are"
    )
    parsed = parser.parse_args()
    parsed.rounds = parsed.rounds or (3 if parsed.quick else 5)
    parsed.parts = [name for name in parsed.only.split(",") if name] or list(PARTS)
    if unknown := set(parsed.parts) - {*PARTS, *NAMED_ONLY}:
        parser.error(f"no such part: {', '.join(unknown)}")
    return parsed


def run(parsed: argparse.Namespace, directory: Path) -> dict[str, Results]:
    """By part, what it has found."""
    options = Options(
        rounds=parsed.rounds,
        seconds=parsed.seconds,
        minutes=parsed.minutes,
        stall=parsed.stall,
        streams=parsed.streams,
        messages=parsed.messages,
        sessions=parsed.sessions,
    )
    parts = (
        {"quick": streams.quick}
        if parsed.quick
        else {name: (PARTS | NAMED_ONLY)[name] for name in parsed.parts}
    )
    found = {name: Results() for name in parts}
    with Bench(directory, tree=parsed.tree.resolve(), save=not parsed.no_save) as bench:
        for name, part in parts.items():
            bench.say(f"== {name}")
            began = time.monotonic()
            try:
                with bench.scope():
                    part(bench, found[name], options)
            except Exception as error:  # noqa: BLE001  # what the other parts find is not to be lost
                bench.say(f"   FAILED: {type(error).__name__}: {error}")
                found[name].check("", f"{name}: did not get to its end", 1, "<=", 0, quick=True)
            bench.say(f"   {time.monotonic() - began:.0f} s")
    return found


def save(found: dict[str, Any]) -> None:
    """Into ``results/``; parts that were not measured now keep the figures that they have there."""
    report.RESULTS.mkdir(exist_ok=True)
    latest = report.RESULTS / "latest.json"
    if latest.exists():
        parts = json.loads(latest.read_text())["parts"] | found["parts"]
        found = found | {"parts": {name: parts[name] for name in PARTS | NAMED_ONLY if name in parts}}
    latest.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    (report.RESULTS / "table.md").write_text(report.markdown(found))
    (report.RESULTS / "latest.svg").write_text(plot.svg(found))


def missed(parts: Mapping[str, Results], *, quick: bool) -> list[Check]:
    """The checks that fail the run."""
    return [check for results in parts.values() for check in results.missed(quick=quick)]


def flame_graphs(parsed: argparse.Namespace, directory: Path) -> None:
    report.RESULTS.mkdir(exist_ok=True)
    with Bench(directory, tree=parsed.tree.resolve()) as bench:
        profile(bench, report.RESULTS)


def main() -> int:
    parsed = parse()
    # Ends what was started, as after an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_file_limit()
    load = os.getloadavg()[0]
    directory = Path(tempfile.mkdtemp(prefix="coze-bench-"))
    try:
        if parsed.profile:
            flame_graphs(parsed, directory)
            return 0
        results = run(parsed, directory)
        if parsed.quick and missed(results, quick=True):
            print("once more: another program may have had the machine")
            results = run(parsed, Path(tempfile.mkdtemp(dir=directory)))
    finally:
        if parsed.keep_logs:
            parsed.keep_logs.mkdir(parents=True, exist_ok=True)
            for log in directory.glob("*.log"):
                shutil.copy(log, parsed.keep_logs)
        shutil.rmtree(directory, ignore_errors=True)
    found = as_json(results, parsed.rounds, load)
    if not parsed.quick and not parsed.no_save:
        save(found)  # first: a run may have taken an hour
        report.main()
    print("\n" + report.terminal(found))
    failed = missed(results, quick=parsed.quick)
    for check in failed:
        print(f"MISSED  {check.number}: {check.text}: {check.value:.3g}, limit {check.sign} {check.limit:g}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
