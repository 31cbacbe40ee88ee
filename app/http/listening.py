"""The sockets that the service listens on."""

import errno
import socket
from typing import Any, Final

from app.config.faults import SettingsError

BACKLOG: Final = 4096
"""Connections that the system keeps until they are taken, unless its own bound is lower (net.core.somaxconn).
One that finds no place there tries again a second later."""


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
