"""``python -m app``: uvicorn with HOST, PORT and WORKERS from the settings."""

import contextlib
import errno
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.config import Settings, exiting_if_wrong, settings_or_exit
from app.logging_config import configure_logging
from app.setting_faults import SettingsError

_STREAMS_CLOSE_SECONDS = 3


@contextlib.contextmanager
def shared_metrics(workers: int) -> Iterator[None]:
    """For the time of several workers, a directory where each keeps its numbers; see ``app.metrics``.

    Must be in the environment before a worker imports prometheus_client.
    """
    if workers == 1:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="coze-metrics-", ignore_cleanup_errors=True) as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield


def main() -> None:
    settings = settings_or_exit()
    if settings.workers > 1:
        configure_logging(**settings.logging)  # for the parent: a worker that died is worth a line
    with shared_metrics(settings.workers):
        from app.factory import check_parts  # it imports prometheus_client, see shared_metrics

        with exiting_if_wrong():
            check_parts(settings)
            sockets = listen(settings.host, settings.port)
        serve(settings, sockets)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of ``host``, not listening yet; ``::`` takes both families.

    Raises:
        SettingsError: HOST or PORT cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SettingsError("HOST: is no address of this machine and no name of one") from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            sockets.append(_bound(family, kind, protocol, address))
        except OSError as error:
            failure = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break  # one that is taken is not made good by another
    else:
        if sockets:
            return sockets
    for each in sockets:
        each.close()
    why = failure.strerror if failure is not None and failure.strerror else "no address"
    name = "HOST" if failure is None or failure.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) else "PORT"
    raise SettingsError(f"{name}: cannot listen there ({why}); choose another {name}, or end what has it")


def _bound(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # asyncio would keep IPv4 out of "::"; beside another address it must not take that one's place.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        bound.bind(address)
        bound.set_inheritable(True)
    except OSError:
        bound.close()
        raise
    return bound


def serve(settings: Settings, sockets: list[socket.socket]) -> None:
    """Until a signal ends it. Exits with 3 where the start fails."""
    config = uvicorn.Config(
        "app.process:build_app",
        factory=True,
        http="app.http.protocol:HttpProtocol",  # each worker imports it
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        # Our own drain has closed every stream before; this is for a client that does not let go.
        timeout_graceful_shutdown=_STREAMS_CLOSE_SECONDS,
    )
    if settings.workers > 1:
        Multiprocess(config, sockets=sockets).run()
        return
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


if __name__ == "__main__":
    main()
