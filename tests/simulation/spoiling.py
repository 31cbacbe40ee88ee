"""Spoils what Coze sends, as Coze itself has been seen to do: parts of it are no JSON, no UTF-8, or of
another type. Nothing that matters is lost by it: whoever reads with care tells the same answer as ever."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any, Final

_DELTA: Final = "conversation.message.delta"
_COMPLETED: Final = "conversation.message.completed"
_TOO_MUCH: Final = "a number without end"
_HIGH: Final = "\ud83d"
"""The first half of a pair: as an escape, since UTF-8 has no bytes for it."""
_BAD_BYTE: Final = "\udcff"
"""How Python's ``surrogateescape`` writes a byte that no character has."""


class Spoiler:
    """Of one answer. ``counts`` gets what was done; ``bad_text``: a text that deltas do not give whole, so
    that only the completed message does."""

    def __init__(self, dice: random.Random, counts: Counter[str]) -> None:
        self._dice = dice
        self._counts = counts
        self._held: dict[str, tuple[str, bool]] = {}
        """By message id: what the next delta begins with, half a character first, and whether as bytes."""

    def stream(self, piece: bytes) -> bytes:
        """Whole events; what is none of these is left as it is."""
        if not piece.endswith(b"\n\n"):
            return piece
        return b"".join(self._event(block) + b"\n\n" for block in piece[:-2].split(b"\n\n"))

    def body(self, piece: bytes) -> bytes:
        """A JSON answer: times, and what nobody has to know."""
        try:
            value = json.loads(piece)
        except ValueError:
            return piece
        if not isinstance(value, dict):
            return piece
        data = value.get("data")
        things = [thing for thing in (data if isinstance(data, list) else [data]) if isinstance(thing, dict)]
        if self._dice.random() < 0.5:
            for thing in things:
                _in_milliseconds(thing)
        as_bytes = self._stray(self._dice.choice([value, *things]))
        self._counts["spoiled_body"] += 1
        return _dumped(value, as_bytes=as_bytes)

    def _event(self, block: bytes) -> bytes:
        head, _, data = block.partition(b"\ndata:")
        name = head.removeprefix(b"event:").strip().decode()
        try:
            value = json.loads(data)
        except ValueError:
            return block
        if not isinstance(value, dict):
            return block
        if name == _COMPLETED and self._held.pop(value.get("id", ""), None):
            self._counts["bad_text"] += 1
        as_bytes = self._text(value) if name == _DELTA and value.get("content") else None
        if as_bytes is None and self._dice.random() < 0.5:
            as_bytes = self._field(value, name)
        if as_bytes is None:
            return block
        self._counts["spoiled_event"] += 1
        return head + b"\ndata:" + _dumped(value, as_bytes=as_bytes)

    # -- what is spoiled; whether by bytes (else by escapes), None where nothing is ------------------------

    def _text(self, value: dict[str, Any]) -> bool | None:
        """Of a delta: a character that is cut in two, or something that is none."""
        message, dice = value["id"], self._dice
        if message in self._held:
            before, as_bytes = self._held.pop(message)
            value["content"] = before + value["content"]
            return as_bytes
        text = value["content"]
        places = [place for place, char in enumerate(text) if ord(char) > 127]
        if places and dice.random() < 0.4:
            place = dice.choice(places)
            as_bytes = ord(text[place]) < 0x10000 or dice.random() < 0.5
            first, second = _halves(text[place], dice) if as_bytes else _pair(text[place])
            value["content"] = text[:place] + first
            self._held[message] = second + text[place + 1 :], as_bytes
            self._counts["half_character"] += 1
            return as_bytes
        if dice.random() < 0.03:
            as_bytes = dice.random() < 0.5
            place = dice.randrange(len(text) + 1)
            value["content"] = text[:place] + (_BAD_BYTE if as_bytes else _HIGH) + text[place:]
            self._counts["bad_text"] += 1
            return as_bytes
        return None

    def _field(self, value: dict[str, Any], name: str) -> bool:
        """One of those that nobody has to know."""
        choices: list[tuple[str, Any]] = [("section_id", [1]), ("bot_id", 7), ("created_at", _TOO_MUCH)]
        choices += [("created_at", "soon"), ("last_error", []), ("extra", {"a": None})]
        if name.startswith("conversation.chat."):
            choices.append(("usage", "none"))
        field, instead = self._dice.choice(choices)
        if field == "last_error" and name == "conversation.chat.failed":
            return self._stray(value)
        if self._dice.random() < 0.5:
            value[field] = instead
            return True
        _in_milliseconds(value)
        return self._stray(value)

    def _stray(self, value: dict[str, Any]) -> bool:
        value["extra"] = self._dice.choice((_TOO_MUCH, "a\u2028b\u0085c", _BAD_BYTE, _HIGH))
        return bool(value["extra"] != _HIGH)


def _halves(char: str, dice: random.Random) -> tuple[str, str]:
    raw = char.encode()
    place = dice.randrange(1, len(raw))
    return raw[:place].decode("utf-8", "surrogateescape"), raw[place:].decode("utf-8", "surrogateescape")


def _pair(char: str) -> tuple[str, str]:
    raw = char.encode("utf-16-be")
    return raw[:2].decode("utf-16-be", "surrogatepass"), raw[2:].decode("utf-16-be", "surrogatepass")


def _in_milliseconds(value: dict[str, Any]) -> None:
    for name in ("created_at", "updated_at", "completed_at"):
        if isinstance(value.get(name), int):
            value[name] *= 1000


def _dumped(value: object, *, as_bytes: bool) -> bytes:
    text = json.dumps(value, ensure_ascii=not as_bytes, separators=(",", ":"))
    return text.replace(f'"{_TOO_MUCH}"', "1e999").encode("utf-8", "surrogateescape")
