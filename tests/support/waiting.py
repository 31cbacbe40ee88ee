"""Waiting for a condition. The seconds only bound what hangs; they never say that something is quick."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def wait_until(condition: Callable[[], Any], timeout: float = 20.0, pause: float = 0.02) -> Any:
    """The first true value of ``condition`` (plain or async); fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {timeout:g} s"
        await asyncio.sleep(pause)


def block_until(
    condition: Callable[[], Any],
    timeout: float = 20.0,
    pause: float = 0.02,
    not_yet: tuple[type[Exception], ...] = (),
) -> Any:
    """``wait_until`` of a test that is not async; whatever ``not_yet`` names counts as not true."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            value = condition()
        except not_yet:
            value = None
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {timeout:g} s"
        time.sleep(pause)
