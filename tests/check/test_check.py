"""``python -m app.check``: what is found, the fix that is named, and that nothing is started or shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.check import Line, check, check_settings, exit_code
from app.check.coze import CozeCheck
from app.check.local import check_clock, check_env_file
from app.coze.credentials import Accounts
from app.coze.credentials.sources import StaticToken
from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN
from coze_simulator.auth_server import running_auth
from tests.support import RedisServer, SimControl, make_settings, redis_server

ROOT = Path(__file__).resolve().parents[2]
BASE = "https://api.coze.cn"
SECRET = "pat_never_shown"


def of(lines: list[Line], name: str) -> Line:
    [line] = [line for line in lines if line.name == name]
    return line


async def look(simulator: SimControl, redis: RedisServer, **values: str) -> list[Line]:
    chosen = {"COZE_API_URL": simulator.chat_url, "REDIS_URL": redis.url} | values
    return await check_settings(make_settings(**chosen))


# -- the whole, against real servers ------------------------------------------------------------------------


async def test_where_all_is_in_place_every_line_is_fine(simulator: SimControl) -> None:
    with running_auth() as auth, redis_server(aof=True) as redis:
        lines = await look(simulator, redis, ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
    names = [line.name for line in lines]
    assert names == [
        *("redis", "persistence", "memory", "coze", "token", "permissions", "bot"),
        *("auth service", "coze's sdks", "clock"),
    ]
    assert {line.severity for line in lines} == {"ok"}
    assert exit_code(lines) == 0


async def test_no_chat_and_no_conversation_is_begun(simulator: SimControl, redis: RedisServer) -> None:
    before = simulator.state()
    await look(simulator, redis)
    after = simulator.state()
    assert (after["chats_created"], after["conversations"]) == (
        before["chats_created"],
        before["conversations"],
    )


async def test_a_redis_that_forgets_is_a_warning_with_its_fix(
    simulator: SimControl, redis: RedisServer
) -> None:
    with redis.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            lines = await look(simulator, redis)
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    assert of(lines, "redis").severity == "ok"
    assert (of(lines, "persistence").severity, of(lines, "memory").severity) == ("warn", "warn")
    assert "appendonly yes" in of(lines, "persistence").fix
    assert "noeviction" in of(lines, "memory").fix
    assert exit_code(lines) == 1


async def test_a_redis_that_cannot_be_used_is_a_failure(
    simulator: SimControl, own_redis: RedisServer
) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", SECRET)
    lines = await look(simulator, own_redis)
    assert (of(lines, "redis").severity, "password" in of(lines, "redis").fix) == ("fail", True)
    wrong = f"redis://:{SECRET}x@127.0.0.1:{own_redis.port}/0"
    lines = await look(simulator, own_redis, REDIS_URL=wrong)
    assert of(lines, "redis").severity == "fail"
    assert SECRET not in "".join(map(str, lines))
    right = f"redis://:{SECRET}@127.0.0.1:{own_redis.port}/0"
    assert of(await look(simulator, own_redis, REDIS_URL=right), "redis").severity == "ok"
    own_redis.stop()
    assert of(await look(simulator, own_redis), "redis").severity == "fail"
    own_redis.start()


async def test_a_replica_is_not_taken_for_its_master(simulator: SimControl, redis: RedisServer) -> None:
    with redis_server(options=["--replicaof", "127.0.0.1", str(redis.port)]) as replica:
        line = of(await look(simulator, replica), "redis")
    assert (line.severity, "replica" in line.fix) == ("fail", True)


async def test_a_token_that_coze_refuses_is_a_failure(simulator: SimControl, redis: RedisServer) -> None:
    lines = await look(simulator, redis, COZE_API_TOKEN="pat_wrong")
    assert of(lines, "coze").severity == "ok"
    assert (of(lines, "token").severity, "4100" in of(lines, "token").text) == ("fail", True)
    assert "pat_wrong" not in "".join(map(str, lines))
    assert exit_code(lines) == 2


@pytest.mark.parametrize(("mode", "severity"), [("500", "fail"), ("html", "fail"), ("no", "ok")])
async def test_the_auth_service_has_to_answer(
    mode: str, severity: str, simulator: SimControl, redis: RedisServer
) -> None:
    with running_auth() as auth:
        auth.app.mode = mode
        lines = await look(simulator, redis, ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url)
    assert of(lines, "auth service").severity == severity


@pytest.mark.parametrize(
    ("values", "opens"),
    [
        ({"ENABLE_AUTH": "false"}, "any token opens it"),
        ({"ENABLE_AUTH": "true", "COZE_API_KEYS": f"app:{SECRET}-and-longer"}, "a key of COZE_API_KEYS, or"),
        ({"ENABLE_AUTH": "true"}, "an HTY token with HtyHost beside it; COZE_API_KEYS is not set"),
    ],
)
async def test_the_address_for_cozes_own_sdks_is_told_with_what_opens_it(
    values: dict[str, str], opens: str, simulator: SimControl, redis: RedisServer
) -> None:
    with running_auth() as auth:
        lines = await look(simulator, redis, PORT="6123", HTY_VERIFY_URL=auth.verify_url, **values)
    line = of(lines, "coze's sdks")
    assert line.severity == "ok"
    assert "http://localhost:6123/coze/api" in line.text
    assert opens in line.text
    assert SECRET not in line.text


async def test_nothing_that_answers_is_said_by_name(simulator: SimControl, redis: RedisServer) -> None:
    lines = await look(
        simulator,
        redis,
        COZE_API_URL="http://127.0.0.1:9/v3/chat",
        ENABLE_AUTH="true",
        HTY_VERIFY_URL="http://127.0.0.1:9/",
    )
    assert (of(lines, "coze").severity, of(lines, "auth service").severity) == ("fail", "fail")


# -- what only the real Coze answers ------------------------------------------------------------------------


class Cloud:
    """Coze by the code for each path; ``hosts``: which of the two knows the token."""

    def __init__(self, *, home: str = BASE, refusal: int = 4100, **codes: Any) -> None:
        self.home = home
        self.refusal = refusal
        self.codes = codes
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        headers = {"date": formatdate(time.time(), usegmt=True), "x-tt-logid": "L1"}
        if not self.home.endswith(request.url.host) or "none" in request.headers["authorization"]:
            return httpx.Response(200, json={"code": self.refusal, "msg": "no"}, headers=headers)
        name = request.url.path.rsplit("/", 1)[-1]
        code, data = self.codes.get(name, 4001), {"name": "助手"}
        return httpx.Response(200, json={"code": code, "msg": "", "data": data}, headers=headers)

    async def lines(self) -> list[Line]:
        accounts = Accounts([(SECRET, StaticToken(SECRET))])
        async with httpx.AsyncClient(transport=httpx.MockTransport(self)) as http:
            found = await CozeCheck(http, BASE, accounts, "7", seconds=5).lines({})
        assert SECRET not in "".join(map(str, found))
        return found


@pytest.mark.parametrize("refusal", [4100, 4101, 700012006])
async def test_a_token_of_the_other_region_is_told(refusal: int) -> None:
    line = of(await Cloud(home="https://api.coze.com", refusal=refusal).lines(), "region")
    assert line.severity == "fail"
    assert "COZE_API_URL=https://api.coze.com/v3/chat" in line.fix


async def test_a_token_that_no_region_knows_is_just_refused() -> None:
    lines = await Cloud(home="https://elsewhere").lines()
    assert (of(lines, "token").severity, "logid L1" in of(lines, "token").text) == ("fail", True)


async def test_missing_permissions_are_named() -> None:
    lines = await Cloud(cancel=4101, clear=4101, get_online_info=0).lines()
    line = of(lines, "permissions")
    assert (line.severity, "cancelChat, editConversation" in line.text) == ("warn", True)
    line = of(await Cloud(chat=4101).lines(), "permissions")
    assert (line.severity, " chat" in line.text) == ("fail", True)


@pytest.mark.parametrize(
    ("code", "severity", "word"),
    [
        (0, "ok", "助手"),
        (4015, "fail", "publish"),
        (4006, "fail", "COZE_BOT_ID"),
        (4200, "fail", "COZE_BOT_ID"),
        (4101, "skip", "getMetadata"),
        (404, "skip", ""),
        (702242001, "warn", "published"),
    ],
)
async def test_a_bot_is_looked_up(code: int, severity: str, word: str) -> None:
    line = of(await Cloud(get_online_info=code).lines(), "bot")
    assert line.severity == severity
    assert word in line.text + line.fix


async def test_nothing_that_is_asked_could_start_a_chat() -> None:
    cloud = Cloud(get_online_info=0)
    await cloud.lines()
    [chat] = [request for request in cloud.asked if request.url.path == "/v3/chat"]
    assert b'"bot_id":"0"' in chat.content
    assert b'"additional_messages":[]' in chat.content


async def test_an_answer_that_is_not_cozes_is_a_failure() -> None:
    def proxy(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<html>Bad Gateway</html>")

    accounts = Accounts([(SECRET, StaticToken(SECRET))])
    async with httpx.AsyncClient(transport=httpx.MockTransport(proxy)) as http:
        [line] = await CozeCheck(http, BASE, accounts, "7", seconds=5).lines({})
    assert (line.severity, "HTTP 502" in line.text) == ("fail", True)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"data": {}}),
        (200, {"code": 0, "data": {}}),
        (200, {"code": True}),
        (200, {"code": "4100"}),
        (200, {"code": 4100.0}),
        (200, {"code": None, "data": []}),
        (200, []),
        (200, {"code": 4001, "msg": "no such chat"}),
        (302, {"code": 0}),
        (500, {"code": 4100}),
        (404, {"detail": "Not Found"}),
    ],
)
async def test_only_what_answers_as_coze_does_is_taken_for_coze(status: int, body: object) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json=body))
    accounts = Accounts([(SECRET, StaticToken(SECRET))])
    async with httpx.AsyncClient(transport=transport) as http:
        [line] = await CozeCheck(http, BASE, accounts, "7", seconds=5).lines({})
    assert (line.severity, line.name) == ("fail", "coze")


# -- this machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "severity"), [(0o600, "ok"), (0o400, "ok"), (0o640, "warn"), (0o644, "warn")]
)
def test_an_env_file_is_for_its_owner(mode: int, severity: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PORT=1\n")
    path.chmod(mode)
    line = check_env_file(path)
    assert line.severity == severity
    assert ("chmod 600" in line.fix) is (severity == "warn")
    assert check_env_file(tmp_path / "none").severity == "ok"


@pytest.mark.parametrize(("offset", "severity"), [(0.4, "ok"), (-40.0, "warn"), (900.0, "fail")])
def test_clocks_are_compared(offset: float, severity: str) -> None:
    assert check_clock({"Redis": 0.1, "Coze": offset}).severity == severity
    assert check_clock({}).severity == "skip"


async def test_wrong_settings_are_named_and_nothing_else_is_tried(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"COZE_API_TOKEN={SECRET}\nCOZE_BOT_ID=7\nPORT=x\nREDIS_URL=redis://:{SECRET}@h:x\n")
    lines = await check(path, tmp_path / "none.json")
    assert {line.name for line in lines} == {".env", "settings"}
    text = "".join(map(str, lines))
    assert "PORT" in text
    assert "REDIS_URL" in text
    assert SECRET not in text
    assert exit_code(lines) == 2


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "app.check"],
        pytest.param(["bash", "run-service.sh", "check"], marks=pytest.mark.full),
    ],
)
def test_as_a_program_it_ends_with_the_worst_of_its_lines(
    command: list[str], simulator: SimControl, redis: RedisServer
) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "COZE_API_TOKEN": SIMULATOR_TOKEN,
            "COZE_BOT_ID": SIMULATOR_BOT_ID,
            "COZE_API_URL": simulator.chat_url,
            "REDIS_URL": redis.url,
            "ENABLE_AUTH": "false",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[warn] persistence" in done.stdout
    assert "[ ok ] token" in done.stdout
    assert SIMULATOR_TOKEN not in done.stdout
