"""A wall clock that a test moves: libfaketime in front of real processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")
_SHARED = Path("/dev/shm")


def find_faketime() -> Path | None:
    """The library: what LIBFAKETIME names, else where Debian's and other packages put it."""
    named = os.environ.get("LIBFAKETIME")
    if named:
        return Path(named)
    found = [path for place in _PLACES for path in sorted(Path("/").glob(place.removeprefix("/")))]
    return found[0] if found else None


class FakeClock:
    """Processes that get ``environment`` share one wall clock, which begins at the real time.

    Their monotonic clocks stay real: timers, time-outs and pauses take as long as ever.
    """

    def __init__(self, library: Path, directory: Path) -> None:
        self._file = directory / "offset"
        self.hours = 0.0
        """How far ahead of the real time it is."""
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # the name in older versions
        }
        self._write()

    def advance(self, *, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Moves it forward, for all at once."""
        self.hours += hours + minutes / 60 + seconds / 3600
        self._write()

    def _write(self) -> None:
        # In one step: a process may read it at any moment.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"+{self.hours * 3600:.0f}\n")
        fresh.replace(self._file)


@contextmanager
def fake_clock() -> Iterator[FakeClock | None]:
    """A clock to be moved; None where libfaketime is not to be had. Nothing of it is left afterwards."""
    library = find_faketime()
    if library is None:
        yield None
        return
    directory = Path(tempfile.mkdtemp(prefix="coze-test-clock-"))
    before = set(_shared())
    try:
        yield FakeClock(library, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        # The library removes these itself, but not from a process that is killed.
        for path in set(_shared()) - before:
            if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
                path.unlink(missing_ok=True)


def _shared() -> list[Path]:
    return sorted(_SHARED.glob("*faketime_s*_*")) if _SHARED.is_dir() else []
