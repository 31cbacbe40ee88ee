"""Without a token: heads without end, requests that nobody waits for, connections that say nothing."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from app.http.connections import (
    HEAD_SECONDS,
    MOST_COMMAS,
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    MOST_PARAMETERS,
    MOST_TARGET_BYTES,
)
from tests.support import ServiceProcess, SimControl, block_until, service_process

from .support import MB, ask, connect, descriptors, read_all, send_until_refused, watched, worked

Start = Callable[..., ServiceProcess]
HEAD = b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /coze/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED += b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def attacked(shared_simulator: SimControl) -> Iterator[ServiceProcess]:
    """One service for all of these tests: what one attack has left would show in the next."""
    values = {"COZE_API_URL": shared_simulator.chat_url, "REDIS_URL": "memory://"}
    with service_process(values, wait_for="/coze/health") as service:
        yield service


ENDLESS = {
    "a header": (HEAD + b"X: ", b"a" * 65536, 431, "HEADERS_TOO_LARGE"),
    "header lines": (HEAD, b"a:b\r\n" * 13107, 431, "HEADERS_TOO_LARGE"),
    "a request line": (b"GET /", b"a" * 65536, 414, "URI_TOO_LONG"),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"a" * 65536, 431, "HEADERS_TOO_LARGE"),
    "an extension of a chunk": (CHUNKED + b"1;x=", b"a" * 65536, 431, "HEADERS_TOO_LARGE"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_refused_when_the_bound_is_passed(attacked: ServiceProcess, name: str) -> None:
    first, piece, status, code = ENDLESS[name]
    service = attacked
    with watched(service) as report, connect(service) as raw:
        raw.sendall(first)
        raw.sendall(piece * 5)  # 320 KB
        answer = read_all(raw)  # it closes the connection by itself
        assert send_until_refused(raw, piece, 100 * MB) < 100 * MB
    report.check()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert error["code"] == code
    assert error["request_id"] in head.decode()


def test_a_body_in_chunks_of_a_byte_is_refused_before_it_is_work(attacked: ServiceProcess) -> None:
    service = attacked
    with watched(service) as report, ExitStack() as stack:
        links = [stack.enter_context(connect(service)) for _ in range(40)]
        for raw in links:
            raw.setblocking(False)
            with suppress(BlockingIOError):
                raw.send(CHUNKED + b"1\r\nX\r\n" * 60_000)
        for raw in links:
            raw.settimeout(30)
            assert b"too small" in read_all(raw)
    assert not report.failures
    assert report.work["live"] < 0.7  # to take all of them is two seconds' work


@pytest.mark.parametrize("size", [20, 65_536])
def test_who_has_been_refused_may_send_on_and_holds_nobody_up(attacked: ServiceProcess, size: int) -> None:
    """Its body goes on for as long as it is taken."""
    service = attacked
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
    piece = chunk * (1 + 100_000 // len(chunk))
    links: dict[socket.socket, int] = {}

    def send_on() -> None:
        """As much as is taken, on each of twenty connections; one that is closed is opened anew."""
        while len(links) < 20:
            raw = connect(service)
            raw.sendall(CHUNKED)
            raw.setblocking(False)
            links[raw] = 0
        for raw, at in [*links.items()]:
            try:
                links[raw] = (at + raw.send(memoryview(piece)[at:])) % len(piece)
            except BlockingIOError:
                continue
            except OSError:
                raw.close()
                del links[raw]

    try:
        with watched(service) as report:
            ended = time.monotonic() + 3
            while time.monotonic() < ended:
                send_on()
    finally:
        for raw in links:
            raw.close()
    assert not report.failures
    assert report.work["live"] < 0.3, "one answer's wait took more of the processor than that"


def test_a_body_in_small_chunks_arrives_whole_and_the_next_request_behind_it(
    attacked: ServiceProcess,
) -> None:
    text = b'{"user_id":"' + b"u" * 100 + b'","meta_data":{"k":"' + b"v" * 400 + b'"}}' + b" " * 60_000
    pieces = [
        *(text[at : at + 1] for at in range(300)),
        *(text[at : at + 40] for at in range(300, len(text), 40)),
    ]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with connect(attacked) as raw:
        raw.sendall(CHUNKED + body + HEAD + b"Connection: close\r\n\r\n")
        answer = read_all(raw)
    assert [status[:3] for status in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"], answer[:500]
    assert b"v" * 400 in answer


def test_a_length_of_thousands_of_digits_is_a_400(attacked: ServiceProcess) -> None:
    with connect(attacked) as raw:
        raw.sendall(CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: " + b"0" * 5000 + b"2"))
        answer = read_all(raw)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Length has too many digits" in answer
    assert "Traceback" not in attacked.log


@pytest.mark.parametrize("extra", [-300, 300])
@pytest.mark.parametrize("where", ["header", "target"])
def test_a_head_may_be_as_long_as_the_bound_and_no_longer(
    attacked: ServiceProcess, where: str, extra: int
) -> None:
    service = attacked
    long = b"a" * ((MOST_HEAD_BYTES if where == "header" else MOST_TARGET_BYTES) + extra)
    with connect(service) as raw:
        if where == "header":
            raw.sendall(HEAD + b"Connection: close\r\nX: " + long[: -len(HEAD) - 20] + b"\r\n\r\n")
        else:
            raw.sendall(b"GET /?" + long[:-40] + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        status = int(read_all(raw)[9:12])
    assert status == (200 if extra < 0 else {"header": 431, "target": 414}[where])


def test_an_address_has_a_bounded_number_of_parameters(attacked: ServiceProcess) -> None:
    """Thousands took a tenth of a second each time, of whomever, before anything was looked at."""
    answers = []
    for number in (MOST_PARAMETERS, MOST_PARAMETERS + 1):
        with connect(attacked) as raw:
            query = b"&".join([b"a"] * number)
            raw.sendall(
                b"GET /coze/health/live?" + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            answers.append(int(read_all(raw)[9:12]))
    assert answers == [200, 414]


def test_requests_that_are_sent_ahead_wait_in_the_network_not_here(attacked: ServiceProcess) -> None:
    service = attacked
    with watched(service) as report, connect(service, timeout=2) as raw:
        # And never read: the system's own buffers may take up to 32 MB at the one end, and 4 at the other.
        sent = send_until_refused(raw, HEAD + b"\r\n", 64 * MB)
        assert sent < 64 * MB
    report.check()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_requests_that_are_sent_ahead_are_all_answered_in_order(
    attacked: ServiceProcess, framing: str
) -> None:
    service = attacked
    body = b'{"user_id":"u"}\r\n\r\n'
    if framing == "length":
        post = CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body)) + body
    else:
        post = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with connect(service) as raw:
        raw.sendall((post + b"\r\n" + HEAD + b"\r\n") * 5 + HEAD + b"Connection: close\r\n\r\n")
        answers = read_all(raw).split(b"HTTP/1.1 ")[1:]
    kinds = ["session" if b'"session_id"' in each else "live" for each in answers]
    assert [each[:3] for each in answers] == [b"200"] * 11
    assert kinds == ["session", "live"] * 5 + ["live"]


@pytest.mark.parametrize("where", ["head", "trailers"])
def test_there_are_as_many_header_lines_as_may_be_and_no_more(attacked: ServiceProcess, where: str) -> None:
    for number, status in ((MOST_HEADERS, 200), (MOST_HEADERS + 1, 431)):
        with connect(attacked) as raw:
            if where == "head":
                raw.sendall(HEAD + b"a:b\r\n" * (number - 2) + b"Connection: close\r\n\r\n")
            else:
                post = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                raw.sendall(post + b'f\r\n{"user_id":"u"}\r\n0\r\n' + b"a:b\r\n" * number + b"\r\n")
            answer = read_all(raw)
        assert int(answer[9:12]) == status, answer[:300]
        assert status == 200 or b"too many headers" in answer


@pytest.mark.parametrize("lines", [1, 128])
def test_a_head_may_have_so_many_commas_and_no_more(attacked: ServiceProcess, lines: int) -> None:
    """In one value or in many: who takes a list apart makes an object of each element."""
    for number, status in ((MOST_COMMAS, 200), (MOST_COMMAS + lines, 431)):
        with connect(attacked) as raw:
            accept = b"Accept: " + b"," * (number // lines) + b"\r\n"
            raw.sendall(HEAD + accept * lines + b"Connection: close\r\n\r\n")
            answer = read_all(raw)
        assert int(answer[9:12]) == status, answer[:300]
        assert status == 200 or b"too many commas" in answer


@pytest.mark.parametrize(
    "line",
    [
        b"Accept: " + b"," * 120_000,
        b"Accept: */*" + b";" * 120_000,
        b"If-None-Match: " + b"," * 120_000,
        b"Content-Encoding: " + b",;" * 60_000,
        b"Content-Type: a/b" + b";" * 120_000,
        b"X-Forwarded-For: " + b"," * 120_000,
        b"Range: bytes=" + b"0-0," * 30_000,
    ],
    ids=lambda line: line.partition(b":")[0].decode(),
)
@pytest.mark.parametrize("path", [b"GET /coze/metrics", b"GET /coze/console", b"POST /coze/sessions"])
def test_one_long_value_is_little_work(attacked: ServiceProcess, path: bytes, line: bytes) -> None:
    before = worked(attacked)
    for _ in range(20):
        with connect(attacked) as raw:
            raw.sendall(path + b" HTTP/1.1\r\nHost: x\r\n" + line + b"\r\nConnection: close\r\n\r\n")
            assert b" " in read_all(raw)[:13]
    assert worked(attacked) - before < 20 * 0.01, "seconds of its main thread"


@pytest.mark.parametrize("version", ["x", "1.x", "", "9" * 900, "1.0.0" + ".0" * 5000])
def test_a_page_of_metrics_in_a_version_that_is_none_is_the_usual_one(
    attacked: ServiceProcess, version: str
) -> None:
    accept = {"Accept": f"application/openmetrics-text; version={version}"}
    status, page = ask(attacked, "/coze/metrics", accept)
    assert (status, b"# HELP" in page) == (200, True)


def test_a_body_that_nobody_read_is_gone_with_its_answer(attacked: ServiceProcess) -> None:
    size = 60_000
    post = b"POST /coze/health/live HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    links: list[socket.socket] = []
    try:
        with watched(attacked) as report:
            for _ in range(1000):  # their bodies are 60 MB
                links.append(connect(attacked))
                links[-1].sendall(post + b"a" * size)
                assert links[-1].recv(12) == b"HTTP/1.1 405"
        report.check(times=False, most=24 * MB)
    finally:
        for link in links:
            link.close()


def test_a_kept_connection_keeps_nothing_of_the_head_before(attacked: ServiceProcess) -> None:
    long = HEAD + b"X: " + b"a" * (MOST_HEAD_BYTES - 1000) + b"\r\n\r\n"
    links: list[socket.socket] = []
    try:
        with watched(attacked) as report:
            for _ in range(400):  # their heads are 100 MB
                links.append(connect(attacked))  # not earlier: who says nothing for long is closed
                links[-1].sendall(long)
                assert links[-1].recv(12) == b"HTTP/1.1 200"
        report.check(times=False)
    finally:
        for link in links:
            link.close()


def test_silent_and_half_sent_connections_are_closed(attacked: ServiceProcess) -> None:
    service = attacked
    began = time.monotonic()
    with connect(service) as silent, connect(service) as half, connect(service) as unread:
        half.sendall(HEAD)
        unread.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")  # answered, and its body never comes
        assert unread.recv(15) == b"HTTP/1.1 200 OK"
        for each in (silent, half, unread):
            read_all(each)
    assert time.monotonic() - began >= HEAD_SECONDS - 1


def test_silent_connections_leave_descriptors_for_others(start_process: Start) -> None:
    service = start_process()
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (256, 256))
    before = descriptors(service)
    silent: list[socket.socket] = []
    try:
        with watched(service) as report:
            for number in range(300):
                silent.append(connect(service))
                if number % 2:
                    silent[-1].sendall(b"GET / HT")
            for _ in range(20):
                assert ask(service, "/coze/health/live")[0] == 200
        report.check()
        assert descriptors(service) < 200
    finally:
        for each in silent:
            each.close()
    block_until(lambda: descriptors(service) <= before + 5, 60)


def test_thousands_of_silent_connections_take_little_room(attacked: ServiceProcess) -> None:
    service = attacked
    silent: list[socket.socket] = []
    try:
        with watched(service) as report:
            for _ in range(15):  # no faster than the system's queue of newcomers is emptied
                silent += [connect(service) for _ in range(200)]
                assert ask(service, "/coze/health/live")[0] == 200
            assert descriptors(service) < 2300
        report.check()
    finally:
        for each in silent:
            each.close()
    block_until(lambda: descriptors(service) < 100, 60)


def test_heads_that_do_not_end_have_a_bound_together(start_process: Callable[..., ServiceProcess]) -> None:
    """Each may be as long as one may, and nobody knows who they are."""
    service = start_process()
    head = b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\n"
    head += b"".join(b"x%03d: %s\r\n" % (number, b"a" * 480) for number in range(240))
    links: list[socket.socket] = []
    try:
        with watched(service) as report:
            for _ in range(400):
                links.append(connect(service))
                links[-1].sendall(head)
            block_until(lambda: sum(is_closed(link) for link in links) > 200)
            assert not is_closed(links[-1])
            links[-1].sendall(b"\r\n")
            assert links[-1].recv(100).startswith(b"HTTP/1.1 200 ")
        report.check(most=40 * MB)
    finally:
        for link in links:
            link.close()


def is_closed(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        link.settimeout(30)
