"""``./run-bench.sh --profile``: where ours spends its time under paced streams: flame graphs and a table."""

import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks import environments
from benchmarks.bench import Bench, Contestant
from benchmarks.processes import cpu_seconds

STREAMS: Final = (20, 200, 500)
_GAP: Final = 0.05
"""Seconds between two deltas of a stream."""
_SECONDS: Final = 15
_RATE: Final = 200
_LAYERS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("log lines", ("loguru/", "app/logging_config.py", "app/observing/log_records.py")),
    ("metrics", ("prometheus_client/", "app/observing/metrics.py")),
    ("frames to the readers' sockets", ("app/http/sse.py", "app/http/slow_clients.py")),
    ("Coze's bytes to events", ("app/coze/arriving.py", "app/coze/stream.py")),
    ("folding, frames", ("app/coze/fold.py", "app/tasks/frames.py", "app/coze/wire.py")),
    ("Redis: the log's commits, scripts", ("app/redis_client/", "app/stores/", "redis/")),
    ("the call to Coze", ("aiohttp/", "yarl/", "multidict/", "app/coze/")),
    ("the chat's task, its readers", ("app/tasks/", "app/utils/")),
    ("HTTP server", ("uvicorn/protocols/", "app/http/protocol.py", "app/http/turns.py")),
    ("routes, checks, answers", ("fastapi/", "starlette/", "pydantic/", "app/")),
)
"""A sample belongs to the innermost frame that is of one of these; the first layer that knows it has it."""
_LOOP: Final = "the loop: epoll, reading sockets, timers"
_CALLS_THE_LOOP: Final = "uvicorn/server.py"


def profile(bench: Bench, directory: Path) -> None:
    """Writes ``profile-N.svg`` for each number of streams, and ``profile.md`` with the shares of the layers.

    Raises RuntimeError where py-spy cannot be installed or cannot look (it needs ptrace)."""
    program = str(environments.program("py-spy", "py-spy", say=bench.say))
    found: dict[int, Counter[str]] = {}
    busy: dict[int, float] = {}
    for streams in STREAMS:
        with bench.scope():
            ours = bench.ours(f"ours, {streams}", sessions=streams)
            stacks = directory / f"profile-{streams}.raw"
            busy[streams] = _record(bench, ours, streams, [program, "record", "--format", "raw"], stacks)
            found[streams] = _layers(stacks.read_text())
            stacks.unlink()
            picture = directory / f"profile-{streams}.svg"
            _record(bench, ours, streams, [program, "record"], picture)
            _retitle(picture, streams)
            bench.say(f"{picture.name}: {busy[streams]:.0%} of a core")
    (directory / "profile.md").write_text(_table(found, busy))


def _record(bench: Bench, ours: Contestant, streams: int, argv: list[str], target: Path) -> float:
    """While all streams are open. Returns which part of a core the service took."""
    assert ours.process is not None
    deltas = round((_SECONDS + 8) / _GAP)
    bench.set_upstream(deltas, _GAP)
    job = bench.stream_job(ours, streams, streams, ramp=3.0, timeout=_SECONDS * 4 + 60)
    options = ["--output", str(target), "--duration", str(_SECONDS), "--rate", str(_RATE)]
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(bench.drive, job)
        time.sleep(4.0)  # until all have begun
        before = cpu_seconds(ours.process.family())
        command = [*argv, *options, "--pid", str(ours.process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        used = cpu_seconds(ours.process.family()) - before
        load.result()
    if done.returncode:
        raise RuntimeError(f"py-spy: {done.stderr[-500:]}")
    return used / _SECONDS


def _layers(stacks: str) -> Counter[str]:
    """Samples by layer. A line is a stack, outermost first and divided by semicolons, and how often it was
    seen."""
    layers = Counter[str]()
    for line in stacks.splitlines():
        stack, _, times = line.rpartition(" ")
        layers[_layer(stack.split(";"))] += int(times)
    return layers


def _layer(stack: list[str]) -> str:
    for frame in reversed(stack):
        if _CALLS_THE_LOOP in frame:
            break
        for name, places in _LAYERS:
            if any(place in frame for place in places):
                return name
    return _LOOP


def _table(found: dict[int, Counter[str]], busy: dict[int, float]) -> str:
    names = sorted(found[STREAMS[0]], key=lambda name: -found[STREAMS[0]][name])
    rows = ["| streams of 20 deltas a second | " + " | ".join(map(str, found)) + " |"]
    rows.append("|---|" + "---|" * len(found))
    rows.append("| of a core | " + " | ".join(f"{busy[each]:.0%}" for each in found) + " |")
    for name in names:
        shares = (f"{found[each][name] / found[each].total():.0%}" for each in found)
        rows.append(f"| {name} | " + " | ".join(shares) + " |")
    return "\n".join(rows) + "\n"


def _retitle(picture: Path, streams: int) -> None:
    """py-spy puts its own command line into the title, with this machine's paths."""
    text = picture.read_text()
    before, begins, rest = text.partition('<text id="title"')
    inside, ends, after = rest.partition("</text>")
    title = f"{inside.partition('>')[0]}>python -m app, {streams} paced streams"
    picture.write_text(before + begins + title + ends + after)
