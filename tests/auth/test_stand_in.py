"""The stand-in for the auth service, and `python -m coze_simulator --auth-port`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from coze_simulator.__main__ import main
from coze_simulator.auth import MODES, VERIFY_PATH
from coze_simulator.auth_server import RunningAuth, running_auth
from coze_simulator.auth_tokens import claims_of, is_valid, sign
from tests.support import free_port

ROOT = Path(__file__).resolve().parents[2]
YES = {"r": True, "d": None, "e": None, "hty_err": None}


@pytest.fixture
def http(auth: RunningAuth) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=auth.root_url, timeout=20, trust_env=False) as client:
        yield client


def verify(http: httpx.Client, token: str | None) -> httpx.Response:
    return http.post(VERIFY_PATH, headers={} if token is None else {"Authorization": token})


def is_no(answer: httpx.Response) -> bool:
    body = answer.json()
    return body["r"] is False and body["d"] is None and body["hty_err"]["code"] == "AuthenticationFailed"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_it_says_yes_to_the_tokens_that_it_issued(http: httpx.Client, algorithm: str) -> None:
    body = {"hty_id": "u-1", "roles": ["ADMIN"], "root": "moicen.com", "algorithm": algorithm}
    issued = http.post("/_sim/tokens", json=body).json()
    token = issued["token"]
    assert issued["headers"] == {"HtySudoerToken": token, "HtyHost": "moicen.com"}
    answer = verify(http, token)
    assert (answer.status_code, answer.json()) == (200, YES)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == {"sub", "exp", "iat"}
    assert claims["exp"] - claims["iat"] == 36_000_000


def test_the_shell_gets_a_bare_token(http: httpx.Client, auth: RunningAuth) -> None:
    token = http.get("/_sim/tokens?hty_id=u-1&roles=ADMIN,TESTER&expires_in=60").text
    claims = jwt.decode(token.strip(), auth.app.key, ["HS256"])
    assert re.findall(r'"role_key": "(\w+)"', claims["sub"]) == ["ADMIN", "TESTER"]
    assert verify(http, http.get("/_sim/tokens").text.strip()).json() == YES


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "Bearer x", sign(claims_of("u-1"), "another key"), "..", "[.[.["]
)
def test_it_says_no_to_others(http: httpx.Client, token: str) -> None:
    answer = verify(http, token)
    assert answer.status_code == 200
    assert is_no(answer)


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": b"\xff"}])
def test_a_missing_or_unreadable_authorization_is_401(http: httpx.Client, headers: dict[str, Any]) -> None:
    answer = http.post(VERIFY_PATH, headers=headers)
    assert answer.status_code == 401
    assert is_no(answer)


@pytest.mark.parametrize("claims", [{}, {"sub": None}, {"sub": "x"}, {"sub": "[]"}, [], "x"])
def test_a_sub_that_cannot_be_read_is_no(auth: RunningAuth, claims: object) -> None:
    assert not is_valid(sign(claims, auth.app.key), auth.app.key)


def test_it_does_not_look_at_exp_and_can_revoke(http: httpx.Client) -> None:
    token = http.post("/_sim/tokens", json={"hty_id": "u-1", "expires_in": -60}).json()["token"]
    assert verify(http, token).json() == YES
    assert http.post("/_sim/revoke", json={"token": token}).status_code == 200
    assert is_no(verify(http, token))


def test_it_fails_as_told(http: httpx.Client) -> None:
    token = http.get("/_sim/tokens").text.strip()
    seen: dict[str, object] = {}
    for mode in MODES:
        assert http.post("/_sim/mode", json={"mode": mode}).json() == {"mode": mode}
        patience = 0.3 if mode == "hang" else 20
        try:
            answer = http.post(VERIFY_PATH, headers={"Authorization": token}, timeout=patience)
            seen[mode] = (answer.status_code, answer.text[:12])
        except httpx.TransportError as error:
            seen[mode] = type(error)
    assert seen["off"] in (httpx.ReadError, httpx.RemoteProtocolError)
    assert seen["hang"] is httpx.ReadTimeout
    assert {mode: value for mode, value in seen.items() if mode not in ("off", "hang")} == {
        "ok": (200, '{"r":true,"d'),
        "no": (200, '{"r":false,"'),
        "500": (500, "Internal Ser"),
        "html": (200, "<html><body>"),
        "empty": (200, "{}"),
        "string": (200, '{"r":"true"}'),
        "redirect": (307, ""),
    }
    assert http.get("/_sim/health").json()["mode"] == MODES[-1]


def test_it_counts_and_shows_no_token(http: httpx.Client) -> None:
    token = http.get("/_sim/tokens").text.strip()
    verify(http, token)
    http.get("/elsewhere")
    log = http.get("/_sim/log")
    assert log.json()["calls"] == 1
    assert [record["path"] for record in log.json()["requests"]] == [VERIFY_PATH, "/elsewhere"]
    assert token.split(".")[2] not in log.text
    assert http.delete("/_sim/log").json() == {"calls": 0, "requests": []}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("tokens", {"hty_id": 7}),
        ("tokens", {"roles": "ADMIN"}),
        ("tokens", {"roles": [7]}),
        ("tokens", {"expires_in": "soon"}),
        ("tokens", {"expires_in": 1e300}),
        ("tokens", {"algorithm": "none"}),
        ("tokens", []),
        ("mode", {"mode": "x"}),
        ("mode", []),
        ("revoke", {}),
        ("revoke", []),
    ],
)
def test_wrong_orders_are_told(http: httpx.Client, path: str, body: object) -> None:
    answer = http.post(f"/_sim/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_wrong_orders_from_the_shell_are_told(http: httpx.Client) -> None:
    for query in "expires_in=soon", "expires_in=nan", "algorithm=none":
        assert http.get(f"/_sim/tokens?{query}").status_code == 400


def test_two_share_no_key_unless_given_one() -> None:
    with running_auth() as one, running_auth() as two, running_auth(one.app.key) as three:
        token = one.app.issue("u-1")
        assert not is_valid(token, two.app.key)
        assert is_valid(token, three.app.key)


# -- the process ------------------------------------------------------------------------------------------


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, Coze's address, and HTY_VERIFY_URL."""
    command = [sys.executable, "-m", "coze_simulator", "--port", "0", "--auth-port", "0", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            coze = re.search(r"listening on (http://\S+)", process.stdout.readline())
            url = re.search(r"HTY_VERIFY_URL=(http://\S+)\)", process.stdout.readline())
            assert coze is not None
            assert url is not None
            yield process, coze[1], url[1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_process_serves_coze_and_the_auth_service(number: signal.Signals) -> None:
    key = "a key that is long enough for everybody's taste"
    with started("--auth-key", key, "--log-level", "warning") as (process, coze, url):
        assert httpx.get(coze + "/coze").json()["service"] == "coze-simulator"
        token = sign(claims_of("u-1"), key)
        assert httpx.post(url, headers={"Authorization": token}).json() == YES
        process.send_signal(number)
        process.wait(timeout=20)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_taken_auth_port_is_told_and_ends_it(auth: RunningAuth, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main(["--port", str(port), "--auth-port", str(auth.port)]) == 1
    captured = capsys.readouterr()
    assert f":{auth.port}:" in captured.err
    assert captured.out == ""
