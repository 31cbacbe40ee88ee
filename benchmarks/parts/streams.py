"""Numbers 1 and 2: streamed chats, in a burst at 20 and 500 at once, and paced at 20 at once."""

from benchmarks.bench import Bench, Contestant
from benchmarks.compete import Figures, add_rows, compete_streaming, stream_side_by_side
from benchmarks.options import Options
from benchmarks.results import Results

DELTAS = 100
AT_ONCE = 20
_MANY = 500
PACES_SECONDS = (0.02, 0.05)
BURST_LIMITS = {"passthrough": 0.5}
PACED_LIMITS = {"relay": 3.5, "frame": 1.8, "passthrough": 0.55}
QUICK_ROOM = 2.0
"""The limits of a quick run are as many times those of a whole one: it is to find what has become much
slower, on a machine that has other things to do."""


def _checked_frames(results: Results, number: str, scenario: str, ours: Figures) -> None:
    text = f"{scenario}: frames lost, doubled or out of order, and errors"
    results.check(number, text, ours.faults, "<=", 0, quick=True)


def _checked_cpu(
    results: Results,
    number: str,
    scenario: str,
    found: dict[str, Figures],
    limits: dict[str, float],
    *,
    quick: bool = False,
) -> None:
    """``limits``: by the contestant that ours is compared with."""
    for name, limit in limits.items():
        ratio = found["ours"].ratio(found[name], "cpu_ms")
        text = f"{scenario}: server CPU per chat / {name}'s"
        results.check(number, text, ratio, "<=", limit * (QUICK_ROOM if quick else 1), quick=quick)


def _scenario(pace: float = 0.0) -> str:
    return f"{AT_ONCE} at once" + (f", paced {pace * 1000:.0f} ms" if pace else "")


def quick(bench: Bench, results: Results, options: Options) -> None:
    """20 at once, in a burst (which warms up, too) and paced."""
    contestants = [bench.relay(), bench.frame(), bench.passthrough(), bench.ours(sessions=AT_ONCE)]
    bench.set_upstream(DELTAS)
    burst = compete_streaming(bench, contestants, connections=AT_ONCE, rounds=options.rounds, seconds=0.5)
    add_rows(results, _scenario(), burst)
    _checked_cpu(results, "quick", _scenario(), burst, BURST_LIMITS, quick=True)
    _checked_frames(results, "quick", _scenario(), burst["ours"])
    pace = PACES_SECONDS[0]
    bench.set_upstream(DELTAS, pace)
    found = stream_side_by_side(bench, contestants, connections=AT_ONCE, rounds=options.rounds)
    add_rows(results, _scenario(pace), found)
    _checked_cpu(results, "quick", _scenario(pace), found, PACED_LIMITS, quick=True)
    _checked_frames(results, "quick", _scenario(pace), found["ours"])


def streams(bench: Bench, results: Results, options: Options) -> None:
    """Bursts: the upstream writes the deltas one after the other, without a pause."""
    bench.set_upstream(DELTAS)
    contestants = [bench.direct(), bench.relay(), bench.frame(), bench.passthrough()]
    contestants += [bench.ours(sessions=AT_ONCE), bench.sdk()]
    if peer := bench.litellm(results):
        contestants.append(peer)
    found = compete_streaming(
        bench, contestants, connections=AT_ONCE, rounds=options.rounds, seconds=options.seconds
    )
    add_rows(results, _scenario(), found)
    _checked_cpu(results, "1", _scenario(), found, BURST_LIMITS)
    ours = found["ours"]
    if peer:
        ratio = ours.ratio(found[peer.name], "rate")
        results.check("1", f"{_scenario()}: chats/s / LiteLLM's", ratio, ">=", 25)
    _checked_frames(results, "1", _scenario(), ours)


def crowds(bench: Bench, results: Results, options: Options) -> None:
    """Bursts at 500 at once."""
    bench.set_upstream(DELTAS)
    roomy = bench.passthrough("passthrough, pool of 2000", PASSTHROUGH_CONNECTIONS="2000")
    beside = _many_at_once(bench, options, [roomy], rounds=1)
    found = _many_at_once(
        bench, options, [bench.passthrough(), bench.ours(sessions=_MANY)], rounds=options.rounds
    )
    results.note(
        "passthrough: httpx's own limits, 100 connections of which 20 are kept; beside it, in a round of its "
        "own, one with 2000"
    )
    scenario = f"{_MANY} at once"
    add_rows(results, scenario, found)
    add_rows(results, scenario, beside)
    _checked_cpu(results, "2", scenario, found, {"passthrough": 0.25})
    _checked_frames(results, "2", scenario, found["ours"])


def _many_at_once(
    bench: Bench, options: Options, contestants: list[Contestant], rounds: int
) -> dict[str, Figures]:
    return compete_streaming(
        bench, contestants, connections=_MANY, rounds=rounds, seconds=options.seconds, timeout=240
    )


def paced(bench: Bench, results: Results, options: Options) -> None:
    """Deltas 20 and 50 ms apart, each alone on its way."""
    contestants = [bench.relay(), bench.frame(), bench.passthrough(), bench.ours(sessions=AT_ONCE)]
    bench.set_upstream(DELTAS)
    for contestant in contestants:
        bench.drive(bench.stream_job(contestant, AT_ONCE, 5 * AT_ONCE))
    for pace in PACES_SECONDS:
        bench.set_upstream(DELTAS, pace)
        found = stream_side_by_side(bench, contestants, connections=AT_ONCE, rounds=options.rounds, chats=2)
        add_rows(results, _scenario(pace), found)
        _checked_cpu(results, "1", _scenario(pace), found, PACED_LIMITS)
        _checked_frames(results, "1", _scenario(pace), found["ours"])


def doors(bench: Bench, results: Results, options: Options) -> None:
    """The service asked by each of its doors, side by side: what somebody else's dialect costs."""
    contestants = [bench.ours(sessions=AT_ONCE), bench.openai_door(), bench.coze_door(AT_ONCE)]
    bench.set_upstream(DELTAS)
    for contestant in contestants:
        bench.drive(bench.stream_job(contestant, AT_ONCE, 10 * AT_ONCE))
    for pace in (0.0, PACES_SECONDS[0]):
        bench.set_upstream(DELTAS, pace)
        found = stream_side_by_side(
            bench, contestants, connections=AT_ONCE, rounds=options.rounds, chats=1 if pace else 5
        )
        scenario = f"{_scenario(pace)}, by each door"
        add_rows(results, scenario, found, "ours")
        for name, figures in found.items():
            if name != "ours":
                ratio = figures.ratio(found["ours"], "cpu_ms")
                results.check("1", f"{scenario}: server CPU per chat, {name} / own", ratio, "<=", 1.15)
            _checked_frames(results, "1", f"{scenario}, {name}", figures)


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
        bench, contestants, connections=AT_ONCE, rounds=options.rounds, seconds=options.seconds / 2
    )
    add_rows(results, f"{_scenario()}, one thing off", found, "ours")
