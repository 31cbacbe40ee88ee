"""Bodies of a few KB that take long to be looked at, and are refused before anything was paid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.utils.big_bodies import SMALL_BYTES
from tests.support import ServiceProcess, SimControl, service_process

from .support import ask, worked

JSON = {"Content-Type": "application/json"}
COMPLETIONS, RESPONSES = "/coze/openai/v1/chat/completions", "/coze/openai/v1/responses"
COZE, SESSIONS = "/coze/api/v3/chat", "/coze/sessions"
TIMES = 10
MOST_SECONDS = {"faults": 0.0015, "few": 0.004, "many": 0.006}
"""Of the event loop, beside what a request takes that says next to nothing: twice what it is on a machine at
work. Before, faults took 2 to 5 ms, and many items 7 to 15."""


@pytest.fixture(scope="module")
def attacked(shared_simulator: SimControl) -> Iterator[ServiceProcess]:
    """It refuses everything: the one message of this minute is sent."""
    values = {
        "COZE_API_URL": shared_simulator.chat_url,
        "REDIS_URL": "memory://",
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "1",
    }
    with service_process(values, wait_for="/coze/health") as service:
        status, answer = ask(
            service, COMPLETIONS, JSON, method="POST", body=json.dumps(chat([ASKED])).encode()
        )
        assert status == 200, answer[:300]
        yield service


def seconds_of(service: ServiceProcess, path: str, content: Any) -> float:
    """Of its main thread, for each request: the least of three times, since the machine does other things."""
    body = json.dumps(content, separators=(",", ":")).encode()
    assert len(body) < SMALL_BYTES
    ask(service, path, JSON, method="POST", body=body)
    found = []
    for _ in range(3):
        before = worked(service)
        for _ in range(TIMES):
            status, answer = ask(service, path, JSON, method="POST", body=body)
            assert status in (400, 429) or json.loads(answer)["code"] in (4000, 4013), answer[:300]
            assert len(answer) < 4000
        found.append((worked(service) - before) / TIMES)
    return min(found)


def chat(messages: list[Any], **more: Any) -> dict[str, Any]:
    return {"model": "coze", "messages": messages, **more}


def response(items: list[Any]) -> dict[str, Any]:
    return {"model": "coze", "input": items}


def coze(messages: list[Any]) -> dict[str, Any]:
    return {"bot_id": "7380000000000000009", "user_id": "u", "additional_messages": messages}


ASKED = {"role": "user", "content": "hello"}
PARTS = {"role": "user", "content": [1]}
CALL = {"type": "function_call", "call_id": "a", "name": "b", "arguments": "{}"}
FILE = {"role": "user", "content_type": "object_string", "content": '[{"type":"file","file_url":"x"}]'}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "faults, of messages": (COMPLETIONS, chat([1] * 990)),
    "faults, two of each message": (COMPLETIONS, chat([{"role": 1, "content": 1}] * 480)),
    "faults, of items": (RESPONSES, response([1] * 990)),
    "faults, of metadata": (COMPLETIONS, chat([ASKED], metadata={f"k{n}": 1 for n in range(990)})),
    "faults, just few enough to be found at once": (COMPLETIONS, chat([1] * 240)),
    "few messages": (COMPLETIONS, chat([ASKED] * 80)),
    "few calls": (RESPONSES, response([*[CALL] * 48, ASKED])),
    "many messages": (COMPLETIONS, chat([ASKED] * 600)),
    "many items": (RESPONSES, response([ASKED] * 600)),
    "many items with odd parts": (RESPONSES, response([*[PARTS] * 480, ASKED])),
    "many calls": (RESPONSES, response([*[CALL] * 390, ASKED])),
    "many messages of Coze's": (COZE, coze([{**ASKED, "content_type": "text"}] * 480)),
    "many messages of Coze's with files": (COZE, coze([FILE] * 270)),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_small_body_holds_nobody_up_before_anything_is_paid(attacked: ServiceProcess, name: str) -> None:
    kind = name.replace(",", "").split()[0]
    usual = seconds_of(attacked, COMPLETIONS, chat([1] if kind == "faults" else [ASKED]))
    took = seconds_of(attacked, *BODIES[name])
    assert took - usual < MOST_SECONDS[kind]


def test_of_a_hundred_faults_twenty_are_named_and_more_are_counted(attacked: ServiceProcess) -> None:
    for number, expected in ((100, "messages.2:"), (101, "has 101 faults, which are too many to name")):
        body = json.dumps(chat([1] * number)).encode()
        status, answer = ask(attacked, COMPLETIONS, JSON, method="POST", body=body)
        assert (status, expected in answer.decode()) == (400, True), answer
