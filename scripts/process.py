"""Processes that the scripts started: ``python scripts/process.py QUESTION ARGS...``

    lock FD SECONDS             take the lock on an open file of the caller; 1: somebody else kept it
    alive PIDFILE               0 and its pid when the process of a pid file still is that process
    end PIDFILE SECONDS ROOT    SIGTERM, wait, then SIGKILL to it and what is left of its process group

A pid file holds "<pid> <start time>" (launch.py). Nothing is signalled unless both still agree.
Standard library only. Without /proc (macOS) the group is not looked through.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from launch import start_time

PROC = Path("/proc/self").exists()


def lock(handle: str, seconds: str) -> int:
    until = time.monotonic() + float(seconds)
    while True:
        try:
            fcntl.flock(int(handle), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return 1
            time.sleep(0.1)
        else:
            return 0


def read_pid(pid_file: str) -> tuple[int, str] | None:
    try:
        pid, _, started = Path(pid_file).read_text(encoding="utf-8").strip().partition(" ")
        return (int(pid), started) if started else None
    except (OSError, ValueError):
        return None


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def stat_fields(pid: int) -> list[str]:
    """Field 3 (state) and on of proc(5) stat; empty when the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()


def process_group(pid: int) -> int:
    """0 when the process is gone."""
    fields = stat_fields(pid)
    return int(fields[2]) if fields else 0


def living(pid_file: str) -> int:
    """The pid, or 0 when it is gone, a zombie, or a number that meanwhile belongs to somebody else."""
    known = read_pid(pid_file)
    if known is None or start_time(known[0]) != known[1]:
        return 0
    return 0 if PROC and (stat_fields(known[0]) or "Z")[0] in "ZX" else known[0]


def group_members(pid_file: str, root: str) -> list[int]:
    """Those of its process group that work under root.

    Workers can outlive a parent that was killed. The system does not give a group's number to a new
    process while the group has members, so a group without its leader is still the one we started.
    """
    known = read_pid(pid_file)
    if known is None or not PROC or start_time(known[0]) not in ("", known[1]):
        return []
    found = []
    for pid in all_pids():
        fields = stat_fields(pid)
        if not fields or fields[0] in "ZX" or int(fields[2]) != known[0]:
            continue
        try:
            where = str(Path(f"/proc/{pid}/cwd").readlink())
        except OSError:
            continue
        if where == root or where.startswith(f"{root}/"):
            found.append(pid)
    return found


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it went by itself, which is what was wanted
        os.kill(pid, number)


def gone_within(pid_file: str, root: str, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while living(pid_file) or group_members(pid_file, root):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def end(pid_file: str, seconds: str, root: str) -> int:
    """0: ended by itself on SIGTERM; 3: was not running; 4: had to be killed; 1: still there."""
    asked = [living(pid_file)] if living(pid_file) else group_members(pid_file, root)
    if not asked:
        return 3
    for pid in asked:
        send(pid, signal.SIGTERM)
    if gone_within(pid_file, root, float(seconds)):
        return 0
    for member in {living(pid_file), *group_members(pid_file, root)} - {0}:
        send(member, signal.SIGKILL)
    return 4 if gone_within(pid_file, root, 5.0) else 1


def alive(pid_file: str) -> int:
    pid = living(pid_file)
    if pid:
        print(pid)
    return 0 if pid else 1


QUESTIONS: dict[str, Callable[..., int]] = {"lock": lock, "alive": alive, "end": end}

if __name__ == "__main__":
    sys.exit(QUESTIONS[sys.argv[1]](*sys.argv[2:]))
