"""Thousands of new connections at once, each with one request, from anybody."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from coze_simulator.auth_server import running_auth
from tests.security.helpers import ALICE
from tests.support import ServiceProcess

from .support import ask, connect, watched

Start = Callable[..., ServiceProcess]
MANY = 1500
REFUSED = b"GET /coze/sessions/x HTTP/1.1\r\nHost: x\r\n\r\n"
UNKNOWN = b"GET /coze/nothing HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * MANY), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answered(links: list[socket.socket]) -> int:
    count = 0
    for link in links:
        link.setblocking(False)
        with suppress(BlockingIOError):
            count += link.recv(1, socket.MSG_PEEK) == b"H"
    return count


@pytest.mark.parametrize("sent", [REFUSED, UNKNOWN], ids=["without credentials", "of unknown paths"])
@pytest.mark.usefixtures("many_files")
def test_a_known_caller_is_answered_before_thousands_of_others(start_process: Start, sent: bytes) -> None:
    with running_auth() as auth, ExitStack() as stack:
        service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        known = ALICE.headers(auth)
        path = "/coze/users/u/sessions"
        assert ask(service, path, known)[0] == 200
        links: list[socket.socket] = []
        with watched(service, path, known) as report:
            for _ in range(MANY):
                links.append(stack.enter_context(connect(service)))
                links[-1].sendall(sent)
            assert ask(service, path, known)[0] == 200
            before = answered(links)
        report.check()
    assert before < MANY / 2, "they were not waited for"
