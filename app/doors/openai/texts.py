"""What an OpenAI client has of the answer. It can only be given more: nothing is ever taken back."""

from collections.abc import Iterable
from typing import Final

from app.doors.openai.sameness import continuation
from app.exceptions import CozeApiError, ServiceError

SEPARATOR: Final = "\n"
"""Between the messages of an answer that has several, as in a chat's ``content``."""


def replaced() -> ServiceError:
    error = CozeApiError("The answer was replaced after a part of it had been sent; ask again for all of it")
    error.details["openai_code"] = "answer_replaced"
    return error


def rest_of(text: str, before: str) -> str:
    """What ``text`` says beyond ``before``, with which it begins."""
    return text[len(before) :].removeprefix(SEPARATOR if before else "")


class SentText:
    """One kind of text (answer or reasoning) by the folding rule: deltas are appended by message id, a
    snapshot replaces all. ``before``: what the client had from an earlier answer of this chat.

    After a takeover the log can be behind what the client has: frames reach readers before they reach Redis.
    Then nothing is sent until the log has caught up, and it has to tell the same.
    """

    __slots__ = ("_before", "_behind", "_messages", "_sent")

    def __init__(self, before: str = "") -> None:
        self._messages: dict[str, list[str]] = {}
        self._sent = [before] if before else []
        self._behind = bool(before)
        self._before = before

    def add(self, message_id: str, text: str) -> str:
        """A delta; returns what is to be sent. Raises where it belongs before something that was sent."""
        parts = self._messages.get(message_id)
        if parts is None:  # one without text takes its place, too: messages stand in order of appearance
            parts = self._messages[message_id] = []
        if not text:
            return ""
        lead = SEPARATOR if not parts and self._sent else ""
        parts.append(text)
        if self._behind or parts is not self._messages[next(reversed(self._messages))]:
            return self._become(self._whole())
        self._sent.append(lead + text)
        return self._news(lead + text)

    def replace(self, texts: Iterable[tuple[str, str]]) -> str:
        """A snapshot; returns the rest. Raises unless one of it and what was sent begins with the other."""
        self._messages = {message_id: [text] if text else [] for message_id, text in texts}
        return self._become(self._whole())

    def end(self, final: str) -> str:
        """The rest of the answer as it is stored."""
        sent = "".join(self._sent)
        if not final.startswith(sent) and continuation(sent, final) == "":
            return ""
        rest = self._become(final)
        if self._behind:
            raise replaced()
        return rest

    def _whole(self) -> str:
        return SEPARATOR.join(filter(None, map("".join, self._messages.values())))

    def _become(self, text: str) -> str:
        sent = "".join(self._sent)
        self._behind = len(text) < len(sent) and sent.startswith(text)
        if self._behind or text == sent:
            return ""
        rest = text[len(sent) :] if text.startswith(sent) else continuation(sent, text)
        if rest is None:
            self._behind = continuation(text, sent) is not None
            if not self._behind:
                raise replaced()
            return ""
        self._sent = [text]
        return self._news(rest)

    def _news(self, rest: str) -> str:
        """The first words behind ``before`` begin an answer of their own."""
        before, self._before = self._before, ""
        return rest.removeprefix(SEPARATOR) if before else rest
