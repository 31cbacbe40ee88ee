"""A client of the OpenAI door: it has no ids of events, and cannot come back without a key."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.simulation.book import Book, ChatNote
from tests.simulation.client import Caller
from tests.simulation.clock import CLOCK
from tests.simulation.exchange import Broken, Exchange


class Chunks:
    """What was put together of ``chat.completion.chunk`` objects."""

    def __init__(self) -> None:
        self.content = ""
        self.finished = ""
        self.error: dict[str, Any] | None = None
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            data = block.removeprefix(b"data: ")
            if block.startswith(b":") or data == b"[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                self.error = chunk["error"]
                continue
            for choice in chunk["choices"]:
                self.content += choice["delta"].get("content") or ""
                self.finished = choice["finish_reason"] or self.finished


async def ask(
    caller: Caller,
    book: Book,
    chat: ChatNote,
    body: dict[str, Any],
    headers: dict[str, str],
    replica: int,
    hang_up: float | None,
    patience: float,
) -> None:
    """Sends it, with a key as often as it takes."""
    begun = chat.sent_at = CLOCK.now
    book.chats[chat.label] = chat
    chat.session.chats.append(chat)
    while CLOCK.now < begun + patience:
        target = await caller.some_replica(replica, begun + patience)
        if target is None:
            return
        replica += 1
        chat.unsure = True
        request = caller.request(
            "POST", "/coze/openai/v1/chat/completions", chat.session.who, body, headers=headers
        )
        try:
            exchange, status, got = await caller.begin(target, request, 900.0)
            if chat_id := got.get("x-coze-chat-id"):
                chat.named_by_error |= chat.accepted_at is None and status >= 400
                chat.id, chat.unsure = chat_id, False
                chat.accepted_at = chat.accepted_at or CLOCK.now
            if status == 200 and body["stream"]:
                if await _read(book, chat, exchange, hang_up):
                    return
            else:
                answer = json.loads(await exchange.read())
                if status == 429 and "x-coze-chat-id" not in got:
                    caller.shares.refused(request.asked, answer)
                _take(book, chat, status, answer)
                if status < 500:
                    return
        except Broken:
            pass
        if chat.key is None:
            if chat.bound:  # it left, or looked like leaving: then it was cancelled
                chat.cancel_at = chat.cancel_at or CLOCK.now
            return
        await asyncio.sleep(1.0)


async def _read(book: Book, chat: ChatNote, exchange: Exchange, hang_up: float | None) -> bool:
    """Whether the stream came to an end."""
    chunks = Chunks()
    try:
        async with asyncio.timeout(hang_up):
            async for piece in exchange.pieces():
                chunks.feed(piece)
    except TimeoutError:
        exchange.hang_up()
        if chat.bound:
            chat.cancel_at = chat.cancel_at or CLOCK.now
        return True
    if chunks.finished:
        chat.openai.append((chunks.finished, chunks.content))
        return True
    if chunks.error is None:
        return False
    code = str(chunks.error.get("code"))
    if code == "answer_replaced" and not book.troubled():
        book.violated("openai", f"{chat.label}: {chunks.error}")
    return code not in ("SHUTTING_DOWN", "shutting_down")


def _take(book: Book, chat: ChatNote, status: int, body: dict[str, Any]) -> None:
    if status == 200:
        choice = body["choices"][0]
        chat.openai.append((choice["finish_reason"], choice["message"]["content"] or ""))
    elif status not in (404, 409, 410, 429) and not book.troubled() and not chat.id:
        book.violated("refused", f"{chat.label}: {status} {body.get('error')}")
