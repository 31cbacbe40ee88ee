"""What the simulator has been asked, for tests that count requests."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_RECORDS = 10_000


@dataclass(slots=True)
class Record:
    """One request. ``path`` is without the prefix; ``mount`` is the prefix; ``time`` in unix seconds."""

    method: str
    path: str
    mount: str
    query: dict[str, str]
    time: float = field(default_factory=time.time)
    conversation_id: str = ""
    chat_id: str = ""
    user_id: str = ""
    message: str = ""
    meta_data: dict[str, str] = field(default_factory=dict)
    stream: bool = False
    status: int = 0
    code: int = 0
    logid: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Recorder:
    """The newest requests, bounded."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)

    def add(self, record: Record) -> None:
        """Keeps ``record``, which may still be filled in."""
        self._records.append(record)

    def clear(self) -> None:
        """Forgets all."""
        self._records.clear()

    def view(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        """Oldest first. ``filters``: equal values by field name; ``contains``: a part of the message."""
        wanted = dict(filters)
        part = wanted.pop("contains", "")
        shown = []
        for record in self._records:
            item = asdict(record)
            if part in record.message and all(str(item.get(name)) == value for name, value in wanted.items()):
                shown.append(item)
        return shown
