"""A log under .run does not grow for ever, and loses no line on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import block_until

from .harness import ROOT, Checkout, runs

TALK = "import sys\nfor n in range({lines}): print(f'line {{n:06d}} ' + 'x' * 40, flush=n % 7 == 0)"


def launch(
    folder: Path, code: str, *, limit_mb: str, how: str = "detach"
) -> subprocess.CompletedProcess[str]:
    places = ["--pid", str(folder / "it.pid"), "--log", str(folder / "it.log"), "--rotate-mb", limit_mb]
    command = [
        sys.executable,
        str(ROOT / "scripts/launch.py"),
        how,
        *places,
        "--",
        sys.executable,
        "-c",
        code,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)


def files_of(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(folder.glob("it.log*"), key=lambda path: path.suffix.replace(".log", ".0"), reverse=True)


def is_over(folder: Path) -> bool:
    """The program and whoever keeps its log have ended."""
    here = str(folder)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str((entry / "cwd").readlink()) == here and runs(int(entry.name)):
                return False
        except OSError:
            continue
    return True


@pytest.mark.parametrize("how", ["detach", "pane"])
def test_a_log_begins_a_new_file_at_a_whole_line_and_all_lines_are_there_in_order(
    tmp_path: Path, how: str
) -> None:
    done = launch(tmp_path, TALK.format(lines=400), limit_mb="0.006", how=how)
    block_until(lambda: is_over(tmp_path), 30, 0.05)
    files = files_of(tmp_path)
    assert 3 < len(files) <= 6
    for path in files:
        assert path.read_bytes().endswith(b"\n")
        assert path.stat().st_mode & 0o077 == 0
    text = "".join(path.read_text() for path in files)
    assert [int(line.split()[1]) for line in text.splitlines()] == list(range(400))
    assert len(done.stdout.splitlines()) == (400 if how == "pane" else 0)


def test_only_five_older_files_are_kept(tmp_path: Path) -> None:
    launch(tmp_path, TALK.format(lines=2000), limit_mb="0.006")
    block_until(lambda: is_over(tmp_path), 30, 0.05)
    names = [path.name for path in files_of(tmp_path)]
    assert names == [*(f"it.log.{number}" for number in (5, 4, 3, 2, 1)), "it.log"]
    assert files_of(tmp_path)[-1].read_text().splitlines()[-1].startswith("line 001999")


def test_a_log_that_cannot_be_written_does_not_hold_the_program_up(tmp_path: Path) -> None:
    (tmp_path / "it.log").symlink_to("/dev/full")
    launch(tmp_path, TALK.format(lines=3000) + "\nopen('it.done', 'w').close()", limit_mb="100")
    block_until((tmp_path / "it.done").exists, 30, 0.05)
    block_until(lambda: is_over(tmp_path), 30, 0.05)


def test_logs_of_earlier_starts_move_on_and_the_size_is_the_settings(checkout: Checkout) -> None:
    checkout.without("redis-server", "tmux")
    run = checkout.root / ".run"
    run.mkdir(mode=0o700)
    for number in ("", ".1", ".5"):
        (run / f"service.log{number}").write_text(f"of before{number}\n")
    checkout.ok("test", COZE_LOG_ROTATION_MB="0.5")
    assert (run / "service.log.1").read_text() == "of before\n"
    assert (run / "service.log.2").read_text() == "of before.1\n"
    assert (run / "service.log.5").read_text() == "of before.5\n"
    keepers = [
        (entry / "cmdline").read_bytes().split(b"\0")
        for entry in Path("/proc").glob("[0-9]*")
        if str(run / "service.log").encode() in (entry / "cmdline").read_bytes()
    ]
    assert keepers
    assert all(words[words.index(b"--rotate-mb") + 1] == b"0.5" for words in keepers)
    checkout.ok("stop")
