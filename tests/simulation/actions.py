"""What clients do. Each public method is a kind of step; what it names and does not find, it leaves alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from tests.simulation.book import TERMINAL, Book, ChatNote, SessionNote
from tests.simulation.client import CALL_SECONDS, Answer, Caller
from tests.simulation.clock import CLOCK, outside
from tests.simulation.exchange import Broken, Exchange
from tests.simulation.openai_client import ask
from tests.simulation.reading import Reading
from tests.simulation.replica import Replica

_PATIENCE: Final = 120.0
"""Seconds for which a client repeats a call that was refused for the moment or lost."""
_LOOK_FOR: Final = 30.0
"""Seconds for which a step waits for what an earlier step is still making."""
_PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


class Clients:
    """``settings``: the service's, for limits and lives. ``until``: when the scenario ends at the latest."""

    def __init__(self, caller: Caller, book: Book, settings: dict[str, str], until: float) -> None:
        self._caller = caller
        self._book = book
        self._until = until
        self._expire = float(settings.get("COZE_SESSION_EXPIRE", "3600"))
        self._patience = float(settings.get("COZE_TIMEOUT", "30"))
        self._most_sessions = int(settings.get("COZE_MAX_SESSIONS_PER_USER", "10"))
        self.files: dict[str, str] = {}

    # -- sessions ----------------------------------------------------------------------------------------

    async def open(
        self, label: str, user: str, who: str, replica: int = 0, key: str = "", conversation_of: str = ""
    ) -> None:
        """With a ``key`` it is repeated until it is sure."""
        body: dict[str, Any] = {"user_id": user}
        if conversation_of:
            before = await self._session(conversation_of)
            if before is None or not before.conversation:
                return
            body["conversation_id"] = before.conversation
        headers = {"Idempotency-Key": key} if key else {}
        note = SessionNote(label, who, user)
        answer = await self._repeated(
            "POST", "/coze/sessions", who, body, replica, headers=headers, again=bool(key)
        )
        if answer is None:
            return
        if answer.status == 200:
            note.id, note.opened_at = answer.data["session_id"], CLOCK.now
            note.alive_until = CLOCK.now + self._expire - 1.0
            note.conversation = answer.data["conversation_id"] or ""
            self._book.sessions[label] = note
        elif answer.code == "SESSION_LIMIT_REACHED":
            self._check_limit(note)
        elif answer.status == 404 and conversation_of:
            self._check_conversation(note, conversation_of)
        elif answer.status < 500:
            self._book.violated("refused", f"POST sessions: {answer.status} {answer.code}")

    def _check_limit(self, note: SessionNote) -> None:
        """The oldest idle one gives way: only sessions that are all busy are a reason to refuse."""
        busy = [
            chat.session.label
            for chat in self._book.chats.values()
            if chat.session.user == note.user and chat.settled_at is None and (chat.id or chat.unsure)
        ]
        if len(set(busy)) < self._most_sessions and not self._book.losses:
            self._book.violated("limits", f"{note.user}: refused, though {len(set(busy))} sessions are busy")

    def _check_conversation(self, note: SessionNote, before: str) -> None:
        old = self._book.sessions[before]
        if not self._book.losses and (old.who, old.user) not in self._book.erased and not old.single:
            self._book.violated("conversation", f"{note.label} cannot go on with {before}'s")

    async def open_many(self, user: str, who: str, count: int, at_once: int, replica: int = 0) -> None:
        """One user opens ``count`` sessions, ``at_once`` of them at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with gate:
                await self.open(f"{user}-many-{number}", user, who, replica + number)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def look(self, session: str, replica: int = 0, every: float = 0.0, times: int = 1) -> None:
        """GET session, again and again: looking keeps it alive."""
        note = await self._session(session)
        for number in range(times if note is not None else 0):
            assert note is not None
            if number:
                await asyncio.sleep(every)
            answer = await self._once("GET", f"/coze/sessions/{note.id}", note.who, None, replica + number)
            if answer is not None and answer.status == 200:
                note.alive_until = CLOCK.now + self._expire - 1.0
                note.conversation = answer.data["conversation_id"] or note.conversation
                self._see_history(answer.data["chat_history"], "session")

    def _see_history(self, records: list[dict[str, Any]], door: str) -> None:
        under_way = [record for record in records if record["status"] in ("processing", "requires_action")]
        if len(under_way) > 1:
            self._book.violated("order", f"two at once: {[record['chat_id'] for record in under_way]}")
        for record in records:
            if (chat := self._book.note_of(record["chat_id"])) is not None:
                chat.see(door, record)

    async def pages(self, session: str, replica: int = 0) -> None:
        note = await self._session(session)
        if note is None:
            return
        before = ""
        while True:
            query = f"limit=3&before={before}"
            answer = await self._once("GET", f"/coze/sessions/{note.id}/chats", note.who, None, replica, query)
            if answer is None or answer.status != 200:
                return
            self._see_history(answer.data["chats"], "pages")
            before = answer.data["next_before"]
            if not before:
                return

    async def history(self, session: str, replica: int = 0) -> None:
        note = await self._session(session)
        if note is not None:
            await self._once("GET", f"/coze/sessions/{note.id}/history", note.who, None, replica)

    async def delete(self, session: str, replica: int = 0) -> None:
        note = await self._session(session)
        if note is None:
            return
        note.over = CLOCK.now if note.over is None else note.over
        for chat in note.chats:
            chat.cancel_at = CLOCK.now if chat.cancel_at is None else chat.cancel_at
        await self._repeated("DELETE", f"/coze/sessions/{note.id}", note.who, None, replica)

    async def erase(self, user: str, who: str, replica: int = 0) -> None:
        self._book.erased.setdefault((who, user), CLOCK.now)
        for note in self._book.sessions.values():
            if (note.who, note.user) == (who, user):
                note.over = CLOCK.now if note.over is None else note.over
                for chat in note.chats:
                    chat.cancel_at = CLOCK.now if chat.cancel_at is None else chat.cancel_at
        for number in range(40):
            answer = await self._repeated("DELETE", f"/coze/users/{user}", who, None, replica + number)
            if answer is None or answer.status != 200 or not answer.data["remaining_sessions"]:
                return
            await asyncio.sleep(1.0)
        self._book.violated("erase", f"{user} was not erased in 40 calls")

    async def upload(self, label: str, session: str, replica: int = 0, breaks: bool = False) -> None:
        """``breaks``: the client leaves in the middle."""
        note = await self._session(session)
        if note is None:
            return
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p.png"\r\n\r\n'
        pieces = [head, _PNG] if breaks else [head, _PNG, b"\r\n--b--\r\n"]
        target = await self._caller.some_replica(replica, CLOCK.now + _PATIENCE)
        if target is None:
            return
        request = self._caller.request(
            "POST",
            "/coze/files",
            note.who,
            query=f"session_id={note.id}",
            raw=("multipart/form-data; boundary=b", pieces),
        )
        try:
            answer = await self._caller.call(target, request, 350.0)
        except Broken:
            return
        if answer.status == 200:
            self.files[label] = answer.data["file_id"]

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
        comes back elsewhere. ``readers``: so many more follow the chat. ``comes_back``: seconds until whoever sent
        it looks for the answer."""
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
        while CLOCK.now < begun + _PATIENCE:
            target = await self._caller.some_replica(replica, begun + _PATIENCE)
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
            self._accepted(chat, chat_id)
            if answer.status in (200, 202) and answer.body.get("data"):
                chat.see("answer", answer.data, resumable=answer.body["data"].get("resumable", True))
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
                self._book.violated("refused", f"{chat.label}: {answer.status} {answer.code}, and it is alive")
        elif answer.status != 429:
            self._book.violated("refused", f"{chat.label}: {answer.status} {answer.code} {answer.details}")
        return True

    def _evicted(self, session: SessionNote) -> bool:
        """An idle session may have made room for a newer one of the same user."""
        later = [
            other
            for other in self._book.sessions.values()
            if (other.who, other.user) == (session.who, session.user) and other.opened_at > session.opened_at
        ]
        return len(later) + 1 >= self._most_sessions

    def _check_busy(self, chat: ChatNote, answer: Answer) -> None:
        """409: something of this session must be under way, or may be."""
        now = CLOCK.now
        for other in chat.session.chats:
            if other is not chat and (other.id or other.unsure) and (
                other.settled_at is None or other.settled_at > chat.sent_at
            ):
                return
        if self._book.troubled("redis", "replica", "coze", "odd", since=chat.session.opened_at, until=now):
            return
        shared = any(
            other is not chat.session and other.conversation and other.conversation == chat.session.conversation
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
        await ask(self._caller, self._book, chat, body, headers, replica, hang_up, _PATIENCE)
        await self._stay(chat, replica + 1)

    # -- chats -------------------------------------------------------------------------------------------

    async def cancel(self, chat: str, replica: int = 0) -> None:
        note = await self._chat(chat)
        if note is None:
            return
        note.cancel_at = CLOCK.now if note.cancel_at is None else note.cancel_at
        answer = await self._repeated("POST", f"/coze/chats/{note.id}/cancel", note.session.who, None, replica)
        if answer is not None and answer.status == 200:
            note.see("cancel", answer.data)

    async def result(self, chat: str, replica: int = 0, wait: float = 0.0) -> None:
        note = await self._chat(chat)
        if note is None:
            return
        path = f"/coze/chats/{note.id}/result"
        answer = await self._once("GET", path, note.session.who, None, replica, f"wait={wait:g}")
        if answer is not None and answer.status == 200:
            note.see("result", answer.data)

    async def answer_tools(
        self, chat: str, replica: int = 0, mode: str = "wait", key: str = "", loses: bool = False
    ) -> None:
        """Outputs for what the chat asked for. ``loses``: the connection breaks after the outputs were sent, and
        the client, who has a key, sends them again."""
        note = await self._chat(chat)
        if note is None:
            return
        calls = await self._tool_calls(note, replica)
        if not calls:
            return
        body = {
            "tool_outputs": [{"tool_call_id": call["id"], "output": "21 degrees"} for call in calls],
            "stream": mode == "stream",
        }
        headers = {"Idempotency-Key": key} if key else {}
        begun = CLOCK.now
        while CLOCK.now < begun + _PATIENCE:
            target = await self._caller.some_replica(replica, begun + _PATIENCE)
            if target is None:
                return
            replica += 1
            path = f"/coze/chats/{note.id}/tool_outputs"
            request = self._caller.request("POST", path, note.session.who, body, headers=headers)
            again = bool(note.outputs_at)
            note.outputs_at.append(CLOCK.now)
            try:
                if loses:
                    loses = False
                    exchange = target.call(request)
                    await asyncio.sleep(1.0)
                    exchange.hang_up()
                    continue
                if await self._submit(note, target, request, mode, again, sure=bool(key) or not again):
                    return
            except Broken:
                if not key:
                    return
            await asyncio.sleep(1.0)

    async def _submit(
        self, note: ChatNote, target: Replica, request: Any, mode: str, again: bool, *, sure: bool
    ) -> bool:
        """``sure``: it must be taken, unless the chat may be over by itself."""
        if mode == "stream":
            exchange, status, headers = await self._caller.begin(target, request)
            if status == 200:
                reading = Reading()
                note.readings.append(reading)
                await self._caller.read(exchange, reading)
                if not reading.done:
                    await self._caller.follow(note, reading, 1, self._until)
                return True
            answer = Answer(status, headers, json.loads(await exchange.read()))
        else:
            answer = await self._caller.call(target, request, self._patience + CALL_SECONDS)
        if answer.status in (200, 202):
            note.see("tool_outputs", answer.data)
            await self._caller.follow(note, Reading(), 1, self._until)
            return True
        if answer.headers.get("x-coze-chat-id"):
            return True
        if answer.status in (404, 409, 410) and sure and not self._may_be_over(note):
            rule = "tools_again" if again else "tools"
            self._book.violated(rule, f"{note.label}: {answer.status} {answer.code} {answer.body.get('error')}")
        return answer.status < 500

    def _may_be_over(self, note: ChatNote) -> bool:
        session = note.session
        over = note.cancel_at is not None or session.over is not None or CLOCK.now >= session.alive_until
        replaced = any(chat.on_busy == "interrupt" for chat in session.chats if chat is not note)
        return over or replaced or bool(self._book.losses) or note.settled_at is not None

    async def _tool_calls(self, note: ChatNote, replica: int) -> list[dict[str, Any]]:
        """Waits a while for the chat to ask."""
        for _ in range(30):
            answer = await self._once(
                "GET", f"/coze/chats/{note.id}/result", note.session.who, None, replica, "wait=5"
            )
            if answer is not None and answer.status == 200:
                note.see("result", answer.data)
                if answer.data["status"] == "requires_action":
                    asked: list[dict[str, Any]] = answer.data["required_action"]["submit_tool_outputs"][
                        "tool_calls"
                    ]
                    return asked
                if answer.data["status"] in TERMINAL:
                    return []
            elif answer is not None and answer.status == 404:
                return []
            await asyncio.sleep(1.0)
        return []

    # -- others ------------------------------------------------------------------------------------------

    async def snoop(self, who: str, replica: int = 0) -> None:
        """Somebody else tries all ids that are known: they must be as if they were not there."""
        for session in list(self._book.sessions.values()):
            if session.id and session.who != who:
                for method, path in (("GET", ""), ("GET", "/history"), ("DELETE", ""), ("POST", "/clear")):
                    await self._try_foreign(method, f"/coze/sessions/{session.id}{path}", who, replica)
        for chat in list(self._book.chats.values()):
            if chat.id and chat.session.who != who:
                for method, path in (("GET", "result"), ("GET", "events"), ("POST", "cancel")):
                    await self._try_foreign(method, f"/coze/chats/{chat.id}/{path}", who, replica)

    async def _try_foreign(self, method: str, path: str, who: str, replica: int) -> None:
        target = await self._caller.some_replica(replica, CLOCK.now + 1.0)
        if target is None:
            return
        try:
            exchange, status, _ = await self._caller.begin(target, self._caller.request(method, path, who))
        except Broken:
            return
        exchange.hang_up()
        if status not in (404, 503, 500):
            self._book.violated("foreign", f"{who}: {method} {path} is {status}")

    # -- how -----------------------------------------------------------------------------------------------

    async def _session(self, label: str) -> SessionNote | None:
        for _ in range(int(_LOOK_FOR)):
            if label in self._book.sessions:
                return self._book.sessions[label]
            await asyncio.sleep(1.0)
        return None

    async def _chat(self, label: str) -> ChatNote | None:
        for _ in range(int(_LOOK_FOR)):
            if label in self._book.chats and self._book.chats[label].id:
                return self._book.chats[label]
            await asyncio.sleep(1.0)
        return None

    async def _once(
        self, method: str, path: str, who: str, body: Any, replica: int, query: str = ""
    ) -> Answer | None:
        target = await self._caller.some_replica(replica, CLOCK.now + _PATIENCE)
        if target is None:
            return None
        try:
            request = self._caller.request(method, path, who, body, query=query)
            return await self._caller.call(target, request, CALL_SECONDS)
        except Broken:
            return None

    async def _repeated(
        self,
        method: str,
        path: str,
        who: str,
        body: Any,
        replica: int,
        *,
        headers: dict[str, str] | None = None,
        again: bool = True,
    ) -> Answer | None:
        """The first answer that is no 5xx; None where there was none in time, or it may not be repeated."""
        until = CLOCK.now + _PATIENCE
        while CLOCK.now < until:
            target = await self._caller.some_replica(replica, until)
            if target is None:
                return None
            replica += 1
            try:
                request = self._caller.request(method, path, who, body, headers=headers)
                answer = await self._caller.call(target, request)
                if answer.status < 500:
                    return answer
            except Broken:
                if not again:
                    return None
            await asyncio.sleep(1.0)
        return None

