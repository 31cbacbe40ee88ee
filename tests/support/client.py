"""A client of the service as an app would have one, with an SSE parser that shares nothing with it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from .folding import folded
from .waiting import wait_until


def data_of(response: httpx.Response) -> Any:
    """``data.task_result.data`` of a success; fails on anything else."""
    body = response.json()
    assert body["success"] is True, body
    return body["data"]["task_result"]["data"]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """``error`` of a failure; fails on anything else."""
    body = response.json()
    assert (body["success"], body["data"]) == (False, None), body
    error: dict[str, Any] = body["error"]
    return error


def outputs_for(chat: dict[str, Any], output: str = '{"t": 21}', **more: Any) -> dict[str, Any]:
    """The body that answers every tool call of a chat that waits. ``more``: other fields, such as stream."""
    calls = chat["required_action"]["submit_tool_outputs"]["tool_calls"]
    return {"tool_outputs": [{"tool_call_id": call["id"], "output": output} for call in calls], **more}


@dataclass(frozen=True, slots=True)
class Event:
    """``id`` is None where the block had no ``id:`` line (not inherited); ``raw``: the block."""

    id: str | None
    event: str
    data: str
    raw: bytes = b""

    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class EventReader:
    """Events of one response in their order. ``last_id`` is what a client would resume from."""

    response: httpx.Response
    last_id: str | None = None
    retry: int | None = None
    comments: list[str] = field(default_factory=list)
    seen: list[Event] = field(default_factory=list)
    raw: bytes = b""
    _pending: bytes = b""
    _chunks: AsyncIterator[bytes] | None = None
    _ready: list[Event] = field(default_factory=list)

    @property
    def chat_id(self) -> str:
        return self.response.headers["x-coze-chat-id"]

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        if self._chunks is None:
            self._chunks = self.response.aiter_raw()
        while not self._ready:
            chunk = await self._chunks.__anext__()
            self.raw += chunk
            self._pending += chunk
            while b"\n\n" in self._pending:
                block, self._pending = self._pending.split(b"\n\n", 1)
                self._block(block)
        event = self._ready.pop(0)
        self.seen.append(event)
        return event

    def _block(self, block: bytes) -> None:
        """One block: everything up to a blank line (WHATWG HTML, 9.2.6)."""
        event_id, name, data = None, "", []
        for line in block.decode().split("\n"):
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not key:
                self.comments.append(value)
            elif key == "id":
                event_id = self.last_id = value
            elif key == "event":
                name = value
            elif key == "data":
                data.append(value)
            elif key == "retry":
                self.retry = int(value)
            else:
                raise AssertionError(f"unknown field in a stream: {line!r}")
        if data:
            self._ready.append(Event(event_id, name or "message", "\n".join(data), block + b"\n\n"))
        else:
            assert event_id is None, f"an id without data: {block!r}"
            assert not name, f"an event without data: {block!r}"

    async def all(self) -> list[Event]:
        """What is left, up to the end of the response."""
        return [event async for event in self]

    async def until(self, name: str, times: int = 1) -> Event:
        """Reads up to the ``times``-th next event of that name; fails where the stream ends before."""
        async for event in self:
            if event.event == name:
                times -= 1
                if not times:
                    return event
        raise AssertionError(f"no {name} in {[event.event for event in self.seen]}")

    def names(self) -> list[str]:
        return [event.event for event in self.seen]

    def text(self) -> str:
        """The answer that the events seen make, by the folding rule."""
        return folded(self.seen).content

    def result(self) -> dict[str, Any]:
        """The chat in the ``result`` event."""
        [event] = [event for event in self.seen if event.event == "result"]
        chat: dict[str, Any] = event.json()["data"]["task_result"]["data"]
        return chat


class Client:
    """Calls one service. ``http`` is there for what has no helper."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.post(path, **options)

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.delete(path, **options)

    async def open_session(self, user_id: str = "u-1", **body: Any) -> str:
        """The id of a new session."""
        response = await self.http.post("/coze/sessions", json={"user_id": user_id, **body})
        assert response.status_code == 200, response.text
        session_id: str = data_of(response)["session_id"]
        return session_id

    async def session(self, session_id: str, **params: Any) -> dict[str, Any]:
        session: dict[str, Any] = data_of(await self.http.get(f"/coze/sessions/{session_id}", params=params))
        return session

    async def send(
        self, session_id: str, message: str, *, headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """The answer to a message that is not streamed."""
        return await self.http.post(
            f"/coze/sessions/{session_id}/messages", json={"message": message, **body}, headers=headers
        )

    async def start(self, session_id: str, message: str, **body: Any) -> str:
        """Sends a message without waiting for its answer; returns the chat's id."""
        response = await self.send(session_id, message, headers={"Prefer": "respond-async"}, **body)
        assert response.status_code == 202, response.text
        chat_id: str = data_of(response)["chat_id"]
        return chat_id

    async def result(self, chat_id: str, wait: float | None = None) -> httpx.Response:
        params = {} if wait is None else {"wait": str(wait)}
        return await self.http.get(f"/coze/chats/{chat_id}/result", params=params)

    async def ended(self, chat_id: str, timeout: float = 20.0) -> dict[str, Any]:
        """The chat once it is over or waits for tool outputs."""

        async def over() -> dict[str, Any] | None:
            response = await self.result(chat_id, wait=min(timeout, 5))
            if response.status_code != 200:
                return None
            chat: dict[str, Any] = data_of(response)
            return None if chat["status"] in ("pending", "processing") else chat

        chat: dict[str, Any] = await wait_until(over, timeout)
        return chat

    @asynccontextmanager
    async def streaming(
        self, method: str, path: str, *, expect: int = 200, **options: Any
    ) -> AsyncIterator[EventReader]:
        async with self.http.stream(method, path, **options) as response:
            if response.status_code != expect:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            yield EventReader(response)

    @asynccontextmanager
    async def stream(
        self, session_id: str, message: str, *, headers: dict[str, str] | None = None, **body: Any
    ) -> AsyncIterator[EventReader]:
        """The stream of a message; leaving the block hangs up."""
        async with self.streaming(
            "POST",
            f"/coze/sessions/{session_id}/messages",
            json={"message": message, "stream": True, **body},
            headers=headers,
        ) as reader:
            yield reader

    @asynccontextmanager
    async def events(self, chat_id: str, last_event_id: str | None = None) -> AsyncIterator[EventReader]:
        """The chat's stream from its start, or after an id."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        async with self.streaming("GET", f"/coze/chats/{chat_id}/events", headers=headers) as reader:
            yield reader

    async def answer_tools(
        self, chat: dict[str, Any], output: str = '{"t": 21}', *, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Answers all tool calls of a chat that waits; not streamed."""
        path = f"/coze/chats/{chat['chat_id']}/tool_outputs"
        return await self.http.post(path, json=outputs_for(chat, output), headers=headers)

    async def redis_commands(self) -> float:
        """How many commands this process has sent to Redis. Pipelines are left out: loops in the background
        send them all the time."""
        text = (await self.http.get("/coze/metrics")).text
        lines = re.findall(r'^coze_redis_duration_seconds_count{command="(.+)"} (\S+)$', text, re.MULTILINE)
        return sum(float(count) for command, count in lines if command != "pipeline")

    async def running_chats(self) -> int:
        """How many chats run in this process."""
        running: int = (await self.http.get("/coze/health")).json()["data"]["running_chats"]
        return running


@asynccontextmanager
async def open_client(
    base_url: str, *, timeout: float = 120.0, headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    """A client with a pool that no test exhausts."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(
        base_url=base_url, timeout=timeout, headers=headers, limits=limits, trust_env=False
    ) as http:
        yield Client(http)
