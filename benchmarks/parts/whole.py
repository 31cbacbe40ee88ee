"""Number 4: answers that are not streamed to the caller."""

from typing import Any

from benchmarks.bench import Bench, Contestant
from benchmarks.compete import add_rows, compete
from benchmarks.driver import Job
from benchmarks.options import Options
from benchmarks.results import Results


def whole_job(bench: Bench, contestant: Contestant, target: str, connections: int, total: int, n: int) -> Job:
    """``target`` only for those that are not ours."""
    return Job(
        port=contestant.port,
        targets=contestant.targets(connections) if contestant.ours else [target],
        kind="whole",
        connections=connections,
        total=total,
        body=contestant.whole_body,
        n=n,
        headers=contestant.headers,
        processes=bench.processes_of(contestant),
    )


def whole(bench: Bench, results: Results, options: Options) -> None:
    n, connections = 100, 20
    ours, sdk = bench.ours(sessions=connections), bench.sdk()
    polled = Contestant("cozepy app, polled", sdk.process, sdk.port)
    ways = [(ours, ""), (sdk, "/whole"), (polled, "/polled")]

    def job_of(contestant: Contestant, target: str, connections: int, n: int) -> Any:
        return lambda total: whole_job(bench, contestant, target, connections, total, n)

    bench.set_upstream(n)
    found = compete(
        bench,
        [contestant for contestant, _ in ways],
        [job_of(contestant, target, connections, n) for contestant, target in ways],
        connections=connections,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    add_rows(results, "not streamed, 20 at once", found)
    ratio = found["ours"].ratio(found["cozepy app"], "rate")
    text = "not streamed: chats/s / cozepy app's, which reads Coze's stream as we do"
    results.check("4", text, ratio, ">=", 2.2)
    results.check("4", "not streamed: wrong answers and errors", found["ours"].faults, "<=", 0)
    n = 20
    bench.set_upstream(n, 0.005)
    late = compete(
        bench,
        [ours],
        [job_of(ours, "", 1, n)],
        connections=1,
        rounds=options.rounds,
        seconds=options.seconds,
        least=30,
    )["ours"]
    results.row("not streamed, one at a time", "ours", **late.values())
    text = "not streamed: answer after Coze's last byte, median ms"
    results.check("4", text, late.of("late.median"), "<=", 5)
