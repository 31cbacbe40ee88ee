"""One message of an answer as it is folded."""

from typing import NamedTuple


class Text(NamedTuple):
    """What readers have of one message."""

    content: str = ""
    reasoning: str = ""
    content_type: str = "text"


class AnswerMessage:
    """One message of the answer, as the parts that came. ``complete``: readers were told that it is."""

    __slots__ = ("complete", "content", "content_type", "id", "reasoning")

    def __init__(self, message_id: str) -> None:
        self.id = message_id
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.content_type = "text"
        self.complete = False

    @property
    def text(self) -> Text:
        return Text(join(self.content), join(self.reasoning), self.content_type)

    @property
    def length(self) -> int:
        """Characters."""
        return sum(map(len, self.content)) + sum(map(len, self.reasoning))

    def put(self, content: str | None, reasoning: str | None, content_type: str | None) -> None:
        """The whole of it. What is empty takes nothing back of what was there."""
        if content:
            self.content = [content]
        if reasoning:
            self.reasoning = [reasoning]
        if content_type:
            self.content_type = content_type

    def view(self) -> dict[str, str]:
        return {
            "id": self.id,
            "type": "answer",
            "content": join(self.content),
            "content_type": self.content_type,
            "reasoning_content": join(self.reasoning),
        }


def join(parts: list[str]) -> str:
    # What was joined once stays joined, so that reading the answer now and then stays cheap.
    if len(parts) > 1:
        parts[:] = ["".join(parts)]
    return parts[0] if parts else ""
