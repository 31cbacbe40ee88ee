"""Become another program, with a pid file and a log.

    python scripts/launch.py save-env FILE
    python scripts/launch.py detach|pane --pid FILE --log FILE [--rotate-mb N] [--env FILE] -- PROGRAM ARGS...

``detach`` leaves the terminal (own session, output to the log only) and returns as soon as the pid
file is written. ``pane`` stays in the foreground of its terminal and shows the output there and in
the log. A log begins a new file past N megabytes (100). In both the process of the pid file *is* the
program (exec), and leads its own process group.
The pid file holds "<pid> <start time>", so that a pid used again later is never taken for ours.
The environment file exists because a tmux server gives its own environment to new panes, not that of
whoever asks: it is readable by the owner only and is removed as soon as it has been read.
Standard library only; exit 127 when the program cannot be run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from rotating_log import keep

IGNORED_BY_KEEPER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def start_time(pid: int) -> str:
    """When a process began, in the system's own unit; "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[19]
    except FileNotFoundError:
        shown = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return "-".join(shown.stdout.split())


def save_env(target: Path) -> None:
    target.unlink(missing_ok=True)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(dict(os.environ), file)


def load_env(source: Path) -> None:
    """Takes the saved environment; what describes the terminal stays the terminal's."""
    kept = {name: os.environ[name] for name in ("TERM", "TMUX", "TMUX_PANE") if name in os.environ}
    saved = json.loads(source.read_text(encoding="utf-8", errors="surrogateescape"))
    source.unlink()
    os.environ.clear()
    os.environ.update(saved | kept)


def write_pid(target: Path) -> None:
    draft = target.with_suffix(".pid.new")
    draft.write_text(f"{os.getpid()} {start_time(os.getpid())}\n", encoding="utf-8")
    draft.replace(target)


def write_through_keeper(log: Path, limit: int, *, shown: bool) -> None:
    """Puts a process that keeps the log behind stdout and stderr. It outlives the program's last words, not
    more."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.fork() > 0:  # not a child of the program: that one may count its children
            os._exit(0)
        for number in IGNORED_BY_KEEPER:
            signal.signal(number, signal.SIG_IGN)
        os.dup2(reader, 0)
        os.closerange(3, 256)
        try:
            keep(0, log, limit=limit, shown=shown)
        finally:
            os._exit(0)
    os.wait()
    os.dup2(writer, 1)
    os.dup2(writer, 2)


def leave_terminal() -> None:
    """Forks; only the detached child returns. The parent leaves when the child has a pid file."""
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)


def main() -> None:
    if sys.argv[1] == "save-env":
        save_env(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["detach", "pane"])
    parser.add_argument("--pid", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--rotate-mb", type=float, default=100.0)
    parser.add_argument("--env", type=Path)
    parser.add_argument("program", nargs="+")
    wanted = parser.parse_args()
    if wanted.env:
        load_env(wanted.env)
    if wanted.how == "detach":
        leave_terminal()
    write_through_keeper(wanted.log, int(wanted.rotate_mb * 1e6), shown=wanted.how == "pane")
    write_pid(wanted.pid)
    os.closerange(3, 256)
    try:
        os.execvp(wanted.program[0], wanted.program)
    except OSError as error:
        print(f"cannot run {wanted.program[0]}: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(127)


if __name__ == "__main__":
    main()
