"""Reads the data of a stream's events: fast where it is as it should be, and in part where it is not."""

from typing import Final

import msgspec

from app.coze.loose_json import loose_object, mended, mended_object, split_half
from app.coze.wire import UNREADABLE, Message, shown_text, strict_object


class MessageData(msgspec.Struct, gc=False):
    """What the fold needs of a message. Coze sends null for any of them."""

    id: str = ""
    type: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    content_type: str | None = None


decode: Final = msgspec.json.Decoder(MessageData).decode


class EventReader:
    """Of one stream.

    ``mended``: how many events were read in part; ``lost``: how many could not be read. ``has_gap``: text of
    the answer may be among those. ``halves``: by message id and field, the half of a character with which
    the last delta ended.
    """

    def __init__(self) -> None:
        self.mended = self.lost = 0
        self.has_gap = False
        self.halves: dict[tuple[str, str], str] = {}

    def message(self, data: bytes) -> tuple[MessageData, bytes] | None:
        """A completed message, and its data as it may be passed on; None where it cannot be read."""
        try:
            if strict_object(data) is not None:
                return decode(data), data
        except UNREADABLE:
            pass
        return self.mend(data, delta=False)

    def object(self, data: bytes) -> tuple[dict[str, object] | None, bytes]:
        """Any other object, and its data as it may be passed on."""
        found = strict_object(data)
        if found is not None:
            return found, data
        found = mended_object(data)
        if found is None:
            self.lost += 1
            return None, data
        self.mended += 1
        return found, msgspec.json.encode(found)

    def passed_on(self, data: bytes) -> bytes:
        """The data of an event that is not read here, so that readers of JSON and of UTF-8 can read it."""
        if strict_object(data) is not None:
            return data
        if (found := mended_object(data)) is not None:
            self.mended += 1
            return msgspec.json.encode(found)
        return data if data.isascii() else data.decode("utf-8", "replace").encode()

    def mend(self, data: bytes, *, delta: bool) -> tuple[MessageData, bytes] | None:
        """What a message says, and its data as it may be passed on, where a part of that is not as it should
        be. None where it cannot be read; then text of the answer may be missing.

        ``delta``: halves of characters wait for the next one, and come with it.
        """
        value = loose_object(data)
        parsed = Message.parse(value)
        if value is None or parsed is None:
            self.lost += 1
            self.has_gap = True
            return None
        for name in ("content", "reasoning_content") if delta else ():
            part = self.halves.pop((parsed.id, name), "") + shown_text(value.get(name))
            value[name], half = split_half(part)
            if half:
                self.halves[parsed.id, name] = half
        seen = mended(value)
        parsed = Message.parse(seen)
        assert parsed is not None and isinstance(seen, dict)  # noqa: S101, PT018  # it was one before
        seen |= {"content": parsed.content, "reasoning_content": parsed.reasoning_content, "id": parsed.id}
        self.mended += 1
        wire = MessageData(
            parsed.id, parsed.type, parsed.content, parsed.reasoning_content, parsed.content_type or None
        )
        return wire, msgspec.json.encode(seen)
