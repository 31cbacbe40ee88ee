"""Number 8: what Redis is asked for."""

import math
import re
import urllib.request

from benchmarks.bench import Bench, Contestant
from benchmarks.options import Options
from benchmarks.results import Results

_TICK_SECONDS = 0.02
_PIPELINES = re.compile(r'^coze_redis_duration_seconds_count\{command="pipeline"\} ([0-9.e+]+)', re.MULTILINE)


def store(bench: Bench, results: Results, options: Options) -> None:
    """Bursts at 20 and 200 at once, and paced streams."""
    ours = bench.ours(sessions=200)
    for connections, n, gap in ((20, 100, 0.0), (200, 100, 0.0), (20, 100, 0.02), (200, 100, 0.05)):
        bench.set_upstream(n, gap)
        scenario = f"{connections} at once" + (f", paced {gap * 1000:.0f} ms" if gap else "")
        chats = connections * 2 if gap else max(connections * 4, round(100 * options.seconds))
        bench.drive(bench.stream_job(ours, connections, connections))
        before, pipelines = _look(bench, ours), pipelines_of(ours)
        result = bench.drive(bench.stream_job(ours, connections, chats))
        after, pipelines = _look(bench, ours), pipelines_of(ours) - pipelines
        used = {name: after.get(name, 0) - before.get(name, 0) for name in after}
        ticks = math.ceil(result["whole"]["median"] / 1000 / _TICK_SECONDS) + 2  # its first and its last
        values = {
            "pipelines_per_second": pipelines / result["seconds"],
            "xadd_per_chat": used.get("xadd", 0) / chats,
            "xadd_per_chat_and_tick": used.get("xadd", 0) / chats / ticks,
            "commands_per_chat": used["commands"] / chats,
            "bytes_in_per_chat": used["in"] / chats,
            "bytes_out_per_chat": used["out"] / chats,
            "redis_ms": result["cpu"]["redis"] / chats * 1000,
            "rate": chats / result["seconds"],
            "lost": result["lost"],
            "doubled": result["doubled"],
            "errors": sum(result["errors"].values()),
        }
        results.row("Redis, " + scenario, "ours", **values)
        faults = result["lost"] + result["doubled"] + values["errors"]
        results.check("8", f"{scenario}: frames lost or doubled, errors", faults, "<=", 0)
        text = f"{scenario}: pipelines/s of the process"
        results.check("8", text, values["pipelines_per_second"], "<=", 50)
        text = f"{scenario}: XADDs per chat and tick of 20 ms, first and last included"
        results.check("8", text, values["xadd_per_chat_and_tick"], "<=", 1)


def _look(bench: Bench, ours: Contestant) -> dict[str, float]:
    """Calls by command (those inside scripts count, too), all commands, bytes in and out."""
    with bench.redis_client(ours.redis_port) as client:
        stats, commands = client.info("stats"), client.info("commandstats")
    found = {name.removeprefix("cmdstat_"): float(use["calls"]) for name, use in commands.items()}
    return found | {
        "commands": float(stats["total_commands_processed"]),
        "in": float(stats["total_net_input_bytes"]),
        "out": float(stats["total_net_output_bytes"]),
    }


def pipelines_of(ours: Contestant) -> float:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{ours.port}/coze/metrics", timeout=10) as answer:
        match = _PIPELINES.search(answer.read().decode())
    return float(match[1]) if match else 0.0
