"""What one client does with the service, whatever the door: how it asks, and how its answer is judged."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from openai import AsyncOpenAI

from tests.faults.support import AWAY, Clients, Cluster, Stored, begun, nonce
from tests.support import Client, data_of

ANSWER_SECONDS = 60.0
"""Within this every chat has to be over, whatever happens."""
USERS = 40
"""Of each caller: users come back, as they do."""
UNFINDABLE = "begun, and cannot be looked for"
_IN_TROUBLE = frozenset({500, 502, 503, 504})
_WORD = re.compile(r"n[0-9a-f]{12}")

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
    "deltas=10;gap=0.02;reasoning=0;stall=4:5",
)


@dataclass
class Report:
    """What happened. ``wrong`` must be empty. ``visits`` and ``failed``: by kind, all of them, and those that
    ended without an answer because the service said so honestly. ``say``: what is told while it goes on."""

    say: Callable[[str], None] = field(default=lambda _: None)
    counts: Counter[str] = field(default_factory=Counter)
    visits: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def blame(self, what: str) -> None:
        """Notes a finding, and tells it at once: a run can take hours."""
        self.wrong.append(what)
        self.say(f"wrong: {what}")

    def text(self) -> str:
        kinds = [
            f"{kind} {count}" + (f" ({self.failed[kind]} failed)" if self.failed[kind] else "")
            for kind, count in sorted(self.visits.items())
        ]
        lines = [
            "visits: " + ", ".join(kinds),
            "chats: " + ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())),
            "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())),
            f"slowest answer: {self.slowest:.1f} s",
            f"wrong: {len(self.wrong)}",
        ]
        return "\n".join([*lines, *self.wrong[:20], *self.notes])


class Ledger:
    """Which messages Coze has begun chats for. Its own list is kept short: looking through it costs."""

    def __init__(self, pair: Cluster) -> None:
        self._simulator = pair.simulator
        self._older: Counter[str] = Counter()

    def asked(self, word: str) -> list[dict[str, str]]:
        """Coze's ids of the chats that were begun with this word in the message."""
        return begun(self._simulator, word)

    def put_away(self, seconds: float = 2 * ANSWER_SECONDS) -> None:
        """Counts what is older than that, and forgets the rest of it."""
        records, until = self._simulator.running.app.core.recorder._records, time.time() - seconds
        while records and records[0].time < until:
            record = records.popleft()
            if record.path == "/v3/chat" and record.chat_id:
                self._older.update(set(_WORD.findall(record.message)))

    def asked_twice(self) -> list[str]:
        self.put_away(0)
        return [word for word, count in self._older.items() if count > 1]


@dataclass
class Caller:
    """Somebody who owns what he makes. ``doors``: those that his token opens. Of the clients each replica has
    one."""

    name: str
    headers: dict[str, str]
    doors: frozenset[str]
    clients: list[Client] = field(default_factory=list)
    openai: list[AsyncOpenAI] = field(default_factory=list)

    async def enter(self, stack: AsyncExitStack, urls: Sequence[str]) -> Self:
        self.clients = await stack.enter_async_context(Clients(urls, headers=self.headers))
        key = self.headers.get("Authorization", "x").removeprefix("Bearer ")
        for url, client in zip(urls, self.clients, strict=True):
            base = f"{url}/coze/openai/v1"
            extra = {name: value for name, value in self.headers.items() if name != "Authorization"}
            self.openai.append(
                AsyncOpenAI(
                    base_url=base, api_key=key, max_retries=0, default_headers=extra, http_client=client.http
                )
            )
        return self


@dataclass
class World:
    """What all visits share."""

    pair: Cluster
    ledger: Ledger
    stored: Stored
    report: Report


class HonestFailure(Exception):
    """The chat has ended without an answer, and says so."""


@dataclass
class Visit:
    """One client who comes, does something, and goes. ``place``: the replica that he asks next."""

    world: World
    caller: Caller
    dice: random.Random
    place: int = 0
    user_id: str = ""

    def __post_init__(self) -> None:
        self.place = self.dice.randrange(len(self.caller.clients))
        self.user_id = f"u-{self.dice.randrange(USERS)}"

    @property
    def client(self) -> Client:
        return self.caller.clients[self.place]

    @property
    def ai(self) -> AsyncOpenAI:
        return self.caller.openai[self.place]

    async def elsewhere(self) -> None:
        """The next time another replica is asked."""
        self.place = (self.place + 1) % len(self.caller.clients)
        await asyncio.sleep(0.2)

    def message(self, knobs: str | None = None) -> tuple[str, str]:
        """A word that no other message has, and a message with it."""
        word = nonce()
        if knobs is None:
            knobs = self.dice.choice(SHAPES).format(cut=self.dice.randint(0, 6000))
        return word, f"{word} [[sim:{knobs}]]"

    # -- asking ----------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer of whichever replica has one; one in trouble is asked again, or another is.

        An answer about a chat that has failed is one, whatever its status.
        """
        while True:
            try:
                response = await self.client.http.request(method, path, **options)
            except AWAY:
                pass
            else:
                if response.status_code not in _IN_TROUBLE or _is_final(response):
                    return response
            await self.elsewhere()

    async def data(self, method: str, path: str, **options: Any) -> Any:
        """What a success of our own API holds."""
        response = await self.call(method, path, **options)
        assert response.status_code in (200, 202), f"{method} {path}: {response.status_code} {response.text}"
        return data_of(response)

    async def repeat(self, ask: Callable[[], Awaitable[Any]], again: Callable[[Exception], bool]) -> Any:
        """What ``ask`` returns, however often that takes; ``again`` says which failures are worth it."""
        while True:
            try:
                return await ask()
            except Exception as error:
                if not again(error):
                    raise
            await self.elsewhere()

    # -- judging ---------------------------------------------------------------------------------------

    async def check_text(self, word: str, text: str) -> None:
        """The answer is what Coze has stored, nobody else's, and was asked for once."""
        asked = self._asked_once(word)
        assert asked, f"{word}: an answer, and Coze was not asked: {text[:200]!r}"
        ids = asked[0]
        stored = await of_coze(lambda: self.world.stored.answer({"metadata": ids}))
        assert text == stored, f"{word}: not Coze's answer but {text[:200]!r}, of {stored[:200]!r}"
        assert set(_WORD.findall(text)) <= {word}, f"{word}: mixed with another"
        self.world.report.counts["completed"] += 1

    async def check_failure(self, word: str, told: object, *, final: bool = False) -> None:
        """A chat that has failed was not begun by Coze, or was cancelled there. Raises HonestFailure.

        ``final``: the client was told not to ask again. That is how a chat ends that nobody can look for:
        Coze made no conversation for it, and its stream was cut before its first event. Such are counted, and
        a run may have few.
        """
        name = "failed before Coze began"
        for ids in self._asked_once(word):
            status = await of_coze(lambda ids=ids: self.world.stored.status({"metadata": ids}))  # type: ignore[misc]
            if status != "canceled":
                assert final, f"{word}: lost ({status} at Coze), and to be asked again: {told}"
                name = UNFINDABLE
        self.world.report.counts[name] += 1
        raise HonestFailure(str(told))

    async def check_chat(self, chat: dict[str, Any], word: str) -> None:
        """A chat of our own API that is over."""
        self.world.report.counts["recovered"] += chat["recovered"]
        if chat["status"] == "completed":
            await self.check_text(word, chat["content"])
            return
        assert chat["status"] == "failed", f"{chat['chat_id']}: {chat['status']} {chat['error']}"
        await self.check_failure(word, chat["error"], final=not chat["error"]["retryable"])

    def _asked_once(self, word: str) -> list[dict[str, str]]:
        asked = self.world.ledger.asked(word)
        assert len(asked) <= 1, f"{word}: {len(asked)} POSTs"
        return asked


def _is_final(response: httpx.Response) -> bool:
    """Whether this failure is a chat's, not the service's."""
    try:
        return "chat_id" in response.json()["error"]["details"]
    except (KeyError, TypeError, ValueError):
        return False


async def of_coze(question: Callable[[], Awaitable[str]]) -> str:
    """Coze's own word; its hiccups are for the service, not for the checks."""
    while True:
        try:
            return await question()
        except (*AWAY, AssertionError, KeyError, ValueError):
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Kind:
    """What a client does. ``weight``: how often, against the others. ``door``: the one it goes through."""

    name: str
    weight: int
    door: str
    does: Callable[[Visit], Awaitable[None]]
