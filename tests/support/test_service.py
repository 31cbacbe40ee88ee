"""The processes of the tests end none but themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.support import RedisServer, ServiceProcess


def test_once_it_was_waited_for_its_number_may_be_another_s_and_is_sent_nothing(
    redis: RedisServer, start_process: Callable[..., ServiceProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start_process(REDIS_URL=redis.url)
    process.stop()
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *what: sent.append(what))
    monkeypatch.setattr(os, "kill", lambda *what: sent.append(what))
    process.kill()
    process.signal(signal.SIGCONT)
    assert sent == []
