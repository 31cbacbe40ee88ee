"""Every example runs against a started service, and says what it promises."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import RunningApp

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

SAYS: dict[str, list[str]] = {
    "quickstart.py": [r"= 7", r"^tokens: \d+$", r"^- "],
    "stream.py": [r"\S{20}", r"^\[completed, 1 connection\(s\)\]$"],
    "resume.py": [r"left at event 1-\d+$", r"^same as the stored answer: True$"],
    "async_many.py": [r"^0 \+ 0: .*= 0", r"^19 \+ 19: .*= 38"],
    "tools.py": [r"^the bot calls f\(.*上海天气", r'\{"temperature": 21\}'],
    "errors.py": [
        r"^it takes long, and goes on: processing$",
        r"^busy with the first: True$",
        r"^interrupted and answered: completed$",
        r"^UpstreamError 502 COZE_API_ERROR: .*4101",
        r"^for Coze's support: \w{20,}$",
    ],
    "files.py": [r"^dot\.png: image/png, 70 bytes, kept until \d{4}-", r"What is in the picture"],
    "usage.py": [
        r"^user: '3 \+ 4'$",
        r"^context cleared",
        r"^\d{4}-\d\d-\d\d u-1: 1 chats, \d+ tokens$",
        r"^since \d{4}-\d\d-\d\d: 1 chats, [1-9]\d* tokens$",
    ],
    "openai_sdk.py": [r"^model: \S+$", r"\S{20}"],
    "curl.sh": [
        r"^session coze_session_\w+$",
        r"^=== chat coze_chat_\w+ again",
        r"^id: 1-11$",
        r"^event: done$",
    ],
}
"""What the output of each has somewhere."""


def run(name: str, service: RunningApp) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable if name.endswith(".py") else "bash", str(EXAMPLES / name)], service)


def _run(command: list[str], service: RunningApp) -> subprocess.CompletedProcess[str]:
    known = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    return subprocess.run(
        command,
        env=known
        | {"PYTHONPATH": str(ROOT / "client/src"), "BASE_URL": service.base_url, "PYTHONUTF8": "1"}
        | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_says_what_it_promises(name: str, service: RunningApp) -> None:
    if name.endswith(".sh") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = run(name, service)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    for pattern in SAYS[name]:
        assert re.search(pattern, done.stdout, re.MULTILINE), f"{pattern} is not in:\n{done.stdout}"


def test_every_example_is_run_and_listed() -> None:
    scripts = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert scripts == set(SAYS)
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in sorted(scripts) if f"]({name})" not in readme] == []


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_how_it_is_run(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "./run-service.sh test" in text
    assert f"examples/{name}" in text
    assert "http://127.0.0.1:6000" in text
