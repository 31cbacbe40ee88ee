"""Serving the auth stand-in: in a thread, for tests and beside the simulator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from coze_simulator.auth import VERIFY_PATH, AuthStandIn
from coze_simulator.server import SimulatorServer, bind, root_url

_START_TIMEOUT = 10.0
_STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class RunningAuth:
    """A stand-in that listens. ``verify_url`` is what HTY_VERIFY_URL takes."""

    app: AuthStandIn
    port: int
    root_url: str
    verify_url: str


@contextmanager
def running_auth(key: str | None = None, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningAuth]:
    """Runs a stand-in in a thread with its own loop; ends it on leaving. Raises OSError, RuntimeError."""
    app = AuthStandIn(key)
    listener = bind(host, port)
    server = SimulatorServer(cast("Any", app))  # it serves any ASGI application
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="auth-stand-in", daemon=True
    )
    thread.start()
    try:
        if not server.ready.wait(_START_TIMEOUT):
            raise RuntimeError("the auth stand-in did not start")
        actual = listener.getsockname()[1]
        root = root_url(host, actual)
        yield RunningAuth(app, actual, root, root + VERIFY_PATH)
    finally:
        server.should_exit = True
        thread.join(_STOP_TIMEOUT)
        listener.close()
