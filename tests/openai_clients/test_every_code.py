"""All of Coze's codes, met by each client with the retries that it has by default: the status that it tells,
and how many calls reach Coze.

What is told is in ``tests/openai/coze_codes.py``; type, code and headers are looked at there, where the
answer itself is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.openai.coze_codes import EVERY_CODE, SDK_TRIES, STAYS, TOLD, ours, without_pauses
from tests.openai.support import KEYS, WEBUI_KEY
from tests.support import RedisServer, RunningApp, SimControl

from .support import HERE, run

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]

LANGCHAIN_TRIES = 7
Tries = Callable[[int, str, str], int]
"""How often a client asks by its defaults: status, OpenAI's code, x-should-retry."""


def as_told(_status: int, _code: str, retry: str) -> int:
    """OpenAI's own SDKs, and what is built on them, do as ``x-should-retry`` says."""
    return SDK_TRIES if retry == "true" else 1


def as_the_ai_sdk(status: int, _code: str, _retry: str) -> int:
    """It goes by the status alone."""
    return 3 if status in (408, 409, 429) or status >= 500 else 1


def as_langchain_js(status: int, code: str, _retry: str) -> int:
    """By status and code."""
    final = status in (*range(400, 408), 409) or code == "insufficient_quota"
    return 1 if final else LANGCHAIN_TRIES


IN_NODE: dict[str, Tries] = {
    "openai": as_told,
    "responses": as_told,
    "ai": as_the_ai_sdk,
    "ai-responses": as_the_ai_sdk,
    "ai-compatible": as_the_ai_sdk,
    "langchain": as_langchain_js,
}
IN_PYTHON: dict[str, Tries] = dict.fromkeys(("openai", "responses", "langchain", "litellm"), as_told)


@pytest.fixture
def door(
    start_app: Callable[..., RunningApp], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> RunningApp:
    """In this process, so that it need not wait between its tries."""
    without_pauses(monkeypatch)
    return start_app(REDIS_URL=redis.url, COZE_OPENAI_API_KEYS=KEYS, RATE_LIMIT_MESSAGES_PER_MINUTE="0")


def check(told: dict[str, Any], clients: dict[str, Tries], simulator: SimControl) -> None:
    assert set(told) == set(clients)
    wrong = []
    for name, tries in clients.items():
        for code in EVERY_CODE:
            status, _, kind, retry, _ = TOLD.get(code, STAYS)
            calls = len(simulator.requests(path="/v3/chat", contains=f"|{name}|{code}|"))
            expected = (status, ours(code) * tries(status, kind, retry))
            if (seen := (told[name][str(code)], calls)) != expected:
                wrong.append((name, code, seen, expected))
    assert wrong == []


def test_every_code_with_clients_for_node(node: list[str], door: RunningApp, simulator: SimControl) -> None:
    command = [node[0], f"{node[1]}/codes.mjs", json.dumps(EVERY_CODE)]
    check(run(command, door.base_url, WEBUI_KEY, "coze"), IN_NODE, simulator)


def test_every_code_with_clients_for_python(
    python: list[str], door: RunningApp, simulator: SimControl
) -> None:
    command = [*python, str(HERE / "python" / "codes_client.py"), json.dumps(EVERY_CODE)]
    check(run(command, door.base_url, WEBUI_KEY, "coze"), IN_PYTHON, simulator)
