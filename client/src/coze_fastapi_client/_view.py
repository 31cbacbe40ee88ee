"""What a stream shows, however it is read."""

from __future__ import annotations

from ._flows import RunningFlow
from ._models import Chat
from ._stream import StreamState


class StreamView:
    """Common to ``Stream`` and ``AsyncStream``."""

    def __init__(self, state: StreamState) -> None:
        self._state = state
        self._running = RunningFlow(state.flow())

    @property
    def chat_id(self) -> str | None:
        """Known as soon as the stream is open."""
        return self._state.chat_id

    @property
    def last_event_id(self) -> str | None:
        """Where ``chats.follow(chat_id, after=...)`` goes on."""
        return self._state.last_event_id

    @property
    def text(self) -> str:
        """The answer as far as it was read."""
        return self._state.answer.text

    @property
    def chat(self) -> Chat | None:
        """The final chat, once it was read."""
        return self._state.chat

    @property
    def connections(self) -> int:
        """How many it took so far: 1 as long as nothing was lost."""
        return self._state.connections

    def _final(self) -> Chat:
        if self._state.chat is None:
            raise RuntimeError("the stream was closed before its end")
        return self._state.chat
