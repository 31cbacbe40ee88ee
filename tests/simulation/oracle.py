"""What must be true. Each rule is exact about what a fault excuses, and nothing else is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from app.config import Settings
from app.models import OUR_META_KEY
from tests.simulation.book import SETTLED, TERMINAL, Book, ChatNote, SeenChat, SessionNote
from tests.simulation.client import CALL_SECONDS, Answer, Caller
from tests.simulation.clock import CLOCK
from tests.simulation.coze_network import CozeNetwork
from tests.simulation.exchange import Broken
from tests.simulation.reading import Reading
from tests.simulation.replica import Replica

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
"""Legitimate losses. Redis that comes back empty, or without its last seconds (a ``Loss``), has lost what was
written in that time; a chat's owner writes its running chat again. So a chat may be missing after a loss if
it was over by then, waited (in the queue or for tools), or if its owner was troubled before it could write. A
crash before the answer to the POST leaves the client unsure: it has no chat that could be lost."""

_AFTER: Final = 2.0
_TROUBLES: Final = ("redis", "replica", "coze", "odd")
_ESSENCE: Final = ("chat_id", "session_id", "status", "content", "reasoning_content", "follow_up_questions")
_NEXT: Final = "[[sim:deltas=2;gap=0.1;reasoning=0;followups=0]] and now?"


class Oracle:
    def __init__(self, book: Book, coze: CozeNetwork, caller: Caller, settings: Settings) -> None:
        self._book = book
        self._coze = coze
        self._caller = caller
        self._settings = settings

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
                self._check_chat(chat)
                self._check_readings(chat)
        self._check_posts()
        for session in list(self._book.sessions.values()):
            if session.id:
                await self._check_session(session, replicas)
        await self._check_usage(replicas)
        self._caller.shares.check_rates()

    async def _look_again(self, chat: ChatNote, replicas: Sequence[Replica]) -> None:
        """Through all doors, on all replicas."""
        for replica in replicas:
            answer = await self._get(replica, chat.session.who, f"/coze/chats/{chat.id}/result")
            if answer is not None and answer.status == 200:
                chat.see(f"result on {replica.name}", answer.data)
            elif answer is not None and answer.status == 404:
                if not self._may_be_gone(chat):
                    self._book.violated("lost", f"{chat.label} {chat.id}: 404 on {replica.name}")
                return
        if chat.last is not None and chat.last.status not in SETTLED and self._may_be_gone(chat):
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
            answer = await self._get(replica, chat.session.who, f"/coze/chats/{chat.id}/result")
            if answer is None or answer.status != 200:
                return
            chat.see("result", answer.data)

    def _may_be_gone(self, chat: ChatNote) -> bool:
        session = chat.session
        if session.over is not None or CLOCK.now >= max(session.alive_until, self._lives_until(chat)):
            return True
        if (session.who, session.user) in self._book.erased:
            return True
        return self._may_be_lost(chat) or self._evicted(session)

    def _lives_until(self, chat: ChatNote) -> float:
        """Its session is extended by its beginning and by its end, which may have been long before anybody
        saw it."""
        return (chat.accepted_at or chat.sent_at) + self._settings.session_expire - 1.0

    def _evicted(self, session: SessionNote) -> bool:
        others = [s for s in self._book.sessions.values() if (s.who, s.user) == (session.who, session.user)]
        maybe = self._book.maybe_opened.get((session.who, session.user), 0)
        return len(others) + maybe > self._settings.max_sessions_per_user

    def _may_be_lost(self, chat: ChatNote) -> bool:
        """See the end of ``RULES``. A run that was thrown away comes back with the next renewal of its lease,
        unless its owner is gone or in trouble by then."""
        thrown = self._book.evicted.get(chat.id)
        if thrown is not None and any(
            begin <= thrown + self._settings.lease_seconds and end >= thrown
            for begin, end, kind in self._book.troubles
            if kind not in ("spoiled", "evicted")
        ):
            return True
        accepted = chat.sent_at if chat.named_by_error else chat.accepted_at or chat.sent_at
        for loss in self._book.losses:
            if accepted > loss.at:
                continue
            settled = chat.settled_at
            if settled is not None and settled < loss.since - _AFTER:
                continue  # it was over and had been copied by then
            if settled is not None and settled <= loss.at + _AFTER:
                return True
            if not self._ran_at(chat, loss.at):
                return True
            if self._book.troubled("replica", "odd", since=loss.at - 60.0, until=loss.at + 120.0):
                return True
            if len(self._book.losses) > 1 or self._book.troubled(
                "redis", since=loss.at + 1.0, until=loss.at + 60.0
            ):
                return True
        return False

    def _ran_at(self, chat: ChatNote, moment: float) -> bool:
        """Whether some process was at work on it, and so had all of it in its memory."""
        return any(
            c.created_at + 0.0 <= moment + 1_800_000_000 - 1.0 and c.status != "requires_action"
            for c in self._coze_chats(chat)
        )

    # -- one chat --------------------------------------------------------------------------------------------

    def _coze_chats(self, chat: ChatNote) -> list[Any]:
        return [c for c in self._coze.store.chats.values() if c.meta_data.get(OUR_META_KEY) == chat.id]

    def _check_chat(self, chat: ChatNote) -> None:
        last = chat.last
        if last is None:
            if not self._may_be_gone(chat):
                self._book.violated("settles", f"{chat.label} {chat.id} was accepted and never seen again")
            return
        if last.status not in SETTLED and not self._may_be_gone(chat) and not self._waits_in_line(chat):
            self._book.violated("settles", f"{chat.label} {chat.id} is {last.status}")
        if last.status == "requires_action" and chat.outputs_at and not self._may_be_gone(chat):
            taken = [seen for seen in chat.seen if seen.door == "tool_outputs"]
            if taken and not self._asks_again(chat):
                self._book.violated("settles", f"{chat.label} {chat.id} has its outputs and waits for them")
        self._check_same(chat)
        if last.status == "completed":
            self._check_text(chat, last)
        elif last.status in TERMINAL:
            self._check_outcome(chat, last)

    @staticmethod
    def _waits_in_line(chat: ChatNote) -> bool:
        """In the queue behind one that waits for tools."""
        others = [other.last for other in chat.session.chats if other is not chat]
        return any(last is not None and last.status == "requires_action" for last in others)

    def somebody_waits(self) -> bool:
        """A chat waits for tools, for as long as its session lives."""
        return any(chat.last and chat.last.status == "requires_action" for chat in self._book.chats.values())

    async def check_waiting(self, replicas: Sequence[Replica]) -> None:
        """After the ends of all sessions: whatever waited has ended with its own."""
        for chat in self._book.chats.values():
            if chat.last is None or chat.last.status in TERMINAL:
                continue
            answer = await self._get(replicas[0], chat.session.who, f"/coze/chats/{chat.id}/result")
            if answer is not None and answer.status == 200 and answer.data["status"] not in TERMINAL:
                self._book.violated("settles", f"{chat.label} {chat.id} outlives its session")

    def _asks_again(self, chat: ChatNote) -> bool:
        return any(c.status == "requires_action" for c in self._coze_chats(chat))

    def _check_same(self, chat: ChatNote) -> None:
        """Once over it stays as it is. What Redis did not have yet, or has lost, may come out otherwise; what
        was told while Redis was in trouble keeps its essence, though not its times."""
        over = [seen for seen in chat.seen if seen.status in TERMINAL and seen.resumable]
        for before, after in pairwise(over):
            shown = [before.record, after.record]
            if self._book.troubled("redis", since=before.at, until=before.at):
                # It may have been told from its owner's memory, and ended anew by another after that.
                shown = [{name: record[name] for name in _ESSENCE} for record in shown]
            if shown[0] != shown[1] and not self._lost_between(before, after):
                names = [name for name in after.record if before.record.get(name) != after.record[name]]
                self._book.violated("same", f"{chat.label}: {before.door} and {after.door} differ in {names}")
                return
        for seen in chat.seen:
            if seen.status not in TERMINAL and any(
                before.at < seen.asked_at and not self._lost_between(before, seen) for before in over
            ):
                self._book.violated("same", f"{chat.label}: {seen.door} says {seen.status} after its end")
                return

    def _lost_between(self, before: SeenChat, after: SeenChat) -> bool:
        return any(
            loss.since <= before.at + _AFTER and loss.at <= after.at + _AFTER for loss in self._book.losses
        )

    def _check_text(self, chat: ChatNote, last: SeenChat) -> None:
        found = self._coze_chats(chat)
        if not found:
            self._book.violated("text", f"{chat.label}: completed, and Coze never heard of it")
            return
        if len(found) > 1 and self._forgotten(found):
            return  # the first answer was seen by some, the second by others
        if self._book.losses and any(c.status == "canceled" for c in found):
            # The end was lost with Redis, and its owner, who was cut off, has read the stream meanwhile: Coze
            # sends that of a cancelled chat in full, though it keeps nothing of it.
            return
        answers = [m.content for c in found for m in c.messages if m.type == "answer"]
        said = "\n".join(text for text in answers if text)
        if (told := last.record["content"]) != said:
            self._book.violated("text", f"{chat.label}: {told[:80]!r} is not {said[:80]!r} ({len(said)})")
        for status, content in chat.coze:
            if status == "completed" and not self._alike(content, said):
                self._book.violated("coze", f"{chat.label}: {content[:80]!r} is not {said[:80]!r}")
        kinds = {m.content_type for c in found for m in c.messages if m.type == "answer"} - {"text"}
        for kind in kinds:  # OpenAI's clients are told of it, who would take it for text
            said = f"[{kind}: data for Coze's own apps, no text]\n{said}"
        for finish, content in chat.openai:
            if finish == "stop" and not chat.outputs_at and not self._alike(content, said):
                self._book.violated("openai", f"{chat.label}: {content[:80]!r} is not {said[:80]!r}")

    def _alike(self, shown: str, said: str) -> bool:
        """Nothing can be taken back of what an OpenAI client was sent: what could not be read of a delta
        stands there as U+FFFD, though the whole message, which came later, has a character or nothing."""
        parts = [re.escape(part) for part in shown.split("\ufffd")]
        spoiled = self._coze.counts["bad_text"] and re.fullmatch(".?".join(parts), said, re.DOTALL)
        return shown == said or bool(spoiled)

    def _check_outcome(self, chat: ChatNote, last: SeenChat) -> None:
        if last.status == "cancelled":
            interrupted = any(
                other.on_busy == "interrupt" for other in chat.session.chats if other is not chat
            )
            over = chat.session.over is not None  # it was sent to a session that was being ended
            excused = (
                chat.unsure or over or self._book.troubled("redis", "odd", since=chat.sent_at, until=last.at)
            )
            if chat.cancel_at is None and not interrupted and not excused:
                self._book.violated("outcome", f"{chat.label}: cancelled, and nobody asked for it")
            return
        code = (last.record.get("error") or {}).get("code")
        at_coze = self._coze_chats(chat)
        if (
            any(c.status == "failed" or c.knobs.fail for c in at_coze)
            or "fail=" in chat.message
            or "http=" in chat.message
            or "empty_list=99" in chat.message
        ):
            return  # Coze said so, or never showed its answer
        end = chat.settled_at or last.at
        if code == "COZE_TIMEOUT" and end - chat.sent_at >= self._settings.chat_timeout - 1.0:
            return
        if code == "COZE_SESSION_EXPIRED":
            return
        if code == "COZE_SESSION_BUSY" and self._shares_conversation(chat.session):
            return  # they take turns, and wait for ten seconds
        if not at_coze and self._book.troubled(since=chat.sent_at, until=end):
            return  # its POST never arrived
        if self._book.troubled("odd", since=chat.sent_at, until=end):
            return
        # Nobody can look for it at Coze while its conversation is not known: that of a single chat, and one
        # that could not be made when its session was opened.
        unknown = chat.session.single or (
            "coze_chat_id" not in last.record["metadata"]
            and self._book.troubled("coze", since=chat.session.opened_at, until=chat.sent_at)
        )
        if unknown and self._book.troubled("coze", since=chat.sent_at, until=end):
            return
        if unknown and "cut=" in chat.message and "coze_chat_id" not in last.record["metadata"]:
            return  # cut before Coze had told its ids
        if self._book.troubled("coze", since=chat.sent_at, until=end) and not any(
            c.status == "completed" for c in at_coze
        ):
            return
        self._book.violated("outcome", f"{chat.label} failed: {last.record.get('error')}")

    def _shares_conversation(self, session: SessionNote) -> bool:
        """Two sessions may go on with one conversation."""
        others = [other.conversation for other in self._book.sessions.values() if other is not session]
        return bool(session.conversation) and session.conversation in others

    def _check_readings(self, chat: ChatNote) -> None:
        for reading in chat.readings:
            for rule, text in reading.faults:
                self._book.violated(rule, f"{chat.label}: {text}")
            over = [status for status, _ in reading.ends if status in TERMINAL]
            if len(over) > 1 and not self._book.losses:
                self._book.violated("frames", f"{chat.label}: ended {len(over)} times: {over}")

    def _check_posts(self) -> None:
        posts: dict[str, list[Any]] = {}
        for chat in self._coze.store.chats.values():
            posts.setdefault(chat.meta_data.get(OUR_META_KEY, ""), []).append(chat)
        for ours, chats in posts.items():
            if len(chats) > 1 and not self._forgotten(chats):
                self._book.violated("post", f"{ours} was POSTed {len(chats)} times")
        by_key: dict[str, set[str]] = {}
        for note in self._book.chats.values():
            if note.key and note.id:
                by_key.setdefault(f"{note.session.label} {note.key}", set()).add(note.id)
        for key, ids in by_key.items():
            if len(ids) > 1 and not self._book.losses:
                self._book.violated("once", f"{key} led to {sorted(ids)}")

    def _forgotten(self, chats: list[Any]) -> bool:
        """Redis lost all that was written between a chat's first POST and a time when it was over, so that
        nobody had it in memory any more."""
        posted = min(int(chat.created_at) for chat in chats) - 1_800_000_000
        return any(
            loss.since - _AFTER <= posted + 1.0 and posted <= loss.at and self._was_over(chats[0], loss.at)
            for loss in self._book.losses
        )

    def _was_over(self, chat: Any, moment: float) -> bool:
        ours = self._book.note_of(chat.meta_data.get(OUR_META_KEY, ""))
        return ours is not None and ours.settled_at is not None and ours.settled_at <= moment

    # -- sessions ----------------------------------------------------------------------------------------

    async def _check_session(self, session: SessionNote, replicas: Sequence[Replica]) -> None:
        answer = await self._get(
            replicas[0], session.who, f"/coze/sessions/{session.id}", "history_limit=100"
        )
        if answer is None:
            return
        if answer.status != 200:
            alive = session.over is None and CLOCK.now < session.alive_until
            if alive and not self._book.losses and not self._evicted(session):
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
            posted += [(int(c.id), chat.label) for c in self._coze_chats(chat)]
        thrown = any(chat.id in self._book.evicted for chat in session.chats)  # so the next one went ahead
        if posted != sorted(posted) and not self._book.losses and not thrown:
            self._book.violated("order", f"{session.label}: {[label for _, label in posted]} at Coze")
        spoken = {c.conversation_id for chat in session.chats for c in self._coze_chats(chat)}
        if len(spoken) > 1 and not self._book.troubled(*_TROUBLES, since=session.opened_at):
            self._book.violated("conversation", f"{session.label}: spoken in {len(spoken)} conversations")

    # -- usage, limits -----------------------------------------------------------------------------------

    async def _check_usage(self, replicas: Sequence[Replica]) -> None:
        """Exact where all chats are known; what is unsure, lost or erased leaves bounds."""
        if self._book.erased or self._book.losses:
            return
        for who in sorted({chat.session.who for chat in self._book.chats.values()}):
            answer = await self._get(replicas[0], who, "/coze/usage")
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

    async def check_ends(self, replicas: Sequence[Replica]) -> None:
        """An hour after the faults: limits, and nothing that runs."""
        live: dict[tuple[str, str], int] = {}
        for who, user in sorted({(s.who, s.user) for s in self._book.sessions.values()}):
            answer = await self._get(replicas[0], who, f"/coze/users/{user}/sessions", "limit=1000")
            if answer is not None and answer.status == 200:
                live[who, user] = len(answer.data["sessions"])
        self._caller.shares.check_sessions(live)
        answer = await self._get(replicas[0], "admin", "/coze/admin/stats")
        if answer is not None and answer.status == 200 and answer.data["process"]["running_chats"]:
            self._book.violated("left_over", f"an hour later there run {answer.data['process']}")

    async def _get(self, replica: Replica, who: str, path: str, query: str = "") -> Answer | None:
        try:
            return await self._caller.call(replica, self._caller.request("GET", path, who, query=query))
        except Broken:
            self._book.violated("stuck", f"GET {path} on {replica.name}: no answer, and all is calm")
            return None
