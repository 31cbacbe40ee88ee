"""The log of one's own chat, read again on many connections at once by somebody who has paid for it once."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack

from coze_simulator.auth_server import running_auth
from tests.security.helpers import ALICE, BOB_ELSEWHERE
from tests.support import ServiceProcess

from .support import MB, ask, connect, read_all, watched

Start = Callable[..., ServiceProcess]
MANY = 60
DELTAS = 5000


def test_replays_of_a_long_log_keep_nobody_waiting_and_little_memory(start_process: Start) -> None:
    """Each unpacked all of it in one step, one behind the other, and kept it whole until it was read."""
    with running_auth() as auth, ExitStack() as stack:
        service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        greedy, honest = ALICE.headers(auth), BOB_ELSEWHERE.headers(auth)
        sessions = []
        for headers in (greedy, honest):
            given = headers | {"Content-Type": "application/json"}
            _, answer = ask(service, "/coze/sessions", given, method="POST", body=b'{"user_id":"u"}')
            sessions.append(json.loads(answer)["data"]["task_result"]["data"]["session_id"])
        message = json.dumps({"message": f"[[sim:deltas={DELTAS};gap=0]] long"}).encode()
        given = greedy | {"Content-Type": "application/json"}
        status, answer = ask(
            service, f"/coze/sessions/{sessions[0]}/messages", given, method="POST", body=message
        )
        assert status == 200, answer[:300]
        path = f"/coze/chats/{json.loads(answer)['data']['task_result']['data']['chat_id']}/events"
        whole = ask(service, path, greedy)[1]
        assert len(whole) > MB
        head = "".join(f"{name}: {value}\r\n" for name, value in greedy.items())
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode()
        with watched(service, f"/coze/sessions/{sessions[1]}", honest) as report:
            links: list[socket.socket] = [stack.enter_context(connect(service)) for _ in range(MANY)]
            for link in links:
                link.sendall(request)
            answers = [read_all(link) for link in links]
        report.check(most=32 * MB)
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"[DONE]" in answer[-100:] for answer in answers)
    assert min(map(len, answers)) > len(whole)
