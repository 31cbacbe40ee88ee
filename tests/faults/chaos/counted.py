"""``python -m tests.faults.chaos.counted``: ``python -m app``, which also writes down its asyncio tasks.

No metric tells them, and a task that is never over is a leak that memory shows only after days. Every few
seconds the file that ``COUNTED_TASKS`` names has their number by the name of their coroutine, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import socket
from collections import Counter
from pathlib import Path

import uvicorn

SECONDS = 5.0


def _tell(loop: asyncio.AbstractEventLoop, path: Path) -> None:
    names = Counter(
        getattr(task.get_coro(), "__qualname__", type(task).__name__) for task in asyncio.all_tasks(loop)
    )
    new = path.with_suffix(".new")
    new.write_text(json.dumps(names), encoding="utf-8")
    new.replace(path)  # whoever reads it finds all of it
    loop.call_later(SECONDS, _tell, loop, path)


_startup = uvicorn.Server.startup


async def _counting(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    await _startup(self, sockets)
    _tell(asyncio.get_running_loop(), Path(os.environ["COUNTED_TASKS"]))


if __name__ == "__main__":
    uvicorn.Server.startup = _counting  # type: ignore[method-assign]
    runpy.run_module("app", run_name="__main__")
