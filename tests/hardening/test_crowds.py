"""Very many readers of one caller's chats, who come at once: all are served, and nobody waits for them."""

from __future__ import annotations

import http.client
import json
import re
import resource
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from app.stores.log_entries import PIECE_BYTES
from coze_simulator.auth_server import RunningAuth, running_auth
from tests.security.helpers import ALICE, BOB_ELSEWHERE
from tests.support import ServiceProcess, block_until

from .support import MB, ask, connect, watched, worked

Start = Callable[..., ServiceProcess]
MANY = 800
JSON = {"Content-Type": "application/json"}
RUNNING = "[[sim:deltas=80;gap=0.05;reasoning=0;followups=0]] on and on"
LONG = "[[sim:deltas=20000;gap=0;reasoning=0;followups=0;verbose=none]] long"
A_STREAM = 68 * 1024
"""Bytes that one open stream takes, by the benchmark."""
_LONGER_SECONDS = 2


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * MANY), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def auth() -> Iterator[RunningAuth]:
    with running_auth() as running:
        yield running


def asked(service: ServiceProcess, path: str, headers: dict[str, str], body: object) -> dict[str, object]:
    status, answer = ask(service, path, headers | JSON, method="POST", body=json.dumps(body).encode())
    assert status in (200, 202), answer[:300]
    found: dict[str, object] = json.loads(answer)
    return found


def session(service: ServiceProcess, headers: dict[str, str]) -> str:
    answer: dict[str, dict[str, dict[str, dict[str, str]]]]
    answer = asked(service, "/coze/sessions", headers, {"user_id": "u"})  # type: ignore[assignment]
    return answer["data"]["task_result"]["data"]["session_id"]


def running_response(service: ServiceProcess, headers: dict[str, str]) -> str:
    """Its events at OpenAI's door, where each reader has what he is sent written for himself."""
    body = {"model": "coze", "input": RUNNING, "background": True, "stream": True, "user": "u"}
    link = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        link.request("POST", "/coze/openai/v1/responses", json.dumps(body).encode(), headers | JSON)
        answer = link.getresponse()
        found = None
        while found is None:
            found = re.search(rb'"id": ?"(resp_[^"]+)"', answer.readline())
        return f"/coze/openai/v1/responses/{found[1].decode()}?stream=true"
    finally:
        link.close()


def long_chat(service: ServiceProcess, headers: dict[str, str]) -> str:
    """The events of a chat that is over, two megabytes of them."""
    path = f"/coze/sessions/{session(service, headers)}/messages"
    answer: dict[str, dict[str, dict[str, dict[str, str]]]]
    answer = asked(service, path, headers, {"message": LONG})  # type: ignore[assignment]
    return f"/coze/chats/{answer['data']['task_result']['data']['chat_id']}/events"


@pytest.mark.parametrize("begin", [running_response, long_chat], ids=["that runs", "that is over"])
def test_hundreds_of_readers_of_a_chat_keep_nobody_waiting(
    start_process: Start, auth: RunningAuth, begin: Callable[[ServiceProcess, dict[str, str]], str]
) -> None:
    """Whoever was woken together with hundreds of others stayed with them, in one turn of the event loop
    each time: for a reply of Redis', for a client that read on. And each held three copies of what it had
    been brought while it waited for the next."""
    with ExitStack() as stack:
        service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        greedy, honest = ALICE.headers(auth), BOB_ELSEWHERE.headers(auth)
        path, hers = begin(service, greedy), session(service, honest)
        head = "".join(f"{name}: {value}\r\n" for name, value in greedy.items())
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()
        with watched(service, f"/coze/sessions/{hers}", honest) as report:
            links = [stack.enter_context(connect(service)) for _ in range(MANY)]
            for link in links:
                link.sendall(request)
            statuses = read(links)
        report.check(most=MANY * (A_STREAM + 3 * PIECE_BYTES))
    assert statuses == {b"200": MANY}


def read(links: list[socket.socket]) -> Counter[bytes]:
    """Reads what comes until all have been answered, and a little longer; returns how many had which
    status."""
    statuses: dict[object, bytes] = {}
    until = time.monotonic() + 60
    with selectors.DefaultSelector() as selector:
        for link in links:
            link.setblocking(False)
            selector.register(link, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < until:
            for key, _ in selector.select(0.2):
                link = key.fileobj  # type: ignore[assignment]  # sockets are all that was registered
                piece = link.recv(65536)
                if not piece:
                    selector.unregister(link)
                if statuses.setdefault(link, piece[9:12]) and len(statuses) == len(links):
                    until = min(until, time.monotonic() + _LONGER_SECONDS)
    return Counter(statuses.values())


WAITING = 300


def is_idle(service: ServiceProcess) -> bool:
    """Whether it did little in a fifth of a second: those who watch it ask it now and then."""
    before = worked(service)
    time.sleep(0.2)
    return worked(service) - before < 0.04


@pytest.mark.parametrize("behind", ["as its body", "as the next requests"])
def test_what_is_sent_behind_a_request_that_waits_is_not_kept(
    start_process: Start, auth: RunningAuth, behind: str
) -> None:
    """A quarter of a megabyte of each connection stayed as long as its request."""
    with ExitStack() as stack:
        service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        who = ALICE.headers(auth)
        path = f"/coze/sessions/{session(service, who)}/messages"
        given = who | JSON | {"Prefer": "respond-async"}
        message = json.dumps({"message": "[[sim:delay=30]] slow"}).encode()
        status, answer = ask(service, path, given, method="POST", body=message)
        assert status == 202, answer[:300]
        path = f"/coze/chats/{json.loads(answer)['data']['task_result']['data']['chat_id']}/result?wait=30"
        head = "".join(f"{name}: {value}\r\n" for name, value in who.items())
        if behind == "as its body":
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n{head}\r\n".encode()
            more = b"x" * 330_000
        else:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()
            more = b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 8000
        with watched(service) as report:
            links = [stack.enter_context(connect(service)) for _ in range(WAITING)]
            for link in links:
                link.settimeout(0.05)
                link.sendall(request)
                with suppress(TimeoutError):
                    link.sendall(more)
            block_until(lambda: is_idle(service), 30)  # it has read what it reads
        report.check(most=32 * MB)
