"""Tokens of the right shape that nobody signed, thousands at once; and an auth service that hangs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from app.auth.lanes import AT_ONCE, WAITING
from coze_simulator.auth_server import RunningAuth, running_auth
from tests.support import ServiceProcess

from .support import LIVE_SECONDS, ask, watched

Start = Callable[..., ServiceProcess]
JSON = {"Content-Type": "application/json"}
MANY = 800
LINKS = AT_ONCE + WAITING + 228
"""More than find a place."""


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def false_token(*, exp: float | None = None, signature: int = 32) -> str:
    claims = {"sub": json.dumps({"hty_id": encoded(os.urandom(9))}), "exp": exp or time.time() + 3600}
    head, body = encoded(b'{"alg":"HS256"}'), encoded(json.dumps(claims).encode())
    return f"{head}.{body}.{encoded(os.urandom(signature))}"


def flood(service: ServiceProcess, tokens: list[str]) -> dict[str, int]:
    """How many answers had which status."""
    head = "GET /coze/sessions/x HTTP/1.1\r\nHost: localhost\r\nHtyHost: music.moicen.com\r\n"
    requests = "".join(
        json.dumps(f"{head}HtySudoerToken: {token}\r\n\r\n") + "\n" for token in tokens
    ).encode()
    command = [sys.executable, "-m", "tests.hardening.flood", str(service.port), str(LINKS)]
    done = subprocess.run(command, input=requests, stdout=subprocess.PIPE, check=True, timeout=300)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def caller(auth: RunningAuth, name: str, host: str) -> dict[str, str]:
    return {"HtySudoerToken": auth.app.issue(name), "HtyHost": host, **JSON}


def test_false_tokens_keep_out_nobody_of_another_root(start_process: Start) -> None:
    with running_auth() as auth:
        service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        known = caller(auth, "bob", "music.huiwings.cn")
        _, answer = ask(service, "/coze/sessions", known, method="POST", body=b'{"user_id":"u"}')
        session_id = json.loads(answer)["data"]["task_result"]["data"]["session_id"]
        with watched(service, f"/coze/sessions/{session_id}", known) as report:
            found = flood(service, [false_token() for _ in range(MANY)])
            fresh = caller(auth, "carl", "music.huiwings.cn")
            assert ask(service, "/coze/sessions", fresh, method="POST", body=b'{"user_id":"v"}')[0] == 200
        report.check()
        assert report.work["live"] <= LIVE_SECONDS
        assert set(found) <= {"401", "503"}
        assert sum(found.values()) == MANY
        assert found.get("503", 0) > 0, "more at once than wait for a check"
        assert auth.app.calls <= found["401"] + 2


def test_what_cannot_be_good_is_refused_without_a_question(start_process: Start) -> None:
    with running_auth() as auth:
        service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
        hopeless = [false_token(exp=time.time() - 1) for _ in range(100)]
        hopeless += [false_token(signature=length) for length in (1, 31, 33, 64) for _ in range(100)]
        assert flood(service, hopeless) == {"401": 500}
        assert auth.app.calls == 0


def test_an_auth_service_that_hangs_keeps_out_nobody_of_another_root(start_process: Start) -> None:
    """Callers whose tokens were accepted before, and have to be asked about anew."""
    with running_auth() as auth:
        service = start_process(
            ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url, AUTH_CACHE_TTL="0", AUTH_TIMEOUT="5"
        )
        path = "/coze/users/u/sessions"
        known = caller(auth, "bob", "music.huiwings.cn")
        theirs = [caller(auth, f"m{number}", "music.moicen.com") for number in range(5 * AT_ONCE)]
        assert {ask(service, path, headers)[0] for headers in [known, *theirs]} == {200}
        auth.app.modes["admin.moicen.com"] = "hang"
        over, answers = threading.Event(), Counter[int]()

        def insist(headers: dict[str, str]) -> None:
            while not over.is_set():
                answers[ask(service, path, headers)[0]] += 1
                over.wait(0.1)

        threads = [threading.Thread(target=insist, args=(headers,), daemon=True) for headers in theirs]
        asked = auth.app.calls
        for thread in threads:
            thread.start()
        try:
            while auth.app.calls < asked + AT_ONCE:  # all of their turns are taken
                time.sleep(0.05)
            assert [ask(service, path, known)[0] for _ in range(4)] == [200] * 4
            assert not answers, "it had to wait for one of theirs"
            while answers[503] < 2 * len(theirs):
                time.sleep(0.05)
            assert ask(service, path, known)[0] == 200
            auth.app.modes.clear()
            while not answers[200]:
                time.sleep(0.05)
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
