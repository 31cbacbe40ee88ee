"""COZE_LOG_FILE: several processes append to one file; it is rotated once, and old ones go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.logging_config import LogFile, configure_logging
from tests.support import ServiceProcess, open_client

from .support import lines_of

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from pathlib import Path
from app.logging_config import LogFile
file = LogFile(Path(sys.argv[1]), max_bytes=int(sys.argv[3]), keep_days=7)
for n in range(int(sys.argv[4])):
    file.write('{"who": "%s", "n": %d, "filling": "%s"}\\n' % (sys.argv[2], n, "x" * 200))
"""


def test_processes_that_share_a_file_lose_and_mix_nothing(tmp_path: Path) -> None:
    path, lines, size = tmp_path / "logs" / "service.log", 2000, 100_000
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(who), str(size), str(lines)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
        for who in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    files = sorted(path.parent.glob("service*.log"))
    found = [line for file in files for line in lines_of(file)]
    assert len(found) == 4 * lines
    assert {(line["who"], line["n"]) for line in found} == {
        (str(who), n) for who in range(4) for n in range(lines)
    }
    # Rotated once each time: a second rotation would leave an almost empty file.
    rotated = [file.stat().st_size for file in files if file != path]
    assert len(rotated) >= 10
    assert min(rotated) > size * 0.9
    assert max(rotated) < size * 1.1


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    file = LogFile(path, max_bytes=10_000, keep_days=7)
    file.write("one\n")
    path.rename(tmp_path / "taken-away")
    file.write("two\n")
    path.unlink()
    file.write("three\n")
    assert (tmp_path / "taken-away").read_text() == "one\n"
    assert path.read_text() == "three\n"
    assert path.stat().st_mode & 0o777 == 0o600
    file.close()


def test_a_new_day_has_a_new_file_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    path.write_text("yesterday\n")
    ages = {"service.2020-01-01_00-00-00_000000.log": 8, "service.2020-01-02_00-00-00_000000.log": 5}
    for name, days in ages.items():
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, times=(time.time() - days * 86_400,) * 2)
    (tmp_path / "other.log").write_text("")
    os.utime(tmp_path / "other.log", times=(0, 0))
    os.utime(path, times=(time.time() - 86_400,) * 2)
    file = LogFile(path, max_bytes=10_000, keep_days=7)
    file.write("today\n")
    file.write("later\n")
    assert path.read_text() == "today\nlater\n"
    kept = sorted(each.read_text() for each in tmp_path.glob("service.2*.log"))
    assert kept == ["service.2020-01-02_00-00-00_000000.log", "yesterday\n"]
    assert (tmp_path / "other.log").exists()
    file.close()


def test_a_file_that_cannot_be_opened_is_said_and_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    configure_logging(level="INFO", json=True, file=str(tmp_path / "file" / "service.log"))
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
