"""Random faults under load, for as long as one likes: ``python -m tests.faults.chaos --minutes 10 --seed N``.

Two replicas, a Redis with AOF and a Coze of its own, all on 127.0.0.1. Clients send messages, hang up now
and then, and come back with their last id to whichever replica; meanwhile replicas are killed, stopped and
sent off, Redis falls silent or restarts, and Coze has hiccups. In the end no answer may be lost, doubled or
mixed up with another, Coze must have been asked once for each chat, and nothing may be left over.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import Client, wait_until

from .support import AWAY, COME_BACK, Clients, Cluster, Reader, Stored, begun, cluster, nonce, open_session

_WORD = re.compile(r"n[0-9a-f]{12}")
ANSWER_SECONDS = 60.0
"""Within this every chat has to be over, whatever happens."""

SHAPES = (
    "deltas=20;gap=0.05;reasoning=0",
    "deltas=8;gap=0.02;followups=2",
    "deltas=40;gap=0.05;reasoning=0;followups=0",
    "deltas=5;reasoning=0;first_byte=1",
    "deltas=5;reasoning=0;delay=1.5",
    "deltas=20;gap=0.03;reasoning=0;cut={cut}",
    "multi=2;deltas=10;gap=0.02;reasoning=0",
    "deltas=400;gap=0.002;reasoning=0",
    "deltas=10;gap=0.02;reasoning=0;no_terminal=1",
    "deltas=10;gap=0.02;reasoning=0;status_lag=1;cut={cut}",
)
HICCUPS: tuple[dict[str, Any], ...] = (
    {"path": "/v3/chat/retrieve", "http": 502, "times": 8},
    {"path": "/v3/chat/message/list", "fail": 720700801, "times": 4},
    {"path": "/v1/conversation/message/list", "http": 503, "times": 4},
    {"path": "/v3/chat", "http": 503, "times": 2},
    {"path": "/v3/chat", "fail": 4013, "times": 2},
    {"path": "/v3/chat", "first_byte": 1.0, "times": 3},
    {"path": "/v3/chat/*", "drop": True, "times": 5},
)


@dataclass
class Report:
    """What happened. ``wrong`` must be empty."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def text(self) -> str:
        lines = [
            "chats: " + ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())),
            "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())),
            f"slowest answer: {self.slowest:.1f} s",
            f"wrong: {len(self.wrong)}",
        ]
        return "\n".join([*lines, *self.wrong[:20], *self.notes])


class Chaos:
    """One run. ``workers`` clients at once bound the load."""

    def __init__(self, pair: Cluster, clients: list[Client], *, seed: int, workers: int) -> None:
        self._pair = pair
        self._clients = clients
        self._dice = random.Random(seed)
        self._workers = workers
        self._over = asyncio.Event()
        self._stored = Stored(pair.simulator)
        self.report = Report()

    async def run(self, seconds: float) -> Report:
        async with self._stored, asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._work(number, random.Random(self._dice.random())))
                for number in range(self._workers)
            ]
            await self._make_trouble(time.monotonic() + seconds)
            self._over.set()
            await asyncio.wait(workers)
            await self._check_nothing_left()
        return self.report

    # -- clients ---------------------------------------------------------------------------------------

    async def _work(self, number: int, dice: random.Random) -> None:
        session_id, messages = "", 0
        while not self._over.is_set():
            if not messages:
                session_id, messages = await self._open(), dice.randint(1, 6)
            messages -= 1
            try:
                async with asyncio.timeout(ANSWER_SECONDS + 30):
                    await self._one(session_id, dice)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
                self.report.wrong.append(f"client {number}: {type(error).__name__}: {error}"[:600])
                messages = 0

    async def _open(self) -> str:
        while True:
            for client in self._clients:
                try:
                    return await open_session(client)
                except (*AWAY, AssertionError):
                    await asyncio.sleep(0.1)

    async def _one(self, session_id: str, dice: random.Random) -> None:
        word, key = nonce(), nonce()
        shape = dice.choice(SHAPES).format(cut=dice.randint(0, 6000))
        reader = HangingUp(self._clients, first=dice.randrange(len(self._clients)), dice=dice)
        began = time.monotonic()
        await self._send(reader, session_id, f"{word} [[sim:{shape}]]", key)
        chat = await reader.follow(ANSWER_SECONDS)
        self.report.slowest = max(self.report.slowest, time.monotonic() - began)
        self.report.counts["asked"] += 1
        self.report.counts["connections"] += reader.connections
        self.report.counts["recovered"] += chat["recovered"]
        await self._check(chat, reader, word)

    async def _send(self, reader: Reader, session_id: str, message: str, key: str) -> None:
        """Until the chat has an id. With the key a repetition is the same chat."""
        while reader.chat_id is None:
            client = self._clients[reader.place]
            headers = {"Idempotency-Key": key}
            body = {"message": message, "stream": True, "on_busy": "enqueue"}
            path = f"/coze/sessions/{session_id}/messages"
            try:
                async with client.http.stream("POST", path, json=body, headers=headers) as response:
                    if response.status_code == 200:
                        reader.chat_id = response.headers["x-coze-chat-id"]
                    else:
                        text = (await response.aread()).decode()
                        assert response.status_code in COME_BACK - {404}, text
            except AWAY:
                pass
            if reader.chat_id is None:
                reader.place = 1 - reader.place
                await asyncio.sleep(0.2)

    async def _check(self, chat: dict[str, Any], reader: Reader, word: str) -> None:
        wrong = self.report.wrong
        asked = begun(self._pair.simulator, word)
        self.report.counts[chat["status"]] += 1
        self.report.counts["POSTs"] += len(asked)
        if len(asked) > 1:
            wrong.append(f"{chat['chat_id']}: {len(asked)} POSTs")
        if chat["status"] == "completed":
            answer = await self._ask(lambda: self._stored.answer(chat))
            if chat["content"] != answer:
                wrong.append(f"{chat['chat_id']}: not Coze's answer")
            if set(_WORD.findall(chat["content"])) != {word}:
                wrong.append(f"{chat['chat_id']}: mixed with another")
        elif chat["status"] != "failed" or not chat["error"]["retryable"]:
            wrong.append(f"{chat['chat_id']}: {chat['status']} {chat['error']}")
        elif asked and await self._ask(lambda: self._stored.status({"metadata": asked[0]})) != "canceled":
            # An honest "not begun" is no loss: either Coze never heard of it, or it was cancelled there.
            wrong.append(f"{chat['chat_id']}: lost, {chat['error']['message']}")
        else:
            self.report.counts["failed before Coze began"] += 1

    async def _ask(self, question: Any) -> str:
        """Coze's own word; its hiccups are for the service, not for the checks."""
        while True:
            try:
                answer: str = await question()
            except (*AWAY, AssertionError, KeyError, ValueError):
                await asyncio.sleep(0.2)
            else:
                return answer

    # -- faults ----------------------------------------------------------------------------------------

    async def _make_trouble(self, until: float) -> None:
        troubles = [self._kill, self._kill, self._stop, self._send_off, self._silence, self._restart_redis]
        troubles += [self._hiccup, self._hiccup]
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._dice.uniform(0.3, 2.0)))
            trouble = self._dice.choice(troubles)
            self.report.faults[trouble.__name__.strip("_")] += 1
            await trouble()
            if len(self.report.wrong) > 20:
                break
        self._pair.simulator.clear_knobs()

    async def _kill(self) -> None:
        victim = self._dice.choice(self._pair.replicas)
        victim.kill()
        await asyncio.sleep(self._dice.uniform(0, 1.5))
        await asyncio.to_thread(victim.start)

    async def _stop(self) -> None:
        victim = self._dice.choice(self._pair.replicas)
        victim.pause()
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        victim.resume()

    async def _send_off(self) -> None:
        victim = self._dice.choice(self._pair.replicas)
        await asyncio.to_thread(victim.stop, 20)
        await asyncio.to_thread(victim.start)

    async def _silence(self) -> None:
        self._pair.redis.pause()
        await asyncio.sleep(self._dice.uniform(0.2, 3))
        self._pair.redis.resume()

    async def _restart_redis(self) -> None:
        await asyncio.to_thread(self._pair.redis.kill)
        await asyncio.sleep(self._dice.uniform(0, 1))
        await asyncio.to_thread(self._pair.redis.start)

    async def _hiccup(self) -> None:
        self._pair.simulator.knob(**self._dice.choice(HICCUPS))
        await asyncio.sleep(self._dice.uniform(0.2, 1.5))
        self._pair.simulator.clear_knobs()

    # -- afterwards ------------------------------------------------------------------------------------

    async def _check_nothing_left(self) -> None:
        pair, wrong = self._pair, self.report.wrong
        try:
            await pair.settle(30)
            await wait_until(lambda: pair.simulator.state()["running"] == 0, 30)
        except AssertionError as error:
            wrong.append(f"not at rest: {error}")
        if left := pair.leftovers():
            wrong.append(f"left over: {left[:5]}")
        if forever := pair.redis.keys_without_ttl():
            wrong.append(f"without a time to live: {forever[:5]}")
        log = pair.log_text()
        errors = [line for line in log.splitlines() if re.search(r'"level": ?"ERROR"', line)]
        self.report.counts["errors logged"] = len(errors)
        self.report.notes += errors[:5]
        if "Traceback" in log:
            wrong.append("traceback in a log: " + log[log.index("Traceback") - 300 :][:1500])
        for client in self._clients:
            health = (await client.get("/coze/health")).json()
            if health["data"]["running_chats"]:
                wrong.append("a task is left")


class HangingUp(Reader):
    """A client in a tunnel: many of its connections end after a few frames."""

    def __init__(self, clients: Sequence[Client], *, first: int, dice: random.Random) -> None:
        super().__init__(clients, first=first)
        self._dice = dice

    async def _read(self, reader: Any, frames: int | None) -> bool:
        if frames is None and self._dice.random() < 0.4:
            frames = self._dice.randint(1, 30)
        return await super()._read(reader, frames)


async def chaos(seconds: float, seed: int, *, workers: int = 16) -> Report:
    """Runs it on a cluster of its own."""
    values = {"COZE_IDLE_TIMEOUT": "3", "DRAIN_SECONDS": "0.5"}
    with cluster(**values) as pair:
        async with Clients(pair.urls) as clients:
            return await Chaos(pair, clients, seed=seed, workers=workers).run(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same choices")
    parser.add_argument("--workers", type=int, default=16, help="clients at once (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    print(f"chaos for {chosen.minutes:g} minutes with seed {seed}", flush=True)
    report = asyncio.run(chaos(chosen.minutes * 60, seed, workers=chosen.workers))
    print(report.text())
    print(f"seed {seed}: " + ("WRONG" if report.wrong else "nothing lost, doubled or mixed"))
    return 1 if report.wrong or not report.counts["completed"] else 0


if __name__ == "__main__":
    sys.exit(main())
