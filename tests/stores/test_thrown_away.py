"""Redis throws keys of a running chat away where its memory is short: the owner writes them again."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.stores.place import Place

KINDS = ("run", "log", "session", "chats", "order", "leases")
LOST = [*((kind,) for kind in KINDS), *combinations(KINDS, 2), KINDS]


async def throw_away(at: Place, *kinds: str, chat: str = "A") -> None:
    keys = at.keys.of_session(at.sid("S"))
    names = {
        "run": at.keys.run(at.cid(chat)),
        "log": at.keys.log(at.cid(chat)),
        "session": keys.session,
        "chats": keys.chats,
        "order": keys.order,
        "leases": keys.leases,
    }
    for kind in kinds:
        await at.do("DEL", names[kind])


@pytest.mark.parametrize("lost", LOST, ids="+".join)
async def test_whatever_was_thrown_away_the_chat_ends_and_its_session_is_free(
    lost: tuple[str, ...], at: Place
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await throw_away(at, *lost)
    await at.end("A", log=log)
    assert log.state == "committed"
    held = await at.dump()
    assert (held["session:S.running"], held["session:S.ended"]) == ("", "A")
    assert "run:A" not in held
    assert not any(name.startswith("leases.") for name in held)
    assert (await at.say("B")).kind == "started"


@pytest.mark.parametrize("lost", LOST, ids="+".join)
async def test_what_was_thrown_away_comes_back_when_the_lease_is_missed(
    lost: tuple[str, ...], at: Place
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    before = {name for name in await at.dump() if name.startswith(KINDS)}
    await throw_away(at, *lost, "leases")
    at.writer.verify(log)
    await at.written()
    assert log.state == "open"
    assert before <= set(await at.dump())


async def test_a_run_that_was_thrown_away_alone_is_missed_with_the_next_renewal(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    held = [(at.cid("A"), 1)]
    assert await at.leases.renew(held) == []
    await throw_away(at, "run")
    assert await at.leases.renew(held) == held
    at.writer.verify(log)
    await at.written()
    assert (log.state, (await at.run("A"))["state"]) == ("open", "started")
    assert await at.leases.renew(held) == []


async def test_a_chat_that_began_after_a_run_was_thrown_away_keeps_its_session(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await throw_away(at, "run")
    await at.say("B")
    await at.end("A", log=log)
    assert log.state == "committed"
    assert (await at.held("session:S.running"))["session:S.running"] == "B"


@pytest.mark.parametrize("lost", [("run",), ("run", "session"), ("run", "leases")], ids="+".join)
async def test_a_chat_that_is_over_does_not_come_back(lost: tuple[str, ...], at: Place) -> None:
    await at.open()
    await at.say("A")
    log, late = await at.log("A"), await at.log("A")
    await at.end("A", log=log)
    await throw_away(at, *lost)
    at.writer.verify(late)
    late.committed = 99  # it believes to have told more than Redis holds
    await at.written()
    assert late.state == "fenced"


async def test_a_chat_that_another_owner_had_claimed_is_not_taken_back(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.leases.claim(at.cid("A"), at.sid("S"), epoch=1, force=True)
    await throw_away(at, "run")
    await at.end("A", log=log)
    assert log.state == "fenced"


async def test_a_chat_whose_owner_is_gone_too_can_be_claimed_by_what_its_record_tells(at: Place) -> None:
    await at.open()
    await at.say("A")
    await throw_away(at, "run")
    assert await at.leases.session_of(at.cid("A")) is None
    assert await at.leases.restore(at.cid("A"), 1) == at.sid("S")
    claim = await at.claim("A", force=True)
    assert claim is not None
    assert (claim.kind, claim.before, claim.epoch) == ("claimed", "started", 2)
    await at.end("A", "failed", epoch=2)
    assert await at.leases.restore(at.cid("A"), 2) is None, "it is over"
    assert not any(name.startswith("run:") for name in await at.dump())


@pytest.mark.parametrize("lost", [("run", "chats"), ("run", "leases")], ids="+".join)
async def test_without_its_record_or_its_lease_nothing_of_it_is_made_again(
    lost: tuple[str, ...], at: Place
) -> None:
    await at.open()
    await at.say("A")
    await throw_away(at, *lost)
    assert await at.leases.restore(at.cid("A"), 1) is None
    assert not any(name.startswith("run:") for name in await at.dump())


async def test_a_run_that_its_owner_has_written_again_is_left_as_it_is(at: Place) -> None:
    await at.open()
    await at.say("A")
    before = await at.run("A")
    assert await at.leases.restore(at.cid("A"), 1) == at.sid("S")
    assert await at.run("A") == before


@pytest.mark.parametrize("state", ["queued", "ready"])
async def test_a_chat_that_a_failover_put_back_into_its_queue_is_not_started_a_second_time(
    state: str, at: Place
) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.end("A")
    assert await at.claim("B", force=True) is not None
    log = await at.log("B")
    queue = at.keys.of_session(at.sid("S")).queue
    await at.do("HSET", at.keys.run(at.cid("B")), "state", state)
    await at.do("RPUSH", queue, at.cid("B"))
    await at.do("PEXPIRE", queue, 60_000)
    at.writer.verify(log)
    log.committed = 99  # it believes to have told more than Redis holds
    await at.written()
    assert log.state == "open"
    assert (await at.run("B"))["state"] == "started"
    assert await at.do("LLEN", queue) == 0
