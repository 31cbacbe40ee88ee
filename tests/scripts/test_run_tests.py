"""What run-tests.sh and .ci/run say at their end, and with which status. What they run are stand-ins."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import Checkout

ALL_BUT_PYTEST = """#!/bin/sh
case "$*" in
    "-m ruff"* | "-m mypy"* | "-m bandit"* | "-m benchmarks"*) exit 0 ;;
    scripts/audit.py) exit "${STUB_AUDIT:-0}" ;;
esac
exec %s "$@"
"""

STAGES = ["ruff check", "ruff format", "mypy", "mypy examples", "bandit", "pip-audit", "benchmark", "pytest"]

GOOD = "def test_good():\n    pass\n"
BROKEN = "def test_broken():\n    raise ValueError('broken for good')\n"
UNSTEADY = """
from pathlib import Path

def test_unsteady():
    seen = Path('seen')
    before = seen.exists()
    seen.touch()
    assert before, 'passes the second time'
"""
SKIPPED = """
import pytest

@pytest.mark.skipif(True, reason='tmux is not installed')
@pytest.mark.parametrize('n', [1, 2])
def test_panes(n):
    pass

@pytest.fixture
def browser():
    pytest.skip('no chromium on PATH')

def test_page(browser):
    pass
"""


def run_tests(checkout: Checkout, *texts: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The whole of run-tests.sh, whose other stages are well, with these files of tests."""
    place = checkout.root / "tests"
    subprocess.run(["rm", "-rf", place, checkout.root / "benchmarks"], check=True)  # all that has tests
    place.mkdir()
    for number, text in enumerate(texts):
        (place / f"test_{number}.py").write_text(text)
    environment = checkout.root.parent / "environment"
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    python = environment / "bin/python"
    python.write_text(ALL_BUT_PYTEST % shlex.quote(sys.executable))
    python.chmod(0o755)
    return checkout.run(script="run-tests.sh", UV_PROJECT_ENVIRONMENT=str(environment), **env)


def end_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines from the summary on."""
    lines = done.stdout.splitlines()
    [begin] = [number for number, line in enumerate(lines) if line.startswith("=== summary")]
    return lines[begin:]


def test_a_test_that_needed_a_second_try_is_named_in_the_last_line(checkout: Checkout) -> None:
    done = run_tests(checkout, GOOD, UNSTEADY)
    assert done.returncode == 0
    assert end_of(done)[-1] == "needed a second try: tests/test_1.py::test_unsteady"
    assert sum("second try" in line for line in end_of(done)) == 1
    assert any(line.startswith("ok        pytest (") for line in end_of(done))


def test_what_fails_again_fails_the_run_and_is_not_called_unsteady(checkout: Checkout) -> None:
    done = run_tests(checkout, BROKEN, UNSTEADY)
    assert done.returncode == 1
    assert [line for line in end_of(done) if "second try" in line] == [
        "needed a second try: tests/test_1.py::test_unsteady"
    ]
    assert any(line.startswith("FAILED    pytest (") for line in end_of(done))
    assert done.stdout.count("broken for good") >= 2


def test_a_file_that_cannot_be_imported_gets_no_second_look(checkout: Checkout) -> None:
    done = run_tests(checkout, GOOD, "import nothing_like_it\n")
    assert done.returncode == 1
    assert "once more" not in done.stdout


def test_a_run_without_faults_says_nothing_of_second_tries_or_time(checkout: Checkout) -> None:
    done = run_tests(checkout, GOOD)
    assert done.returncode == 0
    assert not [line for line in end_of(done) if "second try" in line or "minutes that" in line]
    assert [line.split(" (")[0] for line in end_of(done)[1:-1]] == [f"ok        {name}" for name in STAGES]


def test_more_time_than_meant_is_a_note_with_the_slowest_tests(checkout: Checkout) -> None:
    slow = "import time\ndef test_slow():\n    time.sleep(0.5)\n"
    done = run_tests(checkout, GOOD, slow, TEST_MINUTES="0")
    assert done.returncode == 0
    assert "2 passed" in done.stdout
    end = end_of(done)
    [note] = [number for number, line in enumerate(end) if line.startswith("note: more than the 0 minutes")]
    assert re.fullmatch(r" +\d\.\d s  tests/test_1\.py::test_slow", end[note + 1])
    assert end[note + 2].endswith("tests/test_0.py::test_good")


def test_what_this_machine_lacks_is_said_once_for_each_reason(checkout: Checkout) -> None:
    done = run_tests(checkout, GOOD, SKIPPED)
    assert done.returncode == 0
    assert [line for line in end_of(done) if line.startswith("left out: tests (")] == [
        "left out: tests (1): no chromium on PATH",
        "left out: tests (2): tmux is not installed",
    ]


@pytest.mark.parametrize(("status", "word", "returns"), [("1", "FAILED", 1), ("3", "left out", 0)])
def test_of_the_audit_one_thing_is_said(checkout: Checkout, status: str, word: str, returns: int) -> None:
    done = run_tests(checkout, GOOD, STUB_AUDIT=status)
    assert done.returncode == returns
    [said] = [line for line in end_of(done) if "pip-audit" in line]
    assert said.startswith(f"{word:<9} pip-audit")


# -- .ci/run ----------------------------------------------------------------------------------------------

TWO_RUNS = """#!/usr/bin/env bash
echo "home: $(ls -A "$HOME" | tr '\\n' ' ')"
echo "tools: $(type -P redis-server tmux uv curl | tr '\\n' ' ')"
echo "python: $(python3 -c 'import sys; print(sys.version_info >= (3, 11), sys.executable)')"
echo "arguments: $*; index: ${PIP_INDEX_URL:-}; config: ${PIP_CONFIG_FILE:-}; path: ${PYTHONPATH:-}"
read -r -t 5 line && echo "read: $line"
echo "in the middle"
echo "== 1 failed, 2 passed, 1 skipped in 7.30s =="
echo "3 passed in 0.10s"
echo "=== summary (0 min 7 s)"
echo "ok        pytest (7 s)"
runs=$(cat runs 2>/dev/null || true)
echo "${runs}x" >runs
case $runs in "") exit "${FIRST:-0}" ;; x) exit "${SECOND:-0}" ;; esac
"""


def run_ci(checkout: Checkout, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    del checkout.env["UV_PROJECT_ENVIRONMENT"]
    script = checkout.root / "run-tests.sh"
    script.write_text(TWO_RUNS)
    script.chmod(0o755)
    for tool in ("redis-server", "tmux", "uv", "curl"):
        path = checkout.tools / tool
        path.unlink(missing_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    home = Path(checkout.env["HOME"])
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[global]\n")
    checkout.env["TMPDIR"] = str(checkout.root.parent / "tmp")
    Path(checkout.env["TMPDIR"]).mkdir()
    return checkout.run(*arguments, script=".ci/run", PYTHONPATH="somewhere", **env)


def test_ci_runs_the_tests_bare_and_then_with_all_there_is(checkout: Checkout) -> None:
    index = "https://index.invalid/simple"
    done = run_ci(checkout, "-k", "health", PIP_INDEX_URL=index, PYTHON=sys.executable)
    assert done.returncode == 0
    first, second = re.findall(r"^home:.*?in the middle", done.stdout, re.DOTALL | re.MULTILINE)
    own_config = Path(checkout.env["HOME"]) / ".config/pip/pip.conf"
    assert "home: \n" in first
    assert "tools: \n" in first
    assert f"config: {own_config}; path: \n" in first
    assert "home: .config" in second
    assert second.count(str(checkout.tools)) >= 4
    assert "path: somewhere" in second
    for run in (first, second):
        assert "python: True /" in run
        assert f"arguments: -k health; index: {index};" in run
        assert "read:" not in run
    # The Python itself, since an environment made from it outlives the first run.
    assert str(checkout.root.parent) not in first.split("python:")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("first", "second", "returns"), [("0", "0", 0), ("1", "0", 1), ("0", "1", 1), ("2", "2", 1)]
)
def test_ci_says_at_its_end_how_both_runs_went(
    checkout: Checkout, first: str, second: str, returns: int
) -> None:
    done = run_ci(checkout, FIRST=first, SECOND=second)
    assert done.returncode == returns
    words = {"0": "passed"}
    of_a_run = [
        "== 1 failed, 2 passed, 1 skipped in 7.30s ==",
        "3 passed in 0.10s",
        "=== summary (0 min 7 s)",
        "ok        pytest (7 s)",
    ]
    assert done.stdout.splitlines()[-11:] == [
        "##### 1 of 2: bare, with nothing but Python, pip and git: "
        + words.get(first, f"FAILED (exit status {first})"),
        *of_a_run,
        "",
        "##### 2 of 2: with what this machine has: " + words.get(second, f"FAILED (exit status {second})"),
        *of_a_run,
    ]
    assert list(Path(checkout.env["TMPDIR"]).iterdir()) == []


def test_ci_says_where_the_bare_run_did_not_have_to_make_the_environment(checkout: Checkout) -> None:
    (checkout.root / ".venv").mkdir()
    done = run_ci(checkout)
    assert (
        done.stdout.splitlines()[-1]
        == "note: .venv was there before, so the bare run did not have to make it"
    )
