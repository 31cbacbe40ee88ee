"""Changes the Lua scripts, and some decisions beside them, one place at a time: do the tests notice?

    python scripts/mutants.py                      all of them; exit status 1 if fewer than 95 % are noticed
    python scripts/mutants.py --only chat_end      those of one script or module (may be given again)
    python scripts/mutants.py --list               what would be tried
    python scripts/mutants.py --seeds 1-20         simulated worlds for what the store tests do not notice
    python scripts/mutants.py --minutes 10         stop after so long, and say of how many it tells

Each mutant is tried in a copy of the sources, first with ``tests/stores`` (in a fork of a process that has
imported everything; only tests that run the changed script), then with the simulation. What takes too long
counts as noticed. What nothing notices is printed as an entry for ``scripts/mutants.toml``, where every
survivor stands with the reason why it may survive; ``tests/stores/test_survivors.py`` keeps that list honest.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.lua_mutations import Mutation, mutations  # noqa: E402  # found from wherever this is started
from scripts.python_mutations import decisions  # noqa: E402

LUA: Final = "app/stores/lua"
SURVIVORS: Final = "scripts/mutants.toml"
ENOUGH: Final = 0.95
DECISIONS: Final[dict[str, tuple[str, ...]]] = {
    "app/tasks/lease_keeper.py": (),
    "app/tasks/running.py": (
        "RunningChats.start_claimed",
        "RunningChats.take_over",
        "RunningChats._start_follower",
    ),
    "app/stores/leases.py": (),
    "app/stores/event_log.py": (
        "LogWriter._is_clean",
        "LogWriter._commands",
        "LogWriter._handle",
        "LogWriter._not_added",
        "LogWriter._handle_end",
        "LogWriter._compare",
        "LogWriter._write_again",
    ),
}
"""By file, the functions whose decisions are changed; none: all of the file."""
_ANY_NUMBER: Final = ("probe",)
"""Scripts whose numbers only make commands valid: with any other they ask the server for the same rights."""
_COPIED: Final = ("app", "coze_simulator", "client", "tests", "scripts")
_STORE_SECONDS: Final = 100.0
_SEED_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Mutant:
    """``line`` is the text of the line that is changed and ``nth`` tells apart what is else alike, so that a
    mutant keeps its name when other lines come or go. ``function``: of a Python module."""

    path: str
    line: str
    change: str
    nth: int
    kind: str
    source: str = field(repr=False)
    function: str = ""

    @property
    def name(self) -> str:
        """Of the script or module."""
        return Path(self.path).stem

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.path, self.line, self.change, self.nth

    def text(self) -> str:
        again = f" ({self.nth})" if self.nth > 1 else ""
        return f"{self.name}: {self.line}\n    {self.change}{again}"

    def entry(self, reason: str = "") -> str:
        """As it stands in the list of survivors."""
        values = {"path": self.path, "line": self.line, "change": self.change}
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
        if self.nth > 1:
            lines.append(f"nth = {self.nth}")
        return "\n".join(["[[survivor]]", *lines, f"reason = {json.dumps(reason, ensure_ascii=False)}", ""])


def _named(path: str, source: str, found: Sequence[tuple[Mutation, str]]) -> Iterator[Mutant]:
    counts: Counter[tuple[str, str]] = Counter()
    for each, function in found:
        begin = source.rfind("\n", 0, each.begin) + 1
        line = source[begin : (source.find("\n", each.begin) + 1 or len(source) + 1) - 1].strip()
        was = re.sub(r"\s+", " ", source[each.begin : each.end])
        change = f"{was} -> {each.instead}".strip() if each.instead else f"without {was}".strip()
        counts[line, change] += 1
        yield Mutant(path, line, change, counts[line, change], each.kind, each.applied_to(source), function)


def all_mutants(root: Path = ROOT) -> list[Mutant]:
    """Of the Lua scripts those that compile; then of the Python decisions."""
    from lupa.lua51 import LuaError, LuaRuntime

    runtime = LuaRuntime()
    prelude = (root / LUA / "prelude.lua").read_text(encoding="utf-8")
    found: list[Mutant] = []
    for path in sorted((root / LUA).glob("*.lua")):
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(root).as_posix()
        changes = [
            each for each in mutations(source) if each.kind != "number" or path.stem not in _ANY_NUMBER
        ]
        for mutant in _named(name, source, [(each, "") for each in changes]):
            with suppress(LuaError):
                runtime.compile(mutant.source if path.stem == "prelude" else prelude + mutant.source)
                found.append(mutant)
    for name, functions in DECISIONS.items():
        source = (root / name).read_text(encoding="utf-8")
        places = [(each.mutation, each.function) for each in decisions(source, functions)]
        if missing := set(functions) - {function for _, function in places}:
            raise ValueError(f"{name} has nothing to change in {', '.join(sorted(missing))}")
        found += _named(name, source, places)
    return found


def survivors(root: Path = ROOT) -> dict[tuple[str, str, str, int], str]:
    """The reasons of those that are listed."""
    entries = tomllib.loads((root / SURVIVORS).read_text(encoding="utf-8")).get("survivor", [])
    return {(e["path"], e["line"], e["change"], e.get("nth", 1)): e["reason"] for e in entries}


class Copy:
    """A copy of the sources, in which one mutant after the other is tried. Nothing is left of it behind the
    ``with``. ``kill``, from another thread, ends whatever is being done in it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="coze-mutants-"))
        self._killed = False
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Returns when all store tests have passed without any change."""
        try:
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*_cache")
            for name in _COPIED:
                shutil.copytree(ROOT / name, self.directory / name, ignore=ignored)
            shutil.copy(ROOT / "pyproject.toml", self.directory)
            self._worker = self._start("scripts/mutant_worker.py", *DECISIONS)
            self._answer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.kill()
        for process in self._processes:
            with suppress(BrokenPipeError):  # what was still to be written has no reader any more
                process.communicate()
        for _ in range(20):  # a process of theirs that is just ending may still write
            shutil.rmtree(self.directory, ignore_errors=True)
            if not self.directory.exists():
                break
            time.sleep(0.1)

    def _start(self, *command: str) -> subprocess.Popen[str]:
        """A Python process with a process group of its own."""
        with self._lock:
            if self._killed:
                raise RuntimeError("the run is over")
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            self._processes = [*(each for each in self._processes if each.poll() is None), process]
        return process

    def _answer(self) -> dict[str, Any]:
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the worker has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def write(self, path: str, source: str) -> None:
        (self.directory / path).write_text(source, encoding="utf-8")

    def store_tests(self, mutant: Mutant) -> str:
        """Which of them fails, or "". The mutant has to be written before."""
        asked: dict[str, Any] = {"seconds": _STORE_SECONDS, "uses": mutant.function or mutant.name}
        if mutant.function:
            asked["function"] = [mutant.path.removesuffix(".py").replace("/", "."), mutant.function]
        assert self._worker.stdin is not None
        self._worker.stdin.write(json.dumps(asked) + "\n")
        self._worker.stdin.flush()
        return str(self._answer()["by"])

    def simulation(self, seeds: Sequence[str]) -> str:
        """The first range of seeds that notices something, or ""."""
        for some in seeds:
            if not self._simulate(some, "--fail-fast")[0]:
                return f"seeds {some}"
        return ""

    def clean_seeds(self, first: int, last: int) -> list[str]:
        """Ranges of those that violate nothing as things are, so that they can tell something."""
        _, output = self._simulate(f"{first}-{last}")
        bad = {int(number) for number in re.findall(r"^seed (\d+) .*VIOLATED", output, re.MULTILINE)}
        ranges: list[list[int]] = []
        for seed in range(first, last + 1):
            if seed in bad:
                continue
            if ranges and ranges[-1][-1] == seed - 1:
                ranges[-1].append(seed)
            else:
                ranges.append([seed])
        return [f"{some[0]}-{some[-1]}" for some in ranges]

    def _simulate(self, seeds: str, *options: str) -> tuple[bool, str]:
        """Whether all is well, and what it printed."""
        first, last = map(int, seeds.split("-"))
        command = ["-m", "tests.simulation", "--seeds", seeds, "--shrink", "0", "--jobs", "1"]
        process = self._start(*command, *options)
        try:
            output, _ = process.communicate(timeout=_SEED_SECONDS * (last - first + 2))
        except subprocess.TimeoutExpired:
            _kill(process)
            output, _ = process.communicate()
            return False, output
        return process.returncode == 0, output

    def kill(self) -> None:
        """Ends its processes, and lets none begin any more."""
        with self._lock:
            self._killed = True
            for process in self._processes:
                _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@dataclass
class Result:
    mutant: Mutant
    by: str
    """Who noticed it; "" = nobody."""
    seconds: float


class Trial:
    """Tries mutants in several copies at once."""

    def __init__(self, mutants: Sequence[Mutant], *, jobs: int, seeds: str, ends: float | None) -> None:
        self._mutants: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in mutants:
            self._mutants.put(mutant)
        self._all = len(mutants)
        self._jobs = jobs
        self._seeds = seeds
        self._ends = ends
        self._over = False
        self._lock = threading.Lock()
        self._clean: list[str] | None = None
        self._copies: list[Copy] = []
        self.results: list[Result] = []

    def run(self) -> None:
        """Whatever breaks a worker is raised. An interruption (by a signal) ends all that has begun here, and
        leaves nothing behind."""
        with ThreadPoolExecutor(self._jobs) as pool:
            workers = [pool.submit(self._work) for _ in range(self._jobs)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:
                self._over = True
                for copy in self._copies:
                    copy.kill()
                raise

    def _work(self) -> None:
        copy = Copy()
        self._copies.append(copy)  # before anything begins in it, so that an interruption ends that, too
        if self._over:
            copy.kill()
        with copy, suppress(queue.Empty):
            while not self._over and (self._ends is None or time.monotonic() < self._ends):
                self._try(copy, self._mutants.get_nowait())

    def _seeds_of(self, copy: Copy) -> list[str]:
        with self._lock:
            if self._clean is None:
                first, _, last = self._seeds.partition("-")
                self._clean = copy.clean_seeds(int(first), int(last or first)) if self._seeds else []
                if self._seeds:
                    print(
                        f"seeds that are clean without any change: {', '.join(self._clean) or 'none'}",
                        flush=True,
                    )
            return self._clean

    def _try(self, copy: Copy, mutant: Mutant) -> None:
        began = time.monotonic()
        original = (ROOT / mutant.path).read_text(encoding="utf-8")
        seeds: list[str] = []
        copy.write(mutant.path, mutant.source)
        by = copy.store_tests(mutant)
        if not by and self._seeds:
            copy.write(mutant.path, original)
            seeds = self._seeds_of(copy)
            copy.write(mutant.path, mutant.source)
            by = copy.simulation(seeds)
        copy.write(mutant.path, original)
        with self._lock:
            self.results.append(Result(mutant, by, time.monotonic() - began))
            if not by or len(self.results) % 25 == 0:
                print(
                    f"{len(self.results)}/{self._all}{'' if by else '  SURVIVES  ' + mutant.text()}",
                    flush=True,
                )


def report(results: Sequence[Result], asked: int, seconds: float) -> int:
    """Prints the figures, by script and together; the exit status."""
    listed = survivors()
    tried, noticed = Counter[str](), Counter[str]()
    for result in results:
        tried[result.mutant.name] += 1
        noticed[result.mutant.name] += bool(result.by)
    for name in tried:
        print(f"  {name:22} {noticed[name]:4} of {tried[name]:4}")
    new = [r.mutant for r in results if not r.by and r.mutant.key not in listed]
    stale = [r.mutant for r in results if r.by and r.mutant.key in listed]
    if new:
        print("\nSurvivors that are not listed:\n")
        print("\n".join(mutant.entry() for mutant in new))
    for mutant in stale:
        print(f"listed as a survivor, but noticed: {mutant.text()}")
    simulated = sum(r.by.startswith("seeds") for r in results)
    total, share = sum(noticed.values()), sum(noticed.values()) / max(1, len(results))
    rest = "" if len(results) == asked else f" (of {asked}; the time was up)"
    left = len(results) - total
    print(
        f"\n{total} of {len(results)} mutants noticed{rest}: {share:.1%}, {simulated} by the simulation alone"
    )
    print(f"{left} survive, {left - len(new)} of them listed; {seconds:.0f} s")
    return 0 if share >= ENOUGH and not new and not stale else 1


def _stop(number: int, _: object) -> None:
    """Once: what is left to do is soon done."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a script or a module")
    parser.add_argument("--list", action="store_true", help="print them and try none")
    parser.add_argument("--listed", action="store_true", help="only those that are listed as survivors")
    parser.add_argument("--seeds", default="1-12", metavar="A-B", help='seeds for the simulation; "" = none')
    parser.add_argument("--minutes", type=float, help="begin none after so long")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="at the same time (default: all cores)"
    )
    chosen = parser.parse_args(arguments)
    names = {Path(name).stem for name in chosen.only}
    listed = survivors()
    mutants = [m for m in all_mutants() if not names or m.name in names]
    mutants = [m for m in mutants if not chosen.listed or m.key in listed]
    if chosen.list:
        for mutant in mutants:
            print(mutant.text())
        print(f"{len(mutants)} mutants")
        return 0
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    began = time.monotonic()
    ends = None if chosen.minutes is None else began + chosen.minutes * 60
    trial = Trial(mutants, jobs=chosen.jobs, seeds=chosen.seeds, ends=ends)
    trial.run()
    return report(trial.results, len(mutants), time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
