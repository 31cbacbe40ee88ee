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


_LIVE_STATUS: Final = {b"queued": "pending", b"ready": "processing", b"started": "processing"}
"""A chat's status by the state of its run. One that waits for tool outputs says so in its record."""
_NOT_OVER: Final = frozenset({"pending", "processing", "requires_action"})


def as_it_stands(record: bytes, state: bytes | None) -> bytes:
    """The record of a chat that is not over, with the status that follows from its run's state.

    Args:
        record: as it was stored. One that says how its chat ended is right, whatever ``state`` says.
        state: of the run; None or empty where there is none.
    """
    status = _LIVE_STATUS.get(state or b"")
    if status is None or head_of(record).status not in _NOT_OVER - {status}:
        return record
    return orjson.dumps(orjson.loads(record) | {"status": status})


def with_waits_until(record: bytes, expires_ms: int) -> bytes:
    """The record of a chat that waits for tool outputs with the time until which it does; others as they are.

    It is added when the record is read, since whoever reads the session moves that time.
    """
    if b'"requires_action"' not in record or head_of(record).status != "requires_action":
        return record
    return orjson.dumps(orjson.loads(record) | {"waits_until": iso(expires_ms)})
