"""Number 7: memory of open streams, under churn, and for readers that do not read."""

import signal
import sys
import time
from statistics import median
from typing import Any

from benchmarks.bench import Bench, Contestant
from benchmarks.options import Options
from benchmarks.processes import cpu_seconds, resident_bytes
from benchmarks.report import RESULTS
from benchmarks.results import Results

_KIB = 1024
_OPEN_SECONDS = 30
_STALLED = 10
_STALLED_DELTAS = 20_000
"""Some 6 MB of frames: more than the sockets' buffers take."""
_STALLED_AFTER = 20.0


def memory(bench: Bench, results: Results, options: Options) -> None:
    with bench.scope():
        _open_streams(
            bench,
            results,
            bench.passthrough(
                "passthrough on aiohttp",
                PASSTHROUGH_TRANSPORT="aiohttp",
                PASSTHROUGH_CONNECTIONS="10000",
            ),
            options.streams,
        )
    with bench.scope():
        each = _open_streams(bench, results, bench.ours(sessions=20), options.streams)
        text = f"{options.streams} open streams: resident KiB of each above the idle process"
        results.check("7", text, each, "<=", 60)
    with bench.scope():
        _churn(bench, results, options)
    with bench.scope():
        _traced(bench, results, options)
    with bench.scope():
        _stalled(bench, results, options)


def _faults(result: dict[str, Any]) -> int:
    frames = sum(result[name] for name in ("lost", "doubled", "disordered"))
    return int(frames + sum(result["errors"].values()))


def _open_streams(bench: Bench, results: Results, contestant: Contestant, count: int) -> float:
    """Streams of a delta a second each, begun within some seconds; the highest memory while all are open."""
    assert contestant.process is not None
    bench.set_upstream(100)
    bench.drive(bench.stream_job(contestant, 20, 100))
    if contestant.ours:
        bench.open_sessions(contestant, count - len(contestant.sessions))
    time.sleep(2)
    idle = resident_bytes(contestant.process.family())
    bench.set_upstream(_OPEN_SECONDS, 1.0)
    job = bench.stream_job(contestant, count, count, ramp=count / 500, sample=1.0, timeout=180)
    result = bench.drive(job)
    highest = max(look["server"] for look in result["memory"])
    each: float = (highest - idle) / count / _KIB
    late = {f"late.{name}": result["late"].get(name, float("nan")) for name in ("median", "p99", "max")}
    scenario = f"{count} open streams"
    results.row(
        scenario,
        contestant.name,
        kib_per_stream=each,
        idle_mib=idle / _KIB**2,
        errors=_faults(result),
        **late,
    )
    results.note(
        f"{scenario} need {2 * count} open files of the process (ulimit -n); the benchmark raises its own"
    )
    if contestant.ours:
        results.check("7", f"{scenario}: frames lost, errors", _faults(result), "<=", 0)
    return each


def _churn_job(bench: Bench, ours: Contestant, seconds: float) -> dict[str, Any]:
    """200 at once, each two seconds long, so about 100 a second."""
    bench.set_upstream(20, 0.1)
    total = round(max(seconds, 4) * 90)
    return bench.drive(bench.stream_job(ours, 200, total, sample=2.0, ramp=2, timeout=seconds * 2 + 60))


def _churn(bench: Bench, results: Results, options: Options) -> None:
    ours = bench.ours(sessions=200)
    _churn_job(bench, ours, 20)
    result = _churn_job(bench, ours, options.minutes * 60)
    looks = [look["server"] / _KIB**2 for look in result["memory"]]
    quarter = max(1, len(looks) // 4)
    early, late = median(looks[quarter : 2 * quarter]), median(looks[-quarter:])
    results.curves[f"resident MiB over {options.minutes:g} minutes of churn"] = [
        (2.0 * number, look) for number, look in enumerate(looks)
    ]
    scenario = f"{options.minutes:g} minutes of churn, {result['requests']} chats"
    results.row(scenario, "ours", early_mib=early, late_mib=late, errors=_faults(result))
    text = f"{scenario}: memory of the last quarter / of the second"
    results.check("7", text, late / early, "<=", 1.03)


def _traced(bench: Bench, results: Results, options: Options) -> None:
    target = bench.directory / "tracemalloc.txt"
    ours = bench.ours(
        "ours, traced",
        sessions=200,
        argv=[sys.executable, "-m", "benchmarks.traced", str(target)],
        env={"PYTHONPATH": f"{bench.tree}:{bench.own_path}"},
    )
    assert ours.process is not None
    seconds = min(60.0, options.minutes * 30)
    _churn_job(bench, ours, seconds)
    _snapshot(ours, target, 1)
    chats = _churn_job(bench, ours, seconds)["requests"]
    _snapshot(ours, target, 2)
    text = target.read_text()
    grown = int(text.split("grown ")[1].split()[0])
    if bench.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "memory-tracemalloc.txt").write_text(f"after {chats} more chats\n" + text)
    results.row(f"tracemalloc over {chats} chats", "ours", grown_kib=grown / _KIB)
    results.check("7", f"tracemalloc: bytes kept of each of {chats} chats", grown / chats, "<=", 50)


def _snapshot(ours: Contestant, target: Any, number: int) -> None:
    assert ours.process is not None
    time.sleep(3)  # what ends behind the last answer
    ours.process.signal(signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while not (target.exists() and target.read_text().startswith(f"snapshots {number}")):
        if time.monotonic() > deadline:
            raise RuntimeError("no tracemalloc snapshot was taken")
        time.sleep(0.2)


def _stalled(bench: Bench, results: Results, options: Options) -> None:
    """Long answers whose readers stop after the first bytes, then read on."""
    ours = bench.ours(sessions=_STALLED)
    assert ours.process is not None
    bench.set_upstream(100)
    bench.drive(bench.stream_job(ours, _STALLED, 50))
    before = cpu_seconds(ours.process.family())
    time.sleep(5)
    idle = (cpu_seconds(ours.process.family()) - before) / 5
    bench.set_upstream(_STALLED_DELTAS)
    stall = max(options.stall, _STALLED_AFTER + 5)
    job = bench.stream_job(
        ours, _STALLED, _STALLED, stall=stall, stall_after=_STALLED_AFTER, timeout=stall + 120
    )
    result = bench.drive(job)
    watched = stall - _STALLED_AFTER - 0.5
    extra = max(0.0, result["stalled_cpu"].get("server", 0.0) / watched - idle)
    scenario = f"{_STALLED} readers that read nothing for {stall:g} s"
    resident = result["memory"][-1]["server"] / _KIB**2 if result["memory"] else float("nan")
    results.row(scenario, "ours", extra_cpu=extra, resident_mib=resident, held=result["seconds"])
    results.check("7", f"{scenario}: share of a core above idle", extra, "<=", 0.01)
    results.check("7", f"{scenario}: frames lost afterwards, errors", _faults(result), "<=", 0)
