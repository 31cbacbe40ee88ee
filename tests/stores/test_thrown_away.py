"""Redis throws keys of a running chat away where its memory is short: the owner writes them again."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from app.exceptions import SessionBusy
from app.stores.open_log import OpenLog
from app.stores.sessions import SessionRecord
from app.utils import shard_of
from tests.stores.place import DAY, HOLD, KEPT_RESULT, LEASE, ME, Place, whole_life

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


async def write_again(at: Place, log: OpenLog) -> None:
    """Its owner finds that the log is gone."""
    await throw_away(at, "log", chat=at.readable(log.chat_id))
    at.writer.verify(log)
    await at.written()
    assert log.state == "open"


def without_session(at: Place, log: OpenLog) -> OpenLog:
    """As it is with an owner that claimed the chat when its session was gone."""
    log.origin = replace(log.origin, session=SessionRecord(at.sid("S"), []))
    return log


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
    assert (await at.held("run:A"))["run:A"] == HOLD
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
    queue, queued = at.keys.of_session(at.sid("S")).queue, at.keys.queued(shard_of(at.sid("S")))
    await at.do("HSET", at.keys.run(at.cid("B")), "state", state)
    await at.do("RPUSH", queue, at.cid("B"))
    await at.do("PEXPIRE", queue, 60_000)
    await at.do("ZADD", queued, await at.now() + DAY, at.cid("B"))
    await at.do("PEXPIRE", queued, DAY)
    at.writer.verify(log)
    log.committed = 99  # it believes to have told more than Redis holds
    await at.written()
    assert log.state == "open"
    assert (await at.run("B"))["state"] == "started"
    assert await at.do("LLEN", queue) == 0
    assert await at.leases.queued() == 0


async def test_a_queued_message_whose_run_was_thrown_away_still_takes_a_place(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await throw_away(at, "run", chat="B")
    with pytest.raises(SessionBusy):
        await at.say("C", on_busy="enqueue", max_queued=1)
    assert (await at.say("C", on_busy="enqueue", max_queued=2)).kind == "queued"


# -- what is written again, and what is left as it is ----------------------------------------------------


async def test_a_cancelled_message_that_writes_its_session_again_leaves_the_running_chat_its_place(
    at: Place,
) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.leases.cancel(at.cid("B"), at.sid("S"))
    assert await at.claim("B", force=True) is not None
    log = await at.log("B")
    await throw_away(at, "session")
    await at.end("B", "cancelled", log=log)
    assert log.state == "committed"
    assert (await at.held("session:S.running"))["session:S.running"] == "A"
    with pytest.raises(SessionBusy):
        await at.say("C")


async def test_a_chat_whose_session_is_gone_for_good_is_written_again_for_itself(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = without_session(at, await at.log("A"))
    await throw_away(at, *KINDS)
    await write_again(at, log)
    held = await at.held("session:", "chats:", "order:", "run:A", "log:A", "leases")
    assert {name: value for name, value in held.items() if not name.startswith("run:A.")} == {
        "chats:(S)": KEPT_RESULT,
        "chats:(S).A": at.shown("A"),
        "order:S": KEPT_RESULT,
        "order:S=": ["A"],
        "run:A": HOLD,
        "log:A": HOLD,
        "log:A#1-1": {"n": b"1", "f": b"1\n\n"},
        "leases": LEASE + DAY,
        "leases.A:1": LEASE,
    }


async def test_an_owner_that_does_not_know_whose_a_chat_is_leaves_that_as_it_is(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = without_session(at, await at.log("A"))
    await at.do("HDEL", at.keys.chats(at.cid("A")), at.cid("A"))
    await write_again(at, log)
    assert await at.chats.record(at.cid("A"), ME) == at.record("A")


async def test_a_chat_that_finds_its_session_idle_holds_it_again(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.do("HSET", at.keys.session(at.sid("S")), "running", "")
    await throw_away(at, "order")
    await write_again(at, log)
    held = await at.dump()
    assert held["session:S.running"] == "A"
    assert {name: held[name] for name in whole_life("A", runs=True)} == whole_life("A", runs=True)


async def test_a_chat_that_waits_for_tool_outputs_still_waits_when_its_log_is_written_again(
    at: Place,
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.wait_for_tools("A")
    await write_again(at, log)
    assert (await at.run("A"))["state"] == "waiting"


async def test_a_record_that_is_there_is_not_written_over_with_the_one_of_the_begin(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    now = at.record("A").replace(b"hello", b"bye")
    await at.do("HSET", at.keys.chats(at.cid("A")), at.cid("A"), now)
    await write_again(at, log)
    assert await at.chats.record(at.cid("A"), ME) == now


async def test_a_lease_that_was_handed_over_is_not_taken_back_with_the_log(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.leases.release([(at.cid("A"), 1)])
    await write_again(at, log)
    assert await at.due() == [(at.cid("A"), 1)]
