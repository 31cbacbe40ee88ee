"""One run: clients through all doors, troubles beside them, and in the end nothing lost and nothing left.

Three replicas, a Redis with AOF, a Coze and an auth service of their own, all on 127.0.0.1. Clients of
several roots come by our own API, OpenAI's and Coze's; meanwhile replicas are killed, stopped and sent off,
Redis falls silent, loses its connections or restarts, and Coze has hiccups. In the end no answer may be lost,
doubled or mixed up with another, Coze must have been asked once for each chat, nothing may be left over, and
what the first replica and Redis hold must not have grown.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from coze_simulator.auth_server import RunningAuth, running_auth
from tests.faults.support import Stored, cluster
from tests.support import redis_server, wait_until

from . import coze_door, openai_doors, own
from .dashboard import NO_PROMETHEUS, Prometheus, alerts, ask_all, prometheus, summary
from .troubles import TROUBLES, Stand
from .visits import ANSWER_SECONDS, UNFINDABLE, Caller, HonestFailure, Kind, Ledger, Report, Visit, World
from .watch import TASKS_FILE, Watch

KINDS: tuple[Kind, ...] = (*own.KINDS, *openai_doors.KINDS, *coze_door.KINDS)
TELL_SECONDS = 300.0
MOST_WRONG = 20
"""With more than this a run ends early."""
MOST_UNFINDABLE = 0.002
"""Of all answers: see ``Visit.check_failure``."""
_OF_AIOHTTP = "coro=<ClientRequest.write_bytes()"
"""Its task that writes a body finds the connection closed, and nobody asks that task."""
_EVERY_DOOR = frozenset({"own", "openai", "coze"})
_KEYS = {"app": "sk-app-0123456789abcdefgh", "other": "sk-other-0123456789abcdef"}
_OPENAI_KEY = "sk-webui-0123456789abcdef"
VALUES = {
    "LEASE_SECONDS": "2",
    "COZE_IDLE_TIMEOUT": "3",
    "DRAIN_SECONDS": "0.5",
    "ENABLE_AUTH": "true",
    "AUTH_TIMEOUT": "2",
    "AUTH_CACHE_TTL": "5",
    "COZE_API_KEYS": ",".join(f"{name}:{key}" for name, key in _KEYS.items()),
    "COZE_OPENAI_API_KEYS": f"webui:{_OPENAI_KEY}",
    "COZE_MAX_SESSIONS_PER_USER": str(own.SESSIONS_PER_USER),
    "RATE_LIMIT_SESSIONS_PER_MINUTE": str(own.SESSIONS_PER_USER + 2),
    "RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE": "100000",
    # Short, so that what is kept comes and goes at the same pace after some minutes; longer than any visit.
    "COZE_SESSION_EXPIRE": "150",
    "COZE_RESULT_EXPIRE": "60",
    "COZE_USER_INACTIVE_TIMEOUT": "150",
    "COZE_FILE_DAYS": "0.002",
    "COUNTED_TASKS": TASKS_FILE,
}


def callers_of(auth: RunningAuth) -> list[Caller]:
    """Persons of two roots, an admin, two servers, and an app that only knows OpenAI's API."""

    def person(hty_id: str, host: str, *roles: str) -> Caller:
        headers = {"HtySudoerToken": auth.app.issue(hty_id, roles or None), "HtyHost": host}
        return Caller(f"{hty_id}@{host}", headers, _EVERY_DOOR)

    return [
        person("ada", "app.moicen.com"),
        person("bob", "app.moicen.com"),
        person("eve", "app.huiwings.cn"),
        person("root", "app.huiwings.cn", "ADMIN"),
        *(Caller(name, {"Authorization": f"Bearer {key}"}, _EVERY_DOOR) for name, key in _KEYS.items()),
        Caller("webui", {"Authorization": f"Bearer {_OPENAI_KEY}"}, frozenset({"openai"})),
    ]


class Chaos:
    """One run. ``rate``: visits that begin each second."""

    def __init__(self, world: World, stand: Stand, callers: list[Caller], *, seed: int, rate: float) -> None:
        self._world = world
        self._stand = stand
        self._callers = callers
        self._seed = seed
        self._rate = rate
        self._most = max(8, math.ceil(rate * 12))
        self.report = world.report

    async def run(self, seconds: float) -> None:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            clients = group.create_task(self._clients(over))
            telling = group.create_task(self._tell())
            await self._make_trouble(time.monotonic() + seconds)
            over.set()
            await clients
            telling.cancel()
        await self._check_nothing_left()

    async def _tell(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(TELL_SECONDS)
            report, minutes = self.report, (time.monotonic() - began) / 60
            report.say(
                f"{minutes:.0f} min: {report.visits.total()} visits, {report.counts['completed']} answers, "
                f"{report.faults.total()} faults, {len(report.wrong)} wrong"
            )

    # -- clients ---------------------------------------------------------------------------------------

    async def _clients(self, over: asyncio.Event) -> None:
        """Comes and goes. Where visits take long no more than a bound of them are under way."""
        room = asyncio.Semaphore(self._most)
        async with asyncio.TaskGroup() as group:
            number = 0
            while not over.is_set():
                dice = random.Random(f"{self._seed}/{number}")
                await asyncio.sleep(dice.expovariate(self._rate))
                await room.acquire()
                group.create_task(self._visit(dice)).add_done_callback(lambda _: room.release())
                number += 1
                if number % 100 == 0:
                    self._world.ledger.put_away()

    async def _visit(self, dice: random.Random) -> None:
        [kind] = dice.choices(KINDS, [kind.weight for kind in KINDS])
        caller = dice.choice([caller for caller in self._callers if kind.door in caller.doors])
        visit, report = Visit(self._world, caller, dice), self.report
        report.visits[kind.name] += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(4 * ANSWER_SECONDS):
                await kind.does(visit)
        except HonestFailure:
            report.failed[kind.name] += 1
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            report.blame(
                f"{kind.name} of {caller.name} after {time.monotonic() - began:.1f} s: "
                f"{type(error).__name__}: {error}"[:900]
            )
        report.slowest = max(report.slowest, time.monotonic() - began)

    # -- troubles --------------------------------------------------------------------------------------

    async def _make_trouble(self, until: float) -> None:
        dice = self._stand.dice
        while (left := until - time.monotonic()) > 0 and len(self.report.wrong) <= MOST_WRONG:
            await asyncio.sleep(min(left, dice.uniform(0.3, 2.0)))
            [(_, trouble)] = dice.choices(TROUBLES, [weight for weight, _ in TROUBLES])
            self.report.faults[trouble.__name__] += 1
            await trouble(self._stand)
        self._stand.pair.simulator.clear_knobs()

    # -- afterwards ------------------------------------------------------------------------------------

    async def _check_nothing_left(self) -> None:
        pair, report = self._world.pair, self.report
        try:
            await pair.settle(90)
            await wait_until(lambda: pair.simulator.state()["running"] == 0, 30)
        except AssertionError as error:
            report.blame(f"not at rest: {error}")
        counts = report.counts
        if counts[UNFINDABLE] > 1 + counts["completed"] * MOST_UNFINDABLE:
            report.blame(f"{UNFINDABLE}: {counts[UNFINDABLE]} chats")
        if left := pair.leftovers():
            report.blame(f"left over: {left[:5]}")
        if twice := self._world.ledger.asked_twice():
            report.blame(f"asked for twice: {twice[:5]}")
        log = pair.log_text()
        errors = [line for line in log.split("\n") if re.search(r'"level": ?"ERROR"', line)]
        report.counts["errors logged"] = len(errors)
        report.notes += errors[:5]
        traces = [line for line in log.split("\n") if "Traceback" in line]
        counts["aiohttp's own tracebacks"] = sum(_OF_AIOHTTP in line for line in traces)
        for line in [line for line in traces if _OF_AIOHTTP not in line][:5]:
            report.blame(f"traceback in a log: {line[:200]} ... {line[-1500:]}")


async def chaos(
    seconds: float,
    seed: int,
    *,
    rate: float = 3.0,
    record: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Runs it on a cluster of its own. ``rate``: visits each second. ``record``: where the samples and the
    answers to the dashboard's queries are written; beside it are the logs, if anything was wrong.
    ``say`` is told how it goes on."""
    scrape = 15 if seconds >= 600 else 3
    report = Report(say)
    with (
        running_auth() as auth,
        # Its file is written anew before it gets long: after an hour a restart would take half a minute.
        redis_server(aof=True, options=("--auto-aof-rewrite-min-size", "8mb")) as redis,
        cluster(
            count=3,
            redis=redis,
            module="tests.faults.chaos.counted",
            **VALUES,
            HTY_VERIFY_URL=auth.verify_url,
        ) as pair,
        prometheus(pair, scrape) as source,
    ):
        watch = Watch(pair, scrape)
        async with AsyncExitStack() as stack:
            stored = await stack.enter_async_context(Stored(pair.simulator))
            callers = [await caller.enter(stack, pair.urls) for caller in callers_of(auth)]
            world = World(pair, Ledger(pair), stored, report)
            stand = Stand(pair, auth, random.Random(seed))
            watching = asyncio.create_task(watch.watch())
            try:
                await Chaos(world, stand, callers, seed=seed, rate=rate).run(seconds)
            finally:
                watching.cancel()
        lines, grown = watch.table(seconds)
        report.notes += lines
        for each in grown:
            report.blame(each)
        answers = await _ask_dashboard(source, report)
        logs = pair.log_text()
    if record is not None:
        told: dict[str, Any] = {"seed": seed, "seconds": seconds, "report": report.text()}
        told |= {"samples": watch.samples, "dashboard": answers}
        record.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        if report.wrong:
            record.with_suffix(".log").write_text(logs, encoding="utf-8")
    return report


async def _ask_dashboard(source: Prometheus | None, report: Report) -> list[dict[str, Any]]:
    if source is None:
        report.notes.append(NO_PROMETHEUS)
        return []
    answers, wrong = await ask_all(source)
    for each in wrong:
        report.blame(each)
    report.notes.append(summary(answers))
    report.notes.append("alerts that fired: " + (", ".join(await alerts(source)) or "none"))
    return answers
