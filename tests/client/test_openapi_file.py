"""docs/openapi.json: what is committed is what the service publishes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from scripts.openapi import COMMAND, ROOT, TARGET
from tests.support import RunningApp


def test_the_committed_document_is_current() -> None:
    """In a process without any setting, from another directory, with other seeds of hashing."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/openapi.py", "--check"],
        env={"PYTHONHASHSEED": "4711", "COZE_BOT_ID": "not a bot", "PORT": "none"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stderr}\nrun: {COMMAND}"


def test_the_committed_document_is_what_a_service_serves(start_app: Callable[..., RunningApp]) -> None:
    served = httpx.get(start_app(ENABLE_DOCS="true").base_url + "/openapi.json", trust_env=False)
    assert json.loads(TARGET.read_text(encoding="utf-8")) == served.json()


def test_the_document_is_linked() -> None:
    for name in ("README.md", "README.en.md"):
        assert "(docs/openapi.json)" in (Path(ROOT) / name).read_text(encoding="utf-8")
