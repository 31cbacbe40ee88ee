"""A small client of the tests' own, so that exact bytes can be looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from coze_simulator import (
    SIMULATOR_BOT_ID,
    SIMULATOR_TOKEN,
    RunningSimulator,
    SimulatorOptions,
    running_simulator,
)
from tests.support import block_until

FAST = float("inf")


def user_message(text: str) -> dict[str, str]:
    return {"role": "user", "type": "question", "content": text, "content_type": "text"}


def events_of(body: bytes) -> list[tuple[str, Any]]:
    """The events of a stream in the cloud's bytes."""
    events = []
    for block in body.decode().split("\n\n")[:-1]:
        name, data = block.split("\n", 1)
        assert name.startswith("event:")
        assert data.startswith("data:")
        events.append((name.removeprefix("event:"), json.loads(data.removeprefix("data:"))))
    return events


@dataclass
class SimClient:
    """Calls a simulator under /coze."""

    sim: RunningSimulator
    http: httpx.Client

    def url(self, path: str) -> str:
        return self.sim.base_url + path

    def body(self, text: str, stream: bool = True, **fields: Any) -> dict[str, Any]:
        body = {
            "bot_id": SIMULATOR_BOT_ID,
            "user_id": "user-1",
            "stream": stream,
            "additional_messages": [user_message(text)],
        }
        return body | fields

    def chat(self, text: str, conversation_id: str | None = None, **fields: Any) -> httpx.Response:
        params = {"conversation_id": conversation_id} if conversation_id else {}
        return self.http.post(self.url("/v3/chat"), params=params, json=self.body(text, **fields))

    @contextmanager
    def open_stream(self, text: str, conversation_id: str | None = None) -> Iterator[httpx.Response]:
        params = {"conversation_id": conversation_id} if conversation_id else {}
        with self.http.stream("POST", self.url("/v3/chat"), params=params, json=self.body(text)) as response:
            yield response

    def create(self, text: str, conversation_id: str | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.chat(text, conversation_id, stream=False, **fields).json()
        assert answer["code"] == 0, answer
        data: dict[str, Any] = answer["data"]
        return data

    def call(
        self, method: str, path: str, params: dict[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.request(method, self.url(path), params=params, json=body).json()
        return answer

    def retrieve(self, chat: dict[str, Any]) -> dict[str, Any]:
        return self.call("GET", "/v3/chat/retrieve", ids(chat))

    def status(self, chat: dict[str, Any]) -> str:
        return str(self.retrieve(chat)["data"]["status"])

    def ended(self, chat: dict[str, Any]) -> dict[str, Any]:
        """Waits until the chat no longer runs, and returns it."""
        block_until(lambda: self.status(chat) not in ("created", "in_progress"))
        data: dict[str, Any] = self.retrieve(chat)["data"]
        return data

    def messages(self, chat: dict[str, Any]) -> dict[str, Any]:
        return self.call("GET", "/v3/chat/message/list", ids(chat))

    def answer(self, chat: dict[str, Any]) -> str:
        found = [item["content"] for item in self.messages(chat)["data"] if item["type"] == "answer"]
        return "".join(found)

    def cancel(self, chat: dict[str, Any]) -> dict[str, Any]:
        return self.call("POST", "/v3/chat/cancel", body=ids(chat))

    def knob(self, **rule: Any) -> httpx.Response:
        return self.http.post(self.sim.root_url + "/_sim/knobs", json=rule)

    def control(self, method: str, path: str, **options: Any) -> Any:
        return self.http.request(method, self.sim.root_url + "/_sim/" + path, **options).json()


def ids(chat: dict[str, Any]) -> dict[str, str]:
    """The two ids that name a chat."""
    return {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}


@contextmanager
def sim_client(**options: Any) -> Iterator[SimClient]:
    """A client of a simulator of its own."""
    options.setdefault("speed", FAST)
    with (
        running_simulator(SimulatorOptions(**options)) as sim,
        httpx.Client(headers={"authorization": f"Bearer {SIMULATOR_TOKEN}"}, timeout=10) as http,
    ):
        yield SimClient(sim, http)
