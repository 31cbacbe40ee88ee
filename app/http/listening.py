"""The sockets that the service listens on."""

import errno
import socket
import sys
from typing import Any, Final

from app.config.faults import SettingsError

BACKLOG: Final = 4096
"""Connections that the system keeps until they are taken, unless its own bound is lower (net.core.somaxconn).
One that finds no place there tries again a second later."""
_TAKEN_AT_ONCE: Final = 8
"""Connections that are taken in one turn of the event loop."""
_LINUX: Final = sys.platform == "linux"
"""Elsewhere SO_REUSEPORT does not spread connections, and all workers take them from one socket."""


def listen(host: str, port: int, *, workers: int = 1) -> list[socket.socket]:
    """Sockets on every address of ``host``, not listening yet; ``::`` takes both families.

    Args:
        workers: with more than one these keep the port for the service, and ``sockets_of_worker`` makes
            those on which each of them listens.

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
            if workers > 1 and _LINUX:
                _keep_for_workers(sockets[-1])
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


def sockets_of_worker(kept: list[socket.socket]) -> list[socket.socket]:
    """New sockets at the addresses of ``kept``, for one worker alone. The system deals new connections out to
    all that listen, and a worker that is gone gets none: nothing else holds what it listened on.

    Raises:
        OSError: the system has no socket left.
    """
    if not _LINUX:
        return kept
    return [_bound(each.family, each.type, each.proto, each.getsockname(), shared=True) for each in kept]


def taken_together(sockets: list[socket.socket]) -> list[socket.socket]:
    """The same sockets several times over. libuv takes one connection from each in a turn of the loop, and
    behind a thousand that come at once a probe would wait for a thousand turns until anybody hears of it."""
    return [each if number == 0 else each.dup() for each in sockets for number in range(_TAKEN_AT_ONCE)]


def _keep_for_workers(bound: socket.socket) -> None:
    """From now on only sockets of the same user that set SO_REUSEPORT, too, come in beside it.

    A second service binds without it first, so it is refused, as it is without workers. Listening for a
    moment makes that certain: of two that begin together both may have bound, but only one can listen.

    Raises:
        OSError: another one listens there.
    """
    bound.listen(1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.shutdown(socket.SHUT_RD)  # it stays bound


def _bound(family: int, kind: int, protocol: int, address: Any, *, shared: bool = False) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # asyncio would keep IPv4 out of "::"; beside another address it must not take that one's place.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        bound.bind(address)
        bound.set_inheritable(True)
    except OSError:
        bound.close()
        raise
    return bound
