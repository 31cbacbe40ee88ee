"""What must not grow while the service runs: memory, tasks, descriptors, keys. Looked at again and again."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import redis as redis_client

from tests.faults.support import Cluster
from tests.observability.support import parse
from tests.support import RedisServer, ServiceProcess

TASKS_FILE = "tasks.json"
MOST_SECONDS = 300
"""What would be kept for days is gone after this: a day has five minutes here. See ``hasten``."""
WARM_UP = 0.2
"""Of the run, and at most ten minutes: until what is kept comes and goes at the same pace."""
WARM_UP_SECONDS = 600.0
JUDGED_FROM = 600.0
"""Seconds of a run from which on growth is judged; in a shorter one nothing has settled."""


class Bound(NamedTuple):
    """How much the last quarter may lie above the first: a share of it, and so much besides."""

    share: float
    more: float


BOUNDS = {
    "memory MiB": Bound(0.10, 8),
    "tasks": Bound(0.15, 15),
    "descriptors": Bound(0.15, 20),
    "threads": Bound(0, 2),
    "keys": Bound(0.15, 100),
    "Redis MiB": Bound(0.15, 4),
}
"""Tasks and descriptors go with the chats of the moment, so their medians are compared."""


@dataclass
class Watch:
    """Samples of all replicas and of Redis, each as it was at one moment."""

    pair: Cluster
    seconds: float
    began: float = field(default_factory=time.monotonic)
    samples: list[dict[str, Any]] = field(default_factory=list)

    async def watch(self) -> None:
        """Until it is cancelled."""
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            while True:
                replicas = [await _of_replica(http, replica) for replica in self.pair.replicas]
                kept = await asyncio.to_thread(_of_redis, self.pair.redis)
                self.samples.append(
                    {
                        "at": round(time.monotonic() - self.began, 1),
                        "load": os.getloadavg()[0],
                        "replicas": replicas,
                        "redis": kept,
                    }
                )
                await asyncio.sleep(self.seconds)

    def table(self, length: float) -> tuple[list[str], list[str]]:
        """Lines that compare the first quarter with the last, and what has grown beyond its bound.
        ``length``: seconds of the run."""
        warm = min(WARM_UP_SECONDS, WARM_UP * length)
        rest = [sample for sample in self.samples if sample["at"] >= warm]
        quarter = max(len(rest) // 4, 1)
        lines, grown = [], []
        for name, values in _series(rest).items():
            first, last = (_median(part) for part in (values[:quarter], values[-quarter:]))
            if first is None or last is None:
                continue
            bound = BOUNDS[name]
            most = first * (1 + bound.share) + bound.more
            known = [value for value in values if value is not None]
            lines.append(
                f"  {name:12} {first:8.1f} -> {last:8.1f}   (bound {most:.1f}, highest {max(known):.1f})"
            )
            if last > most and length >= JUDGED_FROM:
                grown.append(f"{name} grows: {first:.1f} in the first quarter, {last:.1f} in the last")
        loads = [sample["load"] for sample in self.samples]
        head = (
            f"flatness of the first replica and of Redis, medians after {warm:.0f} s, first quarter -> last "
            f"({len(rest)} samples; load {min(loads):.1f} to {max(loads):.1f}):"
        )
        if length < JUDGED_FROM:
            lines.append(f"  (not judged: the run is shorter than {JUDGED_FROM:.0f} s)")
        return [head, *lines], grown


def _series(samples: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """By name of the bound; None where somebody could not be asked."""

    def of(part: Any, name: str) -> float | None:
        return None if part is None else part.get(name)

    own = ("memory MiB", "tasks", "descriptors", "threads")
    series = {name: [of(sample["replicas"][0], name) for sample in samples] for name in own}
    kept = {name: [of(sample["redis"], name) for sample in samples] for name in ("keys", "Redis MiB")}
    return series | kept


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


async def _of_replica(http: httpx.AsyncClient, replica: ServiceProcess) -> dict[str, Any] | None:
    """None where it does not run; its own numbers are missing where it does not answer."""
    try:
        directory = Path(f"/proc/{replica.pid}")
        status = (directory / "status").read_text()
        found: dict[str, Any] = {
            "pid": replica.pid,
            "memory MiB": _of_status(status, "VmRSS:") / 1024,
            "threads": _of_status(status, "Threads:"),
            "descriptors": len(os.listdir(directory / "fd")),  # noqa: PTH208
        }
        tasks = json.loads((replica.directory / TASKS_FILE).read_text(encoding="utf-8"))
        found |= {"tasks": sum(tasks.values()), "names": tasks}
    except (AssertionError, OSError, ValueError):
        return None
    try:
        page = parse((await http.get(replica.base_url + "/coze/metrics")).text)
        for name in ("coze_running_chats", "coze_open_streams"):
            found[name] = page.samples.get((name, ()))
    except (httpx.HTTPError, ValueError):
        pass
    return found


def _of_status(status: str, name: str) -> float:
    [value] = [line.split()[1] for line in status.splitlines() if line.startswith(name)]
    return float(value)


def _of_redis(server: RedisServer) -> dict[str, float] | None:
    try:
        with server.client() as client:
            hasten(client)
            return {"keys": client.dbsize(), "Redis MiB": client.info("memory")["used_memory"] / 1024 / 1024}
    except redis_client.RedisError:
        return None


def hasten(client: Any) -> None:
    """What would be kept for days goes within minutes, so that a run of an hour sees it come and go. What
    belongs to a chat or a session that lives is kept for less, and not touched."""
    names = list(client.scan_iter(count=1000))
    for start in range(0, len(names), 1000):
        part = names[start : start + 1000]
        pipeline = client.pipeline(transaction=False)
        for name in part:
            pipeline.pttl(name)
        long = [
            name for name, left in zip(part, pipeline.execute(), strict=True) if left > MOST_SECONDS * 1000
        ]
        for name in long:
            pipeline.expire(name, MOST_SECONDS)
        pipeline.execute()
