"""Clients of Coze's own API, and what tests read of its streams."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from coze_simulator import SIMULATOR_BOT_ID

BOT = SIMULATOR_BOT_ID
KEY, OTHER_KEY = "sk-app-0123456789abcdefgh", "sk-other-0123456789abcdef"
KEYS = f"app:{KEY},other:{OTHER_KEY}"
Json = dict[str, Any]

_VOLATILE = ("created_at", "updated_at", "completed_at", "failed_at", "meta_data")


def question(text: str) -> Json:
    return {"role": "user", "type": "question", "content": text, "content_type": "text"}


def asking(text: str, *, user_id: str = "u-1", stream: bool = True, **more: Any) -> Json:
    """The body of a chat."""
    return {
        "bot_id": BOT,
        "user_id": user_id,
        "stream": stream,
        "additional_messages": [question(text)],
        **more,
    }


class CozeCaller:
    """Calls Coze's API at an address of one's own."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self.http.request(method, path, **options)

    async def data(self, method: str, path: str, **options: Any) -> Any:
        """``data`` of a success; fails on anything else."""
        response = await self.call(method, path, **options)
        body = response.json()
        assert (response.status_code, body["code"]) == (200, 0), response.text
        return body.get("data")

    async def code(self, method: str, path: str, **options: Any) -> int:
        """The code of the answer, which is a JSON object."""
        code: int = (await self.call(method, path, **options)).json()["code"]
        return code

    async def chat(self, text: str, conversation_id: str | None = None, **more: Any) -> bytes:
        """The whole stream of a chat."""
        params = {"conversation_id": conversation_id} if conversation_id else {}
        response = await self.call("POST", "/v3/chat", params=params, json=asking(text, **more))
        assert response.headers["content-type"].startswith("text/event-stream"), response.text
        return response.content

    async def conversation(self, **body: Any) -> str:
        conversation_id: str = (await self.data("POST", "/v1/conversation/create", json=body))["id"]
        return conversation_id

    @asynccontextmanager
    async def streaming(
        self, body: Json, path: str = "/v3/chat", **params: str
    ) -> AsyncIterator[httpx.Response]:
        async with self.http.stream("POST", path, params=params, json=body) as response:
            yield response


@asynccontextmanager
async def calling(base: str, token: str, **headers: str) -> AsyncIterator[CozeCaller]:
    """``base``: an SDK's ``base_url``."""
    async with httpx.AsyncClient(
        base_url=base,
        headers={"Authorization": f"Bearer {token}", **headers},
        timeout=60,
        trust_env=False,
    ) as http:
        yield CozeCaller(http)


# -- streams -----------------------------------------------------------------------------------------------


def events_of(stream: bytes) -> list[tuple[str, Any]]:
    """The events of a stream in Coze's own bytes, and nothing else."""
    found = []
    for block in stream.split(b"\n\n")[:-1]:
        name, data = block.lstrip(b"\n").split(b"\n")
        assert name.startswith(b"event:"), block
        assert data.startswith(b"data:"), block
        assert name[6:7] != b" ", block
        assert data[5:6] != b" ", block
        found.append((name[6:].decode(), json.loads(data[5:])))
    return found


def answer_of(stream: bytes) -> str:
    """What a client has that appends deltas and lets a completed message replace them."""
    texts: dict[str, str] = {}
    for name, data in events_of(stream):
        if not name.startswith("conversation.message.") or data.get("type") != "answer":
            continue
        known = texts.get(data["id"], "")
        texts[data["id"]] = data["content"] if name.endswith("completed") else known + data["content"]
    return "\n".join(texts.values())


def deltas_of(stream: bytes) -> str:
    """The deltas alone, as a terminal prints them."""
    return "".join(
        data["content"]
        for name, data in events_of(stream)
        if name == "conversation.message.delta" and data.get("type") == "answer"
    )


def comparable(stream: bytes) -> bytes:
    """The bytes of a stream without ids, times, meta_data, error texts and escapes."""
    ids: dict[str, str] = {}
    lines = []
    for given in stream.split(b"\n"):
        line = given
        if line.startswith(b"data:{"):
            value = json.loads(line[5:])
            for name in _VOLATILE:
                value.pop(name, None)
            if isinstance(value.get("last_error"), dict):
                value["last_error"].pop("msg", None)
            value.pop("msg", None)
            value.pop("detail", None)
            submit = (value.get("required_action") or {}).get("submit_tool_outputs") or {}
            for call in submit.get("tool_calls") or []:
                call["id"] = "call"
            line = b"data:" + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        lines.append(line)

    def numbered(match: re.Match[bytes]) -> bytes:
        found = match[0].decode()
        return b'"' + ids.setdefault(found, f"id{len(ids)}").encode() + b'"'

    return re.sub(rb'"7[0-9]{18}"', numbered, b"\n".join(lines))
