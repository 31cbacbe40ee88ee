"""Clients of Coze's own API at /coze/api, with bodies as Coze's SDKs write them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from tests.coze_clients.support import answer_of, asking, events_of
from tests.faults.support import AWAY, nonce

from .own import QUICK, SLOW
from .visits import Kind, Visit

BASE = "/coze/api"
_BUSY = 4016
_CANNOT_SERVE = 503
_LATER = 429
_OVER = ("completed", "failed", "canceled", "requires_action")
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64

Json = dict[str, Any]


class NotBegun(Exception):
    """A chat was refused, with this code."""


async def _call(visit: Visit, method: str, path: str, **options: Any) -> Json:
    """The envelope of an answer that is not "come again"."""
    response = await visit.call(method, BASE + path, **options)
    envelope: Json = response.json()
    return envelope


async def _data(visit: Visit, method: str, path: str, **options: Any) -> Any:
    """``data`` of a success; Coze's own hiccups are passed on, so they are met again here."""
    while True:
        envelope = await _call(visit, method, path, **options)
        if envelope["code"] == 0:
            return envelope.get("data")
        assert envelope["code"] in HICCUPS, f"{method} {path}: {envelope}"
        await visit.elsewhere()


HICCUPS = frozenset({4013, 720700801})
"""What the troubles let Coze say."""


async def _read(visit: Visit, text: str, conversation_id: str = "", **more: Any) -> bytes:
    """What arrives of a stream. Raises NotBegun where there is none, and what the connection raises where
    nothing of it has come."""
    params = {"conversation_id": conversation_id} if conversation_id else {}
    body = asking(text, user_id=visit.user_id, **more)
    got = b""
    try:
        async with visit.client.http.stream("POST", f"{BASE}/v3/chat", params=params, json=body) as response:
            if not response.headers["content-type"].startswith("text/event-stream"):
                await response.aread()
                if _may_have_begun(response):
                    raise httpx.RemoteProtocolError("it has begun, and cannot be told of")
                raise NotBegun(response.json()["code"], response.status_code)
            async for chunk in response.aiter_raw():
                got += chunk
    except AWAY:
        if not events_of(got):
            raise
    return got


def _may_have_begun(response: httpx.Response) -> bool:
    """Whether this refusal names a chat of ours: then it is not to be asked for a second time."""
    return response.status_code == _CANNOT_SERVE and "x-coze-chat-id" in response.headers


async def _over(visit: Visit, ids: dict[str, str]) -> Json:
    """The chat when it is over, as an SDK polls for it."""
    while True:
        chat: Json = await _data(visit, "GET", "/v3/chat/retrieve", params=ids)
        if chat["status"] in _OVER:
            return chat
        await asyncio.sleep(0.3)


async def _judge(visit: Visit, ids: dict[str, str], word: str) -> None:
    """The chat when it is over, and its messages."""
    chat = await _over(visit, ids)
    if chat["status"] != "completed":
        told = f"{chat['status']} {chat.get('last_error')}"
        await visit.check_failure(word, told, final=True)
    listed = await _data(visit, "GET", "/v3/chat/message/list", params=ids)
    answers = [each["content"] for each in listed if each["type"] == "answer"]
    await visit.check_text(word, "\n".join(answers))


async def _chat_streamed(visit: Visit, word: str, text: str, conversation_id: str = "", **more: Any) -> None:
    """One chat, whatever becomes of its stream."""
    while True:
        try:
            stream = await _read(visit, text, conversation_id, **more)
            break
        except NotBegun as refusal:
            code, status = refusal.args
            if status != _CANNOT_SERVE and code != _BUSY:
                await visit.check_failure(word, refusal, final=status != _LATER)
        except AWAY:
            # Coze's API has no key to come back with: it may have begun, and is not asked a second time.
            assert len(visit.world.ledger.asked(word)) <= 1
            visit.world.report.counts["broken off"] += 1
            return
        await visit.elsewhere()
    names = [name for name, _ in events_of(stream)]
    if names[-1] == "done" and "conversation.chat.completed" in names:
        await visit.check_text(word, answer_of(stream))
        return
    first = next((data for name, data in events_of(stream) if name == "conversation.chat.created"), None)
    if first is None:
        await visit.check_failure(word, names, final=True)
        return
    await _judge(visit, {"conversation_id": first["conversation_id"], "chat_id": first["id"]}, word)


async def streamed(visit: Visit) -> None:
    """A stream in Coze's bytes; one that is broken off is fetched afterwards."""
    await _chat_streamed(visit, *visit.message())


async def polled(visit: Visit) -> None:
    """Created, then polled for, as ``create_and_poll`` of the SDKs does."""
    word, text = visit.message()
    body = asking(text, user_id=visit.user_id, stream=False)
    while True:
        try:
            response = await visit.client.http.post(f"{BASE}/v3/chat", json=body)
            refused = _may_have_begun(response)
        except httpx.TransportError:
            refused = True
        if refused:
            assert len(visit.world.ledger.asked(word)) <= 1
            visit.world.report.counts["broken off"] += 1
            return
        envelope = response.json()
        if envelope["code"] == 0:
            break
        if response.status_code != _CANNOT_SERVE:
            await visit.check_failure(word, envelope, final=response.status_code != _LATER)
        await visit.elsewhere()
    chat = envelope["data"]
    await _judge(visit, {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}, word)


async def conversed(visit: Visit) -> None:
    """A conversation: several messages in it, its list, a new name, a new context, its end."""
    conversation = await _data(visit, "POST", "/v1/conversation/create", json={})
    one = conversation["id"]
    for _ in range(visit.dice.randint(1, 3)):
        word, text = visit.message(QUICK)
        await _chat_streamed(visit, word, text, one)
    page = await _data(
        visit, "POST", "/v1/conversation/message/list", params={"conversation_id": one}, json={}
    )
    assert all(message["conversation_id"] == one for message in page)
    await _data(visit, "PUT", f"/v1/conversations/{one}", json={"name": "a name"})
    await _data(visit, "GET", "/v1/conversation/retrieve", params={"conversation_id": one})
    await _data(visit, "POST", f"/v1/conversations/{one}/clear")
    await _call(visit, "DELETE", f"/v1/conversations/{one}")


async def attached(visit: Visit) -> None:
    """A file, and a picture in a message."""
    picture = {"file": ("a.png", PNG + nonce().encode())}
    file = await _data(visit, "POST", "/v1/files/upload", files=picture)
    await _data(visit, "GET", "/v1/files/retrieve", params={"file_id": file["id"]})
    word, text = visit.message(QUICK)
    parts = [{"type": "text", "text": text}, {"type": "image", "file_id": file["id"]}]
    message = {"role": "user", "content": json.dumps(parts), "content_type": "object_string"}
    await _chat_streamed(visit, word, text, additional_messages=[message])


async def cancelled(visit: Visit) -> None:
    """A chat that is cancelled while it answers."""
    word, text = visit.message(SLOW)
    body = asking(text, user_id=visit.user_id, stream=False)
    try:
        response = await visit.client.http.post(f"{BASE}/v3/chat", json=body)
    except httpx.TransportError:
        return
    if response.json()["code"]:
        return
    chat = response.json()["data"]
    ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
    await _call(visit, "POST", "/v3/chat/cancel", json=ids)
    assert (await _over(visit, ids))["status"] in ("canceled", "completed", "failed")
    assert len(visit.world.ledger.asked(word)) <= 1


KINDS = (
    Kind("Coze streamed", 8, "coze", streamed),
    Kind("Coze polled", 5, "coze", polled),
    Kind("Coze conversation", 4, "coze", conversed),
    Kind("Coze file", 3, "coze", attached),
    Kind("Coze cancelled", 2, "coze", cancelled),
)
