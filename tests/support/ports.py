"""Ports that are free because the system says so."""

from __future__ import annotations

import socket


def bind_free(host: str = "127.0.0.1") -> socket.socket:
    """A listening socket on a port that the system chose."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, 0))
    listener.listen(2048)
    return listener


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, for a process that binds it itself."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
