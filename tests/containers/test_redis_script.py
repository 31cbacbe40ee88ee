"""deploy/containers/redis.sh with a real redis-server: it outlasts services, and takes snapshots back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import redis

from tests.docs.pages import blocks
from tests.support import (
    ServiceProcess,
    SimControl,
    block_until,
    data_of,
    free_port,
    open_client,
    redis_server,
    service_process,
)

from .podman import ROOT, adapted, clean_environment, ok

pytestmark = pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("redis-cli")),
    reason="redis-server and redis-cli are not installed",
)
KEEPING = ["--appendonly", "yes", "--save", ""]


class Box:
    """One Redis, started by the script as its container does."""

    def __init__(self, data: Path, hold: float) -> None:
        self.port = free_port()
        data.mkdir(exist_ok=True)
        places = {"REDIS_PORT": str(self.port), "REDIS_DATA": str(data), "REDIS_HOLD_SECONDS": str(hold)}
        self.process = subprocess.Popen(
            [str(ROOT / "deploy/containers/redis.sh"), "--bind", "127.0.0.1", *KEEPING],
            env=clean_environment(**places),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def answers(self) -> bool:
        with self.client() as one:
            try:
                return bool(one.ping())
            except redis.RedisError:
                return False

    def end(self) -> str:
        self.process.terminate()
        return self.process.communicate(timeout=60)[0]


@contextmanager
def running(data: Path, hold: int = 30) -> Iterator[Box]:
    box = Box(data, hold)
    try:
        block_until(box.answers, 30, 0.1)
        yield box
    finally:
        if box.process.poll() is None:
            os.killpg(box.process.pid, signal.SIGKILL)
        box.process.wait()
        if box.process.stdout:
            box.process.stdout.close()


def test_told_to_end_it_takes_what_is_written_until_the_last_service_has_left(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box:
        leaving, idle = box.client(), box.client()
        leaving.ping()
        idle.ping()
        box.process.terminate()
        leaving.set("answer", "paid for")
        idle.close()
        # Longer than it looks when nobody is there any more.
        with pytest.raises(subprocess.TimeoutExpired):
            box.process.wait(timeout=2.5)
        leaving.set("answer", "written at last")
        leaving.close()
        assert box.process.wait(timeout=30) == 0
    with running(tmp_path / "data") as box, box.client() as one:
        assert one.get("answer") == "written at last"


def test_who_never_leaves_holds_it_no_longer_than_the_bound(tmp_path: Path) -> None:
    with running(tmp_path / "data", hold=1) as box, box.client() as staying:
        staying.ping()
        said = box.end()
        assert box.process.returncode == 0
        assert "Somebody was still connected after 1 seconds: 1 connections" in said


def test_a_redis_that_fails_ends_the_script_with_its_status(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, box.client() as one:
        os.kill(int(one.info("server")["process_id"]), signal.SIGKILL)
        assert box.process.wait(timeout=30) == 128 + signal.SIGKILL


def test_a_snapshot_takes_the_place_of_what_was_there_and_is_kept_on_from_then(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as box, box.client() as one:
        one.set("session", "of yesterday")
        one.set("short", "lived", ex=1000)
        one.save()
        shutil.copy(data / "dump.rdb", tmp_path / "backup.rdb")
        one.set("session", "of today")
        one.close()
        box.end()
    shutil.copy(tmp_path / "backup.rdb", data / "restore.rdb")
    with running(data) as box, box.client() as one:
        assert one.get("session") == "of yesterday"
        assert 900 < one.ttl("short") <= 1000  # type: ignore[operator]
        assert one.config_get("appendonly") == {"appendonly": "yes"}
        one.set("session", "after it")
        one.close()
        box.end()
    assert not (data / "restore.rdb").exists()
    assert len(list(data.glob("restored-*.rdb"))) == 1
    [before] = data.glob("before-*")
    assert (before / "appendonlydir").exists() or (before / "appendonly.aof").exists()
    with running(data) as box, box.client() as one:
        assert one.get("session") == "after it", "the snapshot is not restored a second time"


def test_a_snapshot_that_cannot_be_read_stops_the_start_and_harms_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as box, box.client() as one:
        one.set("session", "there")
        one.close()
        box.end()
    (data / "restore.rdb").write_bytes(b"not a snapshot")
    broken = Box(data, 1)
    said = broken.process.communicate(timeout=60)[0]
    assert broken.process.returncode == 1
    assert "restore.rdb cannot be loaded" in said
    (data / "restore.rdb").unlink()
    with running(data) as box, box.client() as one:
        assert one.get("session") == "there"


# -- docs/en/backup.md, for a Redis that is not podman-compose.yml's ---------------------------------------


@pytest.mark.full
async def test_sessions_and_answers_are_there_after_the_restore_of_the_page(
    simulator: SimControl, tmp_path: Path
) -> None:
    [commands] = [
        block.text for block in blocks(ROOT / "docs/en/backup.md", "bash") if "--daemonize" in block.text
    ]
    backup, data, port = tmp_path / "backup.rdb", tmp_path / "data", free_port()

    def service(url: str) -> AbstractContextManager[ServiceProcess]:
        return service_process({"REDIS_URL": url, "COZE_API_URL": simulator.chat_url})

    with redis_server(aof=True) as old, service(old.url) as process:
        async with open_client(process.base_url) as client:
            session = await client.open_session("of yesterday")
            answer = data_of(await client.send(session, "remember me"))
            ok("redis-cli", "-u", old.url, "--rdb", backup)
    data.mkdir()
    changes = {
        "cp backup.rdb": f"cp {backup}",
        "/var/lib/redis": str(data),
        "--port 6379": f"--bind 127.0.0.1 --port {port}",
        "redis-cli ": f"redis-cli -p {port} ",
        "sleep 1": "sleep 0.1",
    }
    ok("bash", "-euc", adapted(commands, changes))
    os_redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), *KEEPING]
    as_always = subprocess.Popen(os_redis, stdout=subprocess.DEVNULL)
    try:
        with service(f"redis://127.0.0.1:{port}/0") as process:
            async with open_client(process.base_url) as client:
                found = await client.session(session)
                assert found["user_id"] == "of yesterday"
                assert found["chat_history"][-1]["content"] == answer["content"]
                chat = data_of(await client.result(answer["chat_id"]))
                assert (chat["status"], chat["content"]) == ("completed", answer["content"])
                async with client.events(answer["chat_id"]) as reader:
                    assert (await reader.all())[-1].event == "done"
                assert (await client.send(session, "and go on")).status_code == 200
    finally:
        as_always.terminate()
        as_always.wait(30)
