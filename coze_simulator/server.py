"""Serving a simulator: in a thread for tests, or as a process's main work."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from coze_simulator.app import Simulator, create_simulator
from coze_simulator.core import PREFIX
from coze_simulator.options import SimulatorOptions

_START_TIMEOUT = 10.0
_STOP_TIMEOUT = 10.0


class SimulatorServer(uvicorn.Server):
    """uvicorn, except that it ends at once: open streams are broken off, as by a process that died."""

    def __init__(self, app: Simulator) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                ws="none",
                lifespan="on",
                timeout_graceful_shutdown=1,
                timeout_keep_alive=75,  # as the cloud's gateways have it; 5 s would race with clients' pools
            )
        )
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tells waiting threads that connections are taken."""
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Breaks off all connections, then closes as usual."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that listens. ``root_url`` has no path; ``base_url`` ends in /coze; neither in a slash."""

    app: Simulator
    port: int
    root_url: str
    base_url: str


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def root_url(host: str, port: int) -> str:
    """The address to give to a client."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def running_simulator(
    options: SimulatorOptions | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[RunningSimulator]:
    """Runs a simulator in a thread with its own loop; ends it on leaving. Raises OSError, RuntimeError."""
    app = create_simulator(options)
    listener = bind(host, port)
    server = SimulatorServer(app)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="coze-simulator", daemon=True
    )
    thread.start()
    try:
        if not server.ready.wait(_START_TIMEOUT):
            raise RuntimeError("the simulator did not start")
        actual = listener.getsockname()[1]
        root = root_url(host, actual)
        yield RunningSimulator(app, actual, root, root + PREFIX)
    finally:
        server.should_exit = True
        thread.join(_STOP_TIMEOUT)
        listener.close()
