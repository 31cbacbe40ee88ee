"""Every block of commands runs as it is printed, and what the page shows under it comes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import RunningApp

from .pages import PAGES, ROOT, SERVICE, blocks, differs, name_of, pages_with, with_answers

AUTH = "http://127.0.0.1:5001"
"""Where docs/*/auth.md expects the stand-in of the auth service."""


_OF_COZEPY = re.compile(r"^.*AuthlibDeprecationWarning: .*\n(?:It will be .*\n)?(?:  .*\n)?", re.MULTILINE)
"""What the SDK's own imports complain about, whatever is filtered."""


def each(pages: list[Path]) -> list[Any]:
    """As parameters. A page in docs/en runs what its Chinese twin runs (``test_links``): that may wait for
    ``--full``."""
    return [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.full] if page.parent.name == "en" else [])
        for page in pages
    ]


def run(
    command: list[str], service: RunningApp, folder: Path, standard_input: str = ""
) -> subprocess.CompletedProcess[str]:
    known = {key: os.environ[key] for key in ("PATH",) if key in os.environ}
    return subprocess.run(
        command,
        env=known
        | {"PYTHONPATH": str(ROOT / "client/src"), "PYTHONUTF8": "1", "BASE_URL": service.base_url}
        | {"HOME": str(folder), "TMPDIR": str(folder), "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"},
        cwd=folder,
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=200,
    )


def run_commands(page: Path, service: RunningApp, folder: Path, addresses: dict[str, str]) -> None:
    """All blocks of a page in one shell, since later ones use what earlier ones have set."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shown = list(with_answers(page))
    script = "".join(f"printf '\\n@@@ %s\\n' {at}\n{block.text}" for at, (block, _) in enumerate(shown))
    for printed, real in addresses.items():
        script = script.replace(printed, real)
    done = run(["bash", "-eu", "-s"], service, folder, script)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    outputs = [part.partition("\n")[2] for part in done.stdout.split("\n@@@ ")[1:]]
    assert len(outputs) == len(shown)
    wrong = [
        f"{block.text}\nshows\n{answer.text}\nbut: {reason}\n{output[:3000]}"
        for (block, answers), output in zip(shown, outputs, strict=True)
        for answer in answers
        if (reason := differs(answer, output))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", each([page for page in pages_with("bash") if page.name != "auth.md"]))
def test_commands_run_as_printed_and_give_what_the_page_shows(
    page: Path, open_service: RunningApp, tmp_path: Path
) -> None:
    run_commands(page, open_service, tmp_path, {SERVICE: open_service.base_url})


@pytest.mark.parametrize("page", each([page for page in pages_with("bash") if page.name == "auth.md"]))
def test_commands_that_need_authentication_run_as_printed(
    page: Path, secured_service: tuple[RunningApp, str], tmp_path: Path
) -> None:
    service, auth = secured_service
    run_commands(page, service, tmp_path, {SERVICE: service.base_url, AUTH: auth})


@pytest.mark.parametrize("page", each(pages_with("python")))
def test_python_runs_as_printed(page: Path, open_service: RunningApp, tmp_path: Path) -> None:
    code = "".join(block.text for block in blocks(page, "python"))
    for printed in (SERVICE, "http://127.0.0.1:6000"):
        code = code.replace(printed, open_service.base_url)
    done = run([sys.executable, "-c", code], open_service, tmp_path)
    assert (done.returncode, _OF_COZEPY.sub("", done.stderr)) == (0, "")
    assert "你好" in done.stdout or "Usage(token_count=" in done.stdout


def test_a_block_that_no_test_runs_says_why() -> None:
    for page in PAGES:
        marked = [block for block in blocks(page) if not block.runs and not block.clone]
        reasons = re.findall(
            r"^<!-- (?:不运行：|not run: ).+ -->\n```", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert len(reasons) == len(marked), page
    languages = {block.language for page in PAGES for block in blocks(page) if block.runs or block.clone}
    assert languages <= {"bash", "python", "js", "html", "json", "http", "text"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_short_and_have_a_language(page: Path) -> None:
    fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    assert fences[1::2] == ["```"] * (len(fences) // 2)
    if "docs" in page.parts or page.name.startswith("README"):
        assert "```" not in fences[::2]
    assert max((block.text.count("\n") for block in blocks(page)), default=0) <= 45


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_comments_among_commands_do_no_harm_in_a_shell_that_knows_none(page: Path) -> None:
    """An interactive zsh takes ``# text`` as a command, or as arguments of the command before it."""
    lines = [line for block in blocks(page, "bash") for line in block.text.splitlines()]
    assert [line for line in lines if re.search(r"\S\s+# ", line)] == []
    comments = [line for line in lines if line.startswith("#")]
    assert [line for line in comments if re.search(r"""['"`$()<>|&;*?{}]|\[\[""", line)] == []
