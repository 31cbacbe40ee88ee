"""What a client does with a stream: the reference of how frames and snapshots make an answer.

It shares no code with the service. An app that folds like this has the same answer as the final chat,
whatever was cut, trimmed or taken over on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tests.support import Event

ENDS = {
    "conversation.chat.completed": "completed",
    "conversation.chat.failed": "failed",
    "conversation.chat.canceled": "cancelled",
    "conversation.chat.requires_action": "requires_action",
}
_ID = re.compile(r"([0-9]+)-([0-9]+)")


def place_of(event_id: str) -> tuple[int, int]:
    """(epoch, frame) of an event's id."""
    match = _ID.fullmatch(event_id)
    assert match is not None, f"not an id: {event_id!r}"
    return int(match[1]), int(match[2])


@dataclass
class Answer:
    """One message of the answer."""

    content: str = ""
    reasoning: str = ""


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

    def feed(self, event: Event) -> None:
        if event.event == "snapshot":
            self._restore(event.json())
        elif event.event == "conversation.message.delta":
            self._delta(event.json())
        elif event.event == "conversation.message.completed":
            self._completed(event.json())
        elif event.event in ENDS:
            self.status = ENDS[event.event]

    def _restore(self, snapshot: dict[str, Any]) -> None:
        """Everything before is replaced. After tool outputs this is how the chat goes on."""
        self.answers = {
            message["id"]: Answer(message["content"], message["reasoning_content"] or "")
            for message in snapshot["messages"]
        }
        self.follow_ups = list(snapshot["follow_up_questions"])
        self.status = "processing"

    def _delta(self, message: dict[str, Any]) -> None:
        if (message.get("type") or "answer") != "answer":
            return
        answer = self.answers.setdefault(message["id"], Answer())
        answer.content += message.get("content") or ""
        answer.reasoning += message.get("reasoning_content") or ""

    def _completed(self, message: dict[str, Any]) -> None:
        content = message.get("content") or ""
        if message.get("type") == "answer":
            answer = self.answers.setdefault(message["id"], Answer())
            answer.content = content or answer.content
            answer.reasoning = message.get("reasoning_content") or answer.reasoning
        elif message.get("type") == "follow_up" and content not in self.follow_ups:
            self.follow_ups.append(content)


@dataclass
class Checked:
    """Takes events in the order in which a client got them, over all its connections, and checks them.

    Within an epoch frames come without gap or repetition, but for what a snapshot stands for; a new epoch
    begins with a snapshot (epoch 1 with ``chat``); nothing of an epoch comes after the first frame of a
    later one; ``result`` and ``done`` follow a terminal frame and carry its id.
    """

    folded: Folded = field(default_factory=Folded)
    last_id: str | None = None
    frames: list[Event] = field(default_factory=list)
    result: dict[str, Any] | None = None
    resumable: bool = True
    done: bool = False

    def take(self, event: Event) -> None:
        assert not self.done, f"{event.event} after done"
        if event.event in ("result", "done"):
            self._ending(event)
            return
        if event.id is None:
            assert event.event in ("reconnect", "error"), f"{event.event} without an id"
            return
        assert self.result is None, f"{event.event} after result"
        self._check_order(event)
        self.last_id = event.id
        self.frames.append(event)
        self.folded.feed(event)

    def _check_order(self, event: Event) -> None:
        assert event.id is not None
        epoch, frame = place_of(event.id)
        before = (0, 0) if self.last_id is None else place_of(self.last_id)
        assert (epoch, frame) > before, f"{event.id} after {self.last_id}: repeated, or of a former owner"
        if event.event == "snapshot":
            return
        if epoch == before[0]:
            assert frame == before[1] + 1, f"{event.id} after {self.last_id}: frames are missing"
        else:
            assert (epoch, frame, event.event) == (1, 1, "chat"), f"an epoch begins with {event.event}"

    def _ending(self, event: Event) -> None:
        assert event.id == self.last_id, f"{event.event} with {event.id} after {self.last_id}"
        if event.event == "result":
            assert self.folded.status != "processing", "result before a terminal frame"
            body = event.json()["data"]
            self.result = body["task_result"]["data"]
            self.resumable = body.get("resumable", True)
        else:
            assert self.result is not None, "done before result"
            self.done = True

    def check_whole(self) -> dict[str, Any]:
        """The final chat; what was folded must be the same."""
        assert self.done
        assert self.result is not None
        chat = self.result
        terminal = [event for event in self.frames if event.event in ENDS]
        assert terminal, "no terminal frame"
        assert self.frames[-1].event in ENDS, "a frame after the terminal one"
        assert [e for e in terminal if e.event != "conversation.chat.requires_action"][1:] == []
        assert chat["status"] == self.folded.status
        if chat["status"] in ("completed", "requires_action"):
            assert self.folded.content == chat["content"]
            assert self.folded.follow_ups == chat["follow_up_questions"]
        return chat
