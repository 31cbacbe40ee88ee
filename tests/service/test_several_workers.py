"""Several workers at one port: how connections fall to them, and what is lost when one of them goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import connections_of
from tests.support import RedisServer, ServiceProcess, open_client, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux deals connections out")

ROOT = Path(__file__).resolve().parents[2]
StartProcess = Callable[..., ServiceProcess]
STARTED = "Application startup complete"
LIVE = b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
EACH = 200
MOST = 0.65
"""Of a fair coin thrown 200 times, one in 100,000 runs shows a side more often."""


def workers_of(process: ServiceProcess) -> list[int]:
    """Pids of the children that serve (not of multiprocessing's resource tracker)."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def listening(port: int) -> int:
    """How many sockets listen on a port, of whatever process."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@pytest.fixture
async def two(redis: RedisServer, start_process: StartProcess) -> ServiceProcess:
    process = start_process(REDIS_URL=redis.url, WORKERS="2", DRAIN_SECONDS="60", LEASE_SECONDS="1")
    await wait_until(lambda: process.log.count(STARTED) == 2, 60)
    return process


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Connections that stay open until the test is over."""
    with ExitStack() as stack:
        yield stack


def _is_served(connection: socket.socket) -> bool:
    connection.settimeout(20)
    connection.sendall(LIVE)
    return connection.recv(4096).startswith(b"HTTP/1.1 200")


def _one_by_one(port: int, held: ExitStack) -> None:
    for _ in range(EACH):
        assert _is_served(held.enter_context(socket.create_connection(("127.0.0.1", port))))


def _at_once(port: int, held: ExitStack) -> None:
    connections = [held.enter_context(socket.socket()) for _ in range(EACH)]
    for each in connections:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    for each in connections:
        assert _is_served(each)


@pytest.mark.parametrize("come", [_one_by_one, _at_once])
async def test_connections_fall_to_both_workers_alike(
    come: Callable[[int, ExitStack], None], two: ServiceProcess, held: ExitStack
) -> None:
    await asyncio.to_thread(come, two.port, held)
    taken = [connections_of(pid, two.port) for pid in workers_of(two)]
    assert sum(taken) == EACH
    assert max(taken) <= MOST * EACH, taken


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_service_at_the_same_port_is_refused(workers: str, two: ServiceProcess) -> None:
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        cwd=two.directory,
        env={**two.values, "PORT": str(two.port), "WORKERS": workers, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            said, _ = await second.communicate()
    finally:
        if second.returncode is None:
            second.terminate()  # its workers go with it
            await second.wait()
    assert second.returncode == 78
    assert b"PORT: cannot listen there (Address already in use)" in said
    assert listening(two.port) == 2


async def test_a_worker_that_was_killed_is_replaced_and_meanwhile_the_other_takes_all(
    two: ServiceProcess,
) -> None:
    killed, other = workers_of(two)
    two.pause()  # so that the parent starts no other one yet
    os.kill(killed, signal.SIGKILL)
    await wait_until(lambda: listening(two.port) == 1)
    async with open_client(two.base_url) as client:
        for _ in range(20):  # each over a connection of its own
            headers = {"Connection": "close"}
            assert (await client.get("/coze/health/live", headers=headers)).status_code == 200
    two.resume()
    await wait_until(lambda: two.log.count(STARTED) == 3, 60)
    assert listening(two.port) == 2
    assert other in workers_of(two)
    assert killed not in workers_of(two)


async def test_while_one_worker_still_drains_it_answers_whoever_comes(two: ServiceProcess) -> None:
    async with open_client(two.base_url) as client:
        session = await client.open_session()
        async with client.stream(session, "[[sim:delay=60]]") as reader:
            await reader.until("chat")
            two.terminate()
            await wait_until(lambda: listening(two.port) == 1, 30)  # the other one had nothing to wait for
            async with httpx.AsyncClient(base_url=two.base_url, timeout=20) as newcomer:
                for _ in range(20):
                    answer = await newcomer.get("/coze/health/ready", headers={"Connection": "close"})
                    assert answer.status_code == 503
            for pid in workers_of(two):
                os.kill(pid, signal.SIGTERM)  # a second signal waits for no chat
    await asyncio.to_thread(two.wait)
    assert listening(two.port) == 0
    assert "Traceback" not in two.log


async def test_workers_are_replaced_in_order_and_two_always_listen(two: ServiceProcess) -> None:
    before = set(workers_of(two))
    two.signal(signal.SIGHUP)

    def replaced() -> bool:
        assert listening(two.port) >= 2
        return len(workers_of(two)) == 2 and not before & set(workers_of(two))

    await wait_until(replaced, 60)
    assert listening(two.port) == 2
