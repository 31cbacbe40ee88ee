"""Long histories and lists, asked for on many connections at once by somebody who has paid for one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from coze_simulator.auth_server import running_auth
from tests.security.helpers import ALICE, BOB_ELSEWHERE
from tests.support import ServiceProcess

from .support import MB, ask, connect, read_all, watched

Start = Callable[..., ServiceProcess]
MANY = 150
EACH = 900_000


def open_session(service: ServiceProcess, headers: dict[str, str], size: int) -> str:
    body = {"user_id": "u", "additional_messages": [{"role": "user", "content": "x" * (size // 10)}] * 10}
    given = headers | {"Content-Type": "application/json"}
    status, answer = ask(service, "/coze/sessions", given, method="POST", body=json.dumps(body).encode())
    assert status == 200, answer[:300]
    session_id: str = json.loads(answer)["data"]["task_result"]["data"]["session_id"]
    return session_id


@pytest.mark.parametrize("asked", ["session", "list"])
def test_one_caller_s_long_reads_keep_nobody_else_waiting(start_process: Start, asked: str) -> None:
    """Each was a mebibyte in one pipeline with everybody's commands, and all of them failed together."""
    with running_auth() as auth, ExitStack() as stack:
        service = start_process(
            ENABLE_AUTH="true",
            HTY_VERIFY_URL=auth.verify_url,
            COZE_MAX_OPENING_BYTES=str(MB),
            MAX_BODY_BYTES=str(4 * MB),
        )
        greedy, honest = ALICE.headers(auth), BOB_ELSEWHERE.headers(auth)
        long = f"/coze/sessions/{open_session(service, greedy, EACH)}"
        small = f"/coze/sessions/{open_session(service, honest, 100)}"
        path = long if asked == "session" else "/coze/users/u/sessions"
        head = "".join(f"{name}: {value}\r\n" for name, value in greedy.items())
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode()
        assert len(ask(service, path, greedy)[1]) > EACH
        with watched(service, small, honest) as report:
            links: list[socket.socket] = [stack.enter_context(connect(service)) for _ in range(MANY)]
            for link in links:
                link.sendall(request)
            answers = [read_all(link) for link in links]
        report.check()
    statuses = [int(answer[9:12]) for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > MANY / 3
    assert all(len(answer) > EACH for answer, status in zip(answers, statuses, strict=True) if status == 200)
