"""An app in the syntax of Python 3.9, which a strict type checker reads and which talks to the service."""

from __future__ import annotations

import asyncio
import os

from coze_fastapi_client import (
    AsyncCozeClient,
    Chat,
    CozeClient,
    CozeServiceError,
    MessageOptions,
    Replacement,
    Session,
    SessionNotFound,
    Usage,
)

BASE_URL = os.environ["BASE_URL"]


def blocking() -> tuple[str, Usage | None]:
    with CozeClient(BASE_URL, token=lambda: "t", host="localhost") as client:
        session: Session = client.sessions.create("u-1", meta_data={"app": "old"})
        assert session.created_at is not None
        options: MessageOptions = {"on_busy": "enqueue"}
        chat: Chat = client.chats.send(session.session_id, "3 + 4", wait=10, **options)
        pieces: list[str] = []
        with client.chats.stream(session.session_id, "hello") as stream:
            for piece in stream.text_deltas():
                assert not isinstance(piece, Replacement)
                pieces.append(piece)
        assert "".join(pieces) == stream.text
        try:
            client.sessions.get("nope")
        except SessionNotFound as error:
            refused: CozeServiceError = error
            assert refused.status == 404
        client.users.erase("u-1")
    return chat.content, chat.usage


async def asynchronous() -> str:
    async with AsyncCozeClient(BASE_URL) as client:
        session = await client.sessions.create("u-2")
        async with client.chats.stream(session.session_id, "5 + 6") as stream:
            text = "".join([piece async for piece in stream.text_deltas()])
        chat = await stream.result()
        assert chat.content == text
        await client.users.erase("u-2")
    return text


if __name__ == "__main__":
    content, usage = blocking()
    print(content, usage.token_count if usage else 0, asyncio.run(asynchronous()), sep="\n")
