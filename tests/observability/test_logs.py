"""Logs: every line is JSON, and one request can be followed by its ids."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.logging_config import configure_logging
from coze_simulator.auth_server import running_auth
from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    ServiceProcess,
    data_of,
    make_settings,
    open_client,
    wait_until,
)

from .support import lines_of

StartApp = Callable[..., RunningApp]
Line = dict[str, Any]
AT_ONCE = 40
SHORT = "[[sim:deltas=2;reasoning=0;followups=0;verbose=none]]"


@contextmanager
def captured(level: str = "INFO") -> Iterator[Callable[[], list[Line]]]:
    """The lines that are logged from here on; each has to be JSON."""
    stream, real = io.StringIO(), sys.stdout
    sys.stdout = stream
    configure_logging(make_settings(COZE_LOG_LEVEL=level))
    try:
        yield lambda: [
            json.loads(line) for line in stream.getvalue().splitlines() if "coze_simulator" not in line
        ]
    finally:
        sys.stdout = real


def access_lines(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["logger"] == "app.http.middleware" and "method" in line]


@pytest.mark.parametrize("chats", [200, pytest.param(1000, marks=pytest.mark.full)])
async def test_of_many_chats_each_can_be_followed_by_its_ids(
    chats: int, redis: RedisServer, start_process: Callable[..., ServiceProcess]
) -> None:
    process = start_process(
        REDIS_URL=redis.url,
        RATE_LIMIT_MESSAGES_PER_MINUTE="0",
        RATE_LIMIT_SESSIONS_PER_MINUTE="0",
        COZE_MAX_SESSIONS_PER_USER="1000",
    )
    asked: dict[str, str] = {}
    """Request id -> chat id."""
    async with open_client(process.base_url) as client:
        await asyncio.gather(*(_ask(client, n, asked, chats // AT_ONCE) for n in range(AT_ONCE)))
        await wait_until(lambda: _is_idle(client))
    await asyncio.to_thread(process.stop)
    found = lines_of(process.log_file)
    assert len(asked) == chats
    assert not [line for line in found if line["level"] not in ("INFO", "WARNING")]
    access = {line["request_id"]: line for line in access_lines(found)}
    ended = {line["chat_id"]: line for line in found if line["message"].startswith("chat ended")}
    assert len(ended) == chats
    logids = set()
    for request_id, chat_id in asked.items():
        line = access[request_id]
        assert (line["status"], line["chat_id"], line["root"]) == (200, chat_id, "local")
        assert line["route"] == "/coze/sessions/{session_id}/messages"
        chat = ended[chat_id]
        assert chat["request_id"] == request_id
        assert chat["session_id"] == line["session_id"]
        assert chat["message"] == "chat ended: completed"
        assert chat["coze_chat_id"]
        logids.add(chat["logid"])
    assert len(logids) == chats


async def _is_idle(client: Client) -> bool:
    return await client.running_chats() == 0


async def _ask(client: Client, worker: int, asked: dict[str, str], chats: int) -> None:
    session = await client.open_session(f"u-{worker}")
    for n in range(chats):
        request_id = f"w{worker}-{n}"
        headers = {"X-Request-Id": request_id}
        if n % 2:
            async with client.stream(session, SHORT, headers=headers) as reader:
                asked[request_id] = reader.chat_id
                await reader.all()
        else:
            response = await client.send(session, SHORT, headers=headers)
            asked[request_id] = data_of(response)["chat_id"]


async def test_an_access_line_says_who_what_and_how_long(start_app: StartApp) -> None:
    with running_auth() as auth, captured("DEBUG") as lines:
        service = start_app(ENABLE_AUTH="true", HTY_VERIFY_URL=auth.verify_url, COZE_LOG_LEVEL="DEBUG")
        headers = {"HtySudoerToken": auth.app.issue("hty-7"), "HtyHost": "app.moicen.com"}
        async with open_client(service.base_url, headers=headers) as client:
            session = await client.open_session("user-1")
            async with client.stream(session, "[[sim:delay=0.2;deltas=5;gap=0.1]]") as reader:
                await reader.all()
            await client.get("/coze/health")
            await client.get("/coze/nowhere")
        await asyncio.to_thread(service.wait_idle)
        await wait_until(lambda: len(access_lines(lines())) == 4)
        found = lines()
    opened, streamed, health, nowhere = access_lines(found)
    assert (opened["level"], opened["root"], opened["user"]) == ("INFO", "moicen.com", "hty-7")
    assert opened["message"].startswith("POST /coze/sessions 200 ")
    assert opened["bytes"] > 100
    assert opened["store_ms"] > 0
    assert "first_byte_ms" not in opened
    assert streamed["duration_ms"] >= 200
    assert 0 < streamed["first_byte_ms"] < streamed["duration_ms"]
    assert (streamed["session_id"], streamed["chat_id"]) == (session, reader.chat_id)
    assert streamed["upstream_ms"] >= 150
    assert "client_gone" not in streamed
    assert streamed["bytes"] == len(reader.raw), "what went straight to the server counts, too"
    assert health["level"] == "DEBUG"
    assert (nowhere["status"], nowhere["path"], "route" in nowhere) == (404, "/coze/nowhere", False)
    [chat] = [line for line in found if line["message"].startswith("chat ended")]
    assert (chat["root"], chat["user"], chat["user_id"]) == ("moicen.com", "hty-7", "user-1")
    assert chat["duration_ms"] >= chat["first_delta_ms"] >= 150


async def test_a_client_that_hangs_up_is_told_apart(start_app: StartApp) -> None:
    with captured() as lines:
        service = start_app()
        async with open_client(service.base_url) as client:
            session = await client.open_session()
            async with client.stream(session, "[[sim:delay=1.5]]") as reader:
                await reader.until("chat")
            await wait_until(lambda: len(access_lines(lines())) == 2)
        await asyncio.to_thread(service.wait_idle)
        found = lines()
    assert [line.get("client_gone") for line in access_lines(found)] == [None, True]
    assert any(line["message"] == "chat ended: completed" for line in found)


async def test_a_fault_of_ours_is_logged_once_and_answered(
    start_app: StartApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with captured() as lines:
        service = start_app()

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("inside")

        monkeypatch.setattr(type(service.resources.sessions), "get", broken)
        async with open_client(service.base_url) as client:
            response = await client.get("/coze/sessions/x", headers={"X-Request-Id": "broken"})
            assert response.status_code == 500
            assert response.json()["error"]["code"] == "INTERNAL_ERROR"
            assert response.headers["X-Request-Id"] == "broken"
            assert "Server-Timing" in response.headers
        found = lines()
    [fault] = [line for line in found if "exception" in line]
    assert (fault["request_id"], fault["level"]) == ("broken", "ERROR")
    assert "RuntimeError: inside" in fault["exception"]
    assert "inside" not in response.text


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_caller_wrote_stays_in_its_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    from loguru import logger

    configure_logging(make_settings(COZE_LOG_FORMAT=form))
    evil = 'x\n{"level":"ERROR"}\u2028FORGED\x85\x1b[2J\x9b' + "y" * 1000
    with logger.contextualize(fields=lambda: {"user": evil, "root": "a\rb", "logid": None}, user_id=evil):
        logger.info("a {}", evil)
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert "\x9b" not in text
    if form == "json":
        line = json.loads(text)
        assert line["user"].startswith("x\\n{")
        assert len(line["user"]) < 400
        assert "logid" not in line


@pytest.mark.parametrize("around", ["", "您好 ", "\x7f"])
def test_a_token_is_taken_out_wherever_it_is_and_however_it_is_written(
    around: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from loguru import logger

    configure_logging(make_settings())
    for token in (
        *("bearer hidden", "BEARER hidden", "pat_hidden", "Sat_hidden", "czs_hidden", "CZTEI_hidden"),
        *("redis://u:hidden@host", "Rediss://:hidden@host", "eyJhidden12345.hidden", "\u017fat_hidden"),
        *("redis://:hidden@hidden@host", "redis://host:1,redis://:hidden@host"),
    ):
        logger.bind(user=around + token, status=200).info("plain")
        logger.bind(user="plain").info("{}", around + token)
        text = capsys.readouterr().out
        assert len(text.splitlines()) == 2, token
        assert "***" in text, token
        assert "hidden" not in text, token


def test_half_a_password_behind_what_is_looked_at_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What is taken out before it makes room for what would have been cut."""
    from loguru import logger

    configure_logging(make_settings())
    for behind in ("redis://u:hidden", "Rediss://:hidden"):
        logger.bind(user="pat_" + "x" * (1019 - len(behind)) + " " + behind + "more@host").info("plain")
        text = capsys.readouterr().out
        assert "***" in text
        assert "hidden" not in text


def test_a_long_field_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    from loguru import logger

    configure_logging(make_settings())
    logger.bind(user="y" * 1000, status=200).info("plain")
    line = json.loads(capsys.readouterr().out)
    assert (line["user"], line["status"]) == ("y" * 256, 200)


def test_half_a_surrogate_pair_does_not_lose_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    from loguru import logger

    configure_logging(make_settings())
    logger.bind(user="\ud83d").info("half")
    assert json.loads(capsys.readouterr().out)["message"] == "half"


def test_what_pydantic_refused_is_not_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    from loguru import logger
    from pydantic import ValidationError

    from app.models.chats import Chat

    configure_logging(make_settings())
    record = json.dumps({"chat_id": {" ".join(("secret", "words")): 1}})
    try:
        Chat.model_validate_json(record)
    except ValidationError as error:
        logger.opt(exception=error).error("broke")
    text = capsys.readouterr().out
    assert "secret words" not in text
    assert "input_value=***" in json.loads(text)["exception"]
