"""The folding rule, as any app would write it down: the reference for all readers. No code of the service.

Append the deltas of answers by message id, let a snapshot replace everything: nothing else brings text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

ENDS = {
    "conversation.chat.completed": "completed",
    "conversation.chat.failed": "failed",
    "conversation.chat.canceled": "cancelled",
    "conversation.chat.requires_action": "requires_action",
}


class AnEvent(Protocol):
    """What the rule looks at: the event's name and its data."""

    @property
    def event(self) -> str: ...
    def json(self) -> Any: ...


@dataclass
class Answer:
    """One message of the answer."""

    content: str = ""
    reasoning: str = ""
    content_type: str = "text"


@dataclass
class Folded:
    """The chat as the frames seen so far tell it."""

    answers: dict[str, Answer] = field(default_factory=dict)
    follow_ups: list[str] = field(default_factory=list)
    status: str = "processing"

    @property
    def content(self) -> str:
        return "\n".join(answer.content for answer in self.answers.values() if answer.content)

    @property
    def reasoning(self) -> str:
        return "\n".join(answer.reasoning for answer in self.answers.values() if answer.reasoning)

    def feed(self, event: AnEvent) -> None:
        if event.event == "snapshot":
            self._restore(event.json())
        elif event.event == "conversation.message.delta":
            self._delta(event.json())
        elif event.event == "conversation.message.completed":
            self._follow_up(event.json())
        elif event.event in ENDS:
            self.status = ENDS[event.event]

    def _restore(self, snapshot: dict[str, Any]) -> None:
        """Everything before is replaced. After tool outputs this is how the chat goes on."""
        self.answers = {
            message["id"]: Answer(
                message["content"], message["reasoning_content"] or "", message["content_type"]
            )
            for message in snapshot["messages"]
        }
        self.follow_ups = list(snapshot["follow_up_questions"])
        self.status = "processing"

    def _delta(self, message: dict[str, Any]) -> None:
        if (message.get("type") or "answer") != "answer":
            return
        answer = self.answers.setdefault(str(message.get("id") or ""), Answer())
        answer.content += message.get("content") or ""
        answer.reasoning += message.get("reasoning_content") or ""
        answer.content_type = message.get("content_type") or answer.content_type

    def _follow_up(self, message: dict[str, Any]) -> None:
        content = message.get("content") or ""
        if message.get("type") == "follow_up" and content and content not in self.follow_ups:
            self.follow_ups.append(content)


def folded(events: Iterable[AnEvent]) -> Folded:
    """What the rule makes of ``events``."""
    result = Folded()
    for event in events:
        result.feed(event)
    return result


def before_the_end(events: Iterable[AnEvent]) -> Folded:
    """What a reader has when the last terminal frame arrives, which itself is not read."""
    seen = list(events)
    places = [place for place, event in enumerate(seen) if event.event in ENDS]
    assert places, f"no terminal frame in {[event.event for event in seen]}"
    return folded(seen[: places[-1]])


@dataclass(frozen=True)
class FrameEvent:
    """A frame of the log, without an id."""

    event: str
    data: str

    def json(self) -> Any:
        return json.loads(self.data)


def events_of(frames: Iterable[bytes]) -> Iterator[FrameEvent]:
    """Frames of the log as events."""
    for frame in frames:
        head, *data = frame.decode().removesuffix("\n\n").split("\n")
        yield FrameEvent(
            head.removeprefix("event: "), "\n".join(line.removeprefix("data: ") for line in data)
        )
