"""What the benchmark's figures rest on: the upstream's wire, the count of frames, the tables."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import headlines, report, wire
from benchmarks.bench import Bench, Contestant
from benchmarks.census import kind_of
from benchmarks.compete import Figures, add_rows, compete, stream_side_by_side
from benchmarks.driver import Job, Visitor
from benchmarks.fit import fit
from benchmarks.options import Options
from benchmarks.plot import svg
from benchmarks.processes import ROOT, free_port
from benchmarks.results import Results, as_json
from benchmarks.upstream import Connection, Upstream


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


class TurnsOfTheLoop:
    """A transport that says in which turn of the loop each piece was written."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn = 0
        self.written: list[tuple[int, bytes]] = []
        self.over = asyncio.Event()
        self._next_turn()

    def _next_turn(self) -> None:
        self._turn += 1
        if not self.over.is_set():
            self._loop.call_soon(self._next_turn)

    def write(self, data: bytes) -> None:
        self.written.append((self._turn, data))
        if data.endswith(wire.LAST_CHUNK):
            self.over.set()

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("gap", [0.0, 0.002])
@pytest.mark.parametrize(("target", "dialect"), [("/v3/chat", "coze"), ("/v1/chat/completions", "openai")])
async def test_the_upstream_writes_each_delta_by_itself(gap: float, target: str, dialect: str) -> None:
    upstream, transport = Upstream(), TurnsOfTheLoop()
    upstream.set(10, gap)
    connection = Connection(upstream)
    connection.connection_made(transport)  # type: ignore[arg-type]
    body = b'{"stream":true}'
    head = f"POST {target} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    connection.data_received(head + body)
    await asyncio.wait_for(transport.over.wait(), 20)
    turns = [turn for turn, _ in transport.written]
    assert len(set(turns)) == len(turns)
    found = [wire.DELTAS[dialect].findall(data) for _, data in transport.written]
    assert [[int(number) for number, _ in deltas] for deltas in found] == [[], *([i] for i in range(10)), []]


def test_gaps_vary_around_what_was_asked_for() -> None:
    upstream = Upstream()
    gaps = [upstream.next_gap(0.02) for _ in range(1000)]
    assert 0.01 <= min(gaps) < 0.0105
    assert 0.0295 < max(gaps) <= 0.03
    assert sum(gaps) / 1000 == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize("name", ["relay", "frame", "passthrough"])
def test_a_contestant_passes_every_frame_on(bench: Bench, name: str) -> None:
    with bench.scope():
        contestant: Contestant = getattr(bench, name)()
        for gap in (0.0, 0.002):
            bench.set_upstream(20, gap)
            result = bench.drive(bench.stream_job(contestant, 5, 20))
            assert (result["requests"], result["frames"], result["errors"]) == (20, 20 * 20, {})
            assert (result["lost"], result["doubled"], result["disordered"]) == (0, 0, 0)


def test_contestants_side_by_side_have_figures_of_their_own(bench: Bench) -> None:
    with bench.scope():
        bench.set_upstream(5, 0.002)
        found = stream_side_by_side(bench, [bench.relay(), bench.frame()], connections=3, rounds=2)
    assert list(found) == ["relay", "frame"]
    for figures in found.values():
        assert (figures.total("requests"), figures.total("frames"), figures.faults) == (6, 30, 0)
    assert found["relay"].of("cpu_ms") != found["frame"].of("cpu_ms")
    table = Results()
    add_rows(table, "3 at once", found, "relay")
    ratios = [row.values["cpu_ratio"] for row in table.rows]
    assert ratios == [1, found["frame"].ratio(found["relay"], "cpu_ms")]


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


def _rounds(*cpu_ms: float) -> Figures:
    return Figures([{"requests": 1, "seconds": 1, "cpu": {"server": each / 1000}} for each in cpu_ms])


def test_what_is_judged_is_the_median_of_the_pairs_and_not_a_ratio_of_medians() -> None:
    ours, other = _rounds(1, 4, 10), _rounds(2, 16, 4)
    assert ours.of("cpu_ms") == other.of("cpu_ms")
    assert ours.ratio(other, "cpu_ms") == 0.5
    assert ours.difference(other, "cpu_ms") == -1


def test_every_second_round_goes_the_other_way_round(bench: Bench) -> None:
    order: list[str] = []

    def job_of(name: str) -> Callable[[int], Job]:
        def job(total: int) -> Job:
            order.append(name)
            return bench.stream_job(bench.direct(), 1, 1)

        return job

    two = [Contestant(name, None, 0) for name in "ab"]
    bench.set_upstream(1)
    compete(bench, two, [job_of("a"), job_of("b")], connections=1, rounds=3, seconds=0.01)
    assert "".join(order) == "ab" + "abbaab"


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


@pytest.mark.parametrize(("n", "chars"), [(3, 0), (3, 4), (40, 300)])
def test_each_delta_has_as_much_text_as_was_asked_for(n: int, chars: int) -> None:
    texts = wire.texts(n, chars)
    assert [len(text.decode()) for text in texts] == [chars] * n
    stream, marks = wire.CozeStream(n, chars), [wire.mark(i) + text for i, text in enumerate(texts)]
    for mark, delta in zip(marks, stream.deltas, strict=True):
        assert mark in delta


# -- costs ------------------------------------------------------------------------------------------------


def test_a_fixed_part_and_a_slope_are_told_apart() -> None:
    fixed, slope = fit([[1, 10], [1, 60], [1, 100]], [30, 130, 210])
    assert fixed == pytest.approx(10)
    assert slope == pytest.approx(2)


def test_measurements_that_say_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match="do not tell"):
        fit([[1, 10], [2, 20]], [30, 60])


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("coze:{07}:session:coze_session_1_a", "session"),
        ("coze:{index}:sessions", "sessions"),
        ("coze:{index}:sessions:abc", "sessions:"),
        ("coze:{0a}:conversation:abc", "conversation"),
        ("coze:{0a}:conversation:abc.about", "conversation.about"),
        ("bench-ours:inbox:p", "inbox"),
    ],
)
def test_a_key_is_counted_under_its_kind(key: str, kind: str) -> None:
    assert kind_of(key) == kind


# -- the tables -------------------------------------------------------------------------------------------


def _measured(part: str = "streams") -> dict[str, Any]:
    results = Results()
    results.row("20 at once", "passthrough", cpu_ms=4.0, rate=200.0, lost=0, doubled=0, errors=0)
    results.row("20 at once", "ours", cpu_ms=2.0, cpu_ratio=0.5, rate=400.0, lost=0, doubled=0, errors=0)
    results.check("1", "CPU / passthrough's", 0.5, "<=", 0.6, quick=True)
    results.check("1", "chats/s / passthrough's", 2.0, ">=", 2.5)
    results.curves["a curve"] = [(0, 1.0), (10, 1.1)]
    found: dict[str, Any] = json.loads(json.dumps(as_json({part: results}, rounds=3, load=0.1)))
    return found


def test_a_missed_limit_is_marked_and_a_ratio_has_its_column() -> None:
    lines = report.markdown(_measured()).splitlines()
    assert [line.split("|")[3].strip() for line in lines if "| ours |" in line] == ["0.50"]
    assert [line.split("|")[-2].strip() for line in lines if line.startswith("| 1 |")] == ["pass", "**FAIL**"]


def test_only_the_quick_limits_fail_a_quick_run() -> None:
    results = Results()
    results.check("1", "slow", 2.0, "<=", 1)
    assert results.missed(quick=False)
    assert not results.missed(quick=True)
    results.check("quick", "lost", 1, "<=", 0, quick=True)
    assert [check.text for check in results.missed(quick=True)] == ["lost"]


def test_a_part_that_breaks_is_a_miss_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("nobody thought of this")

    def sound(_bench: Bench, results: Results, _options: Options) -> None:
        results.row("20 at once", "ours", cpu_ms=1.0)

    monkeypatch.setattr(program, "PARTS", {"broken": broken, "sound": sound})
    monkeypatch.setattr(sys, "argv", ["bench", "--no-save"])
    found = program.run(program.parse(), tmp_path)
    assert [check.text for check in program.missed(found, quick=False)] == ["broken: did not get to its end"]
    assert [row.contestant for row in found["sound"].rows] == ["ours"]


def test_a_part_that_was_not_measured_again_keeps_its_figures_and_says_when_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    earlier = _measured("paced")
    earlier["parts"]["paced"]["measured"] = "last year"
    program.save(earlier)
    program.save(_measured("streams"))
    program.save(_measured("streams"))
    table = (tmp_path / "table.md").read_text()
    assert table.count("| 20 at once | ours |") == 2
    assert "- paced: last year\n" in table
    assert list(json.loads((tmp_path / "latest.json").read_text())["parts"]) == ["streams", "paced"]


def test_the_table_goes_between_the_marks_of_both_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    pages = [tmp_path / f"docs/{language}/benchmarks.md" for language in ("zh", "en")]
    for page in pages:
        page.parent.mkdir(parents=True)
        page.write_text(f"before\n{report.BEGIN}old\n{report.END}\nafter\n")
    first_pages = ["README.md", "README.en.md"]
    for name in first_pages:
        (tmp_path / name).write_text(f"first\n- last {headlines.BEGIN}\nold {headlines.END}\nafter\n")
    assert report.put_into_pages(_measured()) == [
        "docs/zh/benchmarks.md",
        "docs/en/benchmarks.md",
        *first_pages,
    ]
    english = pages[1].read_text()
    assert english.startswith("before\n")
    assert english.endswith("\nafter\n")
    assert "| 20 at once | ours |" in english
    assert "old" not in english
    assert report.put_into_pages(_measured()) == []


def _checked(*checks: tuple[str, float]) -> dict[str, Any]:
    return {"parts": {"all": {"checks": [{"text": text, "value": value} for text, value in checks]}}}


def test_three_lines_of_the_first_page_say_what_was_measured() -> None:
    found = _checked(
        ("20 at once, paced 20 ms: server CPU per chat / passthrough's", 0.5432),
        ("500 at once: server CPU per chat / passthrough's", 0.201),
        ("20 at once: chats/s / LiteLLM's", 31.4),
        ("7 finished chats of 100 deltas: KiB that Redis holds more for each (used_memory)", 9.87),
        ("20 at once: pipelines/s of the process", 28.4),
        ("200 at once: pipelines/s of the process", 5.1),
    )
    page = f"- last {headlines.BEGIN}\n- old\n- old {headlines.END}\nafter\n"
    new = headlines.with_headlines(page, found, "en")
    assert new.startswith(f"- last {headlines.BEGIN}\n- **CPU**")
    assert new.endswith(f"([all figures](docs/en/benchmarks.md)). {headlines.END}\nafter\n")
    cpu, speed, memory = new.splitlines()[1:4]
    assert cpu.endswith(": 0.54 (20 ms apart), 0.20 (500 at once).")
    assert speed == "- **Speed**: streamed 31 times the chats a second of LiteLLM."
    assert "9.9 KiB in Redis for a finished chat, at most 28 pipelines a second" in memory
    assert headlines.with_headlines(new, found, "en") == new
    assert headlines.with_headlines("no marks\n", found, "en") == "no marks\n"


@pytest.mark.parametrize(("name", "language"), [("README.md", "zh"), ("README.en.md", "en")])
def test_the_first_page_says_what_the_last_run_that_was_kept_has_found(name: str, language: str) -> None:
    page = (ROOT / name).read_text()
    found = json.loads((report.RESULTS / "latest.json").read_text())
    assert headlines.BEGIN in page
    assert headlines.with_headlines(page, found, language) == page


def test_the_plot_is_well_formed() -> None:
    assert ET.fromstring(svg(_measured())).tag.endswith("svg")


def test_an_unknown_part_is_refused_with_the_list_of_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no such part: nonsense" in done.stderr
