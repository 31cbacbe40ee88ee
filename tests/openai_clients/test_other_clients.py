"""Other programs' clients in front of the running service.

Each holds its conversations in a process of its own, in an environment that is made for it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.openai.support import WEBUI_KEY
from tests.support import ServiceProcess, SimControl

from .support import HERE, run

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]

WUHAN = {"name": "Wuhan", "people": 13000000}


def calls(simulator: SimControl, word: str) -> int:
    """How many calls reached Coze for one of the client's."""
    return len(simulator.requests(path="/v3/chat", contains=word))


def in_python(python: list[str], script: str, service: ServiceProcess) -> Any:
    return run([*python, str(HERE / "python" / script)], service.base_url, WEBUI_KEY, "coze")


def in_node(node: list[str], script: str, service: ServiceProcess) -> Any:
    return run([node[0], f"{node[1]}/{script}"], service.base_url, WEBUI_KEY, "coze")


def check_paid_once(simulator: SimControl, prefix: str = "heron") -> None:
    """What is final is not repeated, with each client's default retries."""
    paid = {code: calls(simulator, f"{prefix}{code}") for code in ("4010", "4100", "midway")}
    assert paid == {"4010": 1, "4100": 1, "midway": 1}


def test_openais_sdk_for_node(node: list[str], service: ServiceProcess, simulator: SimControl) -> None:
    told = in_node(node, "openai.mjs", service)
    assert told["models"] == ["coze"]
    assert told["whole"] == told["streamed"] != ""
    assert told["same"]
    assert told["chat"].startswith("coze_chat_")
    assert told["parsed"] == WUHAN
    assert "22 degrees" in told["tools"]
    assert told["errors"] == {
        "4010": ["BadRequestError", 400, "context_length_exceeded"],
        "4028": ["RateLimitError", 429, "insufficient_quota"],
        "4100": ["BadRequestError", 400, "coze_api_error"],
        "4013": ["RateLimitError", 429, "rate_limit_exceeded"],
    }
    assert told["midway"] == ["BadRequestError", 400]
    check_paid_once(simulator)
    assert (calls(simulator, "heron4028"), calls(simulator, "heron4013")) == (1, 4)


def test_the_ai_sdk(node: list[str], service: ServiceProcess, simulator: SimControl) -> None:
    for name, told in in_node(node, "ai.mjs", service).items():
        assert told["whole"] == told["streamed"] != ""
        assert (told["steps"], told["streamedSteps"]) == (3, 2)
        assert "degrees" in told["tools"]
        assert "degrees" in told["streamedTools"]
        assert told["object"] == WUHAN
        assert told["errors"] == {"4010": 400, "4028": 429, "4100": 400}
        check_paid_once(simulator, name)
        assert calls(simulator, f"{name}4028") == 3, "it repeats every 429, whatever it is told"


def test_langchain_and_langgraph_for_node(
    node: list[str], service: ServiceProcess, simulator: SimControl
) -> None:
    told = in_node(node, "langgraph.mjs", service)
    assert told["whole"] == told["streamed"] != ""
    assert told["kinds"] == ["human", "ai", "tool", "ai", "tool", "ai"]
    assert told["ids"] == 6
    assert "22 degrees" in told["answer"]
    assert told["seen"] == ["agent", "tools", "agent"]
    assert told["parsed"] == WUHAN
    assert told["errors"] == {"4010": "ContextOverflowError", "4028": 429, "4100": 400}
    check_paid_once(simulator)
    assert calls(simulator, "heron4028") == 1


def test_langchain_and_langgraph_for_python(
    python: list[str], service: ServiceProcess, simulator: SimControl
) -> None:
    told = in_python(python, "langchain_client.py", service)
    assert told["whole"] == told["streamed"] != ""
    assert told["kinds"] == ["human", "ai", "tool", "ai", "tool", "ai"]
    assert told["ids"] == 6
    assert "22 degrees" in told["answer"]
    assert told["seen"] == ["agent", "tools", "agent"]
    assert (told["parsed"], told["called"]) == (WUHAN, WUHAN)
    assert [told["errors"][code][1] for code in ("4010", "4028", "4100")] == [400, 429, 400]
    assert told["midway"][1] == 400
    check_paid_once(simulator)
    assert calls(simulator, "heron4028") == 1


def test_litellm(python: list[str], service: ServiceProcess, simulator: SimControl) -> None:
    told = in_python(python, "litellm_client.py", service)
    assert told["whole"] == told["streamed"] != ""
    assert "degrees" in told["tools"]
    assert told["parsed"] == WUHAN
    assert told["errors"] == {
        "4010": ["ContextWindowExceededError", 400],
        "4028": ["RateLimitError", 429],
        "4100": ["BadRequestError", 400],
    }
    assert told["midway"][1] == 400
    check_paid_once(simulator)
    assert calls(simulator, "heron4028") == 1


def test_pydantic_ai(python: list[str], service: ServiceProcess, simulator: SimControl) -> None:
    told = in_python(python, "pydantic_ai_client.py", service)
    assert told["whole"]
    assert "22 degrees" in told["tools"]
    assert (told["parsed"], told["called"]) == (WUHAN, WUHAN)
    assert told["errors"] == {"4010": [400], "4028": [429], "4100": [400]}
    assert told["midway"] == [400]
    check_paid_once(simulator)
    assert calls(simulator, "heron4028") == 1


def test_openai_agents(python: list[str], service: ServiceProcess, simulator: SimControl) -> None:
    told = in_python(python, "agents_client.py", service)
    assert told["whole"] == told["streamed"] != ""
    assert "22 degrees" in told["tools"]
    assert told["parsed"] == WUHAN
    assert [told["errors"][code][1] for code in ("4010", "4028", "4100")] == [400, 429, 400]
    assert told["midway"][1] == 400
    check_paid_once(simulator)
    assert calls(simulator, "heron4028") == 1


# -- the Responses API -------------------------------------------------------------------------------------


def test_the_responses_api_with_clients_for_node(
    node: list[str], service: ServiceProcess, simulator: SimControl
) -> None:
    told = in_node(node, "responses.mjs", service)
    sdk, ai = told["openai"], told["ai"]
    assert sdk["whole"] == sdk["streamed"] == sdk["accumulated"] != ""
    assert (sdk["inOrder"], sdk["last"]) == (True, "response.completed")
    assert (sdk["parsed"], sdk["rounds"]) == (WUHAN, 2)
    assert "degrees" in sdk["tools"]
    assert (sdk["sameConversation"], sdk["items"]) == (True, 1)
    assert sdk["error"] == ["BadRequestError", 400, "previous_response_not_found"]
    assert ai["whole"] == ai["streamed"] == ai["silent"] != ""
    assert ai["reasoning"]
    assert ai["finish"] == "stop"
    assert (ai["steps"], ai["streamedSteps"]) == (3, 2)
    assert "degrees" in ai["tools"]
    assert "degrees" in ai["streamedTools"]
    assert ai["object"] == WUHAN
    assert ai["later"]
    assert ai["errors"] == {"4010": 400, "4028": 429, "4100": 400}
    check_paid_once(simulator)
    assert told["langchain"]["whole"] == told["langchain"]["streamed"] != ""


def test_the_responses_api_with_clients_for_python(python: list[str], service: ServiceProcess) -> None:
    told = in_python(python, "responses_clients.py", service)
    for name in ("agents", "langchain", "litellm"):
        assert told[name]["whole"] == told[name]["streamed"] != "", name
    for name in ("agents", "langchain", "pydantic_ai"):
        assert "degrees" in told[name]["tools"], name
        assert told[name]["parsed"] == WUHAN, name
    assert all(told["agents"]["later"])
    assert told["langchain"]["later"]
    assert told["langchain"]["kinds"] == ["human", "ai", "tool", "ai", "tool", "ai"]
