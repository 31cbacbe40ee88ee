"""What must be true of each chat: what it says, how it ended, what readers got, how often Coze was asked."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

from app.config import Settings
from app.models.chats import OUR_META_KEY
from tests.simulation.book import SETTLED, TERMINAL, Book, ChatNote, SeenChat
from tests.simulation.coze_network import CozeNetwork
from tests.simulation.excuses import Excuses

_ESSENCE: Final = ("chat_id", "session_id", "status", "content", "reasoning_content", "follow_up_questions")


class ChatRules:
    def __init__(self, book: Book, coze: CozeNetwork, settings: Settings, excuses: Excuses) -> None:
        self._book = book
        self._coze = coze
        self._settings = settings
        self._excuses = excuses

    def check_chat(self, chat: ChatNote) -> None:
        last = chat.last
        if last is None:
            if not self._excuses.may_be_gone(chat):
                self._book.violated("settles", f"{chat.label} {chat.id} was accepted and never seen again")
            return
        if (
            last.status not in SETTLED
            and not self._excuses.may_be_gone(chat)
            and not self._excuses.waits_in_line(chat)
        ):
            self._book.violated("settles", f"{chat.label} {chat.id} is {last.status}")
        if last.status == "requires_action" and chat.outputs_at and not self._excuses.may_be_gone(chat):
            taken = [seen for seen in chat.seen if seen.door == "tool_outputs"]
            if taken and not self._excuses.asks_again(chat):
                self._book.violated("settles", f"{chat.label} {chat.id} has its outputs and waits for them")
        self._check_same(chat)
        if last.status == "completed":
            self._check_text(chat, last)
        elif last.status in TERMINAL:
            self._check_outcome(chat, last)

    def _check_same(self, chat: ChatNote) -> None:
        """Once over it stays as it is. What Redis did not have yet, or has lost, may come out otherwise; what
        was told while Redis was in trouble keeps its essence, though not its times."""
        over = [seen for seen in chat.seen if seen.status in TERMINAL and seen.resumable]
        for before, after in pairwise(over):
            shown = [before.record, after.record]
            if self._book.troubled("redis", since=before.at, until=before.at):
                # It may have been told from its owner's memory, and ended anew by another after that.
                shown = [{name: record[name] for name in _ESSENCE} for record in shown]
            if shown[0] != shown[1] and not self._excuses.lost_between(before, after):
                names = [name for name in after.record if before.record.get(name) != after.record[name]]
                self._book.violated("same", f"{chat.label}: {before.door} and {after.door} differ in {names}")
                return
        for seen in chat.seen:
            if seen.status not in TERMINAL and any(
                before.at < seen.asked_at and not self._excuses.lost_between(before, seen) for before in over
            ):
                self._book.violated("same", f"{chat.label}: {seen.door} says {seen.status} after its end")
                return

    def _check_text(self, chat: ChatNote, last: SeenChat) -> None:
        found = self._excuses.chats_at_coze(chat)
        if not found:
            self._book.violated("text", f"{chat.label}: completed, and Coze never heard of it")
            return
        if len(found) > 1 and self._excuses.forgotten(found):
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
        at_coze = self._excuses.chats_at_coze(chat)
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
        if code == "COZE_SESSION_BUSY" and self._excuses.shares_conversation(chat.session):
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

    def check_readings(self, chat: ChatNote) -> None:
        for reading in chat.readings:
            for rule, text in reading.faults:
                self._book.violated(rule, f"{chat.label}: {text}")
            over = [status for status, _ in reading.ends if status in TERMINAL]
            if len(over) > 1 and not self._book.losses:
                self._book.violated("frames", f"{chat.label}: ended {len(over)} times: {over}")

    def check_posts(self) -> None:
        posts: dict[str, list[Any]] = {}
        for chat in self._coze.store.chats.values():
            posts.setdefault(chat.meta_data.get(OUR_META_KEY, ""), []).append(chat)
        for ours, chats in posts.items():
            if len(chats) > 1 and not self._excuses.forgotten(chats):
                self._book.violated("post", f"{ours} was POSTed {len(chats)} times")
        by_key: dict[str, set[str]] = {}
        for note in self._book.chats.values():
            if note.key and note.id:
                by_key.setdefault(f"{note.session.label} {note.key}", set()).add(note.id)
        for key, ids in by_key.items():
            if len(ids) > 1 and not self._book.losses:
                self._book.violated("once", f"{key} led to {sorted(ids)}")
