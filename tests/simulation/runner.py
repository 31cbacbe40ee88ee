"""Runs seeds in worker processes and tells what came of them. Imports nothing of the service."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Task:
    """``first`` to ``last`` (inclusive) with ``stride``; ``seconds``: no scenario is begun after so many of
    real time. ``files``: scenarios as data instead of seeds. ``shrink``: seconds for shortening a failure, 0
    = not."""

    first: int = 0
    last: int = 0
    stride: int = 1
    seconds: float | None = None
    kind: str = ""
    files: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    shrink: float = 60.0
    keep: bool = False
    fail_fast: bool = False


@dataclass
class Totals:
    seeds: int = 0
    failed: int = 0
    chats: int = 0
    virtual: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        self.seeds += 1
        self.chats += line["chats"]
        self.virtual += line["virtual_seconds"]
        self.faults.update(line["faults"])
        self.kinds[line["kind"]] += 1
        if line["violations"]:
            self.failed += 1
            self.rules.update({violation["rule"] for violation in line["violations"]})

    def text(self, seconds: float) -> str:
        def counted(counts: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"

        lines = [
            f"{self.seeds} seeds ({counted(self.kinds)})",
            f"{self.chats} chats, {self.virtual / 86_400:.0f} virtual days, {seconds:.0f} s",
            f"faults: {counted(self.faults)}",
            f"violated: {self.failed} seeds ({counted(self.rules)})",
        ]
        return "\n".join(lines)


def run_tasks(tasks: Sequence[Task], *, fail_fast: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of all workers as they come. ``fail_fast``: all end at the first violation."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client" / "src")])}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        with selectors.DefaultSelector() as selector:
            for task in tasks:
                worker = subprocess.Popen(
                    [sys.executable, "-m", "tests.simulation.worker", json.dumps(asdict(task))],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                )
                workers.append(worker)
                assert worker.stdout is not None
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            while selector.get_map():
                for key, _ in selector.select():
                    raw = key.fileobj.readline()  # type: ignore[union-attr]
                    if not raw:
                        selector.unregister(key.fileobj)
                        if key.data.wait():
                            raise RuntimeError(f"a worker ended with {key.data.returncode}")
                        continue
                    line = json.loads(raw)
                    yield line
                    if fail_fast and line["violations"]:
                        return
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def split(task: Task, jobs: int) -> list[Task]:
    """The same seeds for several workers."""
    tasks = []
    for number in range(min(jobs, task.last - task.first + 1)):
        values = asdict(task) | {"first": task.first + number, "stride": jobs}
        values["files"] = task.files[number::jobs]
        tasks.append(Task(**values))
    return tasks


def show_failure(line: dict[str, Any], *, trace: bool) -> None:
    print(f"\nseed {line['seed']} ({line['kind']}): VIOLATED")
    for violation in line["violations"][:6]:
        print(f"  {violation['rule']} at {violation['at']:.3f}: {violation['text']}")
    if "text" in line:
        print("the shortest scenario that still does:" if "again" in line else "the scenario:")
        print(line["text"])
    if "again" in line:
        for violation in line["again"]["violations"][:6]:
            print(f"  {violation['rule']} at {violation['at']:.3f}: {violation['text']}")
        if trace:
            print("\n".join(line["again"]["lines"]))


def seconds_since(began: float) -> float:
    return time.monotonic() - began
