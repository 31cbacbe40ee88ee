"""Numbers 1 and 2: streamed chats, in a burst and paced, at 20, 200 and 500 at once."""

from benchmarks.bench import Bench, Contestant
from benchmarks.compete import Figures, compete_streaming
from benchmarks.options import Options
from benchmarks.results import Results

DELTAS = 100
PACE_SECONDS = 0.02


def _add(results: Results, part: str, scenario: str, found: dict[str, Figures]) -> None:
    for name, figures in found.items():
        results.row(part, scenario, name, **figures.values())


def _checked_frames(results: Results, part: str, number: str, scenario: str, ours: Figures) -> None:
    text = f"{scenario}: frames lost, doubled or out of order, and errors"
    results.check(part, number, text, ours.faults, "<=", 0, quick=True)


def quick(bench: Bench, results: Results, options: Options) -> None:
    """Floor and ours, 20 at once, three rounds."""
    bench.set_upstream(DELTAS)
    contestants = [bench.floor(), bench.ours(sessions=20)]
    found = compete_streaming(bench, contestants, connections=20, rounds=options.rounds, seconds=2)
    _add(results, "streams", "20 at once", found)
    ratio = found["ours"].of("cpu_ms") / found["floor"].of("cpu_ms")
    text = "20 at once: server CPU per chat / floor's"
    results.check("streams", "quick", text, ratio, "<=", 0.8, quick=True)
    _checked_frames(results, "streams", "quick", "20 at once", found["ours"])


def streams(bench: Bench, results: Results, options: Options) -> None:
    """Bursts: the upstream writes all deltas without a pause."""
    bench.set_upstream(DELTAS)
    floor, ours = bench.floor(), bench.ours(sessions=500)
    others = [bench.sdk()]
    if peer := bench.litellm(results):
        others.append(peer)
    direct = bench.direct()
    few = compete_streaming(
        bench,
        [direct, floor, ours, *others],
        connections=20,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    _add(results, "streams", "20 at once", few)
    _burst_checks(results, few)
    for contestant in others:
        if contestant.process:
            contestant.process.stop()
    _crowd(bench, results, options, 200, [floor, ours], few)
    roomy = bench.floor("floor, pool of 2000", FLOOR_CONNECTIONS="2000")
    _crowd(bench, results, options, 500, [floor, roomy, ours], few)
    results.note("floor: httpx's own limits, 100 connections of which 20 are kept; beside it one with 2000")


def _burst_checks(results: Results, few: dict[str, Figures]) -> None:
    floor, ours = few["floor"], few["ours"]
    cpu = ours.of("cpu_ms") / floor.of("cpu_ms")
    results.check("streams", "1", "20 at once: server CPU per chat / floor's", cpu, "<=", 0.6)
    for name, least in (("floor", 1.7), ("litellm", 25.0), ("cozepy app", 3.0)):
        if name in few:
            ratio = ours.of("rate") / few[name].of("rate")
            results.check("streams", "1", f"20 at once: chats/s / {name}'s", ratio, ">=", least)
    _checked_frames(results, "streams", "1", "20 at once", ours)


def _crowd(
    bench: Bench,
    results: Results,
    options: Options,
    connections: int,
    contestants: list[Contestant],
    few: dict[str, Figures],
) -> None:
    scenario = f"{connections} at once"
    found = compete_streaming(
        bench,
        contestants,
        connections=connections,
        rounds=options.rounds,
        seconds=options.seconds,
        timeout=240,
    )
    _add(results, "streams", scenario, found)
    floor, ours = found["floor"], found["ours"]
    growth = ours.of("cpu_ms") / few["ours"].of("cpu_ms")
    results.check("streams", "2", f"{scenario}: server CPU per chat / that at 20", growth, "<=", 1.25)
    if connections == 500:
        cpu, rate = ours.of("cpu_ms") / floor.of("cpu_ms"), ours.of("rate") / floor.of("rate")
        results.check("streams", "2", f"{scenario}: server CPU per chat / floor's", cpu, "<=", 0.3)
        results.check("streams", "2", f"{scenario}: chats/s / floor's", rate, ">=", 4)
    _checked_frames(results, "streams", "2", scenario, ours)


def paced(bench: Bench, results: Results, options: Options) -> None:
    """Deltas 20 ms apart, each alone on its way."""
    bench.set_upstream(DELTAS, PACE_SECONDS)
    contestants = [bench.floor(), bench.ours(sessions=20)]
    found = compete_streaming(
        bench, contestants, connections=20, rounds=options.rounds, seconds=options.seconds, least=40
    )
    scenario = "20 at once, paced 20 ms"
    _add(results, "paced", scenario, found)
    ratio = found["ours"].of("cpu_ms") / found["floor"].of("cpu_ms")
    results.check("paced", "1", f"{scenario}: server CPU per chat / floor's", ratio, "<=", 0.8)
    _checked_frames(results, "paced", "1", scenario, found["ours"])


def variants(bench: Bench, results: Results, options: Options) -> None:
    """Ours with one thing off at a time."""
    bench.set_upstream(DELTAS)
    off = {
        "auth off": {"ENABLE_AUTH": "false"},
        "rate limit off": {"RATE_LIMIT_MESSAGES_PER_MINUTE": "0", "RATE_LIMIT_SESSIONS_PER_MINUTE": "0"},
        "access log off": {"COZE_LOG_LEVEL": "WARNING"},
        "httpx transport": {"COZE_HTTP_TRANSPORT": "httpx"},
        "store in memory": {"REDIS_URL": "memory://"},
    }
    contestants = [bench.ours(sessions=20)]
    contestants += [bench.ours(f"ours, {name}", sessions=20, env=env) for name, env in off.items()]
    found = compete_streaming(
        bench, contestants, connections=20, rounds=options.rounds, seconds=options.seconds / 2
    )
    _add(results, "variants", "20 at once, one thing off", found)
