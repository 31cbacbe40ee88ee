"""Every code that Coze may refuse with, asked of each client for Python as it comes: the status that it
tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import litellm
import openai
from common import API_KEY, BASE_URL, MODEL, tell
from langchain_openai import ChatOpenAI

sdk = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY)
llm = ChatOpenAI(model=MODEL, api_key=API_KEY, base_url=BASE_URL)


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def with_litellm(text: str) -> Any:
    return litellm.completion(
        model=f"openai/{MODEL}", api_base=BASE_URL, api_key=API_KEY, messages=said(text)
    )


CLIENTS: dict[str, Callable[[str], Any]] = {
    "openai": lambda text: sdk.chat.completions.create(model=MODEL, messages=said(text)),
    "responses": lambda text: sdk.responses.create(model=MODEL, input=text),
    "langchain": llm.invoke,
    "litellm": with_litellm,
}


def status_of(ask: Callable[[str], Any], text: str) -> Any:
    try:
        ask(text)
    except Exception as error:  # noqa: BLE001  # which one is what is asked
        return getattr(error, "status_code", type(error).__name__)
    return None


def main() -> None:
    # Nobody waits between tries.
    openai.OpenAI._calculate_retry_timeout = lambda *_, **__: 0.0  # type: ignore[method-assign]
    codes = json.loads(sys.argv[1])
    tell(
        {
            name: {code: status_of(ask, f"[[sim:fail={code}]] |{name}|{code}|") for code in codes}
            for name, ask in CLIENTS.items()
        }
    )


main()
