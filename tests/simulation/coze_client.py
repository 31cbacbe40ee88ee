"""A client of Coze's own API: it appends deltas, lets a completed message replace them, and polls where its
connection broke."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.simulation.book import Book, ChatNote
from tests.simulation.client import COZE_SECONDS, Caller
from tests.simulation.clock import CLOCK
from tests.simulation.exchange import Broken, Exchange

_BASE = "/coze/api/v3/chat"
_BOT = "7380000000000000009"


class Events:
    """What was put together of Coze's events."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.status = ""
        self.done = False
        self.faults: list[str] = []
        self._rest = b""

    @property
    def content(self) -> str:
        return "\n".join(text for text in self.answers.values() if text)

    def feed(self, piece: bytes) -> None:
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            if not block.strip(b"\n"):
                continue  # a sign of life
            lines = block.strip(b"\n").split(b"\n")
            if len(lines) != 2 or not (lines[0].startswith(b"event:") and lines[1].startswith(b"data:")):
                self.faults.append(f"no event of Coze's: {block[:200]!r}")
                continue
            self._take(lines[0][6:].decode(), json.loads(lines[1][5:]))

    def _take(self, name: str, data: Any) -> None:
        if self.done:
            self.faults.append(f"{name} behind done")
        if name == "done":
            self.done = True
        elif name.startswith("conversation.chat."):
            if "id" in data:
                self.ids = {"conversation_id": data["conversation_id"], "chat_id": data["id"]}
            self.status = name.removeprefix("conversation.chat.")
        elif name == "error":
            self.status = "failed"
        elif name.startswith("conversation.message.") and (data.get("type") or "answer") == "answer":
            known = self.answers.get(str(data["id"]), "")
            text = data.get("content") or ""
            self.answers[str(data["id"])] = text if name.endswith("completed") and text else known + text


async def ask(
    caller: Caller,
    book: Book,
    chat: ChatNote,
    stream: bool,
    replica: int,
    hang_up: float | None,
    patience: float,
) -> None:
    """Sends it once, as these SDKs do; whatever becomes of the connection, it asks for the answer."""
    begun = chat.sent_at = CLOCK.now
    chat.of_coze = chat.readings[0].leaves_out = True
    book.chats[chat.label] = chat
    chat.session.chats.append(chat)
    target = await caller.some_replica(replica, begun + patience)
    if target is None:
        return
    body = {
        "bot_id": _BOT,
        "user_id": chat.session.user,
        "stream": stream,
        "additional_messages": [{"role": "user", "content": chat.message, "content_type": "text"}],
    }
    request = caller.request("POST", _BASE, chat.session.who, body)
    chat.unsure = True
    events = Events()
    try:
        exchange, status, got = await caller.begin(target, request, 900.0)
        if chat_id := got.get("x-coze-chat-id"):
            chat.named_by_error = status >= 400
            chat.id, chat.unsure, chat.accepted_at = chat_id, False, CLOCK.now
        if not got["content-type"].startswith("text/event-stream"):
            ids = _taken(caller, book, chat, request.asked, status, json.loads(await exchange.read()))
        else:
            ids = await _read(events, exchange, hang_up)
    except Broken:
        ids = events.ids
    for fault in events.faults:
        book.violated("coze", f"{chat.label}: {fault}")
    if events.done or events.status == "failed":
        chat.coze.append((events.status, events.content))
    elif ids:
        await _poll(caller, book, chat, ids, replica + 1, CLOCK.now + patience)


async def _read(events: Events, exchange: Exchange, hang_up: float | None) -> dict[str, str]:
    try:
        async with asyncio.timeout(hang_up):
            async for piece in exchange.pieces():
                events.feed(piece)
    except TimeoutError:
        exchange.hang_up()
    except Broken:
        pass
    return events.ids


def _taken(
    caller: Caller, book: Book, chat: ChatNote, asked: Any, status: int, body: dict[str, Any]
) -> dict[str, str]:
    """The ids of a chat that was begun, none where it was refused."""
    if body["code"] == 0:
        chat.unsure = False
        chat.accepted_at = CLOCK.now
        return {"conversation_id": body["data"]["conversation_id"], "chat_id": body["data"]["id"]}
    chat.unsure = status >= 500
    of_coze = "Coze answered" in body["msg"]
    if status == 429:
        code = "COZE_RATE_LIMITED" if of_coze else "RATE_LIMITED"
        caller.shares.refused(asked, {"error": {"code": code, "message": body["msg"]}})
    elif not of_coze and not book.troubled():
        book.violated("refused", f"{chat.label}: {status} {body}")
    return {}


async def _poll(
    caller: Caller, book: Book, chat: ChatNote, ids: dict[str, str], replica: int, until: float
) -> None:
    """As the SDKs' ``create_and_poll``."""
    query = "&".join(f"{name}={value}" for name, value in ids.items())
    while CLOCK.now < until:
        target = await caller.some_replica(replica, until)
        if target is None:
            return
        replica += 1
        try:
            told = await _get(caller, target, f"{_BASE}/retrieve", chat.session.who, query)
            gone = (chat.session.who, chat.session.user) in book.erased
            if told["code"] in (4001, 4002) and not (gone or book.losses or book.troubled()):
                book.violated("coze", f"{chat.label}: its chat is not found by Coze's ids: {told}")
                return
            status = told["data"]["status"] if told["code"] == 0 else "in_progress"
            listed: dict[str, Any] = {"code": 0, "data": []}
            if status == "completed":
                listed = await _get(caller, target, f"{_BASE}/message/list", chat.session.who, query)
            if status != "in_progress" and listed["code"] == 0:
                answers = [each["content"] for each in listed["data"] or [] if each["type"] == "answer"]
                chat.coze.append((status, "\n".join(filter(None, answers))))
                return
        except Broken:
            pass
        await asyncio.sleep(1.0)


async def _get(caller: Caller, target: Any, path: str, who: str, query: str) -> dict[str, Any]:
    request = caller.request("GET", path, who, query=query)
    exchange, _, _ = await caller.begin(target, request, COZE_SECONDS)
    answer: dict[str, Any] = json.loads(await exchange.read())
    return answer
