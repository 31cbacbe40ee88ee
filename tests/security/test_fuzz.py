"""Every field of every body takes whatever is thrown at it: documented answers, and nothing stays behind."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.main import create_app
from coze_simulator.auth_server import RunningAuth
from tests.support import Client, RedisServer, ServiceProcess, data_of, open_client

from .conftest import secured_values
from .helpers import ALICE, contents, operations
from .hostile import HUGE, fixed, grown, split_at_each_place

Start = Callable[..., ServiceProcess]
ENTRY = {"role": "user", "content": "x", "content_type": "text", "type": "question", "meta_data": {"a": "b"}}
SESSION = {"user_id": "fuzz", "bot_id": "7380000000000000009", "additional_messages": [ENTRY]}
SESSION |= {"auto_save_history": True, "meta_data": {"a": "b"}}
MESSAGE = {"message": "hi", "stream": False, "additional_messages": [ENTRY], "custom_variables": {"a": "b"}}
MESSAGE |= {"meta_data": {"a": "b"}, "parameters": {"a": [1]}, "on_busy": "interrupt"}
TOOLS = {"tool_outputs": [{"tool_call_id": "x", "output": "y"}], "stream": False}


def fields() -> list[tuple[str, bytes, bytes]]:
    """(route, what stands before the field's value, what stands after)."""
    found = []
    for route, body in (("session", SESSION), ("message", MESSAGE), ("tools", TOOLS)):
        found += [(route, before, after) for before, after in split_at_each_place(body)]
    return found


def resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]  # Linux has it


class Fuzz:
    """Throws values at one service and remembers what has to be erased afterwards."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answers: Counter[tuple[str, int]] = Counter()
        self.users = {"fuzz", "lane"}
        document = create_app().openapi()
        self.documented = {
            operation.path: operation.statuses
            for operation in operations(document)
            if operation.body is not None
        }

    async def prepare(self, lanes: int) -> None:
        """A session for each lane, and a chat that waits for tool outputs."""
        # A user of their own: the sessions that are thrown about would evict them otherwise.
        self.sessions = [await self.client.open_session("lane") for _ in range(lanes)]
        waiting = await self.client.open_session("lane")
        self.waiting = await self.client.start(waiting, "[[sim:requires_action=function]]")
        await self.client.ended(self.waiting)

    async def throw(self, lane: int, route: str, body: bytes) -> None:
        template, url = {
            "session": ("/coze/sessions", "/coze/sessions"),
            "message": (
                "/coze/sessions/{session_id}/messages",
                f"/coze/sessions/{self.sessions[lane]}/messages",
            ),
            "tools": ("/coze/chats/{chat_id}/tool_outputs", f"/coze/chats/{self.waiting}/tool_outputs"),
        }[route]
        headers = {"Content-Type": "application/json", "Prefer": "wait=5"}
        response = await self.client.post(url, content=body, headers=headers)
        status = response.status_code
        self.answers[route, status] += 1
        if status not in self.documented[template] or status >= 500:
            shown = body if len(body) < 500 else body[:200] + b" ... " + body[-100:]
            raise AssertionError(f"{status} to {route} with {shown!r}: {response.text[:500]}")
        if route == "session" and status == 200:
            self.users.add(data_of(response)["user_id"])

    async def run(self, values: Callable[[int], Iterator[bytes]], lanes: int) -> None:
        """Each field gets its values, over several lanes at once."""
        todo = (
            (route, head + value + tail)
            for n, (route, head, tail) in enumerate(fields())
            for value in values(n)
        )

        async def work(lane: int) -> None:
            for route, body in todo:
                await self.throw(lane, route, body)

        async with asyncio.TaskGroup() as group:
            for lane in range(lanes):
                group.create_task(work(lane))

    async def clear(self) -> None:
        for user_id in self.users:
            while data_of(await self.client.delete(f"/coze/users/{quote(user_id, safe='')}"))[
                "remaining_sessions"
            ]:
                pass


PREFIX = "fuzz:"
"""Other services of this run may be at work on the same Redis."""


async def fuzz(service: ServiceProcess, auth: RunningAuth, redis: RedisServer, values: Any) -> Counter[Any]:
    lanes = 4
    async with open_client(service.base_url, headers=ALICE.headers(auth)) as client:
        one = Fuzz(client)
        await one.prepare(lanes)
        for route in ("session", "message", "tools"):  # what is loaded and cached at first use is no leak
            for _ in range(4):
                await one.throw(0, route, HUGE)
                await one.throw(0, route, b"[" * 100_000)
        before = resident(service.pid)
        await one.run(values, lanes)
        grown_by = resident(service.pid) - before
        assert (await client.get("/coze/health")).json()["data"]["running_chats"] == 0
        await one.clear()
    assert service.running
    left = [name for name in contents(redis) if name.startswith(PREFIX) and ":erased:" not in name]
    assert left == [], "something stayed in the store"
    assert grown_by < 64 * 1024 * 1024, f"the process grew by {grown_by >> 20} MiB"
    assert "Traceback" not in service.log
    assert one.answers["session", 413] >= 4
    assert min(one.answers["session", 200], one.answers["message", 200]) > 0, "not one value was valid"
    return one.answers


def start(start_process: Start, redis: RedisServer, auth: RunningAuth) -> ServiceProcess:
    values = secured_values(
        auth,
        REDIS_URL=redis.url,
        COZE_REDIS_PREFIX=PREFIX,
        COZE_LOG_LEVEL="WARNING",
        COZE_MAX_TOTAL_SESSIONS="1000000",
    )
    return start_process(**values, COZE_MAX_ACTIVE_USERS="1000000")


async def test_two_thousand_hostile_values_over_all_fields_leave_the_service_as_it_was(
    start_process: Start, redis: RedisServer, auth: RunningAuth
) -> None:
    """Each field gets its share of the fixed values, in turn, and some grown ones; the full run gives all to
    each."""
    known, number = fixed(), len(fields())

    def values(n: int) -> Iterator[bytes]:
        return itertools.chain(
            known[n::number], itertools.islice(known, n % 7, None, 7), itertools.islice(grown(n), 45)
        )

    answers = await fuzz(start(start_process, redis, auth), auth, redis, values)
    assert sum(answers.values()) >= 2000


@pytest.mark.full
@pytest.mark.timeout(2400)
async def test_two_thousand_hostile_values_for_each_field_leave_the_service_as_it_was(
    start_process: Start, redis: RedisServer, auth: RunningAuth
) -> None:
    known = fixed()

    def values(n: int) -> Iterator[bytes]:
        return itertools.chain(known, itertools.islice(grown(n), 2000 - len(known)))

    answers = await fuzz(start(start_process, redis, auth), auth, redis, values)
    assert sum(answers.values()) >= 2000 * len(fields())
