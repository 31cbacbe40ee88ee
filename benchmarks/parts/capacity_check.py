"""What scripts/capacity.py would say of ten thousand chats, beside what they took.

Its costs come from small runs (part ``capacity``). Here are other shapes: other deltas, other answers, other
numbers of sessions per user, others at once. So the comparison can fail.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import redis

from benchmarks.bench import Bench, Contestant
from benchmarks.options import Options
from benchmarks.parts.capacity import CHAR_BYTES, MARK_BYTES
from benchmarks.parts.capacity_load import (
    KEY_HEADER,
    PATIENT,
    Span,
    Watch,
    chat_job,
    open_for,
    sound,
)
from benchmarks.report import RESULTS
from benchmarks.results import Results
from scripts.capacity_model import Costs, Flow, Kept, redis_bytes, redis_commands, redis_cpu, service_cores

LIMIT: Final = 0.2
_USERS: Final = {"one": (150, 1), "two": (100, 2), "five": (80, 5)}
"""By label: users, and sessions of each."""


@dataclass(frozen=True)
class Shape:
    chats: int
    deltas: int
    chars: int
    gap: float
    connections: int
    keyed: bool

    @property
    def answer_bytes(self) -> float:
        return self.deltas * (MARK_BYTES + CHAR_BYTES * self.chars)


SHAPES: Final = (Shape(4000, 35, 7, 0.05, 40, keyed=False), Shape(6000, 24, 16, 0.08, 60, keyed=True))


@dataclass
class Phase:
    """What one shape took (the sessions that were opened before: None)."""

    shape: Shape | None
    sessions: int
    span: Span


@dataclass
class Found:
    """Bytes of Redis in the end, and of the process at its peak."""

    phases: list[Phase]
    memory: float
    highest: float
    load_average: float

    @property
    def server(self) -> float:
        return sum(phase.span.server for phase in self.phases)

    @property
    def redis(self) -> float:
        return sum(phase.span.redis for phase in self.phases)

    @property
    def commands(self) -> float:
        return sum(phase.span.commands for phase in self.phases)


def capacity_check(bench: Bench, results: Results, options: Options) -> None:
    found = measure(bench)
    for name, (predicted, measured) in compared(costs_measured(), found).items():
        results.row(f"10,000 chats: {name}", "ours", predicted=predicted, found=measured)
        results.check(
            "capacity",
            f"10,000 chats, {name}: how far off the prediction is",
            abs(predicted / measured - 1),
            "<=",
            LIMIT,
        )
    results.note(f"capacity-check: load average at its end {found.load_average:.1f}")


def costs_measured() -> Costs:
    return Costs.of(json.loads((RESULTS / "capacity.json").read_text()))


def measure(bench: Bench, shapes: Sequence[Shape] = SHAPES) -> Found:
    store = bench.start_redis("redis-check")
    ours = bench.ours("ours, check", redis=store, env=PATIENT)
    found = Found([], 0.0, 0.0, 0.0)
    with bench.redis_client(store[1]) as client:
        with Watch(ours, client) as watch:
            for label, (users, each) in _USERS.items():
                open_for(bench, ours, label, users, each)
        found.phases.append(Phase(None, len(ours.sessions), watch.span))
        for shape in shapes:
            found.phases.append(_run(bench, ours, client, shape, found))
        time.sleep(2)
        found.memory = float(client.info("memory")["used_memory"])
    found.load_average = os.getloadavg()[0]
    return found


def _run(bench: Bench, ours: Contestant, client: redis.Redis, shape: Shape, found: Found) -> Phase:
    bench.set_upstream(shape.deltas, shape.gap, shape.chars)
    headers = ours.headers | ({KEY_HEADER: f"check-{shape.deltas}-{{i}}"} if shape.keyed else {})
    job = chat_job(bench, ours, ours.sessions, shape.connections, shape.chats, headers=headers, sample=1.0)
    job.timeout = 3600
    with Watch(ours, client) as watch:
        result = sound(bench.drive(job))
    found.highest = max([found.highest, *(look["server"] for look in result["memory"])])
    load = os.getloadavg()[0]
    bench.say(f"   {shape.chats} chats in {watch.span.seconds:.0f} s, load average {load:.1f}")
    return Phase(shape, 0, watch.span)


# -- the same, as the calculator has it -------------------------------------------------------------------


def compared(costs: Costs, found: Found) -> dict[str, tuple[float, float]]:
    """By what it is, predicted and measured."""
    server = redis_seconds = commands = 0.0
    for phase in found.phases:
        flow, seconds = _flow_of(phase), phase.span.seconds
        server += service_cores(costs, flow) * seconds
        redis_seconds += redis_cpu(costs, flow).total * seconds
        commands += redis_commands(costs, flow) * seconds
    at_once = max(phase.shape.connections for phase in found.phases if phase.shape)
    process = costs.process["idle"] + at_once * (costs.process["chat"] + costs.process["stream"])
    return {
        "Redis memory, MiB": (_predicted_bytes(costs) / 2**20, found.memory / 2**20),
        "Redis commands, thousands": (commands / 1e3, found.commands / 1e3),
        "CPU of the service, s": (server, found.server),
        "CPU of Redis, s": (redis_seconds, found.redis),
        "memory of the process at its peak, MiB": (process / 2**20, found.highest / 2**20),
    }


def _flow_of(phase: Phase) -> Flow:
    shape, seconds = phase.shape, phase.span.seconds
    if shape is None:
        return Flow(0, 0, 0, sessions=phase.sessions / seconds)
    flow = Flow(
        chats=shape.chats / seconds,
        deltas_per_chat=shape.deltas,
        answer_seconds=shape.deltas * shape.gap,
        keyed=float(shape.keyed),
    )
    # Other programs had the cores, too: by how much later the commits came is what the machine was like, not
    # what users cost.
    between = seconds / phase.span.pipelines
    return replace(flow, late=max(0.0, between - 1 / flow.deltas - flow.gathering))


def _predicted_bytes(costs: Costs) -> float:
    users = sum(users for users, _ in _USERS.values())
    sessions = sum(users * each for users, each in _USERS.values())
    chats = sum(shape.chats for shape in SHAPES)
    kept = Kept(
        users=users,
        sessions=sessions,
        records=chats,
        conversations=sessions,
        talkers=users,
        usage_rows=sessions,
        recent_users=users,
        keys=sum(shape.chats for shape in SHAPES if shape.keyed),
    )
    # Records of all shapes have the mean's bytes; logs have a least size, so each shape is its own.
    mean = sum(shape.chats * shape.answer_bytes for shape in SHAPES) / chats
    whole = redis_bytes(costs, kept, deltas=0, answer_bytes=mean).total
    logs = (
        redis_bytes(costs, Kept(logs=shape.chats), deltas=shape.deltas, answer_bytes=shape.answer_bytes).logs
        for shape in SHAPES
    )
    return whole + sum(logs)
