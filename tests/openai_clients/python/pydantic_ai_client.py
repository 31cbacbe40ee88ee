"""pydantic-ai: an agent with a tool, and one with an output type (which it demands as a tool call)."""

from __future__ import annotations

from typing import Any

from common import API_KEY, BASE_URL, CODES, MODEL, PLACE, TWO_ROUNDS, Place, degrees, tell
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))


def f(question: str, number: int) -> str:
    """Tells the weather."""
    return degrees()


def failure(text: str) -> list[Any]:
    try:
        Agent(model).run_sync(text)
    except ModelHTTPError as error:
        return [error.status_code]
    return []


def main() -> None:
    tell(
        {
            "whole": Agent(model).run_sync("hello").output,
            "tools": Agent(model, tools=[f]).run_sync(TWO_ROUNDS).output,
            "parsed": Agent(model, output_type=NativeOutput(Place))
            .run_sync("a place, please")
            .output.model_dump(),
            "called": Agent(model, output_type=Place).run_sync(PLACE).output.model_dump(),
            "errors": {code: failure(f"[[sim:fail={code}]] heron{code}") for code in CODES},
            "midway": failure("[[sim:fail_at=3]] heronmidway"),
        }
    )


main()
