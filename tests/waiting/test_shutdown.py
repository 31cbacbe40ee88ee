"""SIGTERM in bad moments: the process ends, and a second SIGTERM ends it without waiting for anybody."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import (
    Client,
    RedisServer,
    ServiceProcess,
    SimControl,
    error_of,
    open_client,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
StartProcess = Callable[..., ServiceProcess]
ENDED_BY_SIGTERM = {0, -signal.SIGTERM}
BOUND = 60.0
"""Seconds that nothing here takes unless it hangs."""


@pytest.mark.parametrize("redis_is", ["stopped", "silent"])
async def test_a_chat_past_its_deadline_holds_no_shutdown_up_while_redis_is_away(
    redis_is: str, own_redis: RedisServer, simulator: SimControl, start_process: StartProcess
) -> None:
    """The chat has failed here; its end cannot be written, and Coze has not yet said that it let go."""
    process = start_process(
        REDIS_URL=own_redis.url, COZE_CHAT_TIMEOUT="1", DRAIN_SECONDS="0.2", REDIS_TIMEOUT="0.5"
    )
    simulator.knob(path="/v3/chat/cancel", first_byte=30)
    async with open_client(process.base_url) as client:
        session_id = await client.open_session()
        await client.start(session_id, "[[sim:delay=60]]")
        if redis_is == "stopped":
            own_redis.stop()
        else:
            own_redis.pause()
        await wait_until(lambda: simulator.requests(path="/v3/chat/cancel"), BOUND)
    process.terminate()
    assert await asyncio.to_thread(process.wait, BOUND) in ENDED_BY_SIGTERM
    assert "Traceback" not in process.log


async def test_a_second_sigterm_ends_a_process_whose_hand_over_hangs(
    own_redis: RedisServer, simulator: SimControl, start_process: StartProcess
) -> None:
    process = start_process(REDIS_URL=own_redis.url, DRAIN_SECONDS="3600", REDIS_TIMEOUT="5")
    async with open_client(process.base_url) as client:
        await client.start(await client.open_session(), "[[sim:delay=3600]]")
        own_redis.pause()
        process.terminate()
        await wait_until(lambda: _is_draining(client), BOUND)
    process.terminate()
    assert await asyncio.to_thread(process.wait, BOUND) in ENDED_BY_SIGTERM | {-signal.SIGALRM}


async def _is_draining(client: Client) -> bool:
    ready = await client.get("/coze/health/ready")
    return ready.status_code == 503 and error_of(ready)["code"] == "SHUTTING_DOWN"


HANGS = """
import asyncio, contextlib, sys
import uvicorn
from app.__main__ import drain_on_signals

async def drain():
    print("draining", flush=True)
    await asyncio.Event().wait()

@contextlib.asynccontextmanager
async def lifespan(app):
    drain_on_signals(drain)
    print("up", flush=True)
    yield
    await asyncio.Event().wait()

from starlette.applications import Starlette
uvicorn.run(Starlette(lifespan=lifespan), host="127.0.0.1", port=0, log_level="critical")
"""


def test_a_second_signal_ends_a_process_in_which_everything_hangs() -> None:
    process = subprocess.Popen([sys.executable, "-c", HANGS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == -signal.SIGALRM
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
