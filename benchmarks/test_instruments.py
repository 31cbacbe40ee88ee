"""What the benchmark asks the kernel, what it installs, and its watch on the event loop."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.processes import ROOT, connections_of, cpu_seconds, pin_all, usable_cores

# -- the kernel -------------------------------------------------------------------------------------------


def test_cpu_time_is_told_finer_than_a_tick_of_the_kernel() -> None:
    own = os.getpid()
    looks = [cpu_seconds([own])]
    while len(looks) < 50:
        sum(range(2000))
        looks.append(cpu_seconds([own]))
    steps = [after - before for before, after in itertools.pairwise(looks)]
    assert all(step > 0 for step in steps)
    assert min(steps) < 0.001
    assert looks[-1] - looks[0] == pytest.approx(sum(steps))


def test_connections_are_counted_for_the_process_that_took_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
            taken = [stack.enter_context(server.accept()[0]) for _ in clients[:2]]
            assert len(taken) == 2
            assert connections_of(os.getpid(), port) == 2  # neither those of callers, nor one not taken yet
            assert connections_of(os.getppid(), port) == 0


def test_every_thread_of_a_process_is_pinned() -> None:
    core = {usable_cores()[0]}
    code = "import sys, threading, time\nthreading.Thread(target=sys.stdin.read).start()\nprint(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pin_all(process.pid, core)
        threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        assert len(threads) == 2
        assert all(os.sched_getaffinity(thread) == core for thread in threads)


# -- other programs ---------------------------------------------------------------------------------------


def test_what_cannot_be_installed_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nowhere cannot be installed here"):
        environments.program("nothing", "./nowhere", say=lambda _: None, directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_was_installed_once_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thing-venv").mkdir()
    (tmp_path / "thing-venv/.complete").touch()
    found = environments.program("thing", "./nowhere", say=pytest.fail, directory=tmp_path)
    assert found == tmp_path / "thing-venv/bin/thing"


# -- the watch on the event loop --------------------------------------------------------------------------

_HELD = """
import asyncio, gc, sys, time
from pathlib import Path
import uvloop
from benchmarks.watched import Watch

def hold(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def doze(seconds):
    time.sleep(seconds)

def collect():
    kept = [[] for _ in range(300_000)]
    gc.collect()

async def run():
    watch, loop = Watch(Path(sys.argv[1])), asyncio.get_running_loop()
    loop.call_soon(watch.begin, loop)
    await asyncio.sleep(0.05)
    watch.write()
    loop.call_soon(hold, 0.2)
    await asyncio.sleep(0.3)
    for _ in range(8):
        loop.call_soon(hold, 0.05)
    loop.call_later(0.8, doze, 0.12)
    loop.call_later(1, collect)
    await asyncio.sleep(2)
    watch.write()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(run())
"""


def test_the_watch_tells_one_long_callback_from_a_turn_of_many(tmp_path: Path) -> None:
    target = tmp_path / "held.json"
    subprocess.run([sys.executable, "-c", _HELD, str(target)], cwd=ROOT, check=True)
    seen = json.loads(target.read_text())
    assert seen["written"] == 2
    held = [each for each in seen["stretches"] if each["ran"].startswith("hold (")]
    assert held[0]["milliseconds"] >= 199
    assert held[1]["milliseconds"] < 150
    assert len(held) == 8, "ten are kept"
    assert seen["turns"][0]["milliseconds"] >= 399
    [dozing] = [each for each in seen["stretches"] if each["ran"].startswith("doze (")]
    assert 60 <= dozing["milliseconds"] < 199, "who waits for a disk or a lock holds the loop, too"
    [collecting] = [each["ran"] for each in seen["stretches"] if "collect (" in each["ran"]]
    assert collecting.endswith("of it collections of garbage")
