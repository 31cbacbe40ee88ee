"""What must be true of each session: it is there, in order, takes a next message; and of what was used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from app.config import Settings
from tests.simulation.book import TERMINAL, Book, SessionNote
from tests.simulation.client import CALL_SECONDS, Caller
from tests.simulation.clock import CLOCK
from tests.simulation.exchange import Broken
from tests.simulation.excuses import Excuses
from tests.simulation.replica import Replica

_TROUBLES: Final = ("redis", "replica", "coze", "odd")
_NEXT: Final = "[[sim:deltas=2;gap=0.1;reasoning=0;followups=0]] and now?"


class SessionRules:
    def __init__(self, book: Book, caller: Caller, settings: Settings, excuses: Excuses) -> None:
        self._book = book
        self._caller = caller
        self._settings = settings
        self._excuses = excuses

    async def check_session(self, session: SessionNote, replicas: Sequence[Replica]) -> None:
        answer = await self._caller.look(
            replicas[0], session.who, f"/coze/sessions/{session.id}", "history_limit=100"
        )
        if answer is None:
            return
        if answer.status != 200:
            alive = session.over is None and CLOCK.now < session.alive_until
            if alive and not self._book.losses and not self._excuses.evicted(session):
                self._book.violated("lost", f"{session.label}: {answer.status} {answer.code}")
            return
        records = answer.data["chat_history"]
        self._check_order(session, records)
        tries = 3
        for record in records:
            if record["status"] == "requires_action":
                await self._free(session, record["chat_id"], replicas[0])
                tries = 60  # what was queued behind it is answered first
        status = await self._say_next(session, replicas[-1], tries)
        if status != "completed":
            self._book.violated("next", f"{session.label}: the next message is {status}")

    async def _free(self, session: SessionNote, chat_id: str, replica: Replica) -> None:
        """Cancelling a chat that waits for tools makes room for the next message."""
        request = self._caller.request("POST", f"/coze/chats/{chat_id}/cancel", session.who)
        try:
            answer = await self._caller.call(replica, request)
        except Broken:
            return
        chat = self._book.note_of(chat_id)
        if answer.status == 200 and chat is not None:
            chat.cancel_at = chat.cancel_at or CLOCK.now
            chat.see("cancel", answer.data)
        if answer.status != 200 or answer.data["status"] == "requires_action":
            self._book.violated("cancel", f"{session.label}: {chat_id} cannot be cancelled: {answer.status}")

    async def _say_next(self, session: SessionNote, replica: Replica, tries: int) -> str:
        for _ in range(100):
            request = self._caller.request(
                "POST", f"/coze/sessions/{session.id}/messages", session.who, {"message": _NEXT}
            )
            try:
                answer = await self._caller.call(replica, request, self._settings.timeout + CALL_SECONDS)
            except Broken:
                return "broken"
            if answer.status == 200:
                return str(answer.data["status"])
            if answer.code == "RATE_LIMITED":
                await asyncio.sleep(float(answer.headers["retry-after"]))
                continue
            if answer.code != "COZE_SESSION_BUSY":
                return f"{answer.status} {answer.code}"
            tries -= 1
            if not tries:
                break
            await asyncio.sleep(2.0)
        return f"busy with {answer.details}"

    def _check_order(self, session: SessionNote, records: list[dict[str, Any]]) -> None:
        """Those that were taken earlier were POSTed earlier, but for interrupts, which go first."""
        posted: list[tuple[int, str]] = []
        for record in reversed(records):
            chat = self._book.note_of(record["chat_id"])
            if chat is None or chat.on_busy == "interrupt":
                continue
            posted += [(int(c.id), chat.label) for c in self._excuses.chats_at_coze(chat)]
        thrown = any(chat.id in self._book.evicted for chat in session.chats)  # so the next one went ahead
        if posted != sorted(posted) and not self._book.losses and not thrown:
            self._book.violated("order", f"{session.label}: {[label for _, label in posted]} at Coze")
        spoken = {c.conversation_id for chat in session.chats for c in self._excuses.chats_at_coze(chat)}
        if len(spoken) > 1 and not self._book.troubled(*_TROUBLES, since=session.opened_at):
            self._book.violated("conversation", f"{session.label}: spoken in {len(spoken)} conversations")

    async def check_usage(self, replicas: Sequence[Replica]) -> None:
        """Exact where all chats are known; what is unsure, lost or erased leaves bounds."""
        if self._book.erased or self._book.losses:
            return
        for who in sorted({chat.session.who for chat in self._book.chats.values()}):
            answer = await self._caller.look(replicas[0], who, "/coze/usage")
            if answer is None or answer.status != 200:
                continue
            mine = [chat for chat in self._book.chats.values() if chat.session.who == who and chat.id]
            over = {c.id: c.last.record for c in mine if c.last is not None and c.last.status in TERMINAL}
            tokens = sum((record.get("usage") or {}).get("token_count", 0) for record in over.values())
            total = answer.data["total"]
            unsure = any(
                c.unsure or (c.id and (c.last is None or c.last.status not in TERMINAL))
                for c in self._book.chats.values()
                if c.session.who == who
            )
            extra = self._next_messages(who)
            too_few = total["chats"] < len(over) or total["tokens"] < tokens
            too_many = not unsure and total["chats"] > len(over) + extra
            if too_few or too_many:
                told = f"{total['chats']} chats, {total['tokens']} tokens"
                self._book.violated(
                    "usage", f"{who}: {told}, but {len(over)} (+{extra}) and {tokens} were seen"
                )

    def _next_messages(self, who: str) -> int:
        """Our own, of ``_say_next``."""
        return sum(1 for session in self._book.sessions.values() if session.who == who and session.id)
