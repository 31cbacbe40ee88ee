"""What chats take of service and Redis: CPU, commands, and memory of the process."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self

import redis

from benchmarks.bench import Bench, Contestant, user_body
from benchmarks.census import Asked, TimedByTag, asked
from benchmarks.driver import Job
from benchmarks.fit import fit
from benchmarks.parts.store import PAGE_SECONDS, pipelines_of
from benchmarks.processes import cpu_seconds, resident_bytes

KEY_HEADER: Final = "Idempotency-Key"
PATIENT: Final = {"REDIS_TIMEOUT": "30"}
"""Other programs may keep Redis from its core for seconds: that is not to fail a run, and costs the same."""


def open_for(bench: Bench, ours: Contestant, label: str, users: int, each: int = 1) -> list[str]:
    """New sessions: ``each`` for so many users."""
    before = len(ours.sessions)
    for _ in range(each):
        bench.open_sessions(ours, users, user_body(label))
    return ours.sessions[before:]


def chat_job(
    bench: Bench, ours: Contestant, sessions: list[str], connections: int, total: int, **more: Any
) -> Job:
    """Streamed chats, each to the next session in turn."""
    targets = [f"/coze/sessions/{session}/messages" for session in sessions]
    job = bench.stream_job(ours, connections, total, targets=targets, by_request=True, timeout=900)
    for name, value in more.items():
        setattr(job, name, value)
    return job


def sound(result: dict[str, Any]) -> dict[str, Any]:
    """Raises RuntimeError where anything went wrong: costs of chats that failed say nothing."""
    if result["errors"] or result["lost"] or result["doubled"]:
        raise RuntimeError(f"chats failed: {result['errors']}, lost {result['lost']}")
    return result


# -- what it does -----------------------------------------------------------------------------------------


@dataclass
class Measured:
    """One run: what it took of service and Redis."""

    chats: int
    deltas: int
    seconds: float
    server: float
    redis: float
    asked: Asked
    pipelines: float


def measured(bench: Bench, ours: Contestant, client: redis.Redis, job: Job) -> Measured:
    time.sleep(PAGE_SECONDS)
    before, pipelines = asked(client), pipelines_of(ours)
    result = sound(bench.drive(job))
    return Measured(
        job.total,
        job.n,
        result["seconds"],
        result["cpu"]["server"],
        result["cpu"]["redis"],
        asked(client) - before,
        pipelines_of(ours) - pipelines,
    )


@dataclass
class Span:
    """A time of the service: seconds, and CPU and commands in them; pipelines to Redis."""

    seconds: float
    server: float
    redis: float
    commands: float
    pipelines: float = 0.0


class Watch:
    """With ``with``: what a block takes."""

    def __init__(self, ours: Contestant, client: redis.Redis) -> None:
        self._ours, self._client = ours, client
        self.span = Span(0, 0, 0, 0)

    def _now(self) -> tuple[float, float, float, float, float]:
        assert self._ours.process is not None
        return (
            time.monotonic(),
            cpu_seconds(self._ours.process.family()),
            cpu_seconds([self._ours.redis_pid]),
            asked(self._client).commands,
            pipelines_of(self._ours),
        )

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.span = Span(*(after - before for after, before in zip(self._now(), self._before, strict=True)))


def _idle_of(ours: Contestant, client: redis.Redis, seconds: float = 20) -> Span:
    with Watch(ours, client) as watch:
        time.sleep(seconds)
    return watch.span


_LOAD: Final = (
    ((10, 20, 40), (10, 80, 20)),
    ((50, 20, 150), (50, 80, 80)),
    ((120, 20, 400), (120, 80, 200)),
)
"""By how busy the process is to be: connections, deltas, chats."""
_GAP: Final = 0.05
_SESSIONS: Final = 300
_INDEXED_SECONDS: Final = 61.0


def load(bench: Bench) -> dict[str, dict[str, float]]:
    ours = bench.ours("ours, load", env=PATIENT)
    bench.set_upstream(5)
    with bench.redis_client() as client:
        open_for(bench, ours, "warm", 20)
        with TimedByTag(client) as opening:
            open_for(bench, ours, "timed", 100)
        with Watch(ours, client) as watch:
            sessions = open_for(bench, ours, "u", _SESSIONS)
        opened = watch.span
        runs: list[list[Measured]] = []
        for level in _LOAD:
            runs.append([])
            for connections, deltas, chats in level:
                bench.set_upstream(deltas, _GAP, 4)
                job = chat_job(bench, ours, sessions, connections, chats, ramp=deltas * _GAP / 2)
                runs[-1].append(run := measured(bench, ours, client, job))
                bench.say(f"   {run}")
        key = _key_commands(bench, ours, client, sessions)
        idle = _idle_of(ours, client)
        # As users do, who send their next message after more than a minute: then the indexes are told, too.
        time.sleep(_INDEXED_SECONDS - idle.seconds)
        bench.set_upstream(5)
        with TimedByTag(client) as chatting:
            sound(bench.drive(chat_job(bench, ours, sessions, 20, 100)))
    costs = _costs_of_load(runs, idle)
    costs["commands"] |= {
        "session": (opened.commands - idle.commands / idle.seconds * opened.seconds) / _SESSIONS,
        "key": key,
    }
    costs["cpu_us"]["session"] = opened.server / _SESSIONS * 1e6
    costs["redis_us"] |= {
        "session": opened.redis / _SESSIONS * 1e6,
        "chat_index_share": chatting.index_share,
        "session_index_share": opening.index_share,
    }
    return costs


def _key_commands(bench: Bench, ours: Contestant, client: redis.Redis, sessions: list[str]) -> float:
    """Commands for an Idempotency-Key: of two equal runs one has them. Both come within a minute of what was
    before, so that neither tells the indexes anything."""
    bench.set_upstream(5)
    found = []
    for headers in ({}, {}, {KEY_HEADER: "load-{i}"}):
        job = chat_job(bench, ours, sessions[:100], 20, 100, headers=ours.headers | headers)
        run = measured(bench, ours, client, job)
        found.append((run.asked.commands - run.asked.xadds) / run.chats)
    return max(0.0, found[2] - found[1])


def _costs_of_load(levels: list[list[Measured]], idle: Span) -> dict[str, dict[str, float]]:
    runs = [run for level in levels for run in level]
    idle_server, idle_redis = idle.server / idle.seconds, idle.redis / idle.seconds
    rows = [[run.chats, run.chats * run.deltas, run.pipelines] for run in runs]
    chat, delta, round_of_writer = fit(rows, [run.server - idle_server * run.seconds for run in runs])
    asked_for = [[run.chats, run.asked.xadds - 2 * run.chats, run.pipelines] for run in runs]
    redis_chat, commit, pipeline = fit(asked_for, [run.redis - idle_redis * run.seconds for run in runs])
    idle_commands = idle.commands / idle.seconds
    others = [run.asked.commands - run.asked.xadds - idle_commands * run.seconds for run in runs]
    commands = sum(others) / sum(run.chats for run in runs) + 2  # the first and the last entry of its log
    return {
        "cpu_us": {
            "chat": chat * 1e6,
            "delta": delta * 1e6,
            "pipeline": round_of_writer * 1e6,
            "idle_second": idle_server * 1e6,
        },
        "redis_us": {
            "chat": redis_chat * 1e6,
            "commit": commit * 1e6,
            "pipeline": pipeline * 1e6,
            "idle_second": idle_redis * 1e6,
        },
        "commands": {"chat": commands, "idle_second": idle_commands},
    }


# -- many at once -----------------------------------------------------------------------------------------

_AT_ONCE: Final = 150
_QUIET_SECONDS: Final = 40.0
_WATCHED_SECONDS: Final = 8.0
_TALK: Final = (50, 0.15)
"""Deltas and seconds between them."""
_LOOKED_AT: Final = 40
_FIRST_NODE: Final = 4800
"""Bytes that a stream takes from its first entry on."""


@dataclass
class Wave:
    """What was seen while all chats of a wave were open."""

    span: Span
    resident: int
    connections: int
    running_bytes: float


def waves(bench: Bench) -> dict[str, dict[str, float]]:
    """Chats that run at once and are silent, first without readers, then each with one; then chats that talk,
    without readers and with them."""
    store = bench.start_redis("redis-waves")
    ours = bench.ours("ours, waves", redis=store, env=PATIENT)
    assert ours.process is not None
    bench.set_upstream(5)
    with bench.redis_client(store[1]) as client:
        open_for(bench, ours, "w", _AT_ONCE)
        sound(bench.drive(chat_job(bench, ours, ours.sessions, 20, 100)))
        idle = _idle_of(ours, client, 10)
        connections = client.info("clients")["connected_clients"] - 1
        resident = resident_bytes(ours.process.family())
        unread, read = [_quiet_wave(bench, ours, client, read=each) for each in (False, True)]
        talks = [_talking_wave(bench, ours, client, read=each) for each in (False, True)]
    per_second = idle.server / idle.seconds, idle.commands / idle.seconds
    watched = read.span.seconds * _AT_ONCE
    return {
        "process": {
            "idle": float(resident),
            "chat": (unread.resident - resident) / _AT_ONCE,
            "stream": max(0, read.resident - unread.resident) / _AT_ONCE,
            "connections_idle": float(connections),
            "connections_busy": float(read.connections),
        },
        "cpu_us": {
            "running_second": max(0.0, read.span.server - per_second[0] * read.span.seconds) / watched * 1e6,
            "delivered": max(0.0, talks[1][0] - talks[0][0]) / (_AT_ONCE * _TALK[0]) * 1e6,
        },
        "commands": {
            "running_second": max(0.0, read.span.commands - per_second[1] * read.span.seconds) / watched
        },
        "memory": {"running": read.running_bytes, "running_delta": talks[1][1]},
    }


def _wave_job(bench: Bench, ours: Contestant, *, read: bool) -> Job:
    """One chat of each session, all at once. Without a reader the answer is a 202, and the chat goes on."""
    job = chat_job(bench, ours, ours.sessions, _AT_ONCE if read else 40, _AT_ONCE)
    if not read:
        job.kind, job.body, job.expect = "plain", ours.whole_body, [202]
        job.headers = ours.headers | {"prefer": "respond-async"}
    return job


def _begun(bench: Bench, pool: ThreadPoolExecutor, job: Job) -> tuple[Future[dict[str, Any]], int]:
    """The driver at work once all chats have begun at Coze; how many will have finished there then."""
    counts = bench.upstream_counts()
    driving = pool.submit(bench.drive, job)
    _until(lambda: bench.upstream_counts()["chats"] >= counts["chats"] + job.total)
    return driving, counts["finished"] + job.total


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the chats of a wave did not get on")
        time.sleep(0.1)


def _ended(bench: Bench, driving: Future[dict[str, Any]], finished: int) -> None:
    if errors := driving.result()["errors"]:
        raise RuntimeError(f"chats failed: {errors}")
    _until(lambda: bench.upstream_counts()["finished"] >= finished)
    time.sleep(1)  # the last ends are written


def _quiet_wave(bench: Bench, ours: Contestant, client: redis.Redis, *, read: bool) -> Wave:
    assert ours.process is not None
    bench.set_upstream(2, _QUIET_SECONDS, 4)
    with ThreadPoolExecutor(1) as pool:
        driving, finished = _begun(bench, pool, _wave_job(bench, ours, read=read))
        with Watch(ours, client) as watch:
            time.sleep(_WATCHED_SECONDS)
        resident = resident_bytes(ours.process.family())
        connections = client.info("clients")["connected_clients"] - 1
        runs = list(client.scan_iter("*:run:*", count=1000))
        running = _mean_bytes(client, runs) + _mean_bytes(
            client, [k.replace(b":run:", b":log:") for k in runs]
        )
        _ended(bench, driving, finished)
    return Wave(watch.span, resident, connections, running)


def _mean_bytes(client: redis.Redis, keys: list[bytes]) -> float:
    sizes = [client.memory_usage(key, samples=0) for key in keys[:_LOOKED_AT]]
    known = [size for size in sizes if size]
    return sum(known) / max(1, len(known))


def _talking_wave(bench: Bench, ours: Contestant, client: redis.Redis, *, read: bool) -> tuple[float, float]:
    """CPU seconds of the service from the first to the last of the wave, and bytes that a log grows by with
    each delta while its chat runs."""
    deltas, gap = _TALK
    bench.set_upstream(deltas, gap, 4)
    with ThreadPoolExecutor(1) as pool, Watch(ours, client) as watch:
        driving, finished = _begun(bench, pool, _wave_job(bench, ours, read=read))
        time.sleep(deltas * gap / 2)
        slope = _bytes_per_delta(client)
        _ended(bench, driving, finished)
    return watch.span.server, slope


def _bytes_per_delta(client: redis.Redis) -> float:
    """The room that Redis gives a log at once left out."""
    frames, size = 0, 0
    runs = list(client.scan_iter("*:run:*", count=1000))[:_LOOKED_AT]
    for key in (run.replace(b":run:", b":log:") for run in runs):
        with client.pipeline(transaction=True) as pipe:
            pipe.memory_usage(key, samples=0)
            pipe.xinfo_stream(key)
            used, stream = pipe.execute(raise_on_error=False)
        if isinstance(stream, dict) and used:
            frames += int(stream["last-generated-id"].partition(b"-")[2])
            size += max(0, used - _FIRST_NODE)
    return size / max(1, frames)
