"""What a fault excuses: which chats and sessions may be gone, what may be told otherwise. Nothing else is.

Redis that comes back empty, or without its last seconds (a ``Loss``), has lost what was written in that time;
a chat's owner writes its running chat again. So a chat may be missing after a loss if it was over by then,
waited (in the queue or for tools), or if its owner was troubled before it could write. A crash before the
answer to the POST leaves the client unsure: it has no chat that could be lost.
"""

from __future__ import annotations

from typing import Any, Final

from app.config import Settings
from app.models.chats import OUR_META_KEY
from tests.simulation.book import Book, ChatNote, SeenChat, SessionNote
from tests.simulation.clock import CLOCK
from tests.simulation.coze_network import CozeNetwork

AFTER: Final = 2.0


class Excuses:
    def __init__(self, book: Book, coze: CozeNetwork, settings: Settings) -> None:
        self._book = book
        self._coze = coze
        self._settings = settings

    def chats_at_coze(self, chat: ChatNote) -> list[Any]:
        return [c for c in self._coze.store.chats.values() if c.meta_data.get(OUR_META_KEY) == chat.id]

    def may_be_gone(self, chat: ChatNote) -> bool:
        session = chat.session
        if session.over is not None or CLOCK.now >= max(session.alive_until, self._lives_until(chat)):
            return True
        if (session.who, session.user) in self._book.erased:
            return True
        return self._may_be_lost(chat) or self.evicted(session)

    def _lives_until(self, chat: ChatNote) -> float:
        """Its session is extended by its beginning and by its end, which may have been long before anybody
        saw it."""
        return (chat.accepted_at or chat.sent_at) + self._settings.session_expire - 1.0

    def evicted(self, session: SessionNote) -> bool:
        others = [s for s in self._book.sessions.values() if (s.who, s.user) == (session.who, session.user)]
        maybe = self._book.maybe_opened.get((session.who, session.user), 0)
        return len(others) + maybe > self._settings.max_sessions_per_user

    def _may_be_lost(self, chat: ChatNote) -> bool:
        """See above. A run that was thrown away comes back with the next renewal of its lease,
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
            if settled is not None and settled < loss.since - AFTER:
                continue  # it was over and had been copied by then
            if settled is not None and settled <= loss.at + AFTER:
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
            for c in self.chats_at_coze(chat)
        )

    def lost_between(self, before: SeenChat, after: SeenChat) -> bool:
        return any(
            loss.since <= before.at + AFTER and loss.at <= after.at + AFTER for loss in self._book.losses
        )

    def forgotten(self, chats: list[Any]) -> bool:
        """Redis lost all that was written between a chat's first POST and a time when it was over, so that
        nobody had it in memory any more."""
        posted = min(int(chat.created_at) for chat in chats) - 1_800_000_000
        return any(
            loss.since - AFTER <= posted + 1.0 and posted <= loss.at and self._was_over(chats[0], loss.at)
            for loss in self._book.losses
        )

    def _was_over(self, chat: Any, moment: float) -> bool:
        ours = self._book.note_of(chat.meta_data.get(OUR_META_KEY, ""))
        return ours is not None and ours.settled_at is not None and ours.settled_at <= moment

    @staticmethod
    def waits_in_line(chat: ChatNote) -> bool:
        """In the queue behind one that waits for tools."""
        others = [other.last for other in chat.session.chats if other is not chat]
        return any(last is not None and last.status == "requires_action" for last in others)

    def asks_again(self, chat: ChatNote) -> bool:
        return any(c.status == "requires_action" for c in self.chats_at_coze(chat))

    def shares_conversation(self, session: SessionNote) -> bool:
        """Two sessions may go on with one conversation."""
        others = [other.conversation for other in self._book.sessions.values() if other is not session]
        return bool(session.conversation) and session.conversation in others
