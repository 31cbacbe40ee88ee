"""COZE_LOG_FILE: beside stdout, for one process; it is rotated by size, and old files go."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from app.logging_config import configure_logging
from tests.support import RedisServer, ServiceProcess, make_settings, open_client

from .support import lines_of


@pytest.fixture(autouse=True)
def _files_are_closed() -> Iterator[None]:
    yield
    configure_logging(make_settings())


def test_a_full_file_gives_way_to_a_new_one_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "logs {1}" / "service.log"
    configure_logging(make_settings(COZE_LOG_FILE=str(path), COZE_LOG_ROTATION_MB=0.01))
    for n in range(300):
        logger.bind(n=n).info("x" * 100)
    files = [path, *path.parent.glob("service.2*.log")]
    assert sorted(line["n"] for file in files for line in lines_of(file)) == list(range(300))
    assert len(files) > 3
    for file in files:
        assert file.stat().st_size <= 10_000
        assert file.stat().st_mode & 0o777 == 0o600, "what users are called is in it"


def test_files_that_were_kept_long_enough_go(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    ages = {"service.2020-01-01_00-00-00_000000.log": 8, "service.2020-01-02_00-00-00_000000.log": 5}
    for name, days in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, times=(time.time() - days * 86_400,) * 2)
    (tmp_path / "other.log").touch()
    os.utime(tmp_path / "other.log", times=(0, 0))
    few = {"COZE_LOG_ROTATION_MB": 0.001, "COZE_LOG_RETENTION_DAYS": 7}
    configure_logging(make_settings(COZE_LOG_FILE=str(path), **few))
    for _ in range(2):
        logger.info("x" * 800)
    assert [(tmp_path / name).exists() for name in (*ages, "other.log")] == [False, True, True]


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path, taken_away = tmp_path / "service.log", tmp_path / "taken-away"
    configure_logging(make_settings(COZE_LOG_FILE=str(path)))
    logger.info("one")
    path.rename(taken_away)
    logger.info("two")
    assert [[line["message"] for line in lines_of(file)] for file in (taken_away, path)] == [["one"], ["two"]]


def test_a_file_that_cannot_be_opened_is_said_and_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    configure_logging(make_settings(COZE_LOG_FILE=str(tmp_path / "file" / "service.log")))
    assert "COZE_LOG_FILE cannot be opened" in capsys.readouterr().out


async def test_the_service_writes_its_file_and_stdout_alike(
    start_process: Callable[..., ServiceProcess],
) -> None:
    process = start_process(COZE_LOG_FILE="logs/coze-fastapi.log")
    async with open_client(process.base_url) as client:
        await client.open_session()
    process.stop()
    text = (process.directory / "logs" / "coze-fastapi.log").read_text()
    assert text == process.log
    assert any("POST /coze/sessions" in json.loads(line)["message"] for line in text.splitlines())


async def test_with_several_workers_there_is_a_warning_and_no_file(
    redis: RedisServer, start_process: Callable[..., ServiceProcess]
) -> None:
    process = start_process(REDIS_URL=redis.url, WORKERS="2", COZE_LOG_FILE="coze-fastapi.log")
    await asyncio.to_thread(process.stop)
    assert "COZE_LOG_FILE is for one process" in process.log
    assert not (process.directory / "coze-fastapi.log").exists()
