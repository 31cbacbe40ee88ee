"""Number 8: what Redis is asked for, and what it keeps."""

import math
import re
import time
import urllib.request

import redis

from benchmarks.bench import Bench, Contestant
from benchmarks.census import census
from benchmarks.options import Options
from benchmarks.results import Results

_TICK_SECONDS = 0.02
PAGE_SECONDS = 2.1
"""As long as the service shows the same page of metrics, and a bit: before a look that another one may have
preceded."""
_PIPELINES = re.compile(r'^coze_redis_duration_seconds_count\{command="pipeline"\} ([0-9.e+]+)', re.MULTILINE)


_KEPT_SESSIONS = 500
_KEPT_CHATS = 4
"""Of each session."""
_KIB = 1024


def store(bench: Bench, results: Results, options: Options) -> None:
    with bench.scope():
        _asked(bench, results, options)
    with bench.scope():
        _kept(bench, results)


def _asked(bench: Bench, results: Results, options: Options) -> None:
    """Bursts at 20 and 200 at once, and paced streams."""
    ours = bench.ours(sessions=200)
    for connections, n, gap in ((20, 100, 0.0), (200, 100, 0.0), (20, 100, 0.02), (200, 100, 0.05)):
        bench.set_upstream(n, gap)
        scenario = f"{connections} at once" + (f", paced {gap * 1000:.0f} ms" if gap else "")
        warm = bench.drive(bench.stream_job(ours, connections, 2 * connections))
        rate = warm["requests"] / warm["seconds"]
        chats = connections * 2 if gap else max(connections * 4, round(rate * max(options.seconds, 3)))
        time.sleep(PAGE_SECONDS)
        before, pipelines = _look(bench, ours), pipelines_of(ours)
        result = bench.drive(bench.stream_job(ours, connections, chats))
        time.sleep(max(0, PAGE_SECONDS - result["seconds"]))
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


def _kept(bench: Bench, results: Results) -> None:
    """What Redis holds more for each finished chat of 100 deltas: by its own ``used_memory``, and beside it
    what MEMORY USAGE says of all keys. A Redis of its own; each session has had a first chat before, and the
    look is when nothing changes any more."""
    own = bench.start_redis("redis-kept")
    ours = bench.ours("ours, kept", sessions=_KEPT_SESSIONS, redis=own)
    bench.set_upstream(100)
    bench.drive(bench.stream_job(ours, _KEPT_SESSIONS, _KEPT_SESSIONS, timeout=240))
    with bench.redis_client(own[1]) as client:
        used, listed = _settled(client), _listed(client)
        chats = _KEPT_CHATS * _KEPT_SESSIONS
        result = bench.drive(bench.stream_job(ours, _KEPT_SESSIONS, chats, timeout=240))
        used, listed = _settled(client) - used, _listed(client) - listed
    errors = result["lost"] + sum(result["errors"].values())
    scenario = f"{chats} finished chats"
    each = used / chats / _KIB
    results.row(scenario, "ours", kib_kept=each, kib_of_keys=listed / chats / _KIB, errors=errors)
    text = f"{scenario} of 100 deltas: KiB that Redis holds more for each (used_memory)"
    results.check("8", text, each, "<=", 10)


def _settled(client: redis.Redis) -> int:
    """``used_memory`` when it has stayed the same, but for a hundredth, for two seconds."""
    deadline, before = time.monotonic() + 60, 0
    while time.monotonic() < deadline:
        time.sleep(2)
        now = int(client.info("memory")["used_memory"])
        if abs(now - before) < now / 100:
            break
        before = now
    return now


def _listed(client: redis.Redis) -> int:
    return sum(kind.bytes for name, kind in census(client).items() if name != "total")


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
