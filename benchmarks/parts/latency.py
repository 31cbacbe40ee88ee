"""Number 3: how much later than from the upstream itself, and for how long the event loop was held."""

import json
import signal
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import Bench, Contestant
from benchmarks.compete import Figures, compete_streaming
from benchmarks.options import Options
from benchmarks.report import RESULTS
from benchmarks.results import Results

_STREAMS = 500
_PER_SECOND = 20
_SECONDS = 5
"""Of an answer, and over which the streams begin."""
_WATCHED_ROUNDS = 3
_CROWD = f"{_STREAMS} paced streams, {_PER_SECOND} deltas/s each"


def latency(bench: Bench, results: Results, options: Options) -> None:
    with bench.scope():
        _first_delta(bench, results, options)
    with bench.scope():
        _crowds(bench, results, options)


def _first_delta(bench: Bench, results: Results, options: Options) -> None:
    bench.set_upstream(5, 0.01)
    found = compete_streaming(
        bench,
        [bench.direct(), bench.passthrough(), bench.ours(sessions=1)],
        connections=1,
        rounds=options.rounds,
        seconds=options.seconds,
        least=40,
    )
    for name, figures in found.items():
        results.row("one at a time", name, **figures.values())
    later = found["ours"].difference(found["upstream"], "first.median")
    results.check("3", "one at a time: first delta later than upstream's, median ms", later, "<=", 2.5)


# -- a crowd ----------------------------------------------------------------------------------------------


def _crowd(bench: Bench, options: Options, contestant: Contestant) -> dict[str, Any]:
    """Paced streams, begun at different moments; each connection asks twice."""
    job = bench.stream_job(
        contestant, _STREAMS, 2 * _STREAMS, ramp=_SECONDS, timeout=max(60, 20 * options.seconds)
    )
    return bench.drive(job)


def _row(results: Results, name: str, figures: Figures, **more: float) -> None:
    busy = [result["cpu"]["server"] / result["seconds"] for result in figures.rounds]
    late = {f"late.{part}": figures.of(f"late.{part}") for part in ("median", "p99", "max")}
    worst = max(figures.each("late.max"))
    values = late | {"late_worst": worst, "busy": median(busy), "errors": figures.faults} | more
    results.row(_CROWD, name, **values)


def _crowds(bench: Bench, results: Results, options: Options) -> None:
    """The relay has the same crowd right before or after ours: what is late there, too, is the machine's."""
    ours = bench.ours("ours, crowd", sessions=_STREAMS)
    target = bench.directory / "held.json"
    watched = bench.ours(
        "ours, watched",
        sessions=_STREAMS,
        # By its path: the checkout that is measured may have a benchmark of its own, without a watch.
        argv=[sys.executable, "-P", str(bench.own_path / "benchmarks" / "watched.py"), str(target)],
    )
    contestants = [bench.relay(), ours]
    bench.set_upstream(_SECONDS * _PER_SECOND, 1 / _PER_SECOND)
    found = {name: Figures() for name in ("upstream", "relay", ours.name, watched.name)}
    found["upstream"].rounds.append(_crowd(bench, options, bench.direct()))
    for number in range(options.rounds):
        for contestant in reversed(contestants) if number % 2 else contestants:
            found[contestant.name].rounds.append(_crowd(bench, options, contestant))
    held = []
    for _ in range(min(_WATCHED_ROUNDS, options.rounds)):
        _look(watched, target)
        found[watched.name].rounds.append(_crowd(bench, options, watched))
        held.append(_look(watched, target))
    for name in ("upstream", "relay", ours.name):
        _row(results, name, found[name])
    longest = {kind: median(each[kind] for each in map(_longest, held)) for kind in _KINDS}
    _row(results, watched.name, found[watched.name], **{_KINDS[kind]: longest[kind] for kind in _KINDS})
    later = found[ours.name].difference(found["relay"], "late.max")
    results.check("3", f"{_CROWD}: latest frame later than the relay's latest, ms", later, "<=", 100)
    results.check("3", f"{_CROWD}: frames lost or doubled, errors", found[ours.name].faults, "<=", 0)
    text = f"{_CROWD}: longest that one callback or step held the event loop, ms"
    results.check("3", text, longest["stretches"], "<=", 10)
    _tell(bench, results, held)


# -- the watch --------------------------------------------------------------------------------------------

_KINDS = {"stretches": "held_ms", "turns": "turn_ms", "collections": "collection_ms"}
"""What the watch keeps the longest of, and its name in a row."""


def _look(watched: Contestant, target: Path) -> dict[str, Any]:
    """What the watch has seen since the last look."""
    assert watched.process is not None
    target.unlink(missing_ok=True)
    watched.process.signal(signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while not target.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the watch on the event loop has not answered")
        time.sleep(0.05)
    seen: dict[str, Any] = json.loads(target.read_text())
    return seen


def _longest(seen: dict[str, Any]) -> dict[str, float]:
    """By kind, in milliseconds; what was too short to be seen is 0."""
    return {kind: seen[kind][0]["milliseconds"] if seen[kind] else 0.0 for kind in _KINDS}


def _tell(bench: Bench, results: Results, held: list[dict[str, Any]]) -> None:
    """The ten longest of each kind into ``results/``, the longest of all into the notes."""
    lines = []
    for kind in _KINDS:
        each = sorted((one for seen in held for one in seen[kind]), key=lambda one: -one["milliseconds"])[:10]
        lines += [f"{kind}, ms", *(f"{one['milliseconds']:8.2f}  {one['ran']}" for one in each), ""]
        if kind == "stretches" and each:
            results.note(
                f"longest that held the event loop: {each[0]['milliseconds']:.1f} ms, `{each[0]['ran']}`"
            )
    for line in lines:
        bench.say(f"    {line}")
    if bench.save:
        RESULTS.mkdir(exist_ok=True)
        head = f"{_CROWD}, {len(held)} rounds; see benchmarks/watched.py\n\n"
        (RESULTS / "loop-held.txt").write_text(head + "\n".join(lines))
