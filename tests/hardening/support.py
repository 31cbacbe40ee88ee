"""What others see of a service that is attacked: how long they wait, and how much memory it takes."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support import RunningApp, ServiceProcess

MB: Final = 1024 * 1024
MAY_GROW: Final = 64 * MB
LIVE_SECONDS: Final = 0.5
CALLER_SECONDS: Final = 2.0
_FOR_A_BUSY_MACHINE: Final = 4
"""The limits are those of a machine that does nothing else; beside other tests all takes longer, and an
attack takes its share of the processor. So by the clock on the wall an answer may take longer, and the limit
itself is for the time in which the service was at work meanwhile."""
_ASK_EVERY: Final = 0.05


def memory(service: ServiceProcess, name: str = "VmRSS") -> int:
    """Bytes. ``VmHWM`` is the most that it ever was, since ``forget_peak``."""
    for line in Path(f"/proc/{service.pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")


def worked(service: ServiceProcess) -> float:
    """Seconds for which its main thread has had a processor."""
    return int(Path(f"/proc/{service.pid}/schedstat").read_text().split()[0]) / 1e9


def forget_peak(service: ServiceProcess) -> None:
    Path(f"/proc/{service.pid}/clear_refs").write_text("5")


def descriptors(service: ServiceProcess) -> int:
    """How many files and connections the process has open."""
    return len(list(Path(f"/proc/{service.pid}/fd").iterdir()))


def connect(service: ServiceProcess | RunningApp, *, timeout: float = 30) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=timeout)


def read_all(raw: socket.socket) -> bytes:
    """All that comes until the other side closes, or breaks off."""
    found = b""
    try:
        while more := raw.recv(65536):
            found += more
    except ConnectionError:
        pass
    return found


def send_until_refused(raw: socket.socket, piece: bytes, most: int) -> int:
    """Sends ``piece`` again and again, at most ``most`` bytes; returns how many the other side took."""
    sent = 0
    try:
        while sent < most:
            raw.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


def ask(
    service: ServiceProcess | RunningApp,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> tuple[int, bytes]:
    """Status and body, over a connection of its own; httpx would take more time than the answer."""
    link = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        link.request(method, path, body, headers or {})
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


class Watch:
    """Asks again and again, over connections of its own, while something else goes on.

    ``seconds``: of each answer. ``work``: for how much of it the service was at work, whatever for, which
    does not grow with what else the machine does. ``failures``: answers that were not 200, or none at all.
    """

    def __init__(self, service: ServiceProcess, path: str | None, headers: dict[str, str]) -> None:
        self._service = service
        self._asked: dict[str, tuple[str, dict[str, str]]] = {"live": ("/coze/health/live", {})}
        if path is not None:
            self._asked["caller"] = (path, headers)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.seconds: dict[str, list[float]] = {name: [] for name in self._asked}
        self.work: dict[str, list[float]] = {name: [] for name in self._asked}
        self.failures: list[str] = []

    def begin(self) -> None:
        for name in self._asked:
            thread = threading.Thread(target=self._ask, args=(name,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def slowest(self, name: str) -> float:
        return max(self.seconds[name], default=0.0)

    def _ask(self, name: str) -> None:
        path, headers = self._asked[name]
        while not self._over.is_set():
            began, work = time.monotonic(), worked(self._service)
            try:
                status, text = ask(self._service, path, headers)
                if status != 200:
                    self.failures.append(f"{name}: {status} {text[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{name}: {error!r}")
            self.seconds[name].append(time.monotonic() - began)
            self.work[name].append(worked(self._service) - work)
            self._over.wait(_ASK_EVERY)


class Report:
    """What an attack has cost the others."""

    def __init__(self) -> None:
        self.quiet: dict[str, float] = {}
        self.slowest: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self.failures: list[str] = []
        self.grown = 0

    def check(self, *, times: bool = True, most: int = MAY_GROW) -> None:
        """Nobody was refused or has waited too long (``times``), and memory has grown by at most ``most``
        bytes."""
        assert not self.failures, self.failures[:5]
        for name, limit in (("live", LIVE_SECONDS), ("caller", CALLER_SECONDS)) if times else ():
            allowed = _FOR_A_BUSY_MACHINE * max(limit, self.quiet.get(name, 0))
            assert self.slowest.get(name, 0) <= allowed, (name, self.slowest, self.quiet)
            assert self.work.get(name, 0) <= limit, (name, self.work)
        assert self.grown <= most, f"{self.grown // MB} MB"

    def __str__(self) -> str:
        times = ", ".join(
            f"{name} {self.quiet[name]:.3f} -> {self.slowest[name]:.3f} s ({self.work[name]:.3f} at work)"
            for name in self.slowest
        )
        return f"{times}, {self.grown / MB:+.0f} MB, {len(self.failures)} failures {self.failures[:2]}"


@contextmanager
def watched(
    service: ServiceProcess, path: str | None = None, headers: dict[str, str] | None = None
) -> Iterator[Report]:
    """Around an attack. ``path``, ``headers``: what an honest caller asks meanwhile."""
    report = Report()
    quiet = Watch(service, path, headers or {})
    quiet.begin()
    time.sleep(0.5)  # this long it is left alone
    quiet.end()
    assert not quiet.failures, quiet.failures
    report.quiet = {name: quiet.slowest(name) for name in quiet.seconds}
    before = memory(service)
    forget_peak(service)
    watch = Watch(service, path, headers or {})
    watch.begin()
    try:
        yield report
    finally:
        watch.end()
        report.slowest = {name: watch.slowest(name) for name in watch.seconds}
        report.work = {name: max(found, default=0.0) for name, found in watch.work.items()}
        report.failures = watch.failures
        report.grown = memory(service, "VmHWM") - before
        sys.stderr.write(f"{report}\n")  # shown where the test fails
