"""With several workers, whichever is scraped answers for all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support import RedisServer, ServiceProcess, open_client, wait_until

from .support import scrape

StartProcess = Callable[..., ServiceProcess]


def workers_of(process: ServiceProcess) -> list[int]:
    """Pids of the children that serve (not of multiprocessing's resource tracker)."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for workers in /proc")
async def test_workers_are_counted_together_and_the_dead_leave_no_gauges(
    redis: RedisServer, start_process: StartProcess, tmp_path: Path
) -> None:
    process = start_process(REDIS_URL=redis.url, WORKERS="2", LEASE_SECONDS="1", TMPDIR=str(tmp_path))
    url = process.base_url
    [directory] = tmp_path.glob("coze-metrics-*")
    await wait_until(lambda: len({file.stem.split("_")[-1] for file in directory.glob("counter_*")}) == 2, 60)
    before = len(workers_of(process))
    assert before == 2

    for n in range(20):  # each over a connection of its own, so that both workers get some
        async with open_client(url) as client:
            await client.open_session(f"u-{n}")

    # A worker's page may be two seconds old.
    def told(name: str, **labels: str) -> float:
        return scrape(url)(name, **labels)

    sessions = {"route": "/coze/sessions", "status": "200"}
    in_a_row = 0

    def always_all() -> bool:
        nonlocal in_a_row
        in_a_row = in_a_row + 1 if told("coze_http_requests_total", **sessions) == 20 else 0
        return in_a_row == 6  # so both workers have told it

    await wait_until(always_all, 60)

    async with open_client(url) as client:
        session = await client.open_session()
        async with client.stream(session, "[[sim:delay=30]]") as reader:
            await reader.until("chat")
            for name in ("coze_open_streams", "coze_running_chats"):
                await wait_until(lambda name=name: told(name) == 1, 30)
            for pid in workers_of(process):
                os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: _answers(url), 60)
    await wait_until(lambda: told("coze_http_requests_total", **sessions) == 21, 60)
    await wait_until(lambda: told("coze_open_streams") == 0, 60)
    await asyncio.to_thread(process.stop)
    assert not directory.exists()


def _answers(url: str) -> bool:
    try:
        scrape(url)
    except httpx.TransportError:
        return False
    return True
