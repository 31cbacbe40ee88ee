"""`python -m coze_simulator`, and two simulators in one process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN
from coze_simulator.__main__ import build_parser, main

from .helpers import ids, sim_client, user_message

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The simulator as a process, and its address."""
    command = [sys.executable, "-m", "coze_simulator", "--port", "0", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            match = re.search(r"listening on (http://\S+)", process.stdout.readline())
            assert match is not None
            yield process, match.group(1)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_even_with_open_streams(number: signal.Signals) -> None:
    body = {
        "bot_id": SIMULATOR_BOT_ID,
        "user_id": "u",
        "stream": True,
        "additional_messages": [user_message("hello[[sim:delay=60]]")],
    }
    headers = {"authorization": f"Bearer {SIMULATOR_TOKEN}"}
    with (
        started("--log-level", "warning") as (process, address),
        httpx.stream("POST", address + "/coze/v3/chat", json=body, headers=headers) as response,
    ):
        chunks = response.iter_bytes()
        assert b"conversation.chat.created" in next(chunks)
        process.send_signal(number)
        with pytest.raises(httpx.TransportError):
            list(chunks)
        process.wait(timeout=20)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_command_line_chooses_dialect_and_speed() -> None:
    with started("--dialect", "studio", "--speed", "max", "--on-disconnect", "stop") as (_, address):
        health = httpx.get(address + "/coze").json()
    assert health["service"] == "coze-simulator"
    assert (health["dialect"], health["on_disconnect"]) == ("studio", "stop")
    assert build_parser().parse_args(["--speed", "0"]).speed == float("inf")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--speed", "-1"])


def test_a_taken_port_is_told_and_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    with sim_client() as sim:
        assert main(["--port", str(sim.sim.port)]) == 1
    assert "cannot listen" in capsys.readouterr().err


def test_two_simulators_in_one_process_share_nothing() -> None:
    with sim_client() as one, sim_client(seed=1) as two:
        chat = one.create("hello")
        assert one.retrieve(chat)["code"] == 0
        assert two.retrieve(chat)["code"] == 4002
        assert two.control("GET", "state")["chats_created"] == 0


def test_people_see_an_answer_at_typing_speed() -> None:
    with sim_client(speed=20.0) as sim:
        began = time.monotonic()
        chat = sim.ended(sim.create("你好"))
        assert time.monotonic() - began > 0.05
        assert "你好" in sim.answer(chat)
        assert sim.retrieve(chat)["data"]["id"] == ids(chat)["chat_id"]


def test_old_conversations_are_forgotten_beyond_the_limit() -> None:
    with sim_client(max_conversations=3) as sim:
        chats = [sim.ended(sim.create(f"number {number}")) for number in range(5)]
        assert [sim.retrieve(chat)["code"] for chat in chats] == [4002, 4002, 0, 0, 0]
        assert sim.control("GET", "state")["chats"] == 3
