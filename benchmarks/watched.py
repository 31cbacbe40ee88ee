"""``python -P benchmarks/watched.py <file>``: the service with a watch on its event loop.

Each SIGUSR1 writes into the file, as JSON, the longest stretches for which the loop was held since the last
one, and begins anew: a first signal before the load, a second one after it.

How it is seen: a timer in the loop, every millisecond, marks that the loop has come round (a *turn*). A
turn that has taken ``_PATIENCE`` gets a signal of the system's timer, and another one each millisecond until
it is over. The signal is handled between two steps of whatever runs, and notes where that is. One *stretch*
is what belongs to the same call out of the loop: one callback, or one step of a task. It counts from the last
look that saw something else to the first look that no longer sees it: up to two milliseconds too much, and
never too little. A turn is several stretches, one after the other, without a look at the sockets. Time in
which the kernel had given the core to somebody else (``run_delay`` of /proc) is taken off both, and so is
what a virtual machine's host has taken (``Clock``). Collections of garbage are timed by ``gc.callbacks``.

uvloop runs callbacks without Python's ``Handle``, so there is no one place to time them all.
"""

import atexit
import gc
import json
import os
import resource
import runpy
import signal
import sys
import threading
import time
from asyncio import AbstractEventLoop
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import uvloop

_BEAT: Final = 0.001
_PATIENCE: Final = 0.001
"""Seconds after which a turn is looked at."""
_KEPT: Final = 10
_PLACES: Final = 3


@dataclass
class Look:
    """At what runs: ``root`` is the outermost frame below the loop, the same as long as one call lasts."""

    at: float
    """By the watch's ``Clock``."""
    root: FrameType | None = None
    codes: tuple[CodeType, ...] = ()
    """What the innermost frames run, innermost first. Named later: a look has to be short."""

    @property
    def names(self) -> list[str]:
        return [_name(code) for code in self.codes]


@dataclass
class Found:
    """Milliseconds, and what ran."""

    milliseconds: float
    ran: str


@dataclass
class Longest:
    """The longest of what was put in."""

    found: list[Found] = field(default_factory=list)

    def add(self, seconds: float, ran: str) -> None:
        if len(self.found) < _KEPT or seconds * 1000 > self.found[-1].milliseconds:
            self.found.append(Found(round(seconds * 1000, 2), ran))
            self.found.sort(key=lambda each: -each.milliseconds)
            del self.found[_KEPT:]

    def as_json(self) -> list[dict[str, Any]]:
        return [vars(each) for each in self.found]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Seconds by the clock on the wall, less those of waiting for a core; of the thread's CPU; how often the
    thread has gone to sleep by itself; and what the clock said."""

    wall: float
    cpu: float
    sleeps: int
    said: float


class Clock:
    """A thread's own time: without what others had of its core.

    A thread that has not gone to sleep has run, has waited for a core, which the kernel knows, or has run on
    one that the machine's host had taken away, which is in no account but that of its CPU time: 10 ms at
    once were seen with a hundred percent of two cores. So where it has not slept its CPU time counts, and
    else the clock on the wall, less the waiting: a write that waits for a disk is ours.
    """

    def __init__(self) -> None:
        self._delays = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._last = self._read(0.0)

    def now(self) -> float:
        read, last = self._read(0.0), self._last
        slept = read.sleeps != last.sleeps
        said = last.said + (read.wall - last.wall if slept else read.cpu - last.cpu)
        self._last = replace(read, said=said)
        return said

    def _read(self, said: float) -> _Reading:
        before, waited = -1, self._waited()
        while waited != before:  # the core went to somebody else between the clocks
            wall, cpu = time.monotonic(), time.thread_time()
            sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            before, waited = waited, self._waited()
        return _Reading(wall - waited / 1e9, cpu, sleeps, said)

    def _waited(self) -> int:
        """Nanoseconds of waiting for a core so far."""
        return int(os.pread(self._delays, 64, 0).split()[1])


class Watch:
    def __init__(self, target: Path) -> None:
        self._target = target
        self._written = 0
        self._looks: list[Look] = []
        self._collected: list[tuple[float, float]] = []
        """In this turn: when a collection ended, and how long it took."""
        self._collecting = 0.0
        self._reset()

    def _reset(self) -> None:
        self.stretches, self.turns, self.collections = Longest(), Longest(), Longest()
        self._turns = 0

    def begin(self, loop: AbstractEventLoop) -> None:
        """In the loop's first turn, on its thread."""
        self._loop = loop
        self._now = Clock().now
        gc.callbacks.append(self._collection)
        signal.signal(signal.SIGALRM, self._look)
        signal.siginterrupt(signal.SIGALRM, False)
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # after that nobody handles the signal
        self._beaten = self._now()
        self._beat()

    def _beat(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        now = self._now()
        self._turns += 1
        if self._looks:
            looks, self._looks = self._looks, []
            # The loop may have slept until the timer was due.
            self._turn_is_over([Look(self._beaten + _BEAT), *looks, Look(now)])
        self._collected.clear()
        self._beaten = now
        self._loop.call_later(_BEAT, self._beat)
        signal.setitimer(signal.ITIMER_REAL, _BEAT + _PATIENCE, _BEAT)

    def _look(self, _number: int, frame: FrameType | None) -> None:
        frames = _below_the_loop(frame)
        if frames:
            codes = tuple(each.f_code for each in frames[:_PLACES])
            self._looks.append(Look(self._now(), frames[-1], codes))

    def _turn_is_over(self, looks: list[Look]) -> None:
        """``looks``: with one at its begin and one at its end, which have seen nothing."""
        counted = Counter(look.names[0] for look in looks if look.codes)
        names = ", ".join(f"{place} x {count}" for place, count in counted.most_common(_PLACES))
        self.turns.add(looks[-1].at - looks[0].at, names)
        at = 1
        while at < len(looks) - 1:
            first = at
            while looks[at].root is looks[first].root:
                at += 1
            began, ended = looks[first - 1].at, looks[at].at
            ran = " < ".join(looks[at - 1].names)
            if collecting := sum(took for end, took in self._collected if began < end <= ended):
                ran += f"; {collecting * 1000:.1f} of it collections of garbage"
            self.stretches.add(ended - began, ran)

    def _collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = self._now()
        else:
            now = self._now()
            self._collected.append((now, now - self._collecting))
            generation = f"generation {info['generation']}, {info['collected']} collected"
            self.collections.add(now - self._collecting, generation)

    def write(self, *_: object) -> None:
        self._written += 1
        found = {
            "written": self._written,
            "turns_seen": self._turns,
            "stretches": self.stretches.as_json(),
            "turns": self.turns.as_json(),
            "collections": self.collections.as_json(),
        }
        self._reset()
        beside = self._target.with_suffix(".new")
        beside.write_text(json.dumps(found, indent=1) + "\n")
        beside.replace(self._target)


def _below_the_loop(frame: FrameType | None) -> list[FrameType]:
    """From the innermost frame to the one that the loop has called; none where that is ours, or no one."""
    frames: list[FrameType] = []
    while frame is not None and not frame.f_code.co_filename.endswith("asyncio/runners.py"):
        if frame.f_code.co_filename == __file__:
            return []
        frames.append(frame)
        frame = frame.f_back
    return frames if frame is not None else []


def _name(code: CodeType) -> str:
    """With the last three parts of the file's path."""
    return f"{code.co_qualname} ({'/'.join(code.co_filename.split('/')[-3:])})"


def main() -> None:
    watch = Watch(Path(sys.argv[1]))
    make = uvloop.new_event_loop

    def new_event_loop() -> AbstractEventLoop:
        loop = make()
        loop.call_soon(watch.begin, loop)
        return loop

    setattr(uvloop, "new_event_loop", new_event_loop)  # noqa: B010  # uvicorn takes it from there
    signal.signal(signal.SIGUSR1, watch.write)
    sys.argv = ["app"]
    runpy.run_module("app", run_name="__main__")


if __name__ == "__main__":
    main()
