"""Events -> the answer's text, and what each event adds to it. No I/O.

The folding rule: deltas are appended by message id, a snapshot replaces what was there, and nothing else
brings text.
"""

from __future__ import annotations

from typing import Any

from ._models import Chat, Json
from ._sse import Event, Replacement


class Answer:
    """All answers of a chat, joined by a line feed as ``Chat.content`` joins them.

    Whoever joins the pieces that ``take`` returns, and begins anew at each ``Replacement``, has ``text``; at
    the end of a completed chat, that is ``Chat.content``. ``whole`` False: reading began in the middle, so
    the beginning of the text is unknown, and that the final chat begins otherwise is no news.

    A process that dies has shown its readers a few words more than it has stored, so the snapshot of the one
    that takes over may be behind: nothing is taken back, the words are expected to come again.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._messages: dict[str, list[str]] = {}
        self._pieces: list[str] = []
        self._behind = False

    @property
    def text(self) -> str:
        """What the pieces make."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def take(self, event: Event) -> str:
        """What the event adds."""
        if event.name == "conversation.message.delta":
            return self._delta(event.json())
        if event.name == "snapshot":
            return self._snapshot(event.json())
        return ""

    def end(self, chat: Chat) -> str:
        """What the final chat adds; of one that did not get to its end, what was read stays."""
        if chat.status not in ("completed", "requires_action"):
            return ""
        return self._replace_text(chat.content, last=True)

    def _delta(self, message: Json) -> str:
        if (message.get("type") or "answer") != "answer":
            return ""
        # One without text takes its place, too: messages stand in order of first appearance.
        parts = self._messages.setdefault(_id(message), [])
        content = _content(message)
        if not content:
            return ""
        lead = "\n" if not parts and any(self._pieces) else ""
        parts.append(content)
        if self._behind or parts is not self._messages[next(reversed(self._messages))]:
            return self._rebuilt()
        self._pieces.append(lead + content)
        return lead + content

    def _snapshot(self, snapshot: Json) -> str:
        """It has everything up to here, whatever was read before."""
        messages: list[dict[str, Any]] = snapshot.get("messages") or []
        self._messages = {_id(message): list(filter(None, [_content(message)])) for message in messages}
        self._whole = True
        return self._rebuilt()

    def _rebuilt(self) -> str:
        return self._replace_text("\n".join(filter(None, map("".join, self._messages.values()))))

    def _replace_text(self, text: str, *, last: bool = False) -> str:
        have = self.text
        self._behind = len(text) < len(have) and not last and have.startswith(text)
        if text == have or self._behind or (not self._whole and text.endswith(have)):
            return ""
        self._pieces = [text]
        return text[len(have) :] if text.startswith(have) else Replacement(text)


def _id(message: Json) -> str:
    return str(message.get("id") or "")


def _content(message: Json) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
