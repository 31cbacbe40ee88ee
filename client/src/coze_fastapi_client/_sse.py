"""Bytes -> events (WHATWG HTML, 9.2.6). No I/O."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any


class Replacement(str):
    """A piece of text that stands for *all* text before it. Seldom: after a takeover or a repair, where what
    is stored at Coze reads otherwise than what was streamed; or after ``follow(after=...)``, where the
    service no longer has single frames but only the whole text."""

    __slots__ = ()


@dataclass(frozen=True)
class Event:
    """``data`` is JSON text. ``text``: what this event adds to the answer, usually nothing or a few words."""

    id: str | None
    name: str
    data: str
    text: str = ""

    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def has_text(self) -> bool:
        return bool(self.text) or isinstance(self.text, Replacement)


class SSEDecoder:
    """Feed it bytes as they come, cut anywhere: the work is linear in them. ``comments`` counts the
    heartbeats."""

    def __init__(self) -> None:
        self.comments = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")  # without a byte order mark
        self._held = ""
        self._pieces = [""]
        """The pieces of the line that has not ended."""
        self._id: str | None = None
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        text = self._held + self._utf8.decode(chunk)
        # A line feed that belongs to a carriage return at the very end may still be under way.
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        piece, *more = text.split("\n")
        self._pieces.append(piece)
        if not more:
            return []
        *lines, rest = ["".join(self._pieces), *more]
        self._pieces = [rest]
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "id":
            self._id = value
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        return None

    def _dispatch(self) -> Event | None:
        """``id`` is None where the block had none: an id is not inherited, since only frames of the log have
        one."""
        data, event = self._data, Event(self._id, self._name or "message", "\n".join(self._data))
        self._id, self._name, self._data = None, "", []
        return event if data else None
