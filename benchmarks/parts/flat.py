"""Number 6: what does not grow with the length of a session or the number of others."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench, Contestant, admin_headers, user_body
from benchmarks.driver import Job
from benchmarks.options import Options
from benchmarks.parts.whole import whole_job
from benchmarks.results import Results

_MESSAGES = 200
_FRESH = 20
_CREATED = 500
_ASKED = 1500
_STEPS = 10


def _cost(result: dict[str, Any]) -> float:
    """CPU milliseconds of service and Redis per request."""
    if result["errors"]:
        raise RuntimeError(f"errors: {result['errors']}")
    return float((result["cpu"]["server"] + result["cpu"]["redis"]) / result["requests"] * 1000)


def _growth(before: list[float], after: list[float]) -> float:
    """Median of the rounds' own ratios."""
    return median(b / a for a, b in zip(before, after, strict=True))


def flat(bench: Bench, results: Results, options: Options) -> None:
    _messages(bench, results, options)
    _sessions(bench, results, options)


# -- messages of one session ------------------------------------------------------------------------------


def _say(bench: Bench, ours: Contestant, sessions: list[str], total: int) -> float:
    """Cost of ``total`` messages, one after the other, to the sessions in turn."""
    n = 5
    bench.set_upstream(n)
    job = whole_job(bench, ours, "", 1, total, n)
    job.targets, job.by_request = [f"/coze/sessions/{session}/messages" for session in sessions], True
    job.timeout = 300
    return _cost(bench.drive(job))


def _messages(bench: Bench, results: Results, options: Options) -> None:
    with bench.scope():
        ours = bench.ours("ours, long", sessions=1)
        _say(bench, ours, ours.sessions[:1], 20)
        step = (options.messages - _MESSAGES) // _STEPS
        curve = [
            (float(at * step), _say(bench, ours, ours.sessions[:1], step)) for at in range(1, _STEPS + 1)
        ]
        results.curves[f"CPU ms per message, up to message {options.messages}"] = curve
        young, old = [], []
        for _ in range(options.rounds):
            bench.open_sessions(ours, _FRESH)
            fresh = ours.sessions[-_FRESH:]
            _say(bench, ours, fresh, 5 * _FRESH)
            young.append(_say(bench, ours, fresh, _MESSAGES))
            old.append(_say(bench, ours, ours.sessions[:1], _MESSAGES))
    count = options.messages
    results.row("one message", "message 6 to 15", cpu_ms=median(young))
    results.row("one message", f"message {count} and later", cpu_ms=median(old))
    text = f"message {count} of a session: CPU of service and Redis / message 10"
    results.check("6", text, _growth(young, old), "<=", 1.1)


# -- sessions ---------------------------------------------------------------------------------------------


def _create(bench: Bench, ours: Contestant, total: int, label: str) -> float:
    job = Job(
        port=ours.port,
        targets=["/coze/sessions"],
        kind="plain",
        connections=20,
        total=total,
        body=user_body(label),
        headers=ours.headers,
        processes=bench.processes_of(ours),
        timeout=600,
    )
    before = bench.upstream_counts()["conversations"]
    cost = _cost(bench.drive(job))
    bench.wait_conversations(before + total)
    return cost


def _read(bench: Bench, ours: Contestant, target: str) -> float:
    job = Job(
        port=ours.port,
        targets=[target],
        kind="plain",
        connections=10,
        total=_ASKED,
        method="GET",
        headers=admin_headers(),
        processes=bench.processes_of(ours),
    )
    return _cost(bench.drive(job))


def _sessions(bench: Bench, results: Results, options: Options) -> None:
    few = bench.ours("ours, few", redis=bench.start_redis("redis-few"))
    many = bench.ours("ours, many", redis=bench.start_redis("redis-many"))
    for ours in (few, many):
        _create(bench, ours, 100, "first")
    step = options.sessions // _STEPS
    curve = [(float(100 + (i + 1) * step), _create(bench, many, step, f"f{i}")) for i in range(_STEPS)]
    results.curves[f"CPU ms per new session, up to session {options.sessions}"] = curve
    targets = {
        "list of a user's sessions": "/coze/users/first-7/sessions",
        "admin/stats": "/coze/admin/stats",
    }
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in (*targets, "creation")}
    for number in range(options.rounds):
        with bench.redis_client(few.redis_port) as client:
            client.flushall()
        for ours in (few, many):
            _create(bench, ours, 100, "first" if ours is few else "again")
        for at, ours in enumerate((few, many)):
            found["creation"][at].append(_create(bench, ours, _CREATED, f"r{number}"))
            for name, target in targets.items():
                found[name][at].append(_read(bench, ours, target))
    for name, (small, large) in found.items():
        results.row(name, "few sessions", cpu_ms=median(small))
        results.row(name, f"{options.sessions} sessions", cpu_ms=median(large))
        text = f"{name} with {options.sessions} live sessions: CPU of service and Redis / with some hundred"
        results.check("6", text, _growth(small, large), "<=", 1.1)
