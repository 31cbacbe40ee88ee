"""Number 5: requests that read or write one record, against routes that return a constant."""

import urllib.request
from typing import Any

from benchmarks.bench import Bench, Contestant
from benchmarks.compete import add_rows, compete
from benchmarks.driver import Job
from benchmarks.options import Options
from benchmarks.parts.whole import whole_job
from benchmarks.results import Results

_CONNECTIONS = 20


def reads(bench: Bench, results: Results, options: Options) -> None:
    ours = bench.ours(sessions=_CONNECTIONS)
    bench.set_upstream(100)
    job = whole_job(bench, ours, "", _CONNECTIONS, _CONNECTIONS, 100)
    job.capture = '"chat_id":"(coze_chat_[^"]+)"'
    chats = bench.drive(job)["captured"]
    tasks: list[tuple[str, str, list[str], str, float]] = [
        ("GET result", "GET", [f"/coze/chats/{chat}/result" for chat in chats], "", 0.35),
        ("GET session", "GET", [f"/coze/sessions/{session}" for session in ours.sessions], "", 0.3),
        ("POST session", "POST", ["/coze/sessions"], '{"user_id":"reads-{i}"}', 0.2),
    ]
    sizes = [_size(ours, method, targets[0], body) for _, method, targets, body, _ in tasks]
    constant = bench.constant(sizes)
    for number, (name, method, targets, body, least) in enumerate(tasks):
        ways = [
            ("constant", constant, [f"/{number}"]),
            ("constant + one Redis call", constant, [f"/redis/{number}"]),
            ("ours", ours, targets),
        ]
        named = [Contestant(label, way.process, way.port, headers=way.headers) for label, way, _ in ways]
        found = compete(
            bench,
            named,
            [_job_of(bench, way, method, paths, body) for _, way, paths in ways],
            connections=_CONNECTIONS,
            rounds=options.rounds,
            seconds=options.seconds / 2,
        )
        scenario = f"{name}, {sizes[number]} bytes"
        add_rows(results, scenario, found, "constant")
        constants = found["constant"]
        text = f"{name}: requests/s / a constant of {sizes[number]} bytes (one Redis call alone: "
        text += f"{found['constant + one Redis call'].ratio(constants, 'rate'):.2f})"
        results.check("5", text, found["ours"].ratio(constants, "rate"), ">=", least)
        results.check("5", f"{name}: errors", found["ours"].faults, "<=", 0)


def _job_of(bench: Bench, contestant: Contestant, method: str, targets: list[str], body: str) -> Any:
    def job(total: int) -> Job:
        return Job(
            port=contestant.port,
            targets=targets,
            kind="plain",
            connections=_CONNECTIONS,
            total=total,
            method=method,
            body=body,
            headers=contestant.headers,
            processes=bench.processes_of(contestant),
        )

    return job


def _size(ours: Contestant, method: str, target: str, body: str) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{ours.port}{target}",
        body.encode() or None,
        ours.headers | {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return len(answer.read())
