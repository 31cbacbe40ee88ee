"""The script that asks a Redis whether it does what all others need."""

from __future__ import annotations

from app.redis_client.gate import probe

from .place import SECOND, Place


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
