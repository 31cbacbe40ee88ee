"""Clients that send messages, by both dialects, and stay until the answer is there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.simulation.book import ChatNote, SessionNote
from tests.simulation.client import CALL_SECONDS, Answer
from tests.simulation.clock import CLOCK, outside
from tests.simulation.coze_client import ask as ask_coze
from tests.simulation.doing import PATIENCE, Doing
from tests.simulation.exchange import Broken, Exchange
from tests.simulation.openai_client import ask
from tests.simulation.reading import Reading


class Senders(Doing):
    # -- messages ----------------------------------------------------------------------------------------

    async def send(
        self,
        label: str,
        session: str,
        message: str,
        mode: str = "stream",
        replica: int = 0,
        on_busy: str = "reject",
        key: str = "",
        hang_up: float | None = None,
        readers: int = 0,
        file: str = "",
        comes_back: float = 0.0,
    ) -> None:
        """``mode``: stream, wait or async. ``hang_up``: the stream's client leaves after so many seconds, and
        comes back elsewhere. ``readers``: so many more follow the chat. ``comes_back``: seconds until whoever
        sent it looks for the answer."""
        note = await self._session(session)
        if note is None:
            return
        chat = ChatNote(label, note, message, on_busy, key or None)
        body: dict[str, Any] = {"message": message, "on_busy": on_busy, "stream": mode == "stream"}
        if file:
            if file not in self.files:
                return
            body["attachments"] = [{"file_id": self.files[file]}]
        headers = {"Idempotency-Key": key} if key else {}
        headers |= {"Prefer": "respond-async"} if mode == "async" else {}
        await self._ask(chat, f"/coze/sessions/{note.id}/messages", body, headers, replica, hang_up)
        await asyncio.sleep(comes_back)
        others = [outside(self._read_along(chat, replica + n), "reader") for n in range(1, readers + 1)]
        await asyncio.gather(self._stay(chat, replica + 1), *others)

    async def _ask(
        self,
        chat: ChatNote,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str],
        replica: int,
        hang_up: float | None,
    ) -> None:
        """Sends it, with a key as often as it takes; reads the stream, if it is one, as far as it goes."""
        begun = chat.sent_at = CLOCK.now
        self._book.chats[chat.label] = chat
        chat.session.chats.append(chat)
        while CLOCK.now < begun + PATIENCE:
            target = await self._caller.some_replica(replica, begun + PATIENCE)
            if target is None:
                return
            replica += 1
            request = self._caller.request("POST", path, chat.session.who, body, headers=headers)
            chat.unsure = True
            try:
                if body.get("stream"):
                    exchange, status, got = await self._caller.begin(target, request)
                    if status == 200:
                        await self._first_reading(chat, exchange, got, hang_up)
                        return
                    raw = json.loads(await exchange.read())
                    answer = Answer(status, got, raw)
                    if status == 429:
                        self._caller.shares.refused(request.asked, raw)
                else:
                    answer = await self._caller.call(target, request, self._patience + CALL_SECONDS)
            except Broken:
                if chat.key is None:
                    return
                await asyncio.sleep(0.5)
                continue
            if self._take_answer(chat, answer) or chat.key is None:
                return
            await asyncio.sleep(1.0)

    async def _first_reading(
        self, chat: ChatNote, exchange: Exchange, headers: dict[str, str], hang_up: float | None
    ) -> None:
        self._accepted(chat, headers["x-coze-chat-id"])
        reading = chat.readings[0]
        if await self._caller.read(exchange, reading, hang_up=hang_up) and chat.bound:
            chat.cancel_at = CLOCK.now if chat.cancel_at is None else chat.cancel_at
        if reading.results:
            chat.see("answer", reading.results[-1], resumable=reading.resumable)

    def _accepted(self, chat: ChatNote, chat_id: str) -> None:
        known = self._book.note_of(chat_id)
        if known is not None and known is not chat and known.key != chat.key:
            self._book.violated("once", f"{chat.label} was given {known.label}'s chat {chat_id}")
        if chat.id and chat.id != chat_id and not self._book.losses:
            self._book.violated("once", f"the key of {chat.label} led to {chat.id} and to {chat_id}")
        chat.id, chat.unsure = chat_id, False
        chat.accepted_at = CLOCK.now if chat.accepted_at is None else chat.accepted_at

    def _take_answer(self, chat: ChatNote, answer: Answer) -> bool:
        """Whether that was definite."""
        chat_id = answer.headers.get("x-coze-chat-id", "")
        if chat_id:
            chat.named_by_error |= chat.accepted_at is None and answer.status >= 400
            self._accepted(chat, chat_id)
            if answer.status in (200, 202) and answer.body.get("data"):
                chat.see("answer", answer.data, resumable=answer.resumable, asked_at=answer.asked_at)
            return True
        if answer.status in (500, 502, 503, 504):
            # 503 at a moment when Redis was lost says nothing of whether it was done.
            chat.unsure = True
            return False
        chat.unsure = False
        if answer.status == 409:
            self._check_busy(chat, answer)
            return True
        session = chat.session
        if answer.status in (404, 410):
            lost = bool(self._book.losses)
            gone = session.over is not None or CLOCK.now >= session.alive_until or session.single
            if not (gone or lost or self._evicted(session)):
                self._book.violated(
                    "refused", f"{chat.label}: {answer.status} {answer.code}, and it is alive"
                )
        elif answer.status != 429:
            self._book.violated("refused", f"{chat.label}: {answer.status} {answer.code} {answer.details}")
        return True

    def _evicted(self, session: SessionNote) -> bool:
        """An idle session may have made room for a newer one of the same user, however old it is: what counts
        is which one was used last."""
        same = [
            each
            for each in self._book.sessions.values()
            if (each.who, each.user) == (session.who, session.user) and each.opened_at and not each.single
        ]
        maybe = self._book.maybe_opened.get((session.who, session.user), 0)
        newer = maybe or any(each.opened_at > session.opened_at for each in same)
        return bool(newer) and len(same) + maybe > self._most_sessions

    def _check_busy(self, chat: ChatNote, answer: Answer) -> None:
        """409: something of this session must be under way, or may be."""
        now = CLOCK.now
        for other in chat.session.chats:
            if (
                other is not chat
                and (other.id or other.unsure)
                and (other.settled_at is None or other.settled_at > chat.sent_at)
            ):
                return
        if self._book.troubled("redis", "replica", "coze", "odd", since=chat.session.opened_at, until=now):
            return
        shared = any(
            other is not chat.session
            and other.conversation
            and other.conversation == chat.session.conversation
            for other in self._book.sessions.values()
        )
        if not shared:
            self._book.violated("busy", f"{chat.label}: 409 {answer.code} {answer.details}, nothing runs")

    async def _stay(self, chat: ChatNote, replica: int) -> None:
        """Until the chat is over, or waits for tools."""
        if not chat.id:
            return
        if not chat.readings[0].done:
            await self._caller.follow(chat, chat.readings[0], replica, self._until)

    async def _read_along(self, chat: ChatNote, replica: int) -> None:
        if chat.id:
            reading = Reading()
            chat.readings.append(reading)
            await self._caller.follow(chat, reading, replica, self._until)

    async def openai(
        self,
        label: str,
        user: str,
        who: str,
        message: str,
        stream: bool = True,
        replica: int = 0,
        key: str = "",
        hang_up: float | None = None,
        session: str = "",
    ) -> None:
        """The same through the OpenAI door. Without ``session`` and ``key`` hanging up is the stop button."""
        body: dict[str, Any] = {
            "model": "coze",
            "messages": [{"role": "user", "content": message}],
            "stream": stream,
            "user": user,
        }
        note = SessionNote(label, who, user, single=True, opened_at=CLOCK.now)
        if session:
            found = await self._session(session)
            if found is None:
                return
            note, body["metadata"] = found, {"session_id": found.id}
        chat = ChatNote(label, note, message, "reject", key or None)
        chat.bound = not session and not key
        headers = {"Idempotency-Key": key} if key else {}
        await ask(self._caller, self._book, chat, body, headers, replica, hang_up, PATIENCE)
        await self._stay(chat, replica + 1)

    async def coze(
        self,
        label: str,
        user: str,
        who: str,
        message: str,
        stream: bool = True,
        replica: int = 0,
        hang_up: float | None = None,
    ) -> None:
        """The same through the door of Coze's own clients, in a new conversation. Hanging up stops
        nothing."""
        note = SessionNote(label, who, user, single=True, opened_at=CLOCK.now)
        chat = ChatNote(label, note, message, "reject", None)
        await ask_coze(self._caller, self._book, chat, stream, replica, hang_up, PATIENCE)
        await self._stay(chat, replica + 1)
