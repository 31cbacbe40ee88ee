"""What an entry of a chat's event log holds, and how a log that is over is packed into one.

A Redis stream per chat; an entry has the id ``<epoch>-<last frame number>`` and the fields ``n``, the number
of its first frame, and ``f``, its frames one behind the other. A packed log is one entry with a third field
``z``: all frames, compressed. Its ``f`` holds a snapshot and the end, which is what a replica of the version
before packing finds there.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from app.redis_client import pairs

_LEVEL: Final = 1
"""Deltas repeat nearly all of their bytes: more effort takes four times as long and saves little."""
_PRESSED_BYTES: Final = 128 * 1024
"""Compressed without a pause: about a millisecond."""
PIECE_BYTES: Final = 32 * 1024
"""Unpacked, cut into frames and written without a pause: half a millisecond. Each reader of a long log holds
one."""
_FED_BYTES: Final = 4 * 1024
"""Of what is packed, given to zlib in one go; it keeps what it has not used."""
_BROKEN: Final = "a log breaks off"

Turn = Callable[[], Awaitable[object]]
"""Waits until whoever reads may do a piece of work of ``PIECE_BYTES``."""


class Entry(NamedTuple):
    """Frames ``first`` to ``first + len(frames) - 1`` of ``epoch``; a claim's entry has none."""

    epoch: int
    first: int
    frames: list[bytes]


def split_frames(batch: bytes) -> list[bytes]:
    """An entry's frames; each ends with the only blank line that it has."""
    return [frame + b"\n\n" for frame in batch.split(b"\n\n")[:-1]]


class Page:
    """What was read of a log together, brought one by one: its entries, and of those that are long pieces. So
    whoever has read a page holds it as Redis has it, and one piece more.

    Args:
        stored: the stream's own entries: ids, and fields and values one behind the other.
    """

    __slots__ = ("_entry", "_stored")

    def __init__(self, stored: Sequence[tuple[bytes, Sequence[bytes]]]) -> None:
        self._stored = iter(stored)
        self._entry: _Stored | None = None

    async def next(self, turn: Turn) -> Entry | None:
        """The next entry, or piece of one; None behind the last.

        Args:
            turn: waited for before each piece but the first one of what is short.
        """
        while True:
            if self._entry is None:
                stored = next(self._stored, None)
                if stored is None:
                    return None
                self._entry = _Stored(*stored)
            if (piece := await self._entry.next(turn)) is not None:
                return piece
            self._entry = None


async def pack(entries: Sequence[Entry]) -> bytes:
    """All frames of ``entries``, compressed: for each a line ``epoch first bytes``, then its frames.

    Others get their turn now and then: a long log takes tens of milliseconds.
    """
    press = zlib.compressobj(_LEVEL)
    pieces: list[bytes] = []
    for epoch, first, frames in entries:
        body = b"".join(frames)
        pieces.append(press.compress(b"%d %d %d\n" % (epoch, first, len(body))))
        for place in range(0, len(body), _PRESSED_BYTES):
            if place:
                await asyncio.sleep(0)
            pieces.append(press.compress(body[place : place + _PRESSED_BYTES]))
    return b"".join([*pieces, press.flush()])


class _Stored:
    """An entry of the stream, from its beginning on: itself, or those that were packed into it."""

    __slots__ = ("_epoch", "_first", "_is_short", "_left", "_packed", "_press", "_searched", "_text")

    def __init__(self, entry_id: bytes, flat: Sequence[bytes]) -> None:
        fields = dict(pairs(flat))
        packed = fields.get(b"z")
        self._press = zlib.decompressobj() if packed is not None else None
        self._packed = memoryview(packed or b"")
        """What is not unpacked yet."""
        self._text = bytearray(b"" if packed is not None else fields[b"f"])
        """What was unpacked and not brought yet."""
        self._epoch, self._first = int(entry_id.split(b"-")[0]), int(fields[b"n"])
        """Of the entry that is being brought: of its next frame."""
        self._left = -1 if packed is not None else len(self._text)
        """Bytes of it that are to be brought; less than 0: the next one's line is to be read."""
        self._searched = 0
        """Bytes of ``_text`` in which no frame ends."""
        self._is_short = len(packed or fields[b"f"]) <= _FED_BYTES

    async def next(self, turn: Turn) -> Entry | None:
        while self._left < 0:
            line, end, _ = self._text[:_FED_BYTES].partition(b"\n")
            if end:
                self._epoch, self._first, self._left = map(int, line.split())
                del self._text[: len(line) + 1]
            elif not await self._unpack(turn):
                if self._text:
                    raise zlib.error(_BROKEN)
                return None
        if self._press is None and not self._is_short:
            await turn()
        while (stop := self._end_of_frames()) < 0:
            if not await self._unpack(turn):
                raise zlib.error(_BROKEN)
        entry = Entry(self._epoch, self._first, split_frames(bytes(self._text[:stop])))
        del self._text[:stop]
        self._first += len(entry.frames)
        self._left -= stop
        self._searched = 0
        if not self._left:
            self._left = -1
        return entry

    def _end_of_frames(self) -> int:
        """Behind the last whole frame of a piece, or behind one that is longer; -1: not there yet."""
        if self._left <= min(len(self._text), PIECE_BYTES):
            return self._left
        if (found := self._text.rfind(b"\n\n", 0, min(self._left, PIECE_BYTES))) >= 0:
            return found + 2
        found = self._text.find(b"\n\n", self._searched, self._left)
        self._searched = max(0, len(self._text) - 1)
        return found + 2 if found >= 0 else -1

    async def _unpack(self, turn: Turn) -> bool:
        """More of what is packed, so that ``_text`` is a piece, or a piece more; False where there is none.

        Raises ``zlib.error`` where it is broken.
        """
        press = self._press
        if press is None or press.eof:
            return False
        if not self._is_short:
            await turn()
        self._is_short = False
        there_is = len(self._text)
        wanted = PIECE_BYTES if there_is < PIECE_BYTES else there_is + PIECE_BYTES
        while len(self._text) < wanted and not press.eof:
            fed = self._packed[:_FED_BYTES]
            more = press.decompress(fed, wanted - len(self._text))
            if not (fed or more or press.eof):
                raise zlib.error(_BROKEN)
            self._text += more
            self._packed = self._packed[len(fed) - len(press.unconsumed_tail) :]
        return True
