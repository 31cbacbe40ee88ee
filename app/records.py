"""What most readers of a stored chat need to know of it, without decoding the answer."""

from typing import Final

import msgspec
import orjson

from app.utils import iso


class ChatHead(msgspec.Struct):
    chat_id: str
    session_id: str
    status: str


head_of: Final = msgspec.json.Decoder(ChatHead).decode


def with_waits_until(record: bytes, expires_ms: int) -> bytes:
    """The record of a chat that waits for tool outputs with the time until which it does; others as they are.

    It is added when the record is read, since whoever reads the session moves that time.
    """
    if b'"requires_action"' not in record or head_of(record).status != "requires_action":
        return record
    return orjson.dumps(orjson.loads(record) | {"waits_until": iso(expires_ms)})
