#!/usr/bin/env python3
"""How large: cores, replicas, Redis and settings for a number of users, from measured costs.

    python scripts/capacity.py --users 10000 --messages-per-hour 6

Needs Python alone. ``--help`` lists what may be said besides; what is not said is assumed as it stands there.
The costs are those of ``benchmarks/results/capacity.json`` (``./run-bench.sh --only capacity`` measures them
on a machine of yours). How it computes: docs/en/capacity.md, docs/zh/capacity.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.capacity_model import (  # noqa: E402  # found from wherever this is started
    CONNECTIONS_OF_A_PROCESS,
    CONNECTIONS_TO_A_NODE,
    SHARDS,
    Bytes,
    Costs,
    Demand,
    RedisCpu,
    cluster_for,
    dealt,
    flow_of,
    kept_by,
    processes_for,
    redis_bytes,
    redis_commands,
    redis_cpu,
    service_cores,
    usual_ranges,
)

COSTS: Final = ROOT / "benchmarks" / "results" / "capacity.json"
GIB: Final = 2**30
_BURST: Final = 2
"""How much a minute may exceed the mean of the busiest hour before a limit refuses."""
_SPARE: Final = 1.25


@dataclass(frozen=True)
class Setting:
    """One that has to be another than its default."""

    name: str
    default: float
    value: float
    why: str


@dataclass(frozen=True)
class Plan:
    demand: Demand
    processes: int
    replicas: int
    cores: float
    """That all processes use."""
    process_bytes: float
    redis: Bytes
    redis_cpu: RedisCpu
    commands: float
    masters: int | None
    """None: no number of masters is enough."""
    slots: tuple[tuple[int, int], ...]
    """First and last one of each master."""
    connections: int
    """At most, to the Redis, or to each node of a Cluster."""
    settings: tuple[Setting, ...]


def plan(demand: Demand, costs: Costs) -> Plan:
    processes = processes_for(costs, demand)
    flow = flow_of(demand, processes)
    memory = redis_bytes(
        costs,
        kept_by(demand),
        deltas=demand.deltas,
        answer_bytes=demand.answer_bytes,
        processes=processes,
    )
    each = redis_cpu(costs, flow)
    cpu = RedisCpu(each.shards * processes, each.index * processes)
    ranges = cluster_for(cpu, memory, demand)
    node = CONNECTIONS_OF_A_PROCESS if ranges is not None and len(ranges) == 1 else CONNECTIONS_TO_A_NODE
    open_in_one = demand.running / processes
    return Plan(
        demand=demand,
        processes=processes,
        replicas=math.ceil(processes / max(1.0, math.floor(demand.replica_cores))),
        cores=service_cores(costs, flow) * processes,
        process_bytes=costs.process["idle"] + open_in_one * (costs.process["chat"] + costs.process["stream"]),
        redis=memory,
        redis_cpu=cpu,
        commands=redis_commands(costs, flow) * processes,
        masters=None if ranges is None else len(ranges),
        slots=tuple((part.start, part.stop - 1) for part in ranges or ()),
        connections=processes * node,
        settings=tuple(_settings(demand, processes, processes * node)),
    )


def _rounded_up(value: float) -> float:
    """To two figures: 1,201 is 1,300."""
    if value <= 10:
        return math.ceil(value)
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return float(math.ceil(value / step - 1e-9) * step)


def _settings(demand: Demand, processes: int, connections: int) -> Iterator[Setting]:
    """Each setting whose default would refuse such users, with the value that does not."""
    sessions = demand.users * demand.sessions_at_once
    minute, begun = demand.chats_per_second * 60, demand.sessions_per_second * 60
    running = demand.running / processes * _BURST
    owner, root = (1.0, 1.0) if demand.one_caller else (0.2, 1.0)
    needs = [
        ("COZE_MAX_ACTIVE_USERS", 1000, demand.users * _SPARE, "users who have sessions"),
        ("COZE_MAX_TOTAL_SESSIONS", 5000, sessions * _SPARE, "sessions that are alive"),
        ("COZE_MAX_SESSIONS_PER_USER", 10, demand.sessions_at_once, "sessions of one user"),
        ("RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE", 1200, minute * _BURST, "messages of all in a busy minute"),
        ("RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE", 600, begun * _BURST, "new sessions of all in a minute"),
        (
            "RATE_LIMIT_MESSAGES_PER_MINUTE",
            60,
            demand.messages_per_hour / 60 * 10,
            "messages of one user, who may come ten times as fast for a minute",
        ),
        ("MAX_CONCURRENT_CHATS", 2000, running, "chats that run in one process"),
        ("MAX_OPEN_STREAMS", 10_000, running, "streams that are open in one process"),
        ("COZE_MAX_CONNECTIONS", 2000, running, "connections of one process to Coze"),
        ("COZE_CHAT_TIMEOUT", 600, demand.answer_seconds * _BURST, "seconds that an answer may take"),
    ]
    if demand.one_caller:
        rows = min(demand.sessions_per_day, SHARDS) * demand.users * _SPARE
        needs += [
            ("MAX_OPEN_STREAMS_PER_CALLER", 1000, running, "streams of the one caller in one process"),
            ("COZE_USAGE_ROWS_PER_DAY", 32_000, rows, "rows of usage of the one caller in a day"),
        ]
    raised = [Setting(*need[:2], _rounded_up(need[2]), need[3]) for need in needs if need[2] > need[1]]
    whole = any(each.name.startswith(("COZE_MAX_A", "COZE_MAX_T", "RATE_LIMIT_TOTAL")) for each in raised)
    if whole or demand.users > 800:
        raised.append(Setting("COZE_ROOT_SHARE", 0.8, root, "all users are of one root domain"))
    if demand.one_caller and (whole or demand.users > 200):
        raised.append(Setting("COZE_OWNER_SHARE", 0.2, owner, "one caller comes for all users"))
    yield from raised
    for name, default, hours in (
        ("COZE_SESSION_EXPIRE", 3600, demand.session_hours),
        ("COZE_RESULT_EXPIRE", 1800, demand.result_hours),
    ):
        if hours * 3600 != default:
            yield Setting(name, default, hours * 3600, "as you said")
    if connections > 10_000:
        yield Setting("maxclients (redis.conf)", 10_000, _rounded_up(connections * _SPARE), "connections")


# -- in words ---------------------------------------------------------------------------------------------


def words(found: Plan) -> str:
    demand = found.demand
    lines = [
        (
            f"{demand.users:,} users, {demand.messages_per_hour:g} messages an hour each; an answer takes "
            f"{demand.answer_seconds:g} s, in {demand.deltas:,} deltas, {demand.answer_chars:,} characters."
        ),
        f"{demand.headroom:.0%} of each core, and of Redis' memory, is kept free.",
        "",
        "Service",
        (
            f"  {_one(demand.chats_per_second)} chats a second; {_one(demand.running)} under way at once, "
            "and as many streams open."
        ),
        (
            f"  {_one(found.cores)} cores in use: {_many(found.processes, 'process', 'es')} "
            f"({found.cores / found.processes:.0%} of a core each; one process uses one core), "
            f"in {_many(found.replicas, 'replica')} of {demand.replica_cores:g} core(s): WORKERS="
            f"{max(1, math.floor(demand.replica_cores))}. One more, so that one may fail or be replaced."
        ),
        (
            f"  {_bytes(found.process_bytes)} of memory for each process; "
            f"{math.ceil(2 * demand.running / found.processes) + 200:,} descriptors (ulimit -n) or more."
        ),
        "",
        "Redis",
        *(f"  {line}" for line in _redis_words(found)),
        "",
        "Settings",
        *(f"  {line}" for line in _setting_words(found.settings)),
    ]
    return "\n".join(lines)


def _redis_words(found: Plan) -> Iterator[str]:
    parts = {name: size for name, size in asdict(found.redis).items() if size >= found.redis.total / 100}
    shares = ", ".join(f"{name} {_bytes(size)}" for name, size in sorted(parts.items(), key=lambda p: -p[1]))
    yield f"{_bytes(found.redis.total)} of memory when all that is kept has come together ({shares});"
    yield f"  maxmemory {_bytes(found.redis.total / found.demand.share)}, maxmemory-policy noeviction."
    yield (
        f"{_one(found.commands)} commands a second, {_one(found.redis_cpu.total)} cores, of which "
        f"{_one(found.redis_cpu.index)} in the one slot {{index}}."
    )
    each = "it" if found.masters == 1 else "each node"
    yield f"At most {found.connections:,} connections to {each} (maxclients is 10,000 unless it is set)."
    if found.masters == 1:
        yield "One Redis will do (with a replica and Sentinels, so that it may fail)."
    elif found.masters is None:
        if found.redis_cpu.index > found.demand.share:
            yield "No Cluster will do: the limits and rates of all users lie in one slot, {index}."
        else:
            yield f"No Cluster will do: there are {SHARDS} shards, and one is too much for one master."
            yield "Give each more memory (--redis-gib), or keep less (COZE_CONVERSATION_DAYS)."
        yield "Or divide the users over several deployments, each with a Redis of its own."
    else:
        yield f"One Redis will not do: a Cluster of {found.masters} masters, each with a replica,"
        yield f"  {_slot_words(found)}."


def _slot_words(found: Plan) -> str:
    """Where they have to be others than those that redis-cli deals out."""
    ranges = [range(first, last + 1) for first, last in found.slots]
    shards = "/".join(str(count) for count, _ in dealt(ranges))
    if ranges == usual_ranges(len(ranges)):
        return f"with the slots as redis-cli deals them out, which gives them {shards} of the {SHARDS} shards"
    listed = ", ".join(f"{first}-{last}" for first, last in found.slots)
    return f"slots {listed}, which gives them {shards} of the {SHARDS} shards"


def _setting_words(settings: Sequence[Setting]) -> Iterator[str]:
    if not settings:
        yield "The defaults are enough."
    for each in settings:
        yield f"{each.name}={_plain(each.value)}  (default {each.default:g}: {each.why})"


def _plain(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def _many(count: int, what: str, more: str = "s") -> str:
    return f"{count:,} {what}{more if count != 1 else ''}"


def _one(value: float) -> str:
    """With one digit behind the point where there is little before it."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bytes(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.0f} MiB"


def row(found: Plan) -> list[str]:
    """Of the table in docs/*/capacity.md."""
    masters = "none" if found.masters is None else str(found.masters)
    return [
        f"{found.demand.users:,}",
        _one(found.demand.chats_per_second),
        _one(found.demand.running),
        _one(found.cores),
        f"{found.processes:,}",
        _bytes(found.redis.total),
        _one(found.commands),
        _one(found.redis_cpu.total),
        masters,
        f"{found.connections:,}",
    ]


# -- the command line -------------------------------------------------------------------------------------

_OPTIONS: Final = {
    "deltas": "pieces in which an answer arrives",
    "answer_seconds": "seconds that an answer takes",
    "answer_chars": "characters of an answer",
    "session_hours": "COZE_SESSION_EXPIRE in hours",
    "result_hours": "COZE_RESULT_EXPIRE in hours",
    "hours_a_day": "hours a day in which a user is active",
    "sessions_per_day": "sessions that a user begins in a day",
    "sessions_at_once": "sessions of a user that are alive at once",
    "keyed": "share of the messages with an Idempotency-Key, 0 to 1",
    "conversation_days": "COZE_CONVERSATION_DAYS",
    "usage_days": "COZE_USAGE_RETENTION_DAYS",
    "bytes_per_char": "of the answers' language: Chinese 3, English 1",
    "replica_cores": "cores of a replica",
    "redis_gib": "GiB that one Redis may have",
    "headroom": "share of cores and memory that is kept free",
}


def parse(arguments: Sequence[str] | None) -> tuple[Demand, bool, Path]:
    parser = argparse.ArgumentParser(prog="scripts/capacity.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--users", type=int, required=True, help="active at once, in the busiest hour")
    parser.add_argument("--messages-per-hour", type=float, required=True, help="of each of them")
    defaults = {each.name: each.default for each in fields(Demand)}
    for name, text in _OPTIONS.items():
        default: Any = defaults[name]
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, help=f"{text} ({default:g})")
    parser.add_argument("--one-caller", action="store_true", help="one token or key comes for all users")
    parser.add_argument("--costs", type=Path, default=COSTS, help="another file of costs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parsed = vars(parser.parse_args(arguments))
    as_json, costs = parsed.pop("json"), parsed.pop("costs")
    demand = Demand(**parsed)
    positive = (
        "users",
        "messages_per_hour",
        "answer_seconds",
        "hours_a_day",
        "sessions_per_day",
        "redis_gib",
    )
    if wrong := [name for name in positive if not getattr(demand, name) > 0]:
        parser.error(f"{wrong[0].replace('_', '-')} must be more than 0")
    if not 0 <= demand.headroom < 0.95:
        parser.error("headroom must be 0 to 0.94")
    return demand, as_json, costs


def main(arguments: Sequence[str] | None = None) -> int:
    demand, as_json, file = parse(arguments)
    found = plan(demand, Costs.of(json.loads(file.read_text(encoding="utf-8"))))
    print(json.dumps(asdict(found), indent=1) if as_json else words(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
