"""The service as a process: its start, its logs, and its end on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
from collections.abc import Callable

import httpx
import pytest
from loguru import logger

from app.main import create_app
from tests.support import (
    RedisServer,
    ServiceProcess,
    data_of,
    error_of,
    make_settings,
    open_client,
    wait_until,
)

TOKEN = "pat_Qm7xNeverInAnyLog42"
WORDS = ("marzipan", "Tannenzapfen", "悄悄话")
ENDED_BY_SIGTERM = {0, -signal.SIGTERM}
"""uvicorn ends in order and then raises the signal again, so that whoever started it sees why."""

StartProcess = Callable[..., ServiceProcess]


async def test_sigterm_drains(redis: RedisServer, start_process: StartProcess) -> None:
    leaving = start_process(REDIS_URL=redis.url, DRAIN_SECONDS="15")
    staying = start_process(REDIS_URL=redis.url)
    async with open_client(leaving.base_url) as client, open_client(staying.base_url) as other:
        sessions = [await client.open_session(f"u-{n}") for n in range(3)]
        waiting = asyncio.create_task(client.send(sessions[0], "whole [[sim:delay=3]]"))
        async with client.stream(sessions[1], "streamed [[sim:stall=2:3;deltas=6;reasoning=0]]") as reader:
            await reader.until("conversation.message.delta", times=2)
            await wait_until(lambda: _runs(client, 2))
            leaving.terminate()
            await wait_until(lambda: _refuses(client, sessions[2]))
            ready = await client.get("/coze/health/ready")
            assert (ready.status_code, error_of(ready)["code"]) == (503, "SHUTTING_DOWN")
            rest = await reader.all()
        # Either the end itself, or the word to come back; never a silent cut.
        assert rest[-1].event in ("reconnect", "done")
        if rest[-1].event == "reconnect":
            assert rest[-1].id is None
        answer = data_of(await waiting)
        assert "whole" in answer["content"]
        assert await asyncio.to_thread(leaving.wait) in ENDED_BY_SIGTERM
        chat = data_of(await other.result(reader.chat_id, wait=5))
        assert chat["status"] == "completed"
        assert "streamed" in chat["content"]
        assert chat["recovered"] is False
        assert data_of(await other.result(answer["chat_id"])) == answer
        assert (await other.send(sessions[1], "next")).status_code == 200
    assert "Traceback" not in leaving.log


async def _runs(client: object, count: int) -> bool:
    return await client.running_chats() == count  # type: ignore[attr-defined]


async def _refuses(client: object, session_id: str) -> bool:
    response = await client.send(session_id, "hello")  # type: ignore[attr-defined]
    if response.status_code != 503:
        return False
    assert error_of(response)["code"] == "SHUTTING_DOWN"
    assert int(response.headers["Retry-After"]) >= 1
    return True


async def test_an_app_that_runs_elsewhere_changes_nothing_in_the_process() -> None:
    def state_of_the_process() -> list[object]:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
        loguru = sorted(logger._core.handlers)  # type: ignore[attr-defined]
        return [gc.get_threshold(), gc.get_freeze_count(), handlers, logging.getLogger().handlers[:], loguru]

    before = state_of_the_process()
    app = create_app(make_settings(REDIS_URL="memory://", COZE_API_URL="http://127.0.0.1:1/v3/chat"))
    async with app.router.lifespan_context(app):
        assert state_of_the_process() == before
    assert state_of_the_process() == before


async def test_an_idle_process_does_not_drain_on_sigterm(start_process: StartProcess) -> None:
    process = start_process(DRAIN_SECONDS="600")
    assert process.stop() in ENDED_BY_SIGTERM
    assert "Traceback" not in process.log


async def test_a_second_sigterm_does_not_wait_for_chats(start_process: StartProcess) -> None:
    process = start_process(DRAIN_SECONDS="600")
    async with open_client(process.base_url) as client:
        session_id = await client.open_session()
        await client.start(session_id, "[[sim:delay=60]]")
        process.terminate()
        await wait_until(lambda: _refuses(client, session_id))
    process.terminate()
    await asyncio.to_thread(process.wait)


async def test_a_process_that_was_killed_leaves_its_sessions_to_the_next(
    redis: RedisServer, start_process: StartProcess
) -> None:
    process = start_process(REDIS_URL=redis.url)
    async with open_client(process.base_url) as client:
        session_id = await client.open_session()
        before = data_of(await client.send(session_id, "before"))
    process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(process.base_url)
    process.start()
    async with open_client(process.base_url) as client:
        assert data_of(await client.result(before["chat_id"])) == before
        assert "after" in data_of(await client.send(session_id, "after"))["content"]


async def test_without_redis_the_process_starts_and_says_so(start_process: StartProcess) -> None:
    process = start_process(REDIS_URL="redis://127.0.0.1:1/0", wait_for="/coze/health/live")
    assert httpx.get(process.base_url + "/coze/health").status_code == 503
    assert "Redis is away" in process.log
    assert process.stop() in ENDED_BY_SIGTERM
    assert "Traceback" not in process.log


@pytest.mark.parametrize("log_format", ["json", pytest.param("console", marks=pytest.mark.full)])
async def test_the_logs_of_a_whole_run_hold_no_token_and_no_message(
    log_format: str, redis: RedisServer, start_process: StartProcess
) -> None:
    process = start_process(
        REDIS_URL=redis.url,
        COZE_API_TOKEN=TOKEN,
        COZE_LOG_LEVEL="DEBUG",
        COZE_LOG_FORMAT=log_format,
        COZE_MAX_RETRIES="1",
        COZE_FIRST_BYTE_TIMEOUT="1",
        COZE_IDLE_TIMEOUT="1",
        COZE_CHAT_TIMEOUT="2",
    )
    said = " ".join(WORDS)
    async with open_client(process.base_url) as client:
        session_id = await client.open_session(
            additional_messages=[{"role": "user", "content": said}], meta_data={"word": said}
        )
        path = f"/coze/sessions/{session_id}/messages"
        assert (await client.send(session_id, said)).status_code == 200
        async with client.stream(session_id, said) as reader:
            await reader.all()
        for knobs in ("fail=4100", "fail=4013", "http=502", "fail_at=1", "error_at=1", "cut=900", "delay=9"):
            await client.send(session_id, f"[[sim:{knobs}]] {said}")
        await client.send(session_id, said * 400)
        await client.post(path, json={"message": {"text": said}, "stream": said})
        await client.post(path, content=said.encode() * 3, headers={"Content-Type": "application/json"})
        await client.post(
            path, content=json.dumps({"message": said})[:-1], headers={"Content-Type": "a/json"}
        )
        await client.get(f"/coze/sessions/{session_id}", headers={"Authorization": f"Bearer {TOKEN}"})
        await client.delete(f"/coze/sessions/{session_id}")
    process.stop()
    lines = process.log.splitlines()
    assert len(lines) > 20
    levels = set()
    for line in lines:
        assert TOKEN.lower() not in line.lower()
        level = json.loads(line)["level"] if log_format == "json" else line.split()[1]
        levels.add(level)
        if level not in ("DEBUG", "TRACE"):
            for word in WORDS:
                assert word.lower() not in line.lower()
                assert word.encode("unicode_escape").decode() not in line
    assert "INFO" in levels
    assert not {"ERROR", "CRITICAL"} & levels


async def test_what_a_caller_writes_cannot_start_a_line_in_the_log(start_process: StartProcess) -> None:
    process = start_process(COZE_LOG_FORMAT="console", COZE_LOG_LEVEL="DEBUG")
    async with open_client(process.base_url) as client:
        await client.get("/coze/chats/x%0AFORGED%20LINE/result")
        await client.get("/coze/%E2%80%A8FORGED%20LINE")
    process.stop()
    assert "FORGED" in process.log
    assert not any(line.startswith("FORGED") for line in process.log.splitlines())
