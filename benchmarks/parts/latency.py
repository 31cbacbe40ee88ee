"""Number 3: how much later than from the upstream itself."""

from benchmarks.bench import Bench
from benchmarks.compete import compete_streaming
from benchmarks.options import Options
from benchmarks.results import Results

_STREAMS = 500
_PER_SECOND = (20, 10, 5)
_BUSY = 0.85
"""Above this share of its core a server is at its ceiling, and what is late there is only the queue."""


def latency(bench: Bench, results: Results, options: Options) -> None:
    ours = bench.ours(sessions=_STREAMS)
    bench.set_upstream(5, 0.01)
    found = compete_streaming(
        bench,
        [bench.direct(), bench.passthrough(), ours],
        connections=1,
        rounds=options.rounds,
        seconds=options.seconds,
        least=40,
    )
    for name, figures in found.items():
        results.row("one at a time", name, **figures.values())
    base = found["upstream"].of("first.median")
    median, worst = found["ours"].of("first.median") - base, found["ours"].of("first.p99") - base
    results.check("3", "one at a time: first delta later than upstream's, median ms", median, "<=", 3)
    results.check("3", "one at a time: first delta later than upstream's, p99 ms", worst, "<=", 8)
    _crowd(bench, results, options)


def _crowd(bench: Bench, results: Results, options: Options) -> None:
    """500 paced streams, begun at different moments, at the highest pace that leaves the core some room."""
    ours, direct = bench.ours("ours, crowd", sessions=_STREAMS), bench.direct()
    for pace in _PER_SECOND:
        bench.set_upstream(5 * pace, 1 / pace)
        scenario = f"{_STREAMS} paced streams, {pace} deltas/s each"
        for contestant in (direct, ours):
            job = bench.stream_job(
                contestant, _STREAMS, 2 * _STREAMS, ramp=5, timeout=max(60, 20 * options.seconds)
            )
            result = bench.drive(job)
            busy = result["cpu"]["server"] / result["seconds"]
            values = {f"late.{name}": value for name, value in result["late"].items() if name != "count"}
            frames = sum(result[name] for name in ("lost", "doubled", "disordered"))
            faults = frames + sum(result["errors"].values())
            results.row(scenario, contestant.name, busy=busy, errors=faults, **values)
        bench.say(
            f"    {scenario}: {busy:.0%} of the server's core, latest {values.get('late.max', 0):.0f} ms"
        )
        if busy <= _BUSY or pace == _PER_SECOND[-1]:
            late = values.get("late.max", float("inf"))
            results.check("3", f"{scenario}: latest frame, ms after it was sent", late, "<=", 100)
            results.check("3", f"{scenario}: frames lost or doubled, errors", faults, "<=", 0)
            return
        results.note(
            f"{scenario} take {busy:.0%} of the core: that is the machine's ceiling, so fewer are sent"
        )
