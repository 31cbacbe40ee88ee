"""The driver: a process of its own that asks over raw HTTP/1.1 and checks every frame.

``python -m benchmarks.driver`` reads one ``Job`` as JSON from stdin and prints one result as JSON:
``requests``, ``seconds``, ``cpu`` (by group of processes, in seconds), ``lost``, ``doubled``, ``disordered``
(frames), ``errors`` (text -> how many), ``captured``, and in milliseconds ``first`` (request to first
delta), ``gap`` (between reads that held deltas), ``whole`` (request to end), ``late`` (a delta's way from
the upstream; for a whole answer the way from its last delta), each as ``summary`` has them.
"""

import asyncio
import contextlib
import json
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import uvloop

from benchmarks import wire
from benchmarks.processes import cpu_seconds, raise_file_limit, resident_bytes

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CODE = re.compile(rb'"code":\s*"([^"]+)"')
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Job:
    """``targets``, ``headers``, ``body``: ``{i}`` in them becomes the request's number. A connection keeps
    to its target unless ``by_request``. ``total`` requests are shared by ``connections``, ``warmup`` ones go
    before them unmeasured. ``processes``: name -> pids whose CPU time (and, at the end, memory) is looked at.
    """

    port: int
    targets: list[str]
    kind: Literal["stream", "whole", "plain"]
    connections: int
    total: int
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    n: int = 100
    dialect: str = "coze"
    warmup: int = 0
    by_request: bool = False
    paced: bool = False
    expect: list[int] = field(default_factory=lambda: [200])
    capture: str = ""
    processes: dict[str, list[int]] = field(default_factory=dict)
    timeout: float = 120.0
    ramp: float = 0.0
    """Seconds over which the connections begin."""
    stall: float = 0.0
    """Seconds in which a stream's reader reads nothing, after its first bytes."""
    stall_after: float = 0.0
    """The CPU time of a stall is taken from this many seconds after its begin."""
    sample: float = 0.0
    """Seconds between two looks at the memory; 0: none."""


def summary(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds: median, 99th percentile, largest; empty where there is nothing."""
    if not values:
        return {}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": ordered[last // 2] * 1000,
        "p99": ordered[round(last * 0.99)] * 1000,
        "max": ordered[last] * 1000,
        "count": len(ordered),
    }


class Tally:
    """What a run has seen so far."""

    def __init__(self) -> None:
        self.done = 0
        self.lost = self.doubled = self.disordered = self.frames = 0
        self.errors: Counter[str] = Counter()
        self.captured: list[str] = []
        self.first: list[float] = []
        self.gap: list[float] = []
        self.whole: list[float] = []
        self.late: list[float] = []


class Visitor(asyncio.Protocol):
    """One connection: asks, reads the answer to its end, and tells ``over``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tally = Tally()
        self.over: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._deltas = wire.DELTAS[job.dialect]
        self._capture = re.compile(job.capture.encode()) if job.capture else None
        self._reset()

    def _reset(self) -> None:
        self._raw = b""
        self._head: bytes | None = None
        self._left = 0
        self._chunked = False
        self._body = bytearray()
        self._next = 0
        self._seen: set[int] | None = None
        self._read_at: float | None = None
        self._stalled = False
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._fail("connection lost")

    def _fail(self, text: str) -> None:
        if self.over is not None and not self.over.done():
            self.tally.errors[text] += 1
            self.over.set_result(None)
            if self.transport is not None:
                self.transport.abort()

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        assert self.transport is not None
        self._reset()
        self.over = self._loop.create_future()
        self._asked = time.monotonic()
        self.transport.write(request)
        return self.over

    # -- the answer --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._raw = self._raw + data if self._raw else data
        if self._head is None:
            end = self._raw.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head, self._raw = self._raw[:end], self._raw[end + 4 :]
            length = _LENGTH.search(self._head)
            self._chunked = _CHUNKED.search(self._head) is not None
            self._left = int(length[1]) if length else 0
            if self.job.stall and self.transport is not None and not self._stalled:
                self._stalled = True
                self.transport.pause_reading()
                self._loop.call_later(self.job.stall, self._resume)
        ended = self._dechunk() if self._chunked else self._take_length()
        if self.job.kind == "stream":
            self._frames(now)
        if ended:
            self._end(now)

    def _resume(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def _take_length(self) -> bool:
        self._body += self._raw
        self._left -= len(self._raw)
        self._raw = b""
        return self._left <= 0

    def _dechunk(self) -> bool:
        """Takes the complete chunks; whether the last one was among them."""
        raw, at = self._raw, 0
        while True:
            line = raw.find(b"\r\n", at)
            if line < 0:
                break
            size = int(raw[at:line], 16)
            if len(raw) < line + 4 + size:
                break
            if not size:
                self._raw = b""
                return True
            self._body += raw[line + 2 : line + 2 + size]
            at = line + 4 + size
        self._raw = raw[at:]
        return False

    def _frames(self, now: float) -> None:
        """Takes the whole frames out of the body and checks their numbers."""
        cut = self._body.rfind(b"\n\n")
        if cut < 0:
            return
        found = self._deltas.findall(self._body, 0, cut + 2)
        self._done = self._done or b"[DONE]" in self._body
        del self._body[: cut + 2]
        if not found:
            return
        tally = self.tally
        numbers = [int(number) for number, _ in found]
        if self._seen is None and numbers == list(range(self._next, self._next + len(numbers))):
            self._next += len(numbers)
        else:
            self._recount(numbers)
        tally.frames += len(numbers)
        if self._read_at is None:
            tally.first.append(now - self._asked)
        else:
            tally.gap.append(now - self._read_at)
        self._read_at = now
        if self.job.paced:
            tally.late += [now - int(stamp) / 1e6 for _, stamp in found]

    def _recount(self, numbers: list[int]) -> None:
        if self._seen is None:
            self._seen = set(range(self._next))
        for number in numbers:
            if number in self._seen:
                self.tally.doubled += 1
            elif number != self._next:
                self.tally.disordered += 1
            self._seen.add(number)
            self._next = max(self._next, number + 1)

    def _end(self, now: float) -> None:
        assert self._head is not None
        assert self.over is not None
        status = int(self._head[9:12])
        if status not in self.job.expect:
            code = _CODE.search(self._body)  # without what differs each time, such as a timestamp
            self.tally.errors[f"{status} {bytes(code[1] if code else self._body[:200]).decode()}"] += 1
        elif self.job.kind == "stream":
            self._end_stream()
        elif self.job.kind == "whole":
            self._end_whole(now)
        if self._capture is not None and (match := self._capture.search(self._body)):
            self.tally.captured.append(match[1].decode())
        self.tally.whole.append(now - self._asked)
        self.tally.done += 1
        if not self.over.done():
            self.over.set_result(None)

    def _end_stream(self) -> None:
        seen = self._next if self._seen is None else len(self._seen)
        self.tally.lost += max(0, self.job.n - seen)
        if not self._done:
            self.tally.errors["no [DONE]"] += 1

    def _end_whole(self, now: float) -> None:
        marks = wire.MARKS.findall(self._body)[: self.job.n]
        if [int(number) for number, _ in marks] != list(range(self.job.n)):
            self.tally.errors["wrong answer: " + bytes(self._body[:200]).decode(errors="replace")] += 1
        elif marks:
            self.tally.late.append(now - int(marks[-1][1]) / 1e6)


class Run:
    """All connections of a job, first through the warm-up, then through what is measured."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tally = Tally()
        self._number = 0
        self._free: list[Visitor] = []
        self.memory: list[dict[str, int]] = []
        self.stalled_cpu: dict[str, float] = {}

    def _request(self, index: int) -> bytes:
        job, number = self.job, self._number
        self._number += 1
        target = job.targets[(number if job.by_request else index) % len(job.targets)]
        body = job.body.replace("{i}", str(number)).encode()
        lines = [f"{job.method} {target.replace('{i}', str(number))} HTTP/1.1", "host: bench", "accept: */*"]
        lines += [f"{name}: {value.replace('{i}', str(number))}" for name, value in job.headers.items()]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def _connect(self) -> Visitor:
        loop = asyncio.get_running_loop()
        if self.job.stall:  # a small window, so that the server feels it when nobody reads
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self.job.port))
            _, visitor = await loop.create_connection(lambda: Visitor(self.job), sock=sock)
        else:
            _, visitor = await loop.create_connection(lambda: Visitor(self.job), "127.0.0.1", self.job.port)
        return visitor

    async def _connection(self, index: int, last: int) -> None:
        if self.job.ramp:
            await asyncio.sleep(self.job.ramp * index / self.job.connections)
        visitor = self._free.pop() if self._free else None
        while self._number < last:
            if visitor is None or visitor.transport is None or visitor.transport.is_closing():
                visitor = await self._connect()
            visitor.tally = self.tally
            await visitor.ask(self._request(index))
        if visitor is not None:
            self._free.append(visitor)

    async def _all(self, total: int) -> None:
        last = self._number + total
        async with asyncio.TaskGroup() as group:
            for index in range(min(self.job.connections, total)):
                group.create_task(self._connection(index, last))

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(pids) for name, pids in self.job.processes.items()}

    def _resident(self) -> dict[str, int]:
        return {name: resident_bytes(pids) for name, pids in self.job.processes.items()}

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(self.job.sample)
            self.memory.append(self._resident())

    async def _watch_stall(self) -> None:
        await asyncio.sleep(self.job.stall_after)
        before = self._cpu()
        await asyncio.sleep(self.job.stall - self.job.stall_after - 0.5)
        self.stalled_cpu = _less(self._cpu(), before)
        self.memory.append(self._resident())

    async def run(self) -> dict[str, Any]:
        job = self.job
        if job.warmup:
            await self._all(job.warmup)
            if self.tally.errors:
                raise RuntimeError(f"the warm-up failed: {self.tally.errors.most_common(3)}")
            self.tally = Tally()
        watchers = [self._sample()] if job.sample else []
        if job.stall:
            watchers.append(self._watch_stall())
        watching = [asyncio.create_task(watcher) for watcher in watchers]
        before, own, began = self._cpu(), time.process_time(), time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(job.timeout):
                await self._all(job.total)
        seconds = time.monotonic() - began
        cpu = _less(self._cpu(), before) | {"driver": time.process_time() - own}
        for task in watching:
            task.cancel()
        if (missing := job.total - self.tally.done - self.tally.errors["connection lost"]) > 0:
            self.tally.errors["not finished in time"] += missing
        return self._result(seconds, cpu)

    def _result(self, seconds: float, cpu: dict[str, float]) -> dict[str, Any]:
        tally = self.tally
        return {
            "requests": tally.done,
            "seconds": seconds,
            "cpu": cpu,
            "frames": tally.frames,
            "lost": tally.lost,
            "doubled": tally.doubled,
            "disordered": tally.disordered,
            "errors": {text: count for text, count in tally.errors.items() if count},
            "captured": tally.captured,
            **{name: summary(getattr(tally, name)) for name in ("first", "gap", "whole", "late")},
            "resident": self._resident(),
            "memory": self.memory,
            "stalled_cpu": self.stalled_cpu,
        }


def _less(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def main() -> None:
    raise_file_limit()
    job = Job(**json.load(sys.stdin))
    json.dump(uvloop.run(Run(job).run()), sys.stdout)


if __name__ == "__main__":
    main()
