"""What must be true, and when it is looked at. What a fault excuses is in ``excuses``, nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from app.config import Settings
from tests.simulation.book import SETTLED, TERMINAL, Book, ChatNote
from tests.simulation.chat_rules import ChatRules
from tests.simulation.client import Caller
from tests.simulation.clock import CLOCK
from tests.simulation.coze_network import CozeNetwork
from tests.simulation.excuses import Excuses
from tests.simulation.reading import Reading
from tests.simulation.replica import Replica
from tests.simulation.session_rules import SessionRules

RULES: Final = {
    "settles": "every accepted chat is over in the end, unless it waits for tools that nobody brought",
    "same": "all doors tell the same of a chat that is over, at all times",
    "text": "what a completed chat says is what Coze produced",
    "outcome": "a chat fails or is cancelled for a reason alone: asked for, Coze's, a deadline, a lost owner",
    "post": "Coze was asked at most once for each chat",
    "once": "an Idempotency-Key leads to one chat",
    "lost": "what was accepted is there, unless Redis lost it while nobody else had it",
    "order": "one chat at a time in a session, and messages in the order in which they were taken",
    "busy": "a session in which nothing runs takes a message",
    "next": "every session that lives takes a next message in the end",
    "cancel": "what is cancelled is over, a chat that waits for tools, too",
    "tools": "a chat that waits for tools takes their outputs for as long as its session lives",
    "tools_again": "outputs that were sent twice with one key are taken once",
    "folding": "deltas appended and snapshots that replace give the whole answer before the end",
    "frames": "frames come in order, without gap or repetition, and end once",
    "openai": "the OpenAI door tells the same answer",
    "coze": "Coze's own door tells the same answer, in Coze's bytes, and finds it by Coze's ids",
    "foreign": "nobody sees what is somebody else's",
    "usage": "usage is what Coze told, each chat counted once",
    "limits": "limits hold, and refuse only what is over them",
    "shares": "no caller and no root takes more than its share, and who keeps within the rest is served",
    "conversation": "a conversation can be gone on with, and all of a session is in one",
    "cursor": "an id that was sent is taken back",
    "refused": "refusals have a cause",
    "deadline": "no call waits longer than it says",
    "stuck": "nothing waits for ever",
    "shutdown": "a process ends when it is told to",
    "start": "a process starts whatever Redis does",
    "erase": "a user can be erased",
    "ttl": "no key is ever without a time to live",
    "empty": "200 days later Redis is empty",
    "left_over": "no task, timer, lease or exception is left",
    "error": "nothing breaks inside that the log calls an error",
}


class Oracle:
    def __init__(self, book: Book, coze: CozeNetwork, caller: Caller, settings: Settings) -> None:
        self._book = book
        self._caller = caller
        self._settings = settings
        self._excuses = Excuses(book, coze, settings)
        self._chats = ChatRules(book, coze, settings, self._excuses)
        self._sessions = SessionRules(book, caller, settings, self._excuses)

    def logged(self, text: str) -> None:
        """An error in the service's log."""
        if not self._book.troubled("odd"):
            self._book.violated("error", text.strip().splitlines()[0][:300] if text.strip() else "")

    # -- half an hour after all faults -----------------------------------------------------------------------

    async def check_chats(self, replicas: Sequence[Replica]) -> None:
        for chat in list(self._book.chats.values()):
            if chat.id:
                await self._look_again(chat, replicas)
        for chat in self._book.chats.values():
            if chat.id:
                self._chats.check_chat(chat)
                self._chats.check_readings(chat)
        self._chats.check_posts()
        for session in list(self._book.sessions.values()):
            if session.id:
                await self._sessions.check_session(session, replicas)
        await self._sessions.check_usage(replicas)
        self._caller.shares.check_rates()

    async def _look_again(self, chat: ChatNote, replicas: Sequence[Replica]) -> None:
        """Through all doors, on all replicas."""
        for replica in replicas:
            answer = await self._caller.look(replica, chat.session.who, f"/coze/chats/{chat.id}/result")
            if answer is not None and answer.status == 200:
                chat.see(f"result on {replica.name}", answer.data)
            elif answer is not None and answer.status == 404:
                if not self._excuses.may_be_gone(chat):
                    self._book.violated("lost", f"{chat.label} {chat.id}: 404 on {replica.name}")
                return
        if chat.last is not None and chat.last.status not in SETTLED and self._excuses.may_be_gone(chat):
            await self._come_back(chat, replicas[0])
        reading = Reading(leaves_out=chat.of_coze)
        chat.readings.append(reading)
        if chat.last is not None and chat.last.status in SETTLED:
            await self._caller.follow(chat, reading, 0, CLOCK.now + 120.0)
            if not reading.done:
                self._book.violated("stuck", f"{chat.label}: events of a chat that is over do not end")

    async def _come_back(self, chat: ChatNote, replica: Replica) -> None:
        """Its readers gave up when Redis had lost it; its owner has written it again, and it goes on."""
        until = CLOCK.now + self._settings.chat_timeout + 60.0
        while CLOCK.now < until and chat.last is not None and chat.last.status not in SETTLED:
            await asyncio.sleep(2.0)
            answer = await self._caller.look(replica, chat.session.who, f"/coze/chats/{chat.id}/result")
            if answer is None or answer.status != 200:
                return
            chat.see("result", answer.data)

    # -- later -----------------------------------------------------------------------------------------------

    def somebody_waits(self) -> bool:
        """A chat waits for tools, for as long as its session lives."""
        return any(chat.last and chat.last.status == "requires_action" for chat in self._book.chats.values())

    async def check_waiting(self, replicas: Sequence[Replica]) -> None:
        """After the ends of all sessions: whatever waited has ended with its own."""
        for chat in self._book.chats.values():
            if chat.last is None or chat.last.status in TERMINAL:
                continue
            answer = await self._caller.look(replicas[0], chat.session.who, f"/coze/chats/{chat.id}/result")
            if answer is not None and answer.status == 200 and answer.data["status"] not in TERMINAL:
                self._book.violated("settles", f"{chat.label} {chat.id} outlives its session")

    async def check_ends(self, replicas: Sequence[Replica]) -> None:
        """An hour after the faults: limits, and nothing that runs."""
        live: dict[tuple[str, str], int] = {}
        for who, user in sorted({(s.who, s.user) for s in self._book.sessions.values()}):
            answer = await self._caller.look(replicas[0], who, f"/coze/users/{user}/sessions", "limit=1000")
            if answer is not None and answer.status == 200:
                live[who, user] = len(answer.data["sessions"])
        self._caller.shares.check_sessions(live)
        answer = await self._caller.look(replicas[0], "admin", "/coze/admin/stats")
        if answer is not None and answer.status == 200 and answer.data["process"]["running_chats"]:
            self._book.violated("left_over", f"an hour later there run {answer.data['process']}")
