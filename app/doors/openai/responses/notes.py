"""What a response has beside its chat: how it was asked for, kept in the ``metadata`` of the chat's record.

So it lives as long as the record, is taken over, written again, and erased with it, and replicas that know
nothing of it hand it on. A chat that asked for tools has a note for each response: one for what it said
first, and one for each time that it went on.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

_KEY: Final = "openai_response"
MOST_NOTED: Final = 256 * 1024
"""Bytes of all notes of a chat, as they lie in its record. With each one that is added the oldest go, but
never the two newest: a response, and the one that it goes on from."""


class Done(msgspec.Struct):
    """What a response told before its chat went on with tool outputs."""

    output: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    completed_at: int | None = None


class Note(msgspec.Struct, omit_defaults=True):
    """Fields as the request had them. ``input``: the newest items of it, as they are listed; nothing where
    nothing is to be kept (``store``). ``said``: how many characters of content and of reasoning the chat had
    said before. ``done``: set once the chat has gone on."""

    model: str
    instructions: str | None = None
    previous: str | None = None
    metadata: dict[str, str] = {}
    background: bool = False
    stream: bool = False
    store: bool = True
    user: str | None = None
    text: dict[str, Any] | None = None
    tool_choice: Any = None
    tools: list[Any] = []
    input: list[dict[str, Any]] = []
    said: tuple[int, int] = (0, 0)
    done: Done | None = None


_read: Final = msgspec.json.Decoder(Note).decode


def packed(note: Note) -> bytes:
    """For as long as an answer takes: as objects, what a caller writes takes up to thirty times as much."""
    return msgspec.json.encode(note)


def unpacked(note: bytes) -> Note:
    return _read(note)


def _key(epoch: int) -> str:
    return f"{_KEY}_{epoch}" if epoch else _KEY


def note_as_metadata(note: Note, epoch: int = 0) -> dict[str, str]:
    return {_key(epoch): msgspec.json.encode(note).decode()}


def note_in(metadata: Mapping[str, str], epoch: int) -> Note | None:
    """The note of the response that began in ``epoch``; None where there is none."""
    packed = metadata.get(_key(epoch))
    return _read(packed) if packed is not None else None


def epochs_in(metadata: Mapping[str, str]) -> list[int]:
    """Of all responses of a chat, the newest last."""
    keys = [key.removeprefix(_KEY).removeprefix("_") for key in metadata if key.startswith(_KEY)]
    return sorted(int(key or 0) for key in keys)


def newest_notes(metadata: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str | None]:
    """``added``, and None for each note that goes: its response is not kept any more."""
    told: dict[str, str | None] = {**added}
    notes, size = {**metadata, **added}, 0
    for newer, epoch in enumerate(reversed(epochs_in(notes))):
        size += len(orjson.dumps(notes[_key(epoch)]))
        if size > MOST_NOTED and newer >= 2:
            told[_key(epoch)] = None
    return told


def without_note(metadata: Mapping[str, str], epoch: int) -> dict[str, str]:
    return {name: text for name, text in metadata.items() if name != _key(epoch)}
