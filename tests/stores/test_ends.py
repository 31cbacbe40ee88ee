"""A chat ends, or begins to wait for tool outputs: once, in one step, with all that follows from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
import pytest

from app.stores.open_log import OpenLog

from .place import (
    DAY,
    HOLD,
    KEPT_RESULT,
    LEASE,
    ME,
    MINUTE,
    SECOND,
    SESSION,
    TOMBSTONE,
    Clock,
    Near,
    Place,
    whole_life,
)

PACKED: dict[str, Any] = {"n": b"1", "f": b"brief\n\nend\n\n", "z": b"packed"}


def waits_until(log: OpenLog) -> int:
    """What the record says, in unix milliseconds."""
    assert log.end is not None
    moment = datetime.fromisoformat(orjson.loads(log.end.record)["waits_until"])
    return round(moment.timestamp() * 1000)


def without_usage(seen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in seen.items() if not name.startswith(("usage", "owners", "spent"))}


# -- the end of a chat ---------------------------------------------------------------------------------


async def test_the_end_of_a_chat_leaves_its_record_and_its_packed_log(at: Place) -> None:
    await at.open()
    await at.say("A")
    run = list(await at.held("run:A"))
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        log = await at.end("A")
    assert (log.state, log.committed, log.next_chat, log.index_due) == ("committed", 2, None, False)
    assert without_usage(seen) == {
        **whole_life(),
        "chats:(S).A": at.shown("A", "completed"),
        "session:S.running": "",
        "session:S.ended": "A",
        "session:S.updated": 0,
        "leases": None,
        "leases.A:1": None,
        "log:A": KEPT_RESULT,
        "log:A#1-1": None,
        "log:A#1-2": PACKED,
        **dict.fromkeys(run),
    }


async def test_the_end_makes_the_next_of_the_queue_ready_with_a_lease(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", on_busy="enqueue")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        log = await at.end("A")
    assert log.next_chat == at.cid("B")
    assert {
        name: value for name, value in without_usage(seen).items() if not name.startswith(("run:A", "log:A"))
    } == {
        **whole_life("B", "C", runs=True, queued=["C"]),
        "chats:(S).A": at.shown("A", "completed"),
        "queue:S=": ["C"],
        "queued.B": None,
        "run:B.state": "ready",
        "session:S.running": "B",
        "session:S.ended": "A",
        "session:S.updated": 0,
        "leases": LEASE + DAY,
        "leases.A:1": None,
        "leases.B:1": LEASE,
    }


async def test_a_process_that_drains_leaves_the_next_one_to_others_at_once(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    at.writer.draining = True
    await at.end("A")
    shown = await at.held("leases")
    assert (shown["leases.B:1"], shown["leases"] <= LEASE + DAY) == ("0", True)
    assert await at.due() == [(at.cid("B"), 1)]


async def test_a_lease_that_has_run_out_from_the_start_is_kept_for_a_day_like_any_other(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.leases.drop(at.cid("A"), 1)
    at.writer.draining = True
    await at.end("A")
    assert (await at.held("leases"))["leases"] == DAY


async def test_a_queued_chat_whose_run_is_gone_is_passed_over(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", on_busy="enqueue")
    await at.do("DEL", at.keys.run(at.cid("B")))
    assert (await at.end("A")).next_chat == at.cid("C")
    assert await at.held("queue:", "run:B") == {}
    assert (await at.held("session:"))["session:S.running"] == "C"


async def test_a_queue_of_which_nothing_is_left_leaves_the_session_idle(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.do("DEL", at.keys.run(at.cid("B")))
    assert (await at.end("A")).next_chat is None
    assert (await at.held("session:"))["session:S.running"] == ""
    assert (await at.say("C")).kind == "started"


async def test_the_next_chat_is_started_though_its_record_is_gone(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.do("HDEL", at.keys.chats(at.cid("B")), at.cid("B"))
    assert (await at.end("A")).next_chat == at.cid("B")
    assert "chats:(S).B" not in await at.held("chats:")


async def test_a_queued_chat_that_is_cancelled_ends_while_another_one_runs(at: Place) -> None:
    await at.open()
    await at.say("A")
    for chat in "BCD":
        await at.say(chat, on_busy="enqueue")
    await at.claim("C")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        log = await at.end("C", "cancelled")
    assert log.next_chat is None
    assert {
        name: value for name, value in without_usage(seen).items() if not name.startswith(("run:C", "log:C"))
    } == {
        **whole_life("A", "B", "D", runs=True, queued=["B", "D"]),
        "chats:(S).C": at.shown("C", "cancelled"),
        "queue:S=": ["B", "D"],
        "session:S.ended": "C",
        "session:S.updated": 0,
        "leases.C:1": None,
    }


async def test_the_indexes_are_due_with_an_end(at: Place, clock: Clock) -> None:
    await at.open()
    await at.say("A")
    clock.now += MINUTE + 1
    assert (await at.end("A")).index_due


# -- once and by its owner alone -----------------------------------------------------------------------


async def test_an_end_whose_answer_was_lost_is_told_again_and_counts_once(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    first, again = await at.log("A"), await at.log("A")
    await at.end("A", log=first)
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        await at.end("A", log=again)
    assert seen == {}
    assert (again.state, again.next_chat, again.index_due) == ("committed", None, False)


async def test_an_end_is_lost_where_run_and_log_are_gone_and_is_then_written_again(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.do("DEL", at.keys.run(at.cid("A")), at.keys.log(at.cid("A")))
    await at.do("DEL", at.keys.chats(at.cid("A")), at.keys.of_session(at.sid("S")).order)
    await at.end("A", log=log)
    assert log.state == "committed"
    held = await at.held("chats:", "order:", "run:", "log:")
    assert held["chats:(S).A"] == at.shown("A", "completed")
    assert held["log:A#1-2"] == PACKED
    assert held["order:S="] == ["A"]


async def test_a_chat_that_somebody_else_has_ended_is_not_ended_again(at: Place) -> None:
    await at.open()
    await at.say("A")
    stale = await at.log("A")
    await at.claim("A", force=True)
    await at.end("A", epoch=2)
    async with at.seen() as seen:
        await at.end("A", "failed", log=stale)
    assert (stale.state, seen) == ("fenced", {})


async def test_the_end_of_a_former_owner_is_refused(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.claim("A", force=True)
    for status in ("completed", "requires_action"):
        async with at.seen() as seen:
            log = await at.end("A", status)
        assert (log.state, seen) == ("fenced", {})


# -- waiting for tool outputs --------------------------------------------------------------------------


async def test_a_chat_that_begins_to_wait_keeps_its_session_busy_until_that_ends(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.do("HSET", at.keys.run(at.cid("A")), "tool_outputs", "of the turn before")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        log = await at.end("A", "requires_action")
    assert (log.state, log.next_chat, log.index_due) == ("committed", None, False)
    assert Near(waits_until(log) - await at.now()) == SESSION
    assert seen == {
        **whole_life("A", waits="A"),
        "chats:(S).A": at.shown("A", "requires_action"),
        "run:A.state": "waiting",
        "run:A.request": '{"message":""}',  # Coze has the message, and waiting may last
        "run:A.tool_outputs": None,
        "log:A#1-2": {"n": b"2", "f": b"end\n\n"},
        "leases": SESSION + DAY,
        "leases.A:1": SESSION,
    }


async def test_beginning_to_wait_twice_changes_nothing(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.wait_for_tools("A")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        await at.end("A", "requires_action", log=log)
    assert (log.state, log.index_due, seen) == ("committed", False, {})
    assert Near(waits_until(log) - await at.now()) == SESSION - 50 * SECOND


async def test_a_chat_whose_session_was_ended_meanwhile_does_not_wait(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.sessions.end(at.sid("S"), ME)
    async with at.seen() as seen:
        await at.wait_for_tools("A")
    assert (await at.held("leases."))["leases.A:1"] == 2 * SECOND
    assert [name for name in seen if name.startswith(("session:", "waiting"))] == []
    assert "chats:(S)" not in seen  # nor do the records live any shorter


async def test_a_record_that_is_kept_after_its_session_was_ended_is_not_kept_for_ever(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.sessions.end(at.sid("S"), ME)
    await at.do("DEL", at.keys.chats(at.sid("S")))
    await at.wait_for_tools("A")
    assert (await at.held("chats:"))["chats:(S)"] == KEPT_RESULT


@pytest.mark.parametrize("how", ["gone", "another"])
async def test_a_chat_that_its_session_does_not_know_does_not_wait(how: str, at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    if how == "gone":
        await at.do("DEL", at.keys.session(at.sid("S")))
        await at.do("SET", at.keys.of_session(at.sid("S")).erased, "1", "PX", DAY)
    else:
        await at.do("HSET", at.keys.session(at.sid("S")), "running", at.cid("B"))
    await at.end("A", "requires_action", log=log)
    assert (await at.held("leases."))["leases.A:1"] == 2 * SECOND
    assert await at.held("waiting") == {}


@pytest.mark.parametrize("gone", ["log", "newer"])
async def test_where_the_log_cannot_take_the_end_it_is_written_again_from_memory(
    gone: str, at: Place
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    if gone == "log":
        await at.do("DEL", at.keys.log(at.cid("A")))
    else:  # more is there than this owner knows of
        await at.do("XADD", at.keys.log(at.cid("A")), "1-9", "n", "2", "f", "odd\n\n")
    await at.end("A", "requires_action", log=log)
    assert log.state == "committed"
    held = await at.held("log:A#")
    assert held == {"log:A#1-1": {"n": b"1", "f": b"1\n\n"}, "log:A#1-2": {"n": b"2", "f": b"end\n\n"}}


async def test_what_is_over_has_nothing_left_to_wait_for(at: Place) -> None:
    """From waiting to the end, with a claim in between: no key of a living chat is left."""
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    await at.claim("A", force=True, expect="waiting")
    await at.end("A", epoch=2)
    assert await at.held("run:", "leases", "queue", "waiting") == {}
    assert (await at.held("session:S"))["session:S"] == SESSION + TOMBSTONE


# -- in a session that is over -------------------------------------------------------------------------


async def test_the_end_in_a_terminated_session_revives_nothing_of_it(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.sessions.end(at.sid("S"), ME)
    run = list(await at.held("run:A"))
    async with at.seen() as seen:
        log = await at.end("A", "cancelled")
    assert (log.state, log.next_chat, log.index_due) == ("committed", None, False)
    life = max(KEPT_RESULT, SESSION + HOLD)
    assert without_usage(seen) == {
        "chats:(S).A": at.shown("A", "cancelled"),
        "chats:(S)": life,
        "order:S": life,
        "session:S.running": "",
        "session:S.ended": "A",
        "leases": None,
        "leases.A:1": None,
        "log:A": KEPT_RESULT,
        "log:A#1-1": None,
        "log:A#1-2": PACKED,
        **dict.fromkeys(run),
    }


async def test_records_of_a_session_that_is_over_live_to_its_own_time_where_that_is_later(at: Place) -> None:
    await at.open()
    await at.say("A")
    expires = await at.now() + 3 * KEPT_RESULT
    await at.do("HSET", at.keys.session(at.sid("S")), "expires", expires)
    await at.sessions.end(at.sid("S"), ME)
    await at.end("A", "cancelled")
    held = await at.held("chats:", "order:")
    assert (held["chats:(S)"], held["order:S"]) == (3 * KEPT_RESULT, 3 * KEPT_RESULT)


async def test_what_waits_behind_a_chat_that_expired_with_its_session_is_for_anybody_to_end(
    at: Place,
) -> None:
    await at.open()
    await at.say("A")
    for chat in "BCD":
        await at.say(chat, on_busy="enqueue")
    await at.wait_for_tools("A")
    await at.do("DEL", at.keys.run(at.cid("C")))
    await at.age(SESSION + MINUTE)
    claim = await at.claim("A")
    assert claim is not None
    async with at.seen() as seen:
        log = await at.end("A", "failed", epoch=2)
    assert log.next_chat is None
    assert {
        name: value for name, value in without_usage(seen).items() if not name.startswith(("run:A", "log:A"))
    } == {
        "chats:(S).A": at.shown("A", "failed"),
        "chats:(S)": KEPT_RESULT,
        "order:S": KEPT_RESULT,
        "session:S.running": "",
        "session:S.ended": "A",
        "queue:S": None,
        "queue:S=": None,
        "queued.B": None,
        "queued.D": None,
        "run:B.state": "ready",
        "run:B.expired": "1",
        "run:D.state": "ready",
        "run:D.expired": "1",
        "leases.A:2": None,
        "leases.B:1": 0,
        "leases.D:1": 0,
        **{name: value for name, value in seen.items() if name == "leases"},
    }
    assert {chat for chat, _ in await at.due()} == {at.cid("B"), at.cid("D")}


async def test_a_session_that_was_ended_keeps_the_chat_that_still_runs_in_it(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.sessions.end(at.sid("S"), ME)
    await at.claim("B", force=True)
    await at.end("B", "cancelled")
    held = await at.held("session:")
    assert (held["session:S.running"], held["session:S.ended"]) == ("A", "B")


async def test_the_end_of_a_chat_whose_session_was_erased_keeps_no_record_of_it(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.do("DEL", at.keys.session(at.sid("S")), at.keys.chats(at.sid("S")))
    await at.do("SET", at.keys.of_session(at.sid("S")).erased, "1", "PX", DAY)
    await at.end("A", log=log)
    assert (log.state, log.next_chat, log.index_due) == ("committed", None, False)
    assert await at.held("session:", "chats:", "run:") == {}
    assert (await at.held("log:A"))["log:A"] == KEPT_RESULT


async def test_the_record_of_a_chat_whose_records_went_first_is_kept_as_long_as_its_answer(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.sessions.end(at.sid("S"), ME)
    await at.do("DEL", at.keys.chats(at.sid("S")), at.keys.of_session(at.sid("S")).order)
    await at.do("HSET", at.keys.session(at.sid("S")), "expires", await at.now())
    await at.end("A", "cancelled")
    assert await at.held("chats:") == {
        "chats:(S)": KEPT_RESULT,
        "chats:(S).owner": ME.owner,
        "chats:(S).A": at.shown("A", "cancelled"),
    }
