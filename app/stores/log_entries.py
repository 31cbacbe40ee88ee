"""What an entry of a chat's event log holds, and how a log that is over is packed into one.

A Redis stream per chat; an entry has the id ``<epoch>-<last frame number>`` and the fields ``n``, the number
of its first frame, and ``f``, its frames one behind the other. A packed log is one entry with a third field
``z``: all frames, compressed. Its ``f`` holds a snapshot and the end, which is what a replica of the version
before packing finds there.
"""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from app.redis_client import pairs

_LEVEL: Final = 1
"""Deltas repeat nearly all of their bytes: more effort takes four times as long and saves little."""
_PIECE_BYTES: Final = 128 * 1024
"""Compressed without a pause: about a millisecond."""


class Entry(NamedTuple):
    """Frames ``first`` to ``first + len(frames) - 1`` of ``epoch``; a claim's entry has none."""

    epoch: int
    first: int
    frames: list[bytes]


def split_frames(batch: bytes) -> list[bytes]:
    """An entry's frames; each ends with the only blank line that it has."""
    return [frame + b"\n\n" for frame in batch.split(b"\n\n")[:-1]]


def read_entry(entry_id: bytes, flat: Sequence[bytes]) -> list[Entry]:
    """The entries that one of the stream's stands for: itself, or those that were packed into it. ``flat``:
    its fields and values, one behind the other."""
    fields = dict(pairs(flat))
    if (packed := fields.get(b"z")) is not None:
        return _unpack(packed)
    return [Entry(int(entry_id.split(b"-")[0]), int(fields[b"n"]), split_frames(fields[b"f"]))]


async def pack(entries: Sequence[Entry]) -> bytes:
    """All frames of ``entries``, compressed: for each a line ``epoch first bytes``, then its frames.

    Others get their turn now and then: a long log takes tens of milliseconds.
    """
    press = zlib.compressobj(_LEVEL)
    pieces: list[bytes] = []
    for epoch, first, frames in entries:
        body = b"".join(frames)
        pieces.append(press.compress(b"%d %d %d\n" % (epoch, first, len(body))))
        for place in range(0, len(body), _PIECE_BYTES):
            if place:
                await asyncio.sleep(0)
            pieces.append(press.compress(body[place : place + _PIECE_BYTES]))
    return b"".join([*pieces, press.flush()])


def _unpack(packed: bytes) -> list[Entry]:
    rest, entries = zlib.decompress(packed), []
    place = 0
    while place < len(rest):
        line_end = rest.index(b"\n", place)
        epoch, first, size = map(int, rest[place:line_end].split())
        place = line_end + 1 + size
        entries.append(Entry(epoch, first, split_frames(rest[line_end + 1 : place])))
    return entries
