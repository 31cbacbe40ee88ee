"""``python -m tests.faults.chaos --minutes 10 --seed N --rate R --record FILE``."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from .run import chaos


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run-tests.sh --chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same choices")
    parser.add_argument("--rate", type=float, default=3.0, help="clients that come each second (%(default)s)")
    parser.add_argument(
        "--record", type=Path, default=None, help="a file (JSON) for the samples and the dashboard's answers"
    )
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed

    def say(text: str) -> None:
        print(text, flush=True)

    say(f"chaos for {chosen.minutes:g} minutes with seed {seed}, {chosen.rate:g} clients a second")
    report = asyncio.run(chaos(chosen.minutes * 60, seed, rate=chosen.rate, record=chosen.record, say=say))
    print(report.text())
    print(f"seed {seed}: " + ("WRONG" if report.wrong else "nothing lost, doubled or mixed"))
    return 1 if report.wrong or not report.counts["completed"] else 0


if __name__ == "__main__":
    sys.exit(main())
