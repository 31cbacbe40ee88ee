"""Several contestants at the same task, in turn: A B C C B A ..., or side by side; medians of the rounds.

What is judged is never one median against another: it is the median of the rounds' own ratios (or
differences), each of two figures that were taken beside each other. A machine that is slower in some rounds
than in others changes both figures of a pair.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.bench import Bench, Contestant
from benchmarks.driver import Job
from benchmarks.results import Results

_WARM_CHATS = 40


@dataclass
class Figures:
    """Rounds of one contestant, as the driver has reported them."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, float] = field(default_factory=dict)
    """What else goes into the table."""

    def of(self, name: str) -> float:
        """Median over the rounds of ``rate`` (per second), ``cpu_ms``, ``redis_ms``, ``driver_ms``,
        ``upstream_ms`` (each per request) or a part of a summary such as ``first.p99`` (milliseconds)."""
        return median(self.each(name))

    def each(self, name: str) -> list[float]:
        return [_figure(result, name) for result in self.rounds]

    def total(self, name: str) -> int:
        return sum(result[name] for result in self.rounds)

    def spread(self, name: str) -> float:
        """(largest - smallest) / median."""
        values = self.each(name)
        return (max(values) - min(values)) / (median(values) or 1)

    def ratio(self, other: "Figures", name: str) -> float:
        """Median over the rounds of this contestant's figure by the other one's in the same round."""
        return median(mine / its for mine, its in self._pairs(other, name))

    def difference(self, other: "Figures", name: str) -> float:
        """Median over the rounds of this contestant's figure less the other one's in the same round."""
        return median(mine - its for mine, its in self._pairs(other, name))

    def _pairs(self, other: "Figures", name: str) -> list[tuple[float, float]]:
        return list(zip(self.each(name), other.each(name), strict=True))

    @property
    def errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for result in self.rounds:
            for text, count in result["errors"].items():
                found[text] = found.get(text, 0) + count
        return found

    @property
    def faults(self) -> int:
        """Frames lost, doubled or out of order, and requests that failed."""
        frames = sum(self.total(name) for name in ("lost", "doubled", "disordered"))
        return frames + sum(self.errors.values())

    def values(self) -> dict[str, float]:
        """What goes into the table."""
        names = ["rate", "cpu_ms", "redis_ms"]
        names += [f"{s}.{p}" for s in ("first", "gap", "whole", "late") for p in ("median", "p99", "max")]
        values = {name: self.of(name) for name in names if self._has(name)}
        frames = self.total("frames")
        if frames:
            requests = self.total("requests")
            values["cpu_us_per_delta"] = self.of("cpu_ms") * 1000 * requests / frames
        for name in ("lost", "doubled", "disordered"):
            values[name] = self.total(name)
        busy = [
            (r["cpu"]["driver"] + r["cpu"].get("upstream", 0) + r["cpu"].get("redis", 0)) for r in self.rounds
        ]
        values["other_core"] = median(b / r["seconds"] for b, r in zip(busy, self.rounds, strict=True))
        return (
            values | {"errors": sum(self.errors.values()), "cpu_spread": self.spread("cpu_ms")} | self.extra
        )

    def _has(self, name: str) -> bool:
        return all(_figure(result, name) == _figure(result, name) for result in self.rounds)


def add_rows(results: Results, scenario: str, found: dict[str, Figures], base: str = "passthrough") -> None:
    """One row for each contestant, with its CPU time as a ratio to that of ``base``, if that takes part."""
    for name, figures in found.items():
        ratio = {"cpu_ratio": figures.ratio(found[base], "cpu_ms")} if base in found else {}
        results.row(scenario, name, **figures.values(), **ratio)


def _figure(result: dict[str, Any], name: str) -> float:
    """NaN where there is none."""
    requests = result["requests"] or float("nan")
    if name == "rate":
        return float(requests / result["seconds"])
    if name == "cpu_ms":
        name = "server_ms"
    if name.endswith("_ms"):
        return float(result["cpu"].get(name.removesuffix("_ms"), float("nan")) / requests * 1000)
    group, _, part = name.partition(".")
    return float(result[group].get(part, float("nan")))


def compete(
    bench: Bench,
    contestants: Sequence[Contestant],
    jobs: "Sequence[Any]",
    *,
    connections: int,
    rounds: int,
    seconds: float,
    least: int = 0,
) -> dict[str, Figures]:
    """``jobs[i](total)`` makes the Job of ``contestants[i]``. A first round warms up and tells how many
    requests take ``seconds``; each has at least two (``least``: other) for each connection. Every second
    round goes the other way round, so that nobody is always the first."""
    totals, found = [], {contestant.name: Figures() for contestant in contestants}
    for contestant, job in zip(contestants, jobs, strict=True):
        warm = bench.drive(job(max(_WARM_CHATS, connections)))
        rate = max(warm["requests"], 1) / warm["seconds"]
        totals.append(max(least or 2 * connections, round(rate * seconds)))
        bench.say(f"    {contestant.name}: warm-up {rate:.0f}/s, errors {sum(warm['errors'].values())}")
    turns = list(zip(contestants, jobs, totals, strict=True))
    for number in range(rounds):
        for contestant, job, total in reversed(turns) if number % 2 else turns:
            found[contestant.name].rounds.append(bench.drive(job(total)))
    _say_errors(bench, found)
    return found


def _say_errors(bench: Bench, found: dict[str, Figures]) -> None:
    for name, figures in found.items():
        if figures.errors:
            worst = max(figures.errors.items(), key=lambda item: item[1])
            bench.say(f"    {name}: {worst[1]} x {worst[0][:300]}")


def compete_streaming(
    bench: Bench,
    contestants: Sequence[Contestant],
    *,
    connections: int,
    rounds: int,
    seconds: float,
    least: int = 0,
    **more: Any,
) -> dict[str, Figures]:
    def job_of(contestant: Contestant) -> Any:
        def job(total: int) -> Job:
            return bench.stream_job(contestant, connections, total, **more)

        return job

    jobs = [job_of(contestant) for contestant in contestants]
    return compete(
        bench, contestants, jobs, connections=connections, rounds=rounds, seconds=seconds, least=least
    )


def stream_side_by_side(
    bench: Bench, contestants: Sequence[Contestant], *, connections: int, rounds: int, chats: int = 1
) -> dict[str, Figures]:
    """Streams of all contestants at the same time, ``chats`` for each connection and round.

    For what leaves the server's core idle most of the time: there a round costs the time of one contestant,
    and another program that takes caches and clock speed away takes them from all contestants alike. The
    contestants have been warmed up before.
    """
    found = {contestant.name: Figures() for contestant in contestants}
    with ThreadPoolExecutor(len(contestants)) as pool:
        for _ in range(rounds):
            jobs = [
                bench.stream_job(contestant, connections, chats * connections) for contestant in contestants
            ]
            for contestant, result in zip(contestants, pool.map(bench.drive, jobs), strict=True):
                found[contestant.name].rounds.append(result)
    _say_errors(bench, found)
    return found
