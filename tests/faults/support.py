"""Replicas that may be killed, and clients that come back with their last id."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from coze_simulator import SIMULATOR_TOKEN, SimulatorOptions, running_simulator
from tests.support import (
    Client,
    Event,
    RedisServer,
    ServiceProcess,
    SimControl,
    data_of,
    open_client,
    outputs_for,
    redis_server,
    service_process,
    wait_until,
)
from tests.support.service import ROOT

from .folding import Checked

LEASE_SECONDS = 1.0
VALUES: dict[str, str] = {
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "COZE_IDLE_TIMEOUT": "1.5",
    "COZE_FIRST_BYTE_TIMEOUT": "8",
    "COZE_CHAT_TIMEOUT": "60",
    "DRAIN_SECONDS": "0.3",
    "MAX_QUEUED_PER_SESSION": "50",
    "MAX_CHAT_LOG_BYTES": "65536",
    "COZE_MAX_SESSIONS_PER_USER": "1000",
    "COZE_MAX_ACTIVE_USERS": "100000",
    "COZE_MAX_TOTAL_SESSIONS": "100000",
    "REDIS_TIMEOUT": "1",
    "COZE_POLL_INTERVAL": "0.2",
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
    "RATE_LIMIT_SESSIONS_PER_MINUTE": "0",
}
"""Of every replica here unless a test says otherwise."""

AWAY = (httpx.TransportError, httpx.StreamError)
"""What a client sees of a replica that is dead, stopped or leaving."""

COME_BACK = frozenset({404, 500, 502, 503, 504})
"""A proxy or a service in trouble: a client tries again. 404 only while a chat's replica writes again what
Redis has lost."""


def nonce() -> str:
    """A word that no other message holds."""
    return f"n{secrets.token_hex(6)}"


@dataclass
class Cluster:
    """Replicas on one Redis, in front of one Coze."""

    redis: RedisServer
    simulator: SimControl
    replicas: list[ServiceProcess]

    @property
    def urls(self) -> list[str]:
        return [replica.base_url for replica in self.replicas]

    def log_text(self) -> str:
        return "".join(replica.log for replica in self.replicas)

    def repair(self) -> None:
        """Everything runs again, whatever a test has done; Redis is empty and Coze is well."""
        if not self.redis.running:
            self.redis.start()
        self.redis.resume()
        start_all([replica for replica in self.replicas if not replica.running])
        for replica in self.replicas:
            replica.resume()
        self.simulator.reset()

    def leases(self) -> list[tuple[str, float]]:
        """Every lease in Redis with its expiry, but for those of chats that wait for tool outputs: these have
        one for as long as their session lives."""
        with self.redis.client() as client:
            sets = list(client.scan_iter("*waiting", count=1000))
            waiting = {member for key in sets for member in client.zrange(key, 0, -1)}
            return [
                (member.decode(), score)
                for key in client.scan_iter("*leases", count=1000)
                for member, score in client.zrange(key, 0, -1, withscores=True)
                if member.rpartition(b":")[0] not in waiting
            ]

    def leftovers(self) -> list[str]:
        """Leases and runs: there must be none once every chat is over."""
        runs = keys(self.redis, "*:run:*")
        return [member for member, _ in self.leases()] + runs

    async def settle(self, timeout: float = 20.0) -> None:
        """Until no chat runs on any replica, no lease is left and no task of a chat is; TTLs everywhere."""
        for replica in self.replicas:
            if replica.running:
                async with open_client(replica.base_url) as client:
                    await wait_until(lambda c=client: _idle(c), timeout)
        await wait_until(lambda: not self.leases(), timeout)
        assert self.redis.keys_without_ttl() == []


def keys(redis: RedisServer, pattern: str) -> list[str]:
    with redis.client() as client:
        return sorted(key.decode() for key in client.scan_iter(pattern, count=1000))


async def _idle(client: Client) -> bool:
    try:
        return await client.running_chats() == 0
    except (*AWAY, KeyError, TypeError, ValueError):
        return False


def start_all(processes: Sequence[ServiceProcess]) -> None:
    """At once: each takes a second or two."""
    if processes:
        with ThreadPoolExecutor(len(processes)) as pool:
            list(pool.map(ServiceProcess.start, processes))


@contextmanager
def cluster(
    *,
    count: int = 2,
    aof: bool = True,
    simulator: SimControl | None = None,
    redis: RedisServer | None = None,
    codes: Sequence[Path] = (),
    module: str = "app",
    **values: str,
) -> Iterator[Cluster]:
    """``count`` replicas as processes; nothing is left of them afterwards. ``codes``: instead of that, one
    replica for each of these directories, whose ``app`` it runs. ``module``: what they run instead of it."""
    with ExitStack() as stack:
        if redis is None:
            redis = stack.enter_context(redis_server(aof=aof))
        if simulator is None:
            running = stack.enter_context(running_simulator(SimulatorOptions(speed=math.inf)))
            simulator = SimControl(running)
            stack.callback(simulator.close)
        # A thousand polled chats are more requests than it keeps by itself.
        simulator.running.app.core.recorder._records = deque(maxlen=500_000)
        chosen = {**VALUES, "REDIS_URL": redis.url, "COZE_API_URL": simulator.chat_url, **values}
        replicas = [
            stack.enter_context(service_process(chosen, start=False, code=code, module=module))
            for code in codes or [ROOT] * count
        ]
        start_all(replicas)
        yield Cluster(redis, simulator, replicas)


@asynccontextmanager
async def unharmed(running: Cluster) -> AsyncIterator[None]:
    """For one test: all runs before, and again after. Then no chat, no lease and no key without TTL is left,
    and no replica has logged an error."""
    running.repair()
    before = [len(replica.log) for replica in running.replicas]
    yield
    running.repair()
    await running.settle()
    for replica, start in zip(running.replicas, before, strict=True):
        written = replica.log[start:]
        assert "Traceback" not in written, written[-3000:]
        assert '"level": "ERROR"' not in written, written[-3000:]


class Reader:
    """A client that wants one chat's answer and comes back, to any replica, until it has it."""

    def __init__(self, clients: Sequence[Client], *, first: int = 0) -> None:
        self.clients = list(clients)
        self.place = first
        self.chat_id: str | None = None
        self.checked = Checked()
        self.connections = 0
        self.reconnects = 0
        self.errors: list[dict[str, Any]] = []
        self.started = asyncio.Event()
        self.progress = asyncio.Event()

    async def send(
        self,
        session_id: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        frames: int | None = None,
        **body: Any,
    ) -> bool:
        """Sends the message and reads until the stream ends, or ``frames`` frames are here. Whether it is
        done. Raises what the connection raises; a refusal is an AssertionError."""
        client = self.clients[self.place]
        async with client.stream(session_id, message, headers=headers, **body) as reader:
            self.chat_id = reader.chat_id
            self.started.set()
            return await self._read(reader, frames)

    async def resume(self, where: int, *, frames: int | None = None) -> bool:
        """One connection to replica ``where`` from the last id on."""
        assert self.chat_id is not None
        self.place = where
        async with self.clients[where].events(self.chat_id, self.checked.last_id) as reader:
            return await self._read(reader, frames)

    async def _read(self, reader: Any, frames: int | None) -> bool:
        self.connections += 1
        enough = None if frames is None else len(self.checked.frames) + frames
        if enough == len(self.checked.frames):
            return False
        async for event in reader:
            self._note(event)
            self.checked.take(event)
            self.progress.set()
            if self.checked.done:
                return True
            if enough is not None and len(self.checked.frames) >= enough:
                return False
        return False

    def _note(self, event: Event) -> None:
        if event.event == "reconnect":
            self.reconnects += 1
        elif event.event == "error" and event.id is None:
            self.errors.append(event.json())

    async def follow(self, timeout: float = 30.0, *, pause: float = 0.05) -> dict[str, Any]:
        """Comes back, each time to the next replica, until the whole answer is here. Returns the chat."""
        assert self.chat_id is not None
        async with asyncio.timeout(timeout):
            while not self.checked.done:
                self.place = (self.place + 1) % len(self.clients)
                await self._once(pause)
        return self.checked.check_whole()

    async def _once(self, pause: float) -> None:
        assert self.chat_id is not None
        headers = {} if self.checked.last_id is None else {"Last-Event-ID": self.checked.last_id}
        path = f"/coze/chats/{self.chat_id}/events"
        try:
            async with self.clients[self.place].http.stream("GET", path, headers=headers) as response:
                if response.status_code == 200:
                    await self._read(_events_of(response), None)
                else:
                    assert response.status_code in COME_BACK, await response.aread()
        except AWAY:
            pass
        if not self.checked.done:
            await asyncio.sleep(pause)

    async def whole(self, session_id: str, message: str, *, timeout: float = 30.0, **body: Any) -> Any:
        """Sends and follows; whatever happens to the first connection after the chat has an id."""
        try:
            await self.send(session_id, message, **body)
        except AWAY:
            if self.chat_id is None:
                raise
        return await self.follow(timeout)


def _events_of(response: httpx.Response) -> Any:
    from tests.support import EventReader

    return EventReader(response)


@dataclass
class Clients:
    """One client for each replica, opened together."""

    urls: Sequence[str]
    timeout: float = 30.0
    headers: dict[str, str] | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> list[Client]:
        return [
            await self._stack.enter_async_context(
                open_client(url, timeout=self.timeout, headers=self.headers)
            )
            for url in self.urls
        ]

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()


_users = itertools.count()


async def open_session(client: Client, **body: Any) -> str:
    """A session of a user of its own, whose conversation exists at Coze."""
    session_id = await client.open_session(f"u-{os.getpid()}-{next(_users)}", **body)
    if body.get("auto_save_history", True):

        async def conversation() -> bool:
            return (await client.session(session_id, history_limit=0))["conversation_id"] is not None

        await wait_until(conversation)
    return session_id


def posts(simulator: SimControl, word: str) -> int:
    """How many chats Coze has begun with this word in the message."""
    return len(begun(simulator, word))


def begun(simulator: SimControl, word: str) -> list[dict[str, str]]:
    """Coze's ids of these chats. Read in place: its log can be long."""
    records = list(simulator.running.app.core.recorder._records)
    return [
        {"conversation_id": record.conversation_id, "coze_chat_id": record.chat_id}
        for record in records
        if record.path == "/v3/chat" and record.chat_id and word in record.message
    ]


def submissions(simulator: SimControl, chat: dict[str, Any], *, accepted: bool = False) -> int:
    """How often Coze was sent tool outputs for this chat, or has taken them."""
    coze_id = chat["metadata"]["coze_chat_id"]
    found = simulator.requests(path="/v3/chat/submit_tool_outputs", chat_id=coze_id)
    return sum(not accepted or (record["status"], record["code"]) == (200, 0) for record in found)


async def waiting_chat(
    clients: Sequence[Client],
    word: str,
    knobs: str = "",
    calls: int = 1,
    where: int = 0,
    session_id: str | None = None,
) -> dict[str, Any]:
    """A chat on replica ``where`` that asks for tool outputs; in a session of its own unless one is given."""
    session_id = session_id or await open_session(clients[where])
    message = f"{word} [[sim:requires_action=function;tool_calls={calls};{knobs}]]"
    chat: dict[str, Any] = data_of(await clients[where].send(session_id, message))
    assert chat["status"] == "requires_action"
    return chat


async def outputs_streamed(client: Client, chat: dict[str, Any], output: str) -> list[Event]:
    """Answers the tool calls; the frames of the chat's next epoch."""
    path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
    async with client.streaming("POST", path, json=outputs_for(chat, output, stream=True)) as events:
        return [event async for event in events if event.event not in ("result", "done")]


class Stored:
    """What Coze itself has of a chat."""

    def __init__(self, simulator: SimControl) -> None:
        self._http = httpx.AsyncClient(
            base_url=simulator.running.base_url,
            headers={"authorization": f"Bearer {SIMULATOR_TOKEN}"},
            timeout=20,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def answer(self, chat: dict[str, Any]) -> str:
        """The answers of Coze's own list, in order of their ids."""
        found = (await self._http.get("/v3/chat/message/list", params=_ids(chat))).json()
        assert found["code"] == 0, found
        answers = [item for item in found["data"] if item["type"] == "answer"]
        return "\n".join(item["content"] for item in sorted(answers, key=lambda item: int(item["id"])))

    async def status(self, chat: dict[str, Any]) -> str:
        found = (await self._http.get("/v3/chat/retrieve", params=_ids(chat))).json()
        status: str = found["data"]["status"]
        return status


def _ids(chat: dict[str, Any]) -> dict[str, str]:
    metadata = chat["metadata"]
    return {"conversation_id": metadata["conversation_id"], "chat_id": metadata["coze_chat_id"]}


async def check_completed(
    chat: dict[str, Any], simulator: SimControl, word: str, *, recovered: bool | None = None
) -> None:
    """Completed, with this word, as Coze stored it, asked for once."""
    assert chat["status"] == "completed", chat["error"]
    assert word in chat["content"]
    if recovered is not None:
        assert chat["recovered"] is recovered
    async with Stored(simulator) as stored:
        assert await stored.answer(chat) == chat["content"]
    assert posts(simulator, word) == 1


async def ended(client: Client, chat_id: str, timeout: float = 20.0) -> dict[str, Any]:
    return await client.ended(chat_id, timeout)


async def result(client: Client, chat_id: str) -> dict[str, Any]:
    chat: dict[str, Any] = data_of(await client.result(chat_id))
    return chat
