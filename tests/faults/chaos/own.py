"""Clients of our own API."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from tests.faults.support import AWAY, COME_BACK, Reader, nonce
from tests.files.helpers import PNG
from tests.support import Client, data_of, outputs_for

from .visits import ANSWER_SECONDS, Kind, Visit

SLOW = "deltas=30;gap=0.1;reasoning=0"
QUICK = "deltas=5;gap=0.02;reasoning=0"
SESSIONS_PER_USER = 12
"""What the replicas are set to."""
_OVER = ("completed", "failed", "cancelled", "requires_action")


class HangingUp(Reader):
    """A client in a tunnel: many of its connections end after a few frames."""

    def __init__(self, clients: Sequence[Client], visit: Visit) -> None:
        super().__init__(clients, first=visit.place)
        self._dice = visit.dice

    async def _read(self, reader: Any, frames: int | None) -> bool:
        if frames is None and self._dice.random() < 0.4:
            frames = self._dice.randint(1, 30)
        return await super()._read(reader, frames)


# -- steps ---------------------------------------------------------------------------------------------------


async def _session(visit: Visit, **body: Any) -> str:
    body = {"user_id": visit.user_id, **body}
    session = await visit.data("POST", "/coze/sessions", json=body, headers={"Idempotency-Key": nonce()})
    session_id: str = session["session_id"]
    return session_id


async def _ask(visit: Visit, session_id: str, text: str, *, prefer: str = "", **body: Any) -> str:
    """Sends a message that is not streamed; its chat's id. With the key a repetition is the same chat.

    The session may be busy for a moment with what is over: while Redis is away an end is told before it is
    written.
    """
    headers = {"Idempotency-Key": nonce()} | ({"Prefer": prefer} if prefer else {})
    path = f"/coze/sessions/{session_id}/messages"
    while True:
        response = await visit.call("POST", path, json={"message": text, **body}, headers=headers)
        if response.status_code != 409:
            break
        await visit.elsewhere()
    found = response.json()
    if response.status_code in (200, 202):
        chat_id: str = found["data"]["task_id"]
    else:
        assert "chat_id" in found["error"]["details"], f"{response.status_code}: {response.text}"
        chat_id = found["error"]["details"]["chat_id"]
    return chat_id


async def _ended(visit: Visit, chat_id: str) -> dict[str, Any]:
    """The chat when it is over. It may be unknown for a moment: what Redis has lost is written again."""
    while True:
        response = await visit.call("GET", f"/coze/chats/{chat_id}/result", params={"wait": "10"})
        if response.status_code != 404:
            chat: dict[str, Any] = data_of(response)
            if chat["status"] in _OVER:
                return chat
        else:
            await visit.elsewhere()


async def _gone(visit: Visit, session_id: str) -> None:
    response = await visit.call("GET", f"/coze/sessions/{session_id}")
    assert response.status_code in (404, 410), f"it is still there: {response.text}"


# -- visits --------------------------------------------------------------------------------------------------


async def streamed(visit: Visit) -> None:
    """A conversation in streams that break off and are resumed on whichever replica."""
    session_id = await _session(visit)
    for _ in range(visit.dice.randint(1, 4)):
        word, text = visit.message()
        reader = HangingUp(visit.caller.clients, visit)
        await _send(reader, session_id, text)
        chat = await reader.follow(ANSWER_SECONDS)
        visit.world.report.counts["connections"] += reader.connections
        await visit.check_chat(chat, word)


async def _send(reader: Reader, session_id: str, text: str) -> None:
    """Until the chat has an id."""
    headers = {"Idempotency-Key": nonce()}
    body = {"message": text, "stream": True, "on_busy": "enqueue"}
    while reader.chat_id is None:
        client = reader.clients[reader.place]
        path = f"/coze/sessions/{session_id}/messages"
        with contextlib.suppress(*AWAY):
            async with client.http.stream("POST", path, json=body, headers=headers) as response:
                if response.status_code == 200:
                    reader.chat_id = response.headers["x-coze-chat-id"]
                else:
                    told = (await response.aread()).decode()
                    assert response.status_code in COME_BACK - {404}, told
        reader.place = (reader.place + 1) % len(reader.clients)


async def answered(visit: Visit) -> None:
    """The whole answer at once, however long that takes."""
    session_id = await _session(visit)
    for _ in range(visit.dice.randint(1, 3)):
        word, text = visit.message()
        chat_id = await _ask(visit, session_id, text)
        await visit.check_chat(await _ended(visit, chat_id), word)


async def polled(visit: Visit) -> None:
    """Sent without waiting, and fetched afterwards."""
    session_id = await _session(visit)
    word, text = visit.message()
    chat_id = await _ask(visit, session_id, text, prefer="respond-async")
    await visit.check_chat(await _ended(visit, chat_id), word)


async def queued(visit: Visit) -> None:
    """Several messages at once, each behind the one before."""
    session_id = await _session(visit)
    said = [visit.message(QUICK) for _ in range(3)]
    chats = [
        await _ask(visit, session_id, text, prefer="respond-async", on_busy="enqueue") for _, text in said
    ]
    for (word, _), chat_id in zip(said, chats, strict=True):
        await visit.check_chat(await _ended(visit, chat_id), word)


async def interrupted(visit: Visit) -> None:
    """A message that takes the place of the one under way."""
    session_id = await _session(visit)
    word, text = visit.message(SLOW)
    newer, instead = visit.message(QUICK)
    first = await _ask(visit, session_id, text, prefer="respond-async")
    second = await _ask(visit, session_id, instead, on_busy="interrupt")
    ended = await _ended(visit, first)
    if ended["status"] != "cancelled":
        await visit.check_chat(ended, word)
    await visit.check_chat(await _ended(visit, second), newer)


async def cancelled(visit: Visit) -> None:
    """The stop button."""
    session_id = await _session(visit)
    word, text = visit.message(SLOW)
    chat_id = await _ask(visit, session_id, text, prefer="respond-async")
    await visit.call("POST", f"/coze/chats/{chat_id}/cancel")
    chat = await _ended(visit, chat_id)
    if chat["status"] != "cancelled":
        await visit.check_chat(chat, word)
    assert len(visit.world.ledger.asked(word)) <= 1


async def tools(visit: Visit) -> None:
    """A bot that asks for a tool, and gets what it returned, once."""
    session_id = await _session(visit)
    word, text = visit.message(f"requires_action=function;{QUICK}")
    chat_id = await _ask(visit, session_id, text)
    chat = await _ended(visit, chat_id)
    if chat["status"] != "requires_action":
        await visit.check_chat(chat, word)
        return
    path, key = f"/coze/chats/{chat_id}/tool_outputs", {"Idempotency-Key": nonce()}
    response = await visit.call("POST", path, json=outputs_for(chat, word), headers=key)
    assert response.status_code in (200, 202, 502, 503, 504, 429), response.text
    chat = await _ended(visit, chat_id)
    if chat["status"] == "requires_action":  # a refusal of Coze's that is no end: the same outputs once more
        chat = await _after_outputs(visit, chat, word)
    await visit.check_chat(chat, word)


async def _after_outputs(visit: Visit, chat: dict[str, Any], word: str) -> dict[str, Any]:
    path, key = f"/coze/chats/{chat['chat_id']}/tool_outputs", {"Idempotency-Key": nonce()}
    await visit.call("POST", path, json=outputs_for(chat, word), headers=key)
    return await _ended(visit, chat["chat_id"])


async def attached(visit: Visit) -> None:
    """A file and a message about it."""
    session_id = await _session(visit)
    picture, params = {"file": ("a.png", PNG + nonce().encode())}, {"session_id": session_id}
    file = await visit.data("POST", "/coze/files", files=picture, params=params)
    word, text = visit.message()
    chat_id = await _ask(visit, session_id, text, attachments=[{"file_id": file["file_id"]}])
    await visit.check_chat(await _ended(visit, chat_id), word)
    await visit.data("DELETE", f"/coze/files/{file['file_id']}")


async def ended(visit: Visit) -> None:
    """A session that is ended while it answers."""
    session_id = await _session(visit)
    word, text = visit.message(SLOW)
    await _ask(visit, session_id, text, prefer="respond-async")
    await visit.call("DELETE", f"/coze/sessions/{session_id}")
    await _gone(visit, session_id)
    assert len(visit.world.ledger.asked(word)) <= 1


async def erased(visit: Visit) -> None:
    """A user of whom nothing is to stay."""
    visit.user_id = f"erased-{nonce()}"
    sessions = [await _session(visit), await _session(visit)]
    word, text = visit.message(QUICK)
    chat_id = await _ask(visit, sessions[0], text)
    await visit.check_chat(await _ended(visit, chat_id), word)
    while (await visit.data("DELETE", f"/coze/users/{visit.user_id}"))["remaining_sessions"]:
        pass
    for session_id in sessions:
        await _gone(visit, session_id)
    response = await visit.call("GET", f"/coze/chats/{chat_id}/result")
    assert response.status_code == 404, "its chat is still there"


async def looked(visit: Visit) -> None:
    """An app that shows what there is."""
    session_id = await _session(visit)
    word, text = visit.message(QUICK)
    await visit.check_chat(await _ended(visit, await _ask(visit, session_id, text)), word)
    for path in (
        f"/coze/sessions/{session_id}",
        f"/coze/sessions/{session_id}/chats",
        f"/coze/users/{visit.user_id}/sessions",
        f"/coze/users/{visit.user_id}/conversations",
        "/coze/usage?group_by=day,bot",
        "/coze/bots",
    ):
        await visit.data("GET", path)


async def crowded(visit: Visit) -> None:
    """More sessions than one user may have, as fast as they can be had: the oldest give way, and then the
    rate is reached."""
    visit.user_id = f"crowd-{nonce()}"
    for _ in range(2 * SESSIONS_PER_USER):
        response = await visit.call("POST", "/coze/sessions", json={"user_id": visit.user_id})
        assert response.status_code in (200, 429), response.text
        if response.status_code == 429:
            break
    await visit.data("DELETE", f"/coze/users/{visit.user_id}")


async def refused(visit: Visit) -> None:
    """What is wrong stays wrong, whatever goes on."""
    session_id = await _session(visit)
    path = f"/coze/sessions/{session_id}/messages"
    assert (await visit.call("POST", path, json={"message": 5})).status_code == 400
    assert (await visit.call("GET", "/coze/sessions/coze_session_nobodys")).status_code == 404


KINDS = (
    Kind("streamed", 12, "own", streamed),
    Kind("answered", 8, "own", answered),
    Kind("polled", 4, "own", polled),
    Kind("queued", 3, "own", queued),
    Kind("interrupted", 3, "own", interrupted),
    Kind("cancelled", 3, "own", cancelled),
    Kind("tools", 4, "own", tools),
    Kind("attached", 4, "own", attached),
    Kind("ended", 3, "own", ended),
    Kind("erased", 2, "own", erased),
    Kind("looked", 3, "own", looked),
    Kind("crowded", 1, "own", crowded),
    Kind("refused", 1, "own", refused),
)
