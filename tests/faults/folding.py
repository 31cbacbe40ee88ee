"""What a client does with a stream: it folds what it reads, and all that it reads is checked.

An app that folds by the rule has the same answer as the final chat before it sees the terminal frame,
whatever was cut, trimmed or taken over on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.support import Event
from tests.support.folding import ENDS, Folded

_ID = re.compile(r"([0-9]+)-([0-9]+)")


def place_of(event_id: str) -> tuple[int, int]:
    """(epoch, frame) of an event's id."""
    match = _ID.fullmatch(event_id)
    assert match is not None, f"not an id: {event_id!r}"
    return int(match[1]), int(match[2])


@dataclass
class Checked:
    """Takes events in the order in which a client got them, over all its connections, and checks them.

    Within an epoch frames come without gap or repetition, but for what a snapshot stands for; a new epoch
    begins with a snapshot (epoch 1 with ``chat``); nothing of an epoch comes after the first frame of a
    later one; ``result`` and ``done`` follow a terminal frame: ``result`` has its id, ``done`` the next.
    """

    done_ends_the_ids: ClassVar[bool] = True
    """``done`` has the id behind the last frame's; in the version before this one it repeated that."""
    by_rule: bool = True
    """The text is to be told by the folding rule alone."""
    folded: Folded = field(default_factory=Folded)
    told: tuple[str, str] = ("", "")
    """Content and reasoning as they stood when the newest terminal frame came."""
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
        if event.event in ENDS:
            self.told = self.folded.content, self.folded.reasoning
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
        epoch, frame = place_of(self.last_id or "0-0")
        behind = f"{epoch}-{frame + 1}"
        if event.event == "result":
            expected = {self.last_id}
        else:
            expected = {behind} if self.done_ends_the_ids else {self.last_id, behind}
        assert event.id in expected, f"{event.event} with {event.id} after {self.last_id}"
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
        assert not self.by_rule or self.told == (chat["content"], chat["reasoning_content"])
        if chat["status"] in ("completed", "requires_action"):
            assert self.folded.follow_ups == chat["follow_up_questions"]
        return chat
