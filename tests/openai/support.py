"""Clients as a user of the SDK makes them, and what tests read from their answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from app.doors.openai.bodies import ChatCompletionRequest
from app.doors.openai.forms import Form, form_of
from app.doors.openai.schema_work import Work
from coze_simulator import SIMULATOR_BOT_ID

BOTS = f"helper:{SIMULATOR_BOT_ID}, 助手:{SIMULATOR_BOT_ID}"
WEBUI_KEY, APP_KEY = "sk-webui-0123456789abcdef", "sk-app-0123456789abcdefgh"
KEYS = f"webui:{WEBUI_KEY},app:{APP_KEY}"
MODEL = "helper"


def sync_client(base_url: str, key: str = WEBUI_KEY, **options: Any) -> OpenAI:
    chosen = {"max_retries": 0, "timeout": 30.0} | options
    return OpenAI(base_url=f"{base_url}/coze/openai/v1", api_key=key, **chosen)


def async_client(base_url: str, key: str = WEBUI_KEY, **options: Any) -> AsyncOpenAI:
    chosen = {"max_retries": 0, "timeout": 30.0} | options
    return AsyncOpenAI(base_url=f"{base_url}/coze/openai/v1", api_key=key, **chosen)


def said(text: Any, role: str = "user") -> Any:
    return {"role": role, "content": text}


def form_made(body: ChatCompletionRequest) -> Form | None:
    """With all its checks, as a request has it that is taken."""
    form = form_of(body, Work())
    if form is not None:
        form.make()
    return form


def chat_id_of(completion_id: str) -> str:
    assert completion_id.startswith("chatcmpl-coze_chat_"), completion_id
    return completion_id.removeprefix("chatcmpl-").partition("-")[0]


@dataclass
class Told:
    """What a stream has told so far, piece by piece."""

    chunks: list[ChatCompletionChunk] = field(default_factory=list)

    def take(self, chunk: ChatCompletionChunk) -> None:
        self.chunks.append(chunk)

    def take_all(self, chunks: Iterable[ChatCompletionChunk]) -> None:
        for chunk in chunks:
            self.take(chunk)

    @classmethod
    def of(cls, chunks: Iterable[ChatCompletionChunk]) -> Told:
        told = cls()
        told.take_all(chunks)
        return told

    @property
    def deltas(self) -> list[Any]:
        return [choice.delta for chunk in self.chunks for choice in chunk.choices]

    @property
    def content(self) -> str:
        return "".join(delta.content or "" for delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(getattr(delta, "reasoning_content", None) or "" for delta in self.deltas)

    @property
    def finish(self) -> list[str]:
        reasons = [choice.finish_reason for chunk in self.chunks for choice in chunk.choices]
        return [reason for reason in reasons if reason is not None]

    @property
    def completion_id(self) -> str:
        [one] = {chunk.id for chunk in self.chunks}
        return one

    @property
    def chat_id(self) -> str:
        return chat_id_of(self.completion_id)
