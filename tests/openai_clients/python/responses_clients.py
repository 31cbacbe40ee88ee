"""openai-agents, LangChain, LiteLLM and pydantic-ai over the Responses API."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import openai
from agents import Agent, OpenAIResponsesModel, Runner, function_tool
from common import API_KEY, BASE_URL, MODEL, TWO_ROUNDS, Place, degrees, tell
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticModel
from pydantic_ai.providers.openai import OpenAIProvider

MORE = "and now?"


async def with_agents() -> dict[str, Any]:
    model = OpenAIResponsesModel(MODEL, openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY))

    @function_tool
    def f(question: str, number: int) -> str:
        """Tells the weather."""
        return degrees()

    agent = Agent(name="a", model=model, instructions="Be kind.")
    whole = await Runner.run(agent, "hello")
    running = Runner.run_streamed(agent, "hello")
    async for _ in running.stream_events():
        pass
    later = await Runner.run(agent, MORE, previous_response_id=whole.last_response_id)
    again = await Runner.run(agent, [*whole.to_input_list(), {"role": "user", "content": MORE}])
    tools = await Runner.run(Agent(name="a", model=model, tools=[f]), TWO_ROUNDS)
    parsed = await Runner.run(Agent(name="a", model=model, output_type=Place), "a place, please")
    return {
        "whole": whole.final_output,
        "streamed": running.final_output,
        "later": [later.final_output, again.final_output],
        "tools": tools.final_output,
        "parsed": parsed.final_output.model_dump(),
    }


def with_langchain() -> dict[str, Any]:
    llm = ChatOpenAI(model=MODEL, api_key=API_KEY, base_url=BASE_URL, use_responses_api=True)

    @tool
    def f(question: str, number: int) -> str:
        """Tells the weather."""
        return degrees()

    state = create_react_agent(llm, [f]).invoke({"messages": [{"role": "user", "content": TWO_ROUNDS}]})
    first = llm.invoke("hello")
    return {
        "whole": first.text,
        "streamed": "".join(chunk.text for chunk in llm.stream("hello")),
        "later": llm.invoke(MORE, previous_response_id=first.response_metadata["id"]).text,
        "tools": state["messages"][-1].text,
        "kinds": [message.type for message in state["messages"]],
        "parsed": llm.with_structured_output(Place).invoke("a place, please").model_dump(),
    }


def with_litellm() -> dict[str, Any]:
    call: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY}
    whole = litellm.responses(input="hello", **call)
    streamed = "".join(
        event.delta
        for event in litellm.responses(input="hello", stream=True, **call)
        if event.type == "response.output_text.delta"
    )
    return {"whole": whole.output[-1].content[0].text, "streamed": streamed}


def with_pydantic_ai() -> dict[str, Any]:
    model = PydanticModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))

    def f(question: str, number: int) -> str:
        """Tells the weather."""
        return degrees()

    return {
        "whole": PydanticAgent(model).run_sync("hello").output,
        "tools": PydanticAgent(model, tools=[f]).run_sync(TWO_ROUNDS).output,
        "parsed": PydanticAgent(model, output_type=Place).run_sync("a place, please").output.model_dump(),
    }


tell(
    {
        "agents": asyncio.run(with_agents()),
        "langchain": with_langchain(),
        "litellm": with_litellm(),
        "pydantic_ai": with_pydantic_ai(),
    }
)
