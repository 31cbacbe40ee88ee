"""What a client makes of a stream that follows the folding rule alone, over all its connections.

The rule: append what ``conversation.message.delta`` brings by message id; let ``event: snapshot`` replace
everything. It shares no code with the service.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

ENDS = {
    "conversation.chat.completed": "completed",
    "conversation.chat.failed": "failed",
    "conversation.chat.canceled": "cancelled",
    "conversation.chat.requires_action": "requires_action",
}


@dataclass
class Event:
    name: str
    data: str
    id: str | None


class Decoder:
    """Bytes as events (WHATWG HTML, server-sent events)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        return [event for block in blocks if (event := self._event(block.decode())) is not None]

    @staticmethod
    def _event(block: str) -> Event | None:
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(" "))
        if "data" not in fields:
            return None
        event_id = fields["id"][-1] if "id" in fields else None
        return Event(fields.get("event", ["message"])[-1], "\n".join(fields["data"]), event_id)


def place_of(event_id: str) -> tuple[int, int]:
    epoch, _, frame = event_id.partition("-")
    return int(epoch), int(frame)


@dataclass
class Reading:
    """``faults``: what must not be seen, as (rule, text). ``ends``: (status, content that was there when the
    terminal frame came), in order. ``results``: final chats, as they came. ``leaves_out``: the log holds what
    this reader is not shown, so that numbers are missing."""

    last_id: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    ends: list[tuple[str, str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    resumable: bool = True
    leaves_out: bool = False
    done: bool = False
    status: str = ""
    error: dict[str, Any] | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)

    @property
    def content(self) -> str:
        return "\n".join(text for text in self.texts.values() if text)

    def take(self, event: Event) -> None:
        if event.name == "reconnect":
            return
        if event.name == "error" and event.id is None:
            self.error = json.loads(event.data)
            return
        if event.name == "done":
            self.done = True
            return
        if event.name == "result":
            self._result(json.loads(event.data))
            return
        if event.id is None:
            self.faults.append(("frames", f"{event.name} without an id"))
            return
        self._check_order(event)
        self.last_id = event.id
        self._fold(event)

    def _check_order(self, event: Event) -> None:
        """Within an epoch without gap or repetition, but for what a snapshot stands for."""
        now, before = place_of(event.id or ""), place_of(self.last_id or "0-0")
        if now <= before:
            self.faults.append(("frames", f"{event.id} {event.name} after {self.last_id}"))
        elif event.name == "snapshot":
            return
        elif now[0] == before[0] and now[1] != before[1] + 1 and not self.leaves_out:
            self.faults.append(("frames", f"{event.id} {event.name} after {self.last_id}: some are missing"))
        elif now[0] != before[0] and (now, event.name) != ((1, 1), "chat"):
            self.faults.append(("frames", f"{event.id}: an epoch begins with {event.name}"))

    def _fold(self, event: Event) -> None:
        if event.name == "snapshot":
            messages = json.loads(event.data)["messages"]
            self.texts = {message["id"]: message["content"] for message in messages}
            self.status = ""
        elif event.name == "conversation.message.delta":
            message = json.loads(event.data)
            if (message.get("type") or "answer") == "answer":
                known = self.texts.get(message["id"], "")
                self.texts[message["id"]] = known + (message.get("content") or "")
        elif event.name in ENDS:
            self.status = ENDS[event.name]
            self.ends.append((self.status, self.content))

    def _result(self, body: dict[str, Any]) -> None:
        chat = body["data"]["task_result"]["data"]
        self.resumable = body["data"].get("resumable", True)
        self.results.append(chat)
        if not self.ends or self.status != chat["status"]:
            self.faults.append(("frames", f"result says {chat['status']} after {self.status or 'no'} end"))
        if chat["status"] in ("completed", "requires_action") and self.content != chat["content"]:
            what = f"{len(self.content)} of {len(chat['content'])} characters by deltas and snapshots"
            self.faults.append(("folding", f"{chat['chat_id']}: {what} before the end ({self.last_id})"))
