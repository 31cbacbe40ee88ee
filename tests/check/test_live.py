"""``check --live``: seven Cozes that behave differently are told apart, and nothing of anybody is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.check.live import REPORT_NAME, Finding, Report, ask_coze, keep, reminder
from app.check.live.probes import LONG, SHORT
from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN, SimulatorOptions, running_simulator
from coze_simulator.server import RunningSimulator
from tests.support import make_settings

ROOT = Path(__file__).resolve().parents[2]
SPEED = 40.0


async def ask(coze: RunningSimulator, **settings: str) -> Report:
    told: list[Finding] = []
    values = {"COZE_API_URL": coze.base_url + "/v3/chat", "COZE_POLL_INTERVAL": "0.1"} | settings
    report = await ask_coze(make_settings(**values), told.append)
    assert told == list(report.findings), "each is told as soon as it is there"
    return report


def of(report: Report, name: str) -> Finding:
    [found] = [finding for finding in report.findings if finding.name == name]
    return found


CLOUD: dict[str, Any] = {}
WORLDS: list[tuple[dict[str, Any], dict[str, str], bool, dict[str, str]]] = [
    # How the simulator differs; settings; whether answers are safe; what the probes that tell it say.
    (CLOUD, {}, True, {"disconnect": "fetches what a cut stream", "busy": "4016 in a JSON answer"}),
    ({"on_disconnect": "stop"}, {}, False, {"disconnect": "set COZE_USE_STREAM=false"}),
    ({"on_disconnect": "stop"}, {"COZE_USE_STREAM": "false"}, True, {"disconnect": "is not touched by it"}),
    ({"dialect": "studio"}, {}, False, {"busy": "a second chat", "retrieve": "POST: refused"}),
    ({"dialect": "spaced"}, {}, True, {"done": "without quotes"}),
    ({"busy_as_event": True}, {}, True, {"busy": "4016 as the first event of a stream"}),
    ({"keeps_meta_data": False}, {}, False, {"meta_data": "cannot find a chat whose process died"}),
    ({"has_feedback": False}, {}, True, {"feedback": "cannot pass feedback on"}),
]


# Some twenty seconds each: the full run has all of them, the default run the first two.
@pytest.mark.parametrize(
    ("differs", "settings", "safe", "says"),
    [
        pytest.param(*world, marks=[pytest.mark.full] if number > 1 else [])
        for number, world in enumerate(WORLDS)
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_cozes_that_behave_differently_are_told_apart(
    differs: dict[str, Any], settings: dict[str, str], *, safe: bool, says: dict[str, str]
) -> None:
    with running_simulator(SimulatorOptions(speed=SPEED, **differs)) as coze:
        report = await ask(coze, **settings)
    assert report.findings[0].name == "disconnect"
    assert len(report.findings) >= 15
    for name, text in says.items():
        line = str(of(report, name))
        assert line.startswith(name)
        assert text in line, line
    assert report.holds is safe, report.summary


async def test_a_bot_that_answers_at_once_leaves_it_open_what_a_drop_costs() -> None:
    with running_simulator(SimulatorOptions(speed=float("inf"))) as coze:
        report = await ask(coze)
    assert of(report, "disconnect").verdict in ("unknown", "holds")


async def test_a_coze_that_refuses_the_token_is_asked_nothing_further() -> None:
    with running_simulator(SimulatorOptions(speed=SPEED)) as coze:
        report = await ask(coze, COZE_API_TOKEN="pat_wrong")
    assert [(finding.name, finding.seen) for finding in report.findings] == [("conversation", "code 4100")]
    assert not report.holds


async def test_the_report_holds_no_token_id_or_text(tmp_path: Path) -> None:
    with running_simulator(SimulatorOptions(speed=SPEED)) as coze:
        report = await ask(coze)
        ids = {str(chat) for chat in coze.app.core.store.chats} | set(coze.app.core.store.conversations)
        said = {message.content for c in coze.app.core.store.conversations.values() for message in c.messages}
    path = tmp_path / "run" / REPORT_NAME
    keep(report, path)
    assert path.stat().st_mode & 0o777 == 0o600
    kept = path.read_text()
    found = json.loads(kept)
    assert found["findings"][0].keys() == {"name", "verdict", "needed", "assumed", "seen"}
    assert len(ids) >= 4
    secret = {SIMULATOR_TOKEN, SIMULATOR_BOT_ID, LONG, SHORT, *ids, *(text for text in said if len(text) > 3)}
    assert [text for text in secret if text in kept] == []
    assert [text for text in secret if any(text in str(finding) for finding in report.findings)] == []


def finding(name: str, *, holds: bool = True) -> Finding:
    return Finding(name, "holds" if holds else "differs", "a", "b", "c", needed=True)


@pytest.mark.parametrize(
    ("host", "use_stream", "holds", "severity", "says"),
    [
        (None, True, True, "skip", "never asked"),
        ("elsewhere", True, True, "skip", "never asked"),
        ("api.coze.cn", False, True, "skip", "another COZE_USE_STREAM"),
        ("api.coze.cn", True, True, "ok", "no answer is lost here"),
        ("api.coze.cn", True, False, "warn", "answers can be lost here (disconnect)"),
    ],
)
def test_check_reminds_of_what_was_found(
    tmp_path: Path, host: str | None, *, use_stream: bool, holds: bool, severity: str, says: str
) -> None:
    path = tmp_path / REPORT_NAME
    if host is not None:
        keep(Report("1", host, use_stream, [finding("disconnect", holds=holds)]), path)
    line = reminder(path, make_settings(COZE_API_URL="https://api.coze.cn/v3/chat"))
    assert (line.severity, says in line.text) == (severity, True), line


@pytest.mark.parametrize("content", ["", "[]", "{", '{"host": 1}', "\x00"])
def test_a_report_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / REPORT_NAME
    path.write_text(content)
    assert reminder(path, make_settings()).severity == "skip"


def run(tmp_path: Path, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"COZE_RUN_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "REDIS_URL": "memory://"} | values
    return subprocess.run(
        [sys.executable, "-m", "app.check", *arguments],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_asks_first_and_without_a_terminal_it_asks_nothing(tmp_path: Path) -> None:
    with running_simulator(SimulatorOptions(speed=SPEED)) as coze:
        settings = {
            "COZE_API_URL": coze.base_url + "/v3/chat",
            "COZE_API_TOKEN": "pat_x",
            "COZE_BOT_ID": SIMULATOR_BOT_ID,
        }
        refused = run(tmp_path, "--live", **settings)
        assert (refused.returncode, coze.app.core.store.chats) == (2, {})
        assert "2,000 tokens" in refused.stdout
        done = run(tmp_path, "--live", "--yes", COZE_POLL_INTERVAL="0.1", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if " assumed: " in line]
    assert lines[0].startswith("disconnect ")
    assert len(lines) >= 15
    assert json.loads((tmp_path / REPORT_NAME).read_text())["holds"] is True
