"""What the benchmark's figures rest on: the upstream's wire, the count of frames, the tables."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, wire
from benchmarks.bench import Bench
from benchmarks.driver import Job, Visitor
from benchmarks.plot import svg
from benchmarks.results import Results
from tests.support import free_port


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench"), log=lambda _: None) as running:
        yield running


# -- the upstream, and the driver against it --------------------------------------------------------------


@pytest.mark.parametrize(("n", "gap"), [(100, 0.0), (20, 0.005)])
def test_every_frame_of_a_burst_and_of_paced_streams_is_counted_once(
    bench: Bench, n: int, gap: float
) -> None:
    bench.set_upstream(n, gap)
    result = bench.drive(bench.stream_job(bench.direct(), 5, 20))
    assert result["errors"] == {}
    assert (result["requests"], result["frames"]) == (20, 20 * n)
    assert (result["lost"], result["doubled"], result["disordered"]) == (0, 0, 0)
    assert result["cpu"]["server"] > 0


def test_the_official_sdk_understands_the_upstream_streamed_and_polled(bench: Bench) -> None:
    bench.set_upstream(30)
    sdk = bench.sdk()
    streamed = bench.drive(bench.stream_job(sdk, 2, 4))
    assert (streamed["errors"], streamed["lost"], streamed["frames"]) == ({}, 0, 4 * 30)
    for target in ("/whole", "/polled"):
        job = Job(sdk.port, [target], "whole", 2, 2, body='{"message":"hello"}', n=30)
        result = bench.drive(job)
        assert (result["requests"], result["errors"]) == (2, {})


def test_a_server_that_is_not_there_is_an_error_and_not_a_fast_contestant(bench: Bench) -> None:
    job = bench.stream_job(bench.direct(), 1, 1)
    job.port = free_port()
    with pytest.raises(RuntimeError, match="driver failed"):
        bench.drive(job)


# -- the count --------------------------------------------------------------------------------------------


def _stream(numbers: list[int], *, done: bool = True) -> bytes:
    frames = [
        b"id: 1-%d\nevent: conversation.message.delta\ndata: %s\n\n"
        % (i, wire.dumps(wire.coze_message("answer", wire.mark(number))))
        for i, number in enumerate(numbers)
    ]
    # The whole answer comes again at the end, and must not be counted.
    whole = (
        b"event: result\ndata: " + wire.dumps({"content": "".join(f"#{n:05d}@" for n in numbers)}) + b"\n\n"
    )
    frames += [whole, b'event: done\ndata: "[DONE]"\n\n'] if done else []
    return wire.STREAM_HEAD + b"".join(map(wire.chunk, frames)) + wire.LAST_CHUNK


async def _read(pieces: list[bytes], n: int) -> Any:
    class Transport:
        def write(self, data: bytes) -> None: ...

    visitor = Visitor(Job(port=0, targets=["/"], kind="stream", connections=1, total=1, n=n))
    visitor.connection_made(Transport())  # type: ignore[arg-type]
    over = visitor.ask(b"")
    for piece in pieces:
        visitor.data_received(piece)
    await asyncio.wait_for(over, 20)
    return visitor.tally


@pytest.mark.parametrize(
    ("numbers", "lost", "doubled", "disordered"),
    [
        ([0, 1, 2, 3], 0, 0, 0),
        ([0, 1, 3], 1, 0, 1),
        ([0, 1, 1, 2, 3], 0, 1, 0),
        ([0, 2, 1, 3], 0, 0, 2),
        ([], 4, 0, 0),
    ],
)
async def test_lost_doubled_and_disordered_frames_are_told_apart(
    numbers: list[int], lost: int, doubled: int, disordered: int
) -> None:
    tally = await _read([_stream(numbers)], 4)
    assert (tally.lost, tally.doubled, tally.disordered) == (lost, doubled, disordered)
    assert not tally.errors


async def test_the_count_does_not_depend_on_how_the_bytes_are_cut() -> None:
    data = _stream(list(range(6)))
    for size in (1, 2, 3, 7, 64, 1000):
        tally = await _read([data[at : at + size] for at in range(0, len(data), size)], 6)
        assert (tally.frames, tally.lost, tally.doubled, tally.disordered) == (6, 0, 0, 0)
        assert not tally.errors


async def test_a_stream_without_its_end_is_an_error() -> None:
    tally = await _read([_stream([0, 1], done=False)], 2)
    assert tally.errors == {"no [DONE]": 1}


def test_the_upstream_sends_cozes_events_in_cozes_order_and_bytes() -> None:
    stream = wire.CozeStream(3)
    answer = b"".join(wire.mark(i) for i in range(3))
    chunks = (stream.head + b"".join(stream.deltas) + stream.tail(answer)).split(b"\r\n")[1::2]
    events = re.findall(rb"event:(\S+)\ndata:(.+)\n\n", b"".join(chunks))
    assert [name.decode() for name, _ in events] == [
        "conversation.chat.created",
        "conversation.chat.in_progress",
        *["conversation.message.delta"] * 3,
        *["conversation.message.completed"] * 2,
        "conversation.chat.completed",
        "done",
    ]
    assert b"".join(b"event:%s\ndata:%s\n\n" % event for event in events) == b"".join(chunks)
    assert json.loads(events[5][1])["content"].encode() == answer


# -- the tables -------------------------------------------------------------------------------------------


def _found() -> dict[str, Any]:
    results = Results()
    results.row("streams", "20 at once", "floor", cpu_ms=4.0, rate=200.0, lost=0, doubled=0, errors=0)
    results.row("streams", "20 at once", "ours", cpu_ms=2.0, rate=400.0, lost=0, doubled=0, errors=0)
    results.check("streams", "1", "CPU / floor's", 0.5, "<=", 0.6, quick=True)
    results.check("streams", "1", "chats/s / floor's", 2.0, ">=", 2.5)
    results.curves["a curve"] = [(0, 1.0), (10, 1.1)]
    about = dict.fromkeys(
        ("date", "cpu", "cores", "kernel", "python", "fastapi", "httpx", "uvicorn", "commit"), "x"
    )
    found: dict[str, Any] = json.loads(results.as_json(about | {"rounds": 3}))
    return found


def test_a_missed_limit_is_marked_and_the_ratio_is_to_the_floor_of_the_same_scenario() -> None:
    lines = report.markdown(_found()).splitlines()
    assert [line.split("|")[3].strip() for line in lines if "| ours |" in line] == ["0.50"]
    assert [line.split("|")[-2].strip() for line in lines if line.startswith("| 1 |")] == ["pass", "**FAIL**"]


def test_only_the_quick_limits_fail_a_quick_run() -> None:
    results = Results()
    results.check("streams", "1", "slow", 2.0, "<=", 1)
    assert results.missed(quick=False)
    assert not results.missed(quick=True)
    results.check("streams", "quick", "lost", 1, "<=", 0, quick=True)
    assert [check.text for check in results.missed(quick=True)] == ["lost"]


def test_the_table_goes_between_the_marks_of_both_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    pages = [tmp_path / f"docs/{language}/benchmarks.md" for language in ("zh", "en")]
    for page in pages:
        page.parent.mkdir(parents=True)
        page.write_text(f"before\n{report.BEGIN}old\n{report.END}\nafter\n")
    assert report.put_into_pages(_found()) == ["docs/zh/benchmarks.md", "docs/en/benchmarks.md"]
    english = pages[1].read_text()
    assert english.startswith("before\n")
    assert english.endswith("\nafter\n")
    assert "| 20 at once | ours |" in english
    assert "old" not in english
    assert report.put_into_pages(_found()) == []


def test_the_plot_is_well_formed() -> None:
    assert ET.fromstring(svg(_found())).tag.endswith("svg")


def test_an_unknown_part_is_refused_with_the_list_of_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no such part: nonsense" in done.stderr
