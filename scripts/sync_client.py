"""Makes the Python client's blocking half from its asynchronous one, so that nothing is written twice.

``python scripts/sync_client.py`` writes ``client/src/coze_fastapi_client/_client.py``; a test compares.
Tried instead, and no gain: unasync 0.6 (of 2024) and unasyncd 0.10 need a list of the same words and more,
and leave comments and docstrings as they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "client/src/coze_fastapi_client"
SOURCE, TARGET = PACKAGE / "_async_client.py", PACKAGE / "_client.py"

HEAD = '"""The blocking client. Made by ``scripts/sync_client.py`` from ``_async_client.py``: edit that."""\n'
WORDS = {
    "import asyncio": "import time",
    "asyncio.sleep": "time.sleep",
    "Tasks may share": "Threads may share",
    "httpx.AsyncClient": "httpx.Client",
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "aclose": "close",
    "anext(": "next(",
}


def blocking(source: str) -> str:
    """The same without ``async`` and ``await``, under the names of the blocking world."""
    _, _, text = source.partition("\n")
    for ours, theirs in WORDS.items():
        text = text.replace(ours, theirs)
    text = re.sub(r"\b(?:async|await) ", "", text)
    text = re.sub(r"__a(iter|next|enter|exit)__", r"__\1__", text)
    text = re.sub(r"\bAsync(?=[A-Z])", "", text)
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", str(TARGET), "-"],
            input=HEAD + text if text[:3] != '"""' else text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    TARGET.write_text(blocking(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
