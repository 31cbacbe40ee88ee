"""LangChain's ChatOpenAI, and a LangGraph agent whose bot asks for its tool in two rounds."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from common import API_KEY, BASE_URL, CODES, MODEL, ONE_ROUND, TWO_ROUNDS, Place, degrees, tell
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

llm = ChatOpenAI(model=MODEL, api_key=API_KEY, base_url=BASE_URL)


@tool
def f(question: str, number: int) -> str:
    """Tells the weather."""
    return degrees()


def failure(text: str) -> list[Any]:
    try:
        llm.invoke(text)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return []


async def streamed_agent(agent: Any) -> list[str]:
    question = {"messages": [{"role": "user", "content": ONE_ROUND}]}
    return [name async for update in agent.astream(question, stream_mode="updates") for name in update]


def main() -> None:
    agent = create_react_agent(llm, [f])
    state = agent.invoke({"messages": [{"role": "user", "content": TWO_ROUNDS}]})
    messages = state["messages"]
    tell(
        {
            "whole": llm.invoke("hello").content,
            "streamed": "".join(str(chunk.content) for chunk in llm.stream("hello")),
            "kinds": [message.type for message in messages],
            "ids": len({message.id for message in messages}),
            "answer": messages[-1].content,
            "seen": asyncio.run(streamed_agent(agent)),
            "parsed": llm.with_structured_output(Place).invoke("a place, please").model_dump(),
            "called": llm.with_structured_output(Place, method="function_calling")
            .invoke("a place, please")
            .model_dump(),
            "errors": {code: failure(f"[[sim:fail={code}]] heron{code}") for code in CODES},
            "midway": failure("[[sim:fail_at=3]] heronmidway"),
        }
    )


main()
