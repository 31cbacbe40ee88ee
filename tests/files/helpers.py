"""Files to upload, forms that carry them, and an upstream that takes its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from coze_simulator import SIMULATOR_TOKEN
from tests.support import Client, SimControl, data_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
WAV = b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"
BOUNDARY = "----a-boundary-of-the-test"


async def upload(client: Client, content: bytes = PNG, name: str = "a.png", **params: Any) -> httpx.Response:
    return await client.post("/coze/files", files={"file": (name, content)}, params=params)


async def uploaded(client: Client, content: bytes = PNG, name: str = "a.png", **params: Any) -> str:
    """The id of a new file."""
    file_id: str = data_of(await upload(client, content, name, **params))["file_id"]
    return file_id


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """``parts``: the headers and the content of each."""
    body = b"".join(
        f"--{BOUNDARY}\r\n{headers}\r\n\r\n".encode() + content + b"\r\n" for headers, content in parts
    )
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def file_part(content: bytes = PNG, name: str = "file", file_name: str = "a.png") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"', content


FORM_TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def newest_file(simulator: SimControl) -> dict[str, Any]:
    """Of the newest file at Coze: id, file_name, bytes, mime, sha256."""
    file: dict[str, Any] = simulator.state()["newest_files"][-1]
    return file


def uploads_asked(simulator: SimControl) -> int:
    """How many uploads Coze was asked for."""
    return len(simulator.requests(path="/v1/files/upload"))


def said(simulator: SimControl, conversation_id: str, token: str = SIMULATOR_TOKEN) -> list[Any]:
    """What the user said as Coze keeps it, oldest first: a text, or the items of an object_string."""
    answer = httpx.post(
        f"{simulator.running.base_url}/v1/conversation/message/list",
        params={"conversation_id": conversation_id},
        json={"limit": 50, "order": "asc"},
        headers={"authorization": f"Bearer {token}"},
    ).json()
    return [
        json.loads(message["content"]) if message["content_type"] == "object_string" else message["content"]
        for message in answer["data"]
        if message["role"] == "user"
    ]


@dataclass
class SlowCoze:
    """An upstream in this loop that reads an upload at its own pace: ``pace`` seconds between two reads of
    64 KiB. ``gone`` is set once the other side has left before the end of the request, ``finished`` once all
    of it is there. ``answer`` False: it never says anything."""

    chat_url: str = ""
    pace: float = 0.0
    answer: bool = True
    received: int = 0
    requests: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.began.set()
            tail = b""
            while not tail.endswith(b"\r\n0\r\n\r\n"):
                chunk = await reader.read(65_536)
                if not chunk:
                    self.gone.set()
                    return
                self.received += len(chunk)
                tail = (tail + chunk)[-16:]
                await asyncio.sleep(self.pace)
            self.finished.set()
            if not self.answer:
                await reader.read()
            body = b'{"code":0,"msg":"","data":{"id":"7380000000000000001"}}'
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def slow_coze(pace: float = 0.0, *, answer: bool = True) -> AsyncIterator[SlowCoze]:
    coze = SlowCoze(pace=pace, answer=answer)
    server = await asyncio.start_server(coze.serve, "127.0.0.1", 0, limit=65_536)
    coze.chat_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v3/chat"
    try:
        yield coze
    finally:
        server.close()
