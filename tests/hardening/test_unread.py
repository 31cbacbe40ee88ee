"""Large answers that nobody reads, and bodies in pieces of one byte."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.http import slow_clients
from app.http.connections import MOST_UNSENT, Kept, Together, longest_kept
from tests.support import RunningApp, ServiceProcess, SimControl, block_until, service_process

from .support import MB, ask, connect, read_all, watched

JSON = {"Content-Type": "application/json"}
LIST = b"GET /coze/users/u/sessions HTTP/1.1\r\nHost: x\r\n\r\n"
SIZE = 900_000
"""Of one session; the list has ten of them."""


def fill(service: ServiceProcess | RunningApp, sessions: int = 10) -> None:
    body = {"user_id": "u", "additional_messages": [{"role": "user", "content": "x" * (SIZE // 10)}] * 10}
    for _ in range(sessions):
        status, answer = ask(service, "/coze/sessions", JSON, method="POST", body=json.dumps(body).encode())
        assert status == 200, answer[:300]


@pytest.fixture
def attacked(shared_simulator: SimControl) -> Iterator[ServiceProcess]:
    values = {
        "COZE_API_URL": shared_simulator.chat_url,
        "REDIS_URL": "memory://",
        "COZE_MAX_OPENING_BYTES": str(MB),
        "MAX_BODY_BYTES": str(4 * MB),
    }
    with service_process(values, wait_for="/coze/health") as service:
        fill(service)
        assert len(ask(service, LIST.split()[1].decode())[1]) > 10 * SIZE
        yield service


def unread(port: int) -> socket.socket:
    """A connection that takes as little as it can."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.settimeout(60)
    link.connect(("127.0.0.1", port))
    return link


def test_answers_that_nobody_reads_take_no_memory_and_who_reads_is_served(attacked: ServiceProcess) -> None:
    """Sixty answers of 9 MB. While one is made it is there several times."""
    links: list[socket.socket] = []
    try:
        with watched(attacked) as report:
            for _ in range(60):
                links.append(unread(attacked.port))
                links[-1].sendall(LIST)
                assert ask(attacked, "/coze/health/live")[0] == 200
            status, answer = ask(attacked, LIST.split()[1].decode())
        assert (status, len(json.loads(answer)["data"]["task_result"]["data"]["sessions"])) == (200, 10)
        report.grown -= 2 * MOST_UNSENT  # that much may wait, and is held twice
        report.check(times=False)
    finally:
        for link in links:
            link.close()


def test_pages_that_nobody_reads_hold_no_open_file(start_process: Callable[..., ServiceProcess]) -> None:
    """Each is told of without credentials, and may be left unread for half a minute."""
    service = start_process(ENABLE_CONSOLE="true")
    get = b"GET /coze/console/coze-stream.js HTTP/1.1\r\nHost: x\r\n\r\n"
    assert ask(service, get.split()[1].decode())[0] == 200
    links = [unread(service.port) for _ in range(200)]
    try:
        with watched(service) as report:
            for link in links:
                link.sendall(get * 8)
            for link in links:
                assert link.recv(1, socket.MSG_PEEK) == b"H"
            files = [
                each.readlink() for each in Path(f"/proc/{service.pid}/fd").iterdir() if each.is_symlink()
            ]
        assert not [each for each in files if each.suffix == ".js"]
        report.check(most=16 * MB)
    finally:
        for link in links:
            link.close()


@dataclass(eq=False)
class Waiting:
    since: float
    size: int

    @property
    def kept(self) -> Kept:
        return Kept(self.since, self.size)


@pytest.mark.parametrize(
    ("sizes", "given_up"),
    [
        ([10 * MOST_UNSENT], 0),
        ([MOST_UNSENT // 2, MOST_UNSENT // 2], 0),
        ([MOST_UNSENT // 2, MOST_UNSENT // 2, 1], 1),
        ([1, MOST_UNSENT, MOST_UNSENT], 2),
        ([MOST_UNSENT, MOST_UNSENT, 10 * MOST_UNSENT], 2),
    ],
)
def test_who_has_let_his_answer_wait_longest_is_given_up_first(sizes: list[int], given_up: int) -> None:
    waiting = [Waiting(float(number), size) for number, size in enumerate(sizes)]
    assert longest_kept({each: each.kept for each in reversed(waiting)}, MOST_UNSENT) == waiting[:given_up]


def test_what_waits_is_looked_at_again_before_anybody_is_given_up() -> None:
    half = MOST_UNSENT // 2
    unread = Together[Waiting](lambda each: each.kept, MOST_UNSENT)
    reads, stays, comes, more = (Waiting(float(number), half) for number in range(4))
    assert unread.add(reads) == unread.add(stays) == []
    reads.size = 0
    assert unread.add(comes) == []
    unread.discard(reads)
    assert unread.add(more) == [stays]
    assert unread.add(Waiting(4.0, half)) == [comes]


@pytest.fixture
def hasty(start_app: Callable[..., RunningApp], monkeypatch: pytest.MonkeyPatch) -> RunningApp:
    """A service that gives clients a second instead of thirty."""
    monkeypatch.setattr(slow_clients, "UNSENT_SECONDS", 1.0)
    service = start_app(COZE_MAX_OPENING_BYTES=str(MB))
    fill(service)
    return service


def test_a_client_that_takes_nothing_is_given_up(hasty: RunningApp) -> None:
    connections = hasty._server.server_state.connections
    with unread(hasty.port) as link:
        link.sendall(LIST)
        block_until(lambda: connections, 10)
        block_until(lambda: not connections, 30)
        assert len(read_all(link)) < 10 * SIZE


def read_slowly(link: socket.socket, piece: int, over: Callable[[int], object]) -> int:
    """Twenty times a second, until ``over`` says so of the number of bytes; returns that."""
    got, ended = 0, time.monotonic() + 60
    while not over(got):
        assert time.monotonic() < ended
        got += len(link.recv(piece))
        time.sleep(0.05)
    return got


def test_a_client_that_takes_next_to_nothing_is_given_up(hasty: RunningApp) -> None:
    """10 KB in each second, of the 64 KiB that it should take."""
    connections = hasty._server.server_state.connections
    with unread(hasty.port) as link:
        link.sendall(LIST)
        block_until(lambda: connections, 10)
        assert read_slowly(link, 500, lambda _: not connections) < 10 * SIZE


def test_a_client_that_takes_its_time_gets_all_of_it(hasty: RunningApp) -> None:
    """2 MB in each second, and so it takes several times as long as a client may take nothing."""
    with connect(hasty) as link:
        link.sendall(LIST)
        read_slowly(link, 100_000, lambda got: got >= 10 * SIZE)


def test_a_body_in_pieces_of_one_byte_holds_nobody_up(attacked: ServiceProcess) -> None:
    """Chunks of one byte cost six on the wire; the process sees each of them, up to a bound."""
    head = b"POST /coze/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    body = b'{"user_id":"u","unknown":"' + b"x" * 2_000_000 + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with watched(attacked) as report, connect(attacked, timeout=120) as raw:
        raw.sendall(head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)
        answer = read_all(raw)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:300]
    assert b"chunks of the body are too small" in answer
    report.check()


def test_bodies_together_have_a_bound_and_it_is_given_back(attacked: ServiceProcess) -> None:
    """Each of 1 MiB, and none ends: past 256 MiB one more is refused, and all are given up in their time."""
    size = MB - 1000
    head = b"POST /coze/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % (size + 1)
    links: list[socket.socket] = []
    refused = 0
    try:
        for _ in range(270):
            links.append(connect(attacked))
            links[-1].sendall(head + b"x" * size)
        for link in links[-20:]:
            link.settimeout(2)
            try:
                refused += link.recv(12) == b"HTTP/1.1 503"
            except TimeoutError:
                continue
        assert refused >= 5
        assert ask(attacked, "/coze/health/live")[0] == 200
    finally:
        for link in links:
            link.close()

    def is_served() -> bool:
        return ask(attacked, "/coze/sessions", JSON, method="POST", body=b'{"user_id":"v"}')[0] == 200

    block_until(is_served, 60)
