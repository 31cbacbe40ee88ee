"""LiteLLM as a library."""

from __future__ import annotations

from typing import Any

import litellm
from common import API_KEY, BASE_URL, CODES, MODEL, ONE_ROUND, Place, degrees, tell

CALL: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY}


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def failure(text: str) -> list[Any]:
    try:
        litellm.completion(messages=said(text), **CALL)
    except Exception as error:  # noqa: BLE001  # which one is what is asked
        return [type(error).__name__, getattr(error, "status_code", None)]
    return []


def with_tools() -> str:
    messages = said(ONE_ROUND)
    message = litellm.completion(messages=messages, **CALL).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": degrees()})
    return str(litellm.completion(messages=messages, **CALL).choices[0].message.content)


def main() -> None:
    stream = litellm.completion(messages=said("hello"), stream=True, **CALL)
    parsed = litellm.completion(messages=said("a place, please"), response_format=Place, **CALL)
    tell(
        {
            "whole": litellm.completion(messages=said("hello"), **CALL).choices[0].message.content,
            "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
            "tools": with_tools(),
            "parsed": Place.model_validate_json(parsed.choices[0].message.content).model_dump(),
            "errors": {code: failure(f"[[sim:fail={code}]] heron{code}") for code in CODES},
            "midway": failure("[[sim:fail_at=3]] heronmidway"),
        }
    )


main()
