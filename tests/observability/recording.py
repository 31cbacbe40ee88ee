"""What a real service tells while something is broken, as series for promtool.

A scrape every two seconds stands for one every fifteen: an hour takes eight minutes, and a lease of 15 s (the
default) is one of two.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from coze_simulator.auth_server import RunningAuth, running_auth
from tests.faults.support import Clients, Cluster, cluster
from tests.support import Client, ServiceProcess, data_of

from .queries import rules, selections
from .support import Labels, parse

JOB = "coze-fastapi"
SECONDS_OF_A_SCRAPE = 2.05
"""A page of metrics may be two seconds old: asked for sooner, it would be the same one."""
_SCRAPE_TIMEOUT = 1.9
HEALTHY = 8
"""Scrapes before something breaks."""
WORKERS = 5

Key = tuple[str, Labels]
Samples = dict[Key, list[float | None]]


@dataclass
class Stand:
    """What a fault may break. ``quiet``: the traffic has stopped."""

    pair: Cluster
    clients: list[Client]
    auth: RunningAuth | None
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def first(self) -> ServiceProcess:
        return self.pair.replicas[0]

    def headers(self) -> dict[str, str]:
        """With a token that nobody has seen before."""
        if self.auth is None:
            return {}
        return {"HtySudoerToken": self.auth.app.issue("u-1"), "HtyHost": "app.moicen.com"}

    async def session(self, user: str, where: int = 0) -> str:
        response = await self.clients[where].post(
            "/coze/sessions", json={"user_id": user}, headers=self.headers()
        )
        session_id: str = data_of(response)["session_id"]
        return session_id


class Fault(Protocol):
    """Breaks something, and returns when it has; what goes on by itself it leaves to a task."""

    def __call__(self, stand: Stand, group: asyncio.TaskGroup) -> Awaitable[None]: ...


@dataclass(frozen=True)
class Story:
    """What is broken, and which alerts have to fire at the end, by name with their labels besides severity.

    ``scrapes``: after the fault. ``values``: settings of the replicas. ``sentinels``: Redis is a master with
    replicas, watched by Sentinels.
    """

    name: str
    fault: Fault
    fires: Mapping[str, Sequence[Mapping[str, str]]]
    scrapes: int = 26
    replicas: int = 1
    values: Mapping[str, str] = field(default_factory=dict)
    auth: bool = False
    sentinels: bool = False


# -- traffic -------------------------------------------------------------------------------------------------


async def _talk(stand: Stand, number: int) -> None:
    """One user who sends a message, waits for the answer, and sends the next; a new session where the old
    one does not work."""
    session_id = ""
    for turn in itertools.count(number):
        while stand.quiet.is_set():
            await asyncio.sleep(0.1)
        where = turn % len(stand.clients)
        with contextlib.suppress(httpx.HTTPError, AssertionError, KeyError, TypeError, ValueError):
            session_id = session_id or await stand.session(f"u-{number}", where)
            response = await stand.clients[where].send(
                session_id, "hello [[sim:deltas=4;gap=0.02]]", headers=stand.headers()
            )
            if response.status_code in (404, 410):
                session_id = ""
        await asyncio.sleep(0.7)


# -- scraping ------------------------------------------------------------------------------------------------


def wanted_metrics() -> set[str]:
    """Those that any alert looks at."""
    return {found.metric for rule in rules() for found in selections(rule["expr"])}


class Recording:
    """The series of all replicas, one value for each scrape; None: there was none."""

    def __init__(self, instances: Sequence[str]) -> None:
        self.instances = instances
        self.samples: Samples = {}
        self.length = 0
        self._wanted = wanted_metrics()

    def add(self, pages: Sequence[str | None]) -> None:
        """A scrape of each replica; None where it did not answer, as Prometheus notes it in ``up``."""
        for instance, page in zip(self.instances, pages, strict=True):
            target = (("instance", instance), ("job", JOB))
            found: dict[Key, float] = {("up", target): 1.0 if page is not None else 0.0}
            for (name, labels), value in parse(page or "").samples.items():
                if name in self._wanted:
                    found[name, tuple(sorted((*labels, *target)))] = value
            for key, value in found.items():
                values = self.samples.setdefault(key, [])
                values += [None] * (self.length - len(values))
                values.append(value)
        self.length += 1

    def series(self) -> list[tuple[str, str]]:
        """As promtool wants them. Counters that never moved are left out where another one of the same metric
        and replica is there: a sum is the same without them, but not without any."""
        moved = {key for key, values in self.samples.items() if len({*values} - {None}) > 1}
        there = {_family(key) for key in moved}
        told = []
        for key, values in sorted(self.samples.items()):
            if key in moved or not _is_counter(key[0]) or _family(key) not in there:
                there.add(_family(key))
                told.append((_series_name(key), notation([*values, *[None] * (self.length - len(values))])))
        return told


def _family(key: Key) -> tuple[str, str]:
    """Metric and replica."""
    return key[0], dict(key[1])["instance"]


def _is_counter(metric: str) -> bool:
    return metric.endswith(("_total", "_bucket", "_sum", "_count"))


def _series_name(key: Key) -> str:
    name, labels = key
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}"


def notation(values: Sequence[float | None]) -> str:
    """Runs of equal steps are shortened. A series that ends is marked as Prometheus marks it: ``stale``."""
    words: list[str] = []
    at = 0
    while at < len(values):
        value = values[at]
        if value is None:
            run = len(list(itertools.takewhile(lambda v: v is None, values[at:])))
            if at:
                words.append("stale")
            missing = run - bool(at)
            words += [f"_x{missing}"] if missing > 1 else ["_"] * missing
        else:
            run = len(list(itertools.takewhile(lambda v, same=value: v == same, values[at:]))) or 1  # NaN
            words.append(f"{_number(value)}+0x{run - 1}" if run > 1 else _number(value))
        at += run
    return " ".join(words)


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.12g}"


async def _page(http: httpx.AsyncClient, replica: ServiceProcess) -> str | None:
    try:
        answer = await http.get(replica.base_url + "/coze/metrics")
    except httpx.HTTPError:
        return None
    return answer.text if answer.status_code == 200 else None


async def _scrape(stand: Stand, recording: Recording, times: int, pause: float) -> None:
    async with httpx.AsyncClient(timeout=_SCRAPE_TIMEOUT, trust_env=False) as http:
        due = time.monotonic()
        for _ in range(times):
            recording.add(await asyncio.gather(*(_page(http, each) for each in stand.pair.replicas)))
            due = max(due + pause, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


# -- a story from its start to its end -----------------------------------------------------------------------


@contextlib.contextmanager
def _stand(story: Story) -> Iterator[tuple[Cluster, RunningAuth | None]]:
    with ExitStack() as stack:
        values = {"LEASE_SECONDS": "2", "COZE_MAX_RETRIES": "1", **story.values}
        auth = stack.enter_context(running_auth()) if story.auth else None
        if auth is not None:
            values |= {"ENABLE_AUTH": "true", "HTY_VERIFY_URL": auth.verify_url}
        redis = None
        if story.sentinels:
            from tests.ha.groups import Sentinels, running_group

            redis = stack.enter_context(running_group(Sentinels))
        yield stack.enter_context(cluster(count=story.replicas, aof=False, redis=redis, **values)), auth


async def record(story: Story, *, pause: float = SECONDS_OF_A_SCRAPE) -> Recording:
    """Lets it happen. ``pause``: seconds from one scrape to the next."""
    stack = ExitStack()
    try:
        pair, auth = await asyncio.to_thread(stack.enter_context, _stand(story))
        recording = Recording([f"replica-{n + 1}:6000" for n in range(story.replicas)])
        async with Clients(pair.urls) as clients, asyncio.TaskGroup() as group:
            stand = Stand(pair, clients, auth)
            running = [group.create_task(_talk(stand, number)) for number in range(WORKERS)]
            await _scrape(stand, recording, HEALTHY, pause)
            breaking = group.create_task(_break(story.fault, stand))
            await _scrape(stand, recording, story.scrapes, pause)
            for task in (*running, breaking):
                task.cancel()
        return recording
    finally:
        await asyncio.to_thread(stack.close)


async def _break(fault: Fault, stand: Stand) -> None:
    async with asyncio.TaskGroup() as group:
        await fault(stand, group)
