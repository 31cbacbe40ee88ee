"""openai-agents over chat completions."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from common import API_KEY, BASE_URL, CODES, MODEL, TWO_ROUNDS, Place, degrees, tell

model = OpenAIChatCompletionsModel(MODEL, openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY))


@function_tool
def f(question: str, number: int) -> str:
    """Tells the weather."""
    return degrees()


async def run(text: str, **more: Any) -> Any:
    return (await Runner.run(Agent(name="a", model=model, **more), text)).final_output


async def streamed(text: str) -> str:
    running = Runner.run_streamed(Agent(name="a", model=model), text)
    async for _ in running.stream_events():
        pass
    return str(running.final_output)


async def failure(text: str) -> list[Any]:
    try:
        await run(text)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code]
    return []


async def main() -> None:
    tell(
        {
            "whole": await run("hello"),
            "streamed": await streamed("hello"),
            "tools": await run(TWO_ROUNDS, tools=[f]),
            "parsed": (await run("a place, please", output_type=Place)).model_dump(),
            "errors": {code: await failure(f"[[sim:fail={code}]] heron{code}") for code in CODES},
            "midway": await failure("[[sim:fail_at=3]] heronmidway"),
        }
    )


asyncio.run(main())
