"""The service under test: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.config import Settings, load_settings
from app.factory import Resources
from app.http.protocol import HttpProtocol
from app.main import create_app
from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN

from .ports import bind_free, free_port
from .waiting import block_until

ROOT = Path(__file__).resolve().parents[2]

BASE_VALUES: dict[str, str] = {
    "COZE_API_TOKEN": SIMULATOR_TOKEN,
    "COZE_BOT_ID": SIMULATOR_BOT_ID,
    "ENABLE_AUTH": "false",
    "COZE_ALLOWED_HOSTS": "x",  # as tests that write to a socket call themselves
    "DRAIN_SECONDS": "0.5",
    "COZE_TIMEOUT": "10",
    "COZE_FIRST_BYTE_TIMEOUT": "10",
    "COZE_POLL_INTERVAL": "0.05",
}
"""What every service under test gets unless told otherwise. REDIS_URL and COZE_API_URL come from the test."""

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


def settings_names() -> set[str]:
    """Every variable that the settings read."""
    names = set()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names |= {str(choice) for choice in getattr(alias, "choices", [])}
    return names


@contextmanager
def clean_environment() -> Iterator[None]:
    """Without any variable of the settings: what a developer has exported does not reach a test."""
    hidden = {name: os.environ.pop(name) for name in settings_names() if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def make_settings(**values: Any) -> Settings:
    """Settings from ``BASE_VALUES`` and ``values`` (by variable name) alone: no environment, no ``.env``."""
    with clean_environment():
        return load_settings(_env_file=None, **(BASE_VALUES | values))


# -- in this process --------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
            )
        )
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self.ready.set()


class RunningApp:
    """A service in a thread with a loop of its own. ``base_url`` has no slash at its end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self._listener = bind_free()
        self.port: int = self._listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._server = _Server(self.app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="service", daemon=True
        )

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.ready.wait(0.02):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self._server.should_exit = True
                raise RuntimeError("the service did not start")
        self.resources.metrics_pages.fresh_seconds = 0  # tests compare one page with the next
        self.resources.redis_check.seconds = 0

    def stop(self) -> None:
        """As SIGTERM without the drain in front: open connections get a moment, then the lifespan ends."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._listener.close()
        if self._thread.is_alive():
            raise RuntimeError("the service did not stop")

    @property
    def resources(self) -> Resources:
        """The inside, for what cannot be seen from outside. Touch it through ``call`` only."""
        resources: Resources = self.app.state.resources
        return resources

    @property
    def store(self) -> Any:
        """redis-py's client for the service's store, which may be in its memory. Through ``call`` only."""
        return self.resources.redis._servers._client

    def call(self, work: Callable[[], Coroutine[Any, Any, Any]], timeout: float = 10.0) -> Any:
        """The result of ``await work()`` in the service's own loop."""
        assert self._server.loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self._server.loop).result(timeout)

    def flush(self) -> None:
        """Empties the store."""
        self.call(self.store.flushall)

    def wait_idle(self, timeout: float = 20.0) -> None:
        """Until no chat runs here; fails after ``timeout`` seconds, and says what still runs."""
        try:
            block_until(lambda: not self.resources.chats.running, timeout, pause=0.01)
        except AssertionError as error:
            jobs = list(self.resources.chats._running._jobs.values())
            running = [(job.chat.chat_id, job.chat.user_message.content[:200]) for job in jobs]
            raise AssertionError(f"still running after {timeout:g} s: {running}") from error

    def keys_without_ttl(self) -> list[str]:
        """Keys that would stay for ever, in whatever store this service has."""

        async def look() -> list[str]:
            client = self.store
            return sorted(
                [k.decode() async for k in client.scan_iter(count=1000) if await client.ttl(k) == -1]
            )

        found: list[str] = self.call(look)
        return found


@contextmanager
def running_app(settings: Settings) -> Iterator[RunningApp]:
    """A service that takes requests; several may run at once. Raises RuntimeError if it does not start."""
    service = RunningApp(settings)
    try:
        service.start()
        yield service
    finally:
        service.stop()


# -- as a process -----------------------------------------------------------------------------------------


class ServiceProcess:
    """``python -m app`` with only the variables that it was given. Several on one Redis are replicas.

    ``code``: the directory whose ``app`` runs. ``module``: what is run in the place of ``app``.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        directory: Path,
        *,
        wait_for: str,
        code: Path = ROOT,
        module: str = "app",
    ) -> None:
        self.values = {**BASE_VALUES, "HOST": "127.0.0.1", **values}
        self.directory = directory
        self.log_file = directory / "service.log"
        self.port = 0
        self._wait_for = wait_for
        self._code = code
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the service does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything that the process has written, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self) -> None:
        """Starts it (again, on the same port) and returns when it is up. Raises RuntimeError."""
        assert not self.running
        self.port = self.port or int(self.values.get("PORT", "0")) or free_port()
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                cwd=self.directory,  # no .env here
                env={**inherited, **self.values, "PORT": str(self.port), "PYTHONPATH": str(self._code)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_up():
            if not self.running or time.monotonic() > deadline:
                status = self._process.poll()
                self.kill()
                raise RuntimeError(f"the service did not start (exit status {status}):\n{self.log[-3000:]}")
            time.sleep(0.03)

    def _is_up(self) -> bool:
        try:
            return httpx.get(self.base_url + self._wait_for, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the service does not run"
        self._process.send_signal(number)  # nothing where it was waited for: see kill

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self.signal(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: alive for the system, dead for everyone else."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def wait(self, timeout: float = _STOP_SECONDS) -> int:
        """The exit status."""
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self, timeout: float = _STOP_SECONDS) -> int:
        """SIGTERM and wait; returns the exit status."""
        self.terminate()
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, for its workers too, and waits.

        Nothing where it was waited for before: its number may belong to another service by now.
        """
        process = self._process
        if process is None or process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@contextmanager
def service_process(
    values: Mapping[str, str],
    *,
    wait_for: str = "/coze/health",
    start: bool = True,
    code: Path = ROOT,
    module: str = "app",
) -> Iterator[ServiceProcess]:
    """``python -m app`` in a directory of its own; nothing of it is left afterwards.

    ``values``: variables on top of ``BASE_VALUES``; give REDIS_URL and COZE_API_URL. ``wait_for``: the path
    that has to answer 200 before the process counts as up. ``start`` False: the caller starts it. ``code``:
    the directory whose ``app`` runs, where it is not this one. ``module``: what is run instead of ``app``.
    """
    directory = Path(tempfile.mkdtemp(prefix="coze-test-service-"))
    process = ServiceProcess(values, directory, wait_for=wait_for, code=code, module=module)
    try:
        if start:
            process.start()
        yield process
    finally:
        process.kill()
        shutil.rmtree(directory, ignore_errors=True)
