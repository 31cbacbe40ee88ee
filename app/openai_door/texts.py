"""What an OpenAI client has of the answer. It can only be given more: nothing is ever taken back."""

from collections.abc import Iterable
from typing import Final

from app.exceptions import CozeApiError, ServiceError

SEPARATOR: Final = "\n"
"""Between the messages of an answer that has several, as in a chat's ``content``."""


def replaced() -> ServiceError:
    error = CozeApiError("The answer was replaced after a part of it had been sent; ask again for all of it")
    error.details["openai_code"] = "answer_replaced"
    return error


class SentText:
    """One kind of text (answer or reasoning), by message id in order of first appearance.

    After a takeover the log can be behind what the client has: frames reach readers before they reach Redis.
    Then nothing is sent until the log has caught up, and it has to tell the same.
    """

    __slots__ = ("_behind", "_sent", "_something")

    def __init__(self) -> None:
        self._sent: dict[str, list[str]] = {}
        self._behind: dict[str, str] = {}
        self._something = False

    def add(self, message_id: str, text: str) -> str:
        """A delta; returns what is to be sent."""
        parts = self._sent.get(message_id)
        if parts is None:
            parts = self._sent[message_id] = []
        if not text:
            return ""
        if self._behind and message_id in self._behind:
            return self.put(message_id, self._behind[message_id] + text)
        lead = SEPARATOR if not parts and self._something else ""
        parts.append(text)
        self._something = True
        return lead + text

    def put(self, message_id: str, text: str) -> str:
        """The message's whole text so far; returns the rest. Raises unless it begins with what was sent."""
        before = self._of(message_id)
        self._behind.pop(message_id, None)
        if text.startswith(before):
            return self.add(message_id, text[len(before) :])
        if not before.startswith(text):
            raise replaced()
        self._behind[message_id] = text
        return ""

    def put_all(self, texts: Iterable[tuple[str, str]]) -> str:
        """A snapshot: what it does not name, the log does not have."""
        given = dict(texts)
        rest = [self.put(message_id, "") for message_id in self._sent if message_id not in given]
        rest += [self.put(message_id, text) for message_id, text in given.items()]
        return "".join(rest)

    def forget_sending(self, before: str) -> str:
        """All so far was sent in an earlier answer; what goes beyond ``before`` is returned."""
        whole = self.whole()
        if not whole.startswith(before):
            raise replaced()
        rest = whole[len(before) :].removeprefix(SEPARATOR if before else "")
        self._something = bool(rest)
        return rest

    def end(self, final: str) -> str:
        """The rest of the answer as it is stored. White space at an end is no difference worth an error."""
        whole = self.whole()
        if final.startswith(whole):
            rest = final[len(whole) :]
            return rest if self._something else rest.removeprefix(SEPARATOR if whole else "")
        if whole.rstrip() != final.rstrip():
            raise replaced()
        return ""

    def whole(self) -> str:
        return SEPARATOR.join(filter(None, map(self._of, self._sent)))

    def _of(self, message_id: str) -> str:
        parts = self._sent.get(message_id, [])
        if len(parts) > 1:
            parts[:] = ["".join(parts)]
        return parts[0] if parts else ""
