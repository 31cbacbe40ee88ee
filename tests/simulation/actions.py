"""What clients do. Each public method is a kind of step; what it names and does not find, it leaves alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from tests.simulation.book import TERMINAL, ChatNote, SessionNote
from tests.simulation.client import CALL_SECONDS, COZE_SECONDS, Answer
from tests.simulation.clock import CLOCK
from tests.simulation.doing import PATIENCE
from tests.simulation.exchange import Broken
from tests.simulation.reading import Reading
from tests.simulation.replica import Replica
from tests.simulation.sending import Senders

_SHORT: Final = "[[sim:deltas=2;gap=0.02;reasoning=0;followups=0]]"
_FOUND_LOST: Final = 60.0
"""Seconds after Redis' loss until all owners that it took away are replaced."""
_PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


class Clients(Senders):
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

        def unsure() -> None:
            self._book.maybe_opened[who, user] = self._book.maybe_opened.get((who, user), 0) + 1

        answer = await self._repeated(
            "POST", "/coze/sessions", who, body, replica, headers=headers, again=bool(key), unsure=unsure
        )
        if answer is None:
            return
        if answer.status == 200:
            note.id, note.opened_at = answer.data["session_id"], CLOCK.now
            note.alive_until = CLOCK.now + self._expire - 1.0
            note.conversation = answer.data["conversation_id"] or ""
            self._book.sessions[label] = note
            self._caller.shares.check_users()
        elif answer.code == "SESSION_LIMIT_REACHED":
            if answer.details.get("layer") == "user":
                self._check_limit(note)
        elif answer.status == 404 and conversation_of:
            self._check_conversation(note, conversation_of)
        elif answer.status < 500 and answer.code != "RATE_LIMITED":
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

    async def make_up(self, label: str, who: str, count: int, at_once: int, replica: int = 0) -> None:
        """A greedy caller makes up ``count`` users, each with a session and a message without one."""
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with gate:
                user, chat = f"{label}-x{number}", f"{label}-c{number}"
                await self.open(user, user, who, replica + number)
                await self.openai(chat, user, who, f"{_SHORT} {chat}", bool(number % 2), replica + number)

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
                self._see_history(answer.data["chat_history"], "session", answer.asked_at)

    def _see_history(self, records: list[dict[str, Any]], door: str, asked_at: float) -> None:
        under_way = [record for record in records if record["status"] in ("processing", "requires_action")]
        # What had ended and was lost runs again, until its lease has run out and it is fetched.
        again = any(loss.at > asked_at - _FOUND_LOST for loss in self._book.losses)
        evicted = any(record["chat_id"] in self._book.evicted for record in under_way)
        if len(under_way) > 1 and not again and not evicted:
            self._book.violated("order", f"two at once: {[record['chat_id'] for record in under_way]}")
        for record in records:
            if (chat := self._book.note_of(record["chat_id"])) is not None:
                chat.see(door, record, asked_at=asked_at)

    async def pages(self, session: str, replica: int = 0) -> None:
        note = await self._session(session)
        if note is None:
            return
        before = ""
        while True:
            query = f"limit=3&before={before}"
            answer = await self._once(
                "GET", f"/coze/sessions/{note.id}/chats", note.who, None, replica, query
            )
            if answer is None or answer.status != 200:
                return
            self._see_history(answer.data["chats"], "pages", answer.asked_at)
            before = answer.data["next_before"]
            if not before:
                return

    async def history(self, session: str, replica: int = 0) -> None:
        note = await self._session(session)
        if note is not None:
            path = f"/coze/sessions/{note.id}/history"
            await self._once("GET", path, note.who, None, replica, seconds=COZE_SECONDS)

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
        self._over_for(user, who)
        for number in range(100):  # an opening that broke off counts for a minute
            answer = await self._repeated("DELETE", f"/coze/users/{user}", who, None, replica + number)
            self._over_for(user, who)  # what was opened meanwhile went as well, or may have
            if answer is None or answer.status != 200 or not answer.data["remaining_sessions"]:
                return
            await asyncio.sleep(1.0)
        self._book.violated("erase", f"{user} was not erased in 100 calls")

    def _over_for(self, user: str, who: str) -> None:
        for note in [*self._book.sessions.values(), *(chat.session for chat in self._book.chats.values())]:
            if (note.who, note.user) == (who, user):
                note.over = CLOCK.now if note.over is None else note.over
                for chat in note.chats:
                    chat.cancel_at = CLOCK.now if chat.cancel_at is None else chat.cancel_at

    async def upload(self, label: str, session: str, replica: int = 0, breaks: bool = False) -> None:
        """``breaks``: the client leaves in the middle."""
        note = await self._session(session)
        if note is None:
            return
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p.png"\r\n\r\n'
        pieces = [head, _PNG] if breaks else [head, _PNG, b"\r\n--b--\r\n"]
        target = await self._caller.some_replica(replica, CLOCK.now + PATIENCE)
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
            answer = await self._caller.call(target, request, COZE_SECONDS)
        except Broken:
            return
        if answer.status == 200:
            self.files[label] = answer.data["file_id"]

    # -- chats -------------------------------------------------------------------------------------------

    async def cancel(self, chat: str, replica: int = 0) -> None:
        note = await self._chat(chat)
        if note is None:
            return
        note.cancel_at = CLOCK.now if note.cancel_at is None else note.cancel_at
        answer = await self._repeated(
            "POST", f"/coze/chats/{note.id}/cancel", note.session.who, None, replica
        )
        if answer is not None and answer.status == 200:
            note.see("cancel", answer.data, resumable=answer.resumable, asked_at=answer.asked_at)
            calm = not self._book.troubled("redis", "replica", "odd", "coze")
            if answer.data["status"] == "requires_action" and calm and CLOCK.now < note.session.alive_until:
                self._book.violated("cancel", f"{note.label} waits for tools even after it was cancelled")

    async def keep_alive(self) -> None:
        """Looks at all sessions for as long as it runs."""
        while True:
            await asyncio.sleep(self._expire / 4.0)
            for note in list(self._book.sessions.values()):
                if note.over is None and CLOCK.now < note.alive_until:
                    await self.look(note.label)

    async def result(self, chat: str, replica: int = 0, wait: float = 0.0) -> None:
        note = await self._chat(chat)
        if note is None:
            return
        path = f"/coze/chats/{note.id}/result"
        answer = await self._once("GET", path, note.session.who, None, replica, f"wait={wait:g}")
        if answer is not None and answer.status == 200:
            note.see("result", answer.data, resumable=answer.resumable, asked_at=answer.asked_at)

    async def answer_tools(
        self, chat: str, replica: int = 0, mode: str = "wait", key: str = "", loses: bool = False
    ) -> None:
        """Outputs for what the chat asked for. ``loses``: the connection breaks after the outputs were sent,
        and the client, who has a key, sends them again."""
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
        while CLOCK.now < begun + PATIENCE:
            target = await self._caller.some_replica(replica, begun + PATIENCE)
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
            note.see("tool_outputs", answer.data, resumable=answer.resumable, asked_at=answer.asked_at)
            await self._caller.follow(note, Reading(), 1, self._until)
            return True
        if answer.headers.get("x-coze-chat-id"):
            return True
        if answer.status in (404, 409, 410) and sure and not self._may_be_over(note):
            rule = "tools_again" if again else "tools"
            self._book.violated(
                rule, f"{note.label}: {answer.status} {answer.code} {answer.body.get('error')}"
            )
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
                note.see("result", answer.data, resumable=answer.resumable, asked_at=answer.asked_at)
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
