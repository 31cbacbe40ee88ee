"""``./run-bench.sh --profile``: where ours spends its time under 20 streams, as a flame graph."""

import html
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import environments
from benchmarks.bench import Bench

_SECONDS = 15


def profile(bench: Bench, target: Path) -> None:
    """Raises RuntimeError where py-spy cannot be installed or cannot look (it needs ptrace)."""
    program = str(environments.program("py-spy", "py-spy", say=bench.say))
    ours = bench.ours(sessions=20)
    assert ours.process is not None
    bench.set_upstream(100)
    warm = bench.drive(bench.stream_job(ours, 20, 200))
    total = round(warm["requests"] / warm["seconds"] * (_SECONDS + 4))
    argv = [program, "record", "--output", str(target), "--duration", str(_SECONDS), "--rate", "250"]
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(bench.drive, bench.stream_job(ours, 20, total))
        done = subprocess.run(
            [*argv, "--pid", str(ours.process.pid)], capture_output=True, text=True, check=False
        )
        result = load.result()
    if done.returncode:
        raise RuntimeError(f"py-spy: {done.stderr[-500:]}")
    # py-spy puts its own command line into the title, with this machine's paths.
    picture = target.read_text()
    command = html.escape(" ".join([*argv, "--pid", str(ours.process.pid)]), quote=False)
    target.write_text(picture.replace(command, "python -m app, 20 streams at once"))
    each = result["cpu"]["server"] / result["requests"] * 1000
    bench.say(f"{target.name}: {result['requests']} chats, {each:.2f} ms of CPU each while watched")
