"""Connections that come together, and clients who take up again together."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from app.http.connections import bounds_of_a_server
from app.http.listening import listen, taken_together
from app.http.protocol import HttpProtocol
from app.utils.signals import FEW

MANY = 100


async def taken_in_turns(sockets: list[socket.socket]) -> Counter[int]:
    """How many connections were taken in which turn of the loop, of ``MANY`` that wait."""
    loop, turn, taken = asyncio.get_running_loop(), 0, Counter[int]()

    class Taking(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken[turn] += 1
            transport.close()

    with ExitStack() as stack:
        sockets[0].listen(MANY)
        for _ in range(MANY):
            stack.enter_context(socket.create_connection(sockets[0].getsockname()[:2]))
        servers = [await loop.create_server(Taking, sock=each, backlog=MANY) for each in sockets]
        async with asyncio.timeout(20):
            while taken.total() < MANY:
                turn += 1
                await asyncio.sleep(0)
        for server in servers:
            server.close()
    return taken


@pytest.mark.parametrize("together", [False, True])
def test_several_connections_are_taken_in_a_turn(together: bool) -> None:
    sockets = listen("127.0.0.1", 0)
    taken = uvloop.run(taken_in_turns(taken_together(sockets) if together else sockets))
    assert max(taken.values()) == (8 if together else 1)
    for each in sockets:
        each.close()


class Wire(asyncio.Transport):
    """Holds as much as it is told to."""

    size = 0

    def __init__(self) -> None:
        super().__init__()
        self.socket = socket.socket()

    def get_write_buffer_size(self) -> int:
        return self.size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.socket.close()


def connection(state: dict[str, Any], server: ServerState) -> HttpProtocol:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    config = uvicorn.Config(app, log_config=None, interface="asgi3")
    config.load()
    made = HttpProtocol(config=config, server_state=server, app_state=state)
    made.connection_made(Wire())
    return made


async def test_clients_who_take_up_again_together_go_on_in_portions() -> None:
    """A poll may tell of thousands that can be written to again, each with a piece to be made for it."""
    state = bounds_of_a_server()
    server = ServerState()
    waiting = [connection(state, server) for _ in range(MANY)]
    for each in waiting:
        each.pause_writing()
    for each in waiting:
        each.resume_writing()
    waiting[-1].pause_writing()  # it has taken little
    most, before = 0, 0
    while before < MANY - 1:
        await asyncio.sleep(0)
        there = sum(not each.flow.write_paused for each in waiting)
        most, before = max(most, there - before), there
    assert 0 < most <= FEW
    for _ in range(10):
        await asyncio.sleep(0)
    assert waiting[-1].flow.write_paused
    waiting[-1].resume_writing()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting[-1].flow.write_paused
    for each in waiting:
        each.connection_lost(None)
        each.transport.close()
    there, most = MANY, 0
    while there:
        await asyncio.sleep(0)
        before, there = there, len(waiting[0].connections)
        most = max(most, before - there)
    assert most <= FEW
