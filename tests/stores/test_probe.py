"""The script that asks a Redis whether it does what all others need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fakeredis._helpers import SimpleError
from fakeredis._socket import AsyncFakeSocket

from app.redis_client.gate import probe

from .place import SECOND, Clock, Place

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "app/stores/lua"
PROBE = (SCRIPTS / "probe.lua").read_text(encoding="utf-8")
ASKED = ["TIME", *dict.fromkeys(re.findall(r"redis\.call\('(\w+)'", PROBE))]


async def refusal(
    at: Place, monkeypatch: pytest.MonkeyPatch, *, thorough: bool, command: str = "", key: str = "no such key"
) -> str:
    """What a probe says where scripts may not use a command, or keys that end so."""
    call = AsyncFakeSocket._lua_redis_call

    def asked(socket: Any, runtime: Any, expected: Any, name: bytes, *values: Any) -> Any:
        if name.decode() == command or any(str(value).endswith(f"{key}'") for value in values):
            raise SimpleError("NOPERM this user has no permissions")
        return call(socket, runtime, expected, name, *values)

    with monkeypatch.context() as patched:
        patched.setattr(AsyncFakeSocket, "_lua_redis_call", asked)
        [reply] = await at.redis.attempt([probe(key=at.keys.probes[0], thorough=thorough)])
    return str(reply)


def test_a_thorough_probe_uses_all_commands_of_the_other_scripts() -> None:
    used = {
        command
        for script in SCRIPTS.glob("*.lua")
        for command in re.findall(r"\('([A-Z]{3,})', ", script.read_text(encoding="utf-8"))
    }
    assert used >= {"ZCOUNT", "ZRANGEBYSCORE", "SET"}
    assert used <= {*ASKED}


async def test_a_thorough_probe_finds_each_command_that_is_refused_and_leaves_nothing(
    at: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ASKED:
        told = await refusal(at, monkeypatch, thorough=True, command=command)
        assert "no permissions" in told, command
        assert await at.dump() == {}, command


@pytest.mark.parametrize("missing", [{"command": "TIME"}, {"command": "SET"}, {"key": ":computed"}])
async def test_a_probe_that_is_asked_for_often_finds_a_server_that_has_become_unfit(
    missing: dict[str, str], at: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no permissions" in await refusal(at, monkeypatch, thorough=False, **missing)


async def test_a_probe_leaves_nothing_behind(at: Place) -> None:
    [key, *_] = at.keys.probes
    for thorough in (True, False):
        assert await at.redis.run(probe(key=key, thorough=thorough)) == 1
        assert await at.dump() == {}


async def test_a_probe_that_is_asked_for_often_only_writes_over_what_is_there(at: Place) -> None:
    """So that a server says whether it would write, and has nothing to write where nothing is."""
    [key, *_] = at.keys.probes
    await at.do("RPUSH", key, "left")
    await at.do("PEXPIRE", key, 60 * SECOND)
    await at.do("RPUSH", f"{key}:computed", "left")
    await at.do("PEXPIRE", f"{key}:computed", 60 * SECOND)
    assert await at.redis.run(probe(key=key, thorough=False)) == 1
    held = await at.dump()
    assert [value for name, value in held.items() if name.endswith("=")] == ["1", ["left"]]
    assert sorted(value for name, value in held.items() if not name.endswith("=")) == [SECOND, 60 * SECOND]


async def test_a_thorough_probe_works_over_whatever_an_earlier_one_left(at: Place) -> None:
    [key, *_] = at.keys.probes
    for name in (key, f"{key}:computed"):
        await at.do("RPUSH", name, "left")
        await at.do("PEXPIRE", name, 60 * SECOND)
    assert await at.redis.run(probe(key=key, thorough=True)) == 1
    assert await at.dump() == {}
