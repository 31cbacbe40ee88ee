"""What an OpenAI client has of the answer. It can only be given more: nothing is ever taken back."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

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


_TYPE_NAME: Final = re.compile(r"[a-z][a-z_]{0,31}")


def notice_of(content_type: object) -> str:
    """What stands before an answer that is no text (a card's JSON, say); empty for text."""
    if not content_type or content_type == "text":
        return ""
    known = isinstance(content_type, str) and _TYPE_NAME.fullmatch(content_type)
    return f"[{content_type if known else 'unknown type'}: data for Coze's own apps, no text]\n"


_BROKEN: Final = "\ufffd"
_MOST_WITH_BROKEN: Final = 64 * 1024
"""Characters of both texts that are compared letter by letter: a tenth of a second."""
_PIECE: Final = 4096
_MOST_DECOMPOSED: Final = 512 * 1024
"""Characters of both texts that are brought into one normal form: as long."""


def _letters(text: str) -> list[tuple[str, int]]:
    """What counts in ``text``, each with the place behind the character that it is of."""
    return [
        (letter, place)
        for place, char in enumerate(text, 1)
        if not char.isspace()
        for letter in unicodedata.normalize("NFD", char)
    ]


def _behind_broken(letters: list[tuple[str, int]], place: int) -> int:
    while place < len(letters) and letters[place][0] == _BROKEN:
        place += 1
    return place


def _behind_one(letters: list[tuple[str, int]], place: int) -> int:
    """Behind all letters of one character."""
    end = place
    while end < len(letters) and letters[end][1] == letters[place][1]:
        end += 1
    return end


def rest_alike(text: str, sent: str) -> str | None:
    """What ``text`` says beyond ``sent``; None where it does not begin with that.

    Differences in white space, line ends, normal form, and U+FFFD where the other has a character or nothing,
    are none: Coze stores a text otherwise than it streams it. Of long texts with U+FFFD, or in another normal
    form, behind the first difference it is not found out: it would take seconds.
    """
    same = len(text[: _alike_until(text, sent)].rstrip())
    has, had = text[same:], sent[same:]
    if _BROKEN not in has and _BROKEN not in had:
        place = _place_behind(has, had)
    else:
        place = _place_behind_broken(has, had) if len(has) + len(had) <= _MOST_WITH_BROKEN else None
    if place is None:
        return None
    rest = has[place:]
    return rest.lstrip() if sent[-1:].isspace() else rest


def _alike_until(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class _Decomposed(dict[int, str]):
    """For ``str.translate``. Of each character by itself: to put marks into their order, too, takes a time
    that grows with the square of how many there are in a row."""

    def __missing__(self, char: int) -> str:
        found = self[char] = unicodedata.normalize("NFD", chr(char))
        return found


def _plain(text: str, known: _Decomposed) -> str:
    """What counts in ``text``, see ``_letters``."""
    said = "".join(text.split())
    return said if unicodedata.is_normalized("NFD", said) else said.translate(known)


def _place_behind(text: str, sent: str) -> int | None:
    """Behind the character with the last letter of ``sent``, where ``text`` begins with these letters. In
    pieces, since to know of each letter where it stands takes a hundred times as long as to compare them."""
    known = _Decomposed()
    is_plain = unicodedata.is_normalized("NFD", text) and unicodedata.is_normalized("NFD", sent)
    if not is_plain and len(text) + len(sent) > _MOST_DECOMPOSED:
        return None
    letters, told = _plain(sent, known), 0
    for begin in range(0, len(text), _PIECE):
        found = _plain(text[begin : begin + _PIECE], known)
        left = len(letters) - told
        if len(found) < left:
            if not letters.startswith(found, told):
                return None
            told += len(found)
            continue
        if left and not found.startswith(letters[told:]):
            return None
        for place in range(begin, len(text) + 1):
            if left <= 0:
                return place
            left -= len(_plain(text[place], known))
    return None if letters else 0


def _place_behind_broken(text: str, sent: str) -> int | None:
    """The same where U+FFFD stands for what was lost."""
    had, has = _letters(sent), _letters(text)
    i = j = 0
    while i < len(had):
        if j < len(has) and had[i][0] == has[j][0]:
            i, j = i + 1, j + 1
            continue
        after_i, after_j = _behind_broken(had, i), _behind_broken(has, j)
        if (after_i, after_j) == (i, j):
            return None
        if after_j == j and (after_i == len(had) or had[after_i][0] != _letter_at(has, j)):
            after_j = _behind_one(has, j)
        elif after_i == i and had[i][0] != _letter_at(has, after_j):
            after_i = _behind_one(had, i)
        i, j = after_i, after_j
    return has[j - 1][1] if j else 0


def _letter_at(letters: list[tuple[str, int]], place: int) -> str:
    return letters[place][0] if place < len(letters) else ""


class SentText:
    """One kind of text (answer or reasoning) by the folding rule: deltas are appended by message id, a
    snapshot replaces all. ``before``: what the client had from an earlier answer of this chat.

    After a takeover the log can be behind what the client has: frames reach readers before they reach Redis.
    Then nothing is sent until the log has caught up, and it has to tell the same.
    """

    __slots__ = ("_before", "_behind", "_messages", "_newest", "_sent")

    def __init__(self, before: str = "") -> None:
        self._messages: dict[str, list[str]] = {}
        self._newest: list[str] | None = None
        """The last one of them."""
        self._sent = [before] if before else []
        self._behind = bool(before)
        self._before = before

    def add(self, message_id: str, text: str) -> str:
        """A delta; returns what is to be sent. Raises where it belongs before something that was sent."""
        parts = self._messages.get(message_id)
        if parts is None:  # one without text takes its place, too: messages stand in order of appearance
            parts = self._newest = self._messages[message_id] = []
        if not text:
            return ""
        news = SEPARATOR + text if not parts and self._sent else text
        parts.append(text)
        if self._behind or parts is not self._newest:
            return self._become(self._whole())
        self._sent.append(news)
        return self._news(news) if self._before else news

    def replace(self, texts: Iterable[tuple[str, str]]) -> str:
        """A snapshot; returns the rest. Raises unless one of it and what was sent begins with the other."""
        self._messages = {message_id: [text] if text else [] for message_id, text in texts}
        self._newest = next(reversed(self._messages.values()), None)
        return self._become(self._whole())

    def end(self, final: str) -> str:
        """The rest of the answer as it is stored."""
        rest = self._become(final)
        if self._behind and rest_alike(final, "".join(self._sent)) is None:
            raise replaced()
        return rest

    def _whole(self) -> str:
        return SEPARATOR.join(filter(None, map("".join, self._messages.values())))

    def _become(self, text: str) -> str:
        sent = "".join(self._sent)
        self._behind = len(text) < len(sent) and sent.startswith(text)
        if self._behind:
            return ""
        rest = text[len(sent) :] if text.startswith(sent) else rest_alike(text, sent)
        if rest is None:
            self._behind = rest_alike(sent, text) is not None
            if not self._behind:
                raise replaced()
        if not rest:
            return ""
        self._sent = [text]
        return self._news(rest)

    def _news(self, rest: str) -> str:
        """The first words behind ``before`` begin an answer of their own."""
        before, self._before = self._before, ""
        return rest.removeprefix(SEPARATOR) if before else rest
