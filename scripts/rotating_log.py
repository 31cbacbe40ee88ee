"""Writes what a program says into a file that does not grow for ever. Standard library only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

KEPT = 5
"""Older files: FILE.1 is the newest of them. parts.sh (new_logs) moves them on at each start, too."""


def open_log(log: Path) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def rotate(log: Path) -> None:
    for number in range(KEPT, 0, -1):
        older = log if number == 1 else Path(f"{log}.{number - 1}")
        with contextlib.suppress(OSError):
            older.replace(f"{log}.{number}")


def keep(source: int, log: Path, *, limit: int, shown: bool) -> None:
    """Until every writer of ``source`` has gone. A full disk loses lines, but never holds the program up.

    Args:
        source: a file descriptor to read from.
        log: where it goes.
        limit: bytes after which the next whole line begins a new file.
        shown: whether it goes to standard output as well.
    """
    file = open_log(log)
    size = os.fstat(file).st_size
    while chunk := os.read(source, 65_536):
        if shown:
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(1, chunk)
        while chunk:
            end = chunk.find(b"\n", max(limit - size - 1, 0)) + 1
            size += _write(file, chunk[:end] if end else chunk)
            chunk = chunk[end:] if end else b""
            if end:
                rotate(log)
                os.close(file)
                file, size = open_log(log), 0


def _write(file: int, text: bytes) -> int:
    written = 0
    with contextlib.suppress(OSError):
        while written < len(text):
            written += os.write(file, text[written:])
    return written
