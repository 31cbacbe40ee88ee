"""Number 9: two workers on two cores against one worker on one, and what holds them back.

The factor in chats per second can only be measured where load, upstream and Redis have cores of their own,
so on a machine with two cores it is reckoned from the kernel's account of CPU time: what a chat costs with
two workers and with one, side by side, and how the work falls to the two.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.bench import Bench, Contestant
from benchmarks.compete import Figures, add_rows, compete
from benchmarks.driver import Job
from benchmarks.options import Options
from benchmarks.parts.store import pipelines_of
from benchmarks.parts.streams import AT_ONCE, DELTAS
from benchmarks.processes import Process, connections_of, pin_all, usable_cores
from benchmarks.results import Results

_PACE_SECONDS: Final = 0.05
_BURST_STREAMS: Final = 40
"""Of each worker."""
_STARTED: Final = "Application startup complete"


def cores(bench: Bench, results: Results, options: Options) -> None:
    with bench.scope():
        _by_account(bench, results, options)
    if len(usable_cores()) > 3:
        with bench.scope():
            _by_the_clock(bench, results, options)
    else:
        results.note(
            "two workers: load, upstream and Redis have no cores of their own on this machine, so the "
            "factor is by the kernel's account of CPU time, not by the clock"
        )
    with bench.scope():
        _read_elsewhere(bench, results, options)


def _two_workers(
    bench: Bench, name: str, redis: tuple[Process, int] | None = None
) -> tuple[Contestant, list[int]]:
    """The service with WORKERS=2, and its workers' pids, both ready."""
    two = bench.ours(name, redis=redis, env={"WORKERS": "2"})
    assert two.process is not None
    log = two.process.log
    two.process.wait_until(lambda: log.read_text(errors="replace").count(_STARTED) == 2)
    family = [pid for pid in two.process.family() if b"spawn_main" in _command_of(pid)]
    if len(family) != 2:
        raise RuntimeError(f"{name}: {len(family)} workers instead of two")
    return two, family


def _command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _job(bench: Bench, ours: Contestant, streams: int, chats: int, workers: list[int]) -> Job:
    each = {f"worker {number}": [pid] for number, pid in enumerate(workers)}
    return bench.stream_job(ours, streams, chats, processes=bench.processes_of(ours) | each)


def _jobs(bench: Bench, ours: Contestant, streams: int, workers: list[int]) -> Callable[[int], Job]:
    """By how many chats there are to be."""
    return lambda chats: _job(bench, ours, streams, chats, workers)


def _fuller(figures: Figures) -> float:
    """Share of the busier worker in the CPU time of both, median of the rounds."""
    pairs = [(result["cpu"]["worker 0"], result["cpu"]["worker 1"]) for result in figures.rounds]
    return float(median(max(pair) / sum(pair) for pair in pairs))


def _shares(figures: Figures) -> dict[str, float]:
    """Of their cores: Redis, driver and upstream."""
    return {
        f"{name}_busy": median(result["cpu"][name] / result["seconds"] for result in figures.rounds)
        for name in ("redis", "driver", "upstream")
    }


# -- by the kernel's account ------------------------------------------------------------------------------


def _by_account(bench: Bench, results: Results, options: Options) -> None:
    """Paced streams side by side, as many for each worker: all processes have room, so none waits for
    another, and a chat costs what it costs wherever the workers run."""
    one = bench.ours("ours, one worker", sessions=AT_ONCE, redis=bench.start_redis("redis-one"))
    two, workers = _two_workers(bench, "ours, two workers", redis=bench.start_redis("redis-two"))
    bench.open_sessions(two, 2 * AT_ONCE)
    bench.set_upstream(DELTAS)
    ways = [(one, AT_ONCE, []), (two, 2 * AT_ONCE, workers)]
    for ours, streams, pids in ways:
        bench.drive(_job(bench, ours, streams, 5 * streams, pids))
    bench.set_upstream(DELTAS, _PACE_SECONDS)
    found = {ours.name: Figures() for ours, _, _ in ways}
    pipelines = {ours.name: pipelines_of(ours) for ours, _, _ in ways}
    accepted = []
    with ThreadPoolExecutor(3) as pool:
        for _ in range(options.rounds):
            jobs = [_job(bench, ours, streams, streams, pids) for ours, streams, pids in ways]
            running = [pool.submit(bench.drive, job) for job in jobs]
            accepted.append(_accepted(two, workers, 2 * AT_ONCE))
            for (ours, _, _), future in zip(ways, running, strict=True):
                found[ours.name].rounds.append(future.result())
    for name, more in _about_writers(found, pipelines, [one, two]).items():
        found[name].extra.update(more)
    figures = found[two.name]
    ratio, fuller = figures.ratio(found[one.name], "cpu_ms"), _fuller(figures)
    figures.extra.update(fuller_worker=fuller, fuller_accepted=median(accepted), factor=1 / fuller / ratio)
    scenario = f"{AT_ONCE} for each worker, paced {_PACE_SECONDS * 1000:.0f} ms"
    add_rows(results, scenario, found, one.name)
    results.check("9", f"{scenario}: frames lost or doubled, errors", figures.faults, "<=", 0)
    results.note(
        f"two workers, {scenario}: the factor is 1 / (what a chat costs more: {ratio:.2f}) / (share of the "
        f"busier worker: {fuller:.2f})"
    )


def _about_writers(
    found: dict[str, Figures], before: dict[str, float], contestants: list[Contestant]
) -> dict[str, dict[str, float]]:
    more = {}
    for ours in contestants:
        figures = found[ours.name]
        seconds = sum(result["seconds"] for result in figures.rounds)
        made = pipelines_of(ours) - before[ours.name]
        more[ours.name] = {"pipelines_per_second": made / seconds, **_shares(figures)}
    return more


def _accepted(two: Contestant, workers: list[int], streams: int) -> float:
    """Share of the worker that has taken more of the connections, once all are open."""
    counts, deadline = [0, 0], time.monotonic() + 10
    while sum(counts) < streams and time.monotonic() < deadline:
        time.sleep(0.1)
        counts = [connections_of(pid, two.port) for pid in workers]
    return max(counts) / max(1, sum(counts))


# -- by the clock -----------------------------------------------------------------------------------------


@contextmanager
def _elsewhere(bench: Bench) -> Iterator[list[int]]:
    """The first two cores are for workers, the others for everything else. Yields the two."""
    usable, before = usable_cores(), bench.other_core
    bench.other_core = set(usable[2:])
    rest = [bench.upstream.pid, bench.redis.pid]
    try:
        for pid in rest:
            pin_all(pid, bench.other_core)
        yield usable[:2]
    finally:
        bench.other_core = before
        for pid in rest:
            pin_all(pid, before)


def _by_the_clock(bench: Bench, results: Results, options: Options) -> None:
    """Bursts, as many streams for each worker: chats per second of two against one."""
    with _elsewhere(bench) as (first, second):
        one = bench.ours("ours, one core", sessions=_BURST_STREAMS)
        two, workers = _two_workers(bench, "ours, two cores")
        bench.open_sessions(two, 2 * _BURST_STREAMS)
        for pid, core in zip(workers, (first, second), strict=True):
            pin_all(pid, {core})
        bench.set_upstream(DELTAS)
        ways = [(one, _BURST_STREAMS, []), (two, 2 * _BURST_STREAMS, workers)]
        found = compete(
            bench,
            [one, two],
            [_jobs(bench, *way) for way in ways],
            connections=2 * _BURST_STREAMS,
            rounds=options.rounds,
            seconds=options.seconds,
        )
    figures = found[two.name]
    factor = figures.ratio(found[one.name], "rate")
    for each in found.values():
        each.extra.update(_shares(each))
    figures.extra.update(fuller_worker=_fuller(figures), factor=factor)
    add_rows(results, f"{_BURST_STREAMS} for each worker, in a burst", found, one.name)
    text = f"{_BURST_STREAMS} for each worker, in a burst: frames lost or doubled, errors"
    results.check("9", text, figures.faults, "<=", 0)


# -- a reader in the other process ------------------------------------------------------------------------


def _read_elsewhere(bench: Bench, results: Results, options: Options) -> None:
    """``GET events`` at the process that runs the chat, and at another one, which reads from Redis. Two
    processes on one Redis are to each other what two workers are; here one can say which is asked."""
    shared = {"COZE_REDIS_PREFIX": "bench-shared:"}
    owner = bench.ours("ours, owner", sessions=AT_ONCE, env=shared)
    other = bench.ours("ours, another process", env=shared)
    bench.set_upstream(DELTAS)
    bench.drive(bench.stream_job(owner, AT_ONCE, 5 * AT_ONCE))
    bench.set_upstream(DELTAS, _PACE_SECONDS)
    ways = {"read where the chat runs": owner, "read in another process": other}
    found = {name: Figures() for name in ways}
    for number in range(options.rounds):
        for name in reversed(ways) if number % 2 else ways:
            found[name].rounds.append(_events(bench, owner, ways[name], other))
    scenario = f"{AT_ONCE} chats, GET events, paced {_PACE_SECONDS * 1000:.0f} ms"
    add_rows(results, scenario, found, "read where the chat runs")
    for name, figures in found.items():
        results.check("9", f"{scenario}, {name}: frames lost or doubled, errors", figures.faults, "<=", 0)


def _events(bench: Bench, owner: Contestant, reader: Contestant, other: Contestant) -> dict[str, Any]:
    """Chats begin at ``owner`` with nobody waiting for them; their events are read at ``reader``. CPU time
    is that of both processes, while they are read."""
    begin = bench.stream_job(owner, AT_ONCE, AT_ONCE)
    begin.kind, begin.body, begin.expect = "plain", owner.whole_body, [202]
    begin.headers = owner.headers | {"Prefer": "respond-async"}
    begin.capture = '"chat_id":"(coze_chat_[^"]+)"'
    started = bench.drive(begin)
    if started["errors"] or len(started["captured"]) != AT_ONCE:
        raise RuntimeError(f"chats did not begin: {started['errors']}")
    read = bench.stream_job(reader, AT_ONCE, AT_ONCE)
    read.method, read.body = "GET", ""
    read.targets = [f"/coze/chats/{chat}/events" for chat in started["captured"]]
    assert owner.process is not None
    assert other.process is not None
    read.processes = bench.processes_of(owner) | {"server": owner.process.family() + other.process.family()}
    return bench.drive(read)
