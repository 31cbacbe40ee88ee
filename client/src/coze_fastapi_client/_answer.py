"""Events -> the answer's text, and what each event adds to it. No I/O."""

from typing import Any

from ._models import Chat, Json
from ._sse import Event, Replacement


class Answer:
    """All answers of a chat, joined by a line feed as ``Chat.content`` joins them.

    Whoever joins the pieces that ``take`` returns, and begins anew at each ``Replacement``, has ``text``; at
    the end of a completed chat, that is ``Chat.content``. ``whole`` False: reading began in the middle, so
    the beginning of the text is unknown, and that what is completed begins otherwise is no news.

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
        if event.name == "conversation.message.completed":
            return self._completed(event.json())
        if event.name == "snapshot":
            return self._snapshot(event.json())
        return ""

    def end(self, chat: Chat) -> str:
        """What the final chat adds; of one that did not get to its end, what was read stays."""
        if chat.status not in ("completed", "requires_action"):
            return ""
        return self._become(chat.content, last=True)

    def _delta(self, message: Json) -> str:
        content = message.get("content") or ""
        if (message.get("type") or "answer") != "answer" or not content:
            return ""
        message_id = str(message.get("id", ""))
        known = message_id in self._messages
        if self._behind or (known and message_id != next(reversed(self._messages))):
            self._messages.setdefault(message_id, []).append(content)
            return self._rebuilt()
        piece = content
        if not known:
            piece = f"\n{content}" if self._messages or self._pieces else content
            self._messages[message_id] = []
        self._messages[message_id].append(content)
        self._pieces.append(piece)
        return str(piece)

    def _completed(self, message: Json) -> str:
        content = message.get("content") or ""
        if message.get("type") != "answer" or not content:
            return ""
        message_id = str(message.get("id", ""))
        have = "".join(self._messages.get(message_id, ()))
        if content == have:
            return ""
        self._messages[message_id] = [content]
        return self._rebuilt()

    def _snapshot(self, snapshot: Json) -> str:
        """It has everything up to here, whatever was read before."""
        messages: list[dict[str, Any]] = snapshot.get("messages") or []
        self._messages = {
            str(message.get("id", "")): [message["content"]] for message in messages if message.get("content")
        }
        self._whole = True
        return self._rebuilt()

    def _rebuilt(self) -> str:
        return self._become("\n".join("".join(parts) for parts in self._messages.values()))

    def _become(self, text: str, *, last: bool = False) -> str:
        have = self.text
        self._behind = len(text) < len(have) and not last and have.startswith(text)
        if text == have or self._behind or (not self._whole and text.endswith(have)):
            return ""
        self._pieces = [text]
        return text[len(have) :] if text.startswith(have) else Replacement(text)
