"""Heads that do not end."""

from typing import Any, Final

from app.http.connections import HEADS, USUAL_HEAD_BYTES, Connection, Kept, Together
from app.http.slow_clients import UnsentWatch

_NONE: Final = Kept(0.0, 0)


class HeadWatch(UnsentWatch):
    """The part of a connection that has a long head counted until it has ended."""

    __slots__ = ("head",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.head = _NONE

    def head_has(self, size: int) -> None:
        """Of a head that has not ended so many bytes are kept. 0: there is none."""
        if size <= USUAL_HEAD_BYTES and self.head is _NONE:  # nearly always
            return
        heads: Together[Connection] | None = self.app_state.get(HEADS)
        if heads is None:
            return
        if size <= USUAL_HEAD_BYTES:
            self.head = _NONE
            heads.discard(self)
            return
        self.head = Kept(self.head.since or self.loop.time(), size)
        for each in heads.add(self):
            each.give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self.head_has(0)
        super().connection_lost(exc)


def behind_blank_lines(data: bytes, at: int) -> int:
    """They may stand in front of a head, and mean nothing."""
    return len(data) - len(data[at:].lstrip(b"\r\n"))
