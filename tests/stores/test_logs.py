"""The log of a chat: written in batches, read again after trouble, written again where Redis has lost it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.stores.open_log import ChatEnd, OpenLog
from app.utils.signals import until

from .place import (
    BOUND,
    DAY,
    HOLD,
    ME,
    MINUTE,
    SECOND,
    SESSION,
    TOMBSTONE,
    Clock,
    Place,
    commit_ids,
    whole_life,
)

# -- the log -------------------------------------------------------------------------------------------


async def look_again(at: Place, log: OpenLog) -> None:
    """As after an outage, or when its lease is gone."""
    at.writer.verify(log)
    await at.written()


async def test_frames_are_appended_as_one_entry_that_names_its_first_and_last(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    async with at.seen() as seen:
        at.writer.append(log, [b"2\n\n", b"3\n\n"])
        assert (log.visible, log.size) == (3, 6)
        await at.written()
    assert seen == {"log:A#1-3": {"n": b"2", "f": b"2\n\n3\n\n"}}


async def test_a_snapshot_takes_what_is_before_it_out_of_the_log(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    at.writer.append(log, [b"2\n\n"])
    await at.written()
    async with at.seen() as seen:
        at.writer.snapshot(log, b"all\n\n")
        await at.written()
    assert seen == {"log:A#1-1": None, "log:A#1-2": None, "log:A#1-3": {"n": b"3", "f": b"all\n\n"}}
    assert (log.first, log.trim, log.visible) == (3, False, 3)


async def test_a_former_owner_s_frames_are_refused_and_it_learns_that_it_is_one(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.claim("A", force=True)
    async with at.seen() as seen:
        at.writer.append(log, [b"2\n\n"])
        await at.written()
    assert (log.state, seen) == ("fenced", {})
    assert at.writer.backlog == 0


async def test_what_a_new_owner_has_written_is_not_taken_for_what_the_former_one_sent(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.claim("A", force=True)
    await at.do("XADD", at.keys.log(at.cid("A")), "2-9", "n", "1", "f", "nine frames")
    at.writer.append(log, [b"2\n\n"])
    await at.written()
    assert log.state == "fenced"


async def test_an_entry_whose_answer_was_lost_is_not_written_twice(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.do("XADD", at.keys.log(at.cid("A")), "1-2", "n", "2", "f", "2\n\n")
    async with at.seen() as seen:
        at.writer.append(log, [b"2\n\n"])
        await at.written()
    assert (log.state, log.sent, seen) == ("open", None, {})


async def test_an_owner_that_looks_again_after_its_lease_was_lost_writes_nothing_that_is_there(
    at: Place,
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    async with at.seen() as seen:
        await look_again(at, log)
    assert (log.state, log.outages, seen) == ("open", 0, {})


async def test_what_is_too_much_for_one_entry_goes_in_several(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    half = b"x" * 700_000 + b"\n\n"
    async with at.seen() as seen:
        at.writer.append(log, [half, half, b"4\n\n"])
        await at.written()
    assert seen == {"log:A#1-2": {"n": b"2", "f": half}, "log:A#1-4": {"n": b"3", "f": half + b"4\n\n"}}


async def test_a_new_owner_s_frames_leave_those_of_the_former_one(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.claim("A", force=True)
    log = await at.log("A", epoch=2, frames=[])
    log.committed = 0
    async with at.seen() as seen:
        at.writer.append(log, [b"all\n\n"])
        await at.written()
    assert seen == {"log:A#2-1": {"n": b"1", "f": b"all\n\n"}}


async def test_a_snapshot_that_comes_while_a_batch_is_under_way_is_what_counts(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    attempt = at.redis.attempt

    async def and_then_a_snapshot(commands: Sequence[Any]) -> list[Any]:
        replies = await attempt(commands)
        if commands[0].name == "XADD" and log.first == 1:
            at.writer.snapshot(log, b"all\n\n")
        return replies

    monkeypatch.setattr(at.redis, "attempt", and_then_a_snapshot)
    at.writer.append(log, [b"2\n\n"])
    await at.written()
    assert await at.held("log:A#") == {"log:A#1-3": {"n": b"3", "f": b"all\n\n"}}
    assert (log.committed, log.sent) == (3, None)


async def test_a_log_that_is_dropped_while_its_end_is_under_way_stays_somebody_else_s(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    attempt = at.redis.attempt

    async def and_then_dropped(commands: Sequence[Any]) -> list[Any]:
        replies = await attempt(commands)
        at.writer.drop(log)
        return replies

    monkeypatch.setattr(at.redis, "attempt", and_then_dropped)
    await at.end("A", log=log)
    await at.written()
    assert log.state == "fenced"


async def test_a_batch_whose_fate_is_unknown_is_sent_again_before_the_end(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A", frames=[b"1\n\n", b"2\n\n", b"3\n\n"])
    log.sent = (2, b"2\n\n")
    await at.end("A", "requires_action", log=log)
    assert await at.held("log:A#") == {
        "log:A#1-1": {"n": b"1", "f": at.frame("processing")},
        "log:A#1-2": {"n": b"2", "f": b"2\n\n"},
        "log:A#1-4": {"n": b"3", "f": b"3\n\nend\n\n"},
    }


async def test_what_was_sent_and_is_not_there_is_sent_again(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A", frames=[b"1\n\n", b"2\n\n"])
    log.sent = (2, b"2\n\n")
    async with at.seen() as seen:
        await look_again(at, log)
    assert seen == {"log:A#1-2": {"n": b"2", "f": b"2\n\n"}}


async def test_the_ids_are_told_again_when_redis_may_have_lost_them(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await commit_ids(at, log, "z-1", "c-1", "bot-a")
    await at.do("HDEL", at.keys.run(at.cid("A")), "coze_chat_id")
    async with at.seen() as seen:
        await look_again(at, log)
    assert seen == {"run:A.coze_chat_id": "z-1"}


@pytest.mark.parametrize("step", ["ids", "end", "frames"])
async def test_a_redis_that_has_forgotten_its_scripts_is_told_them_again(step: str, at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.redis.on_each("SCRIPT", "FLUSH")
    if step == "ids":
        await commit_ids(at, log, "z-1", "c-1", "bot-a")
        assert (await at.run("A"))["coze_chat_id"] == "z-1"
    elif step == "end":
        await at.end("A", log=log)
        assert log.state == "committed"
    else:
        await at.leases.renew([(at.cid("A"), 1)])
        assert await at.leases.expired() == []
        await at.leases.release([(at.cid("A"), 1)])
        assert await at.leases.expired() == [(at.cid("A"), 1)]


@pytest.mark.parametrize("what", ["log", "run"])
async def test_what_redis_refuses_is_tried_until_it_takes_it(what: str, at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    key = at.keys.log(at.cid("A")) if what == "log" else at.keys.run(at.cid("A"))
    await at.do("RENAME", key, f"{key}:aside")
    await at.do("SET", key, "odd", "PX", DAY)
    tried = at.writer.pipelines
    if what == "log":
        at.writer.append(log, [b"2\n\n"])
    else:
        at.writer.finish(log, [b"end\n\n"], ChatEnd(at.record("A", "completed"), 1, packed=b"packed"))
    async with asyncio.timeout(BOUND):
        while at.writer.pipelines < tried + 3:
            await asyncio.sleep(0.005)
    assert (log.state, log.committed) == ("open" if what == "log" else "unsaved", 1)
    await at.do("RENAME", f"{key}:aside", key)
    await at.written()
    assert (log.state, log.committed) == ("open" if what == "log" else "committed", 2)
    assert list(await at.held("log:A#1-2")) == ["log:A#1-2"]


async def test_readers_of_an_end_do_not_wait_for_frames_that_redis_refuses(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    key = at.keys.log(at.cid("A"))
    await at.do("RENAME", key, f"{key}:aside")
    await at.do("SET", key, "odd", "PX", DAY)
    at.writer.append(log, [b"2\n\n"])
    async with asyncio.timeout(BOUND):
        while log.sent is None:  # so that the end has to wait for these frames
            await asyncio.sleep(0.005)
        at.writer.finish(log, [b"end\n\n"], ChatEnd(at.record("A", "completed"), 1, packed=b"packed"))
        await until(lambda: log.state != "open", log.settled)
    assert log.state == "unsaved"
    await at.redis.wait_open()  # a busy machine's probe may have been late
    await at.do("RENAME", f"{key}:aside", key)
    await at.written()
    assert log.state == "committed"


# -- written again -------------------------------------------------------------------------------------


async def test_a_log_that_is_lost_alone_is_written_again_and_lives_as_long_as_its_run(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A", frames=[b"1\n\n", b"2\n\n"])
    await at.do("DEL", at.keys.log(at.cid("A")))
    async with at.seen() as seen:
        await look_again(at, log)
    assert (log.state, log.committed) == ("open", 2)
    assert seen == {
        "log:A": SESSION + HOLD + TOMBSTONE,
        "log:A#1-2": {"n": b"1", "f": b"1\n\n2\n\n"},
    }


async def test_a_log_that_is_written_again_lives_for_a_whole_chat_at_least(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.do("DEL", at.keys.log(at.cid("A")))
    await at.do("PEXPIRE", at.keys.run(at.cid("A")), MINUTE)
    await look_again(at, log)
    assert (await at.held("log:A"))["log:A"] == HOLD


async def test_a_log_that_has_gone_back_to_an_earlier_epoch_is_written_again(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.claim("A", force=True)
    await at.do("XDEL", at.keys.log(at.cid("A")), "2-0")
    log = await at.log("A", epoch=2, frames=[b"all\n\n"])
    await look_again(at, log)
    assert await at.held("log:A#") == {"log:A#2-1": {"n": b"1", "f": b"all\n\n"}}


async def test_frames_for_a_log_that_is_gone_bring_it_back_as_a_whole(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.do("DEL", at.keys.log(at.cid("A")))
    at.writer.append(log, [b"2\n\n"])
    await at.written()
    assert await at.held("log:A#") == {"log:A#1-2": {"n": b"1", "f": b"1\n\n2\n\n"}}


async def test_a_log_of_which_the_end_is_lost_is_written_again_as_a_whole(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A", frames=[b"1\n\n", b"2\n\n"])
    log.committed = 2
    async with at.seen() as seen:
        await look_again(at, log)
    assert seen == {"log:A#1-1": None, "log:A#1-2": {"n": b"1", "f": b"1\n\n2\n\n"}}


async def test_where_redis_came_back_empty_the_owner_writes_chat_and_session_again(
    at: Place, clock: Clock
) -> None:
    await at.open(metadata={"a": "b"})
    await at.say("A")
    log = await at.log("A")
    before = await at.held("session:", "chats:", "order:", "run:", "log:", "leases")
    await at.redis.on_each("FLUSHDB")
    clock.now += 50 * SECOND
    await look_again(at, log)
    after = await at.held("session:", "chats:", "order:", "run:", "log:", "leases", "queue")
    assert log.state == "open"
    assert after == {
        **before,
        **whole_life("A", runs=True),
        "session:S.created": -50 * SECOND,
        "session:S.updated": -50 * SECOND,
        "session:S.indexed": -50 * SECOND,
        "log:A#1-1": {"n": b"1", "f": b"1\n\n"},
    }


async def test_a_chat_is_written_again_in_the_epoch_and_state_that_it_has_now(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A", epoch=3)
    log.origin.run.extend([b"state", b"ready"])
    await at.redis.on_each("FLUSHDB")
    await look_again(at, log)
    assert {name: (await at.run("A"))[name] for name in ("epoch", "state", "request")} == {
        "epoch": "3",
        "state": "started",
        "request": '{"message":"hello"}',
    }
    assert sorted(await at.held("leases.", "log:A#")) == ["leases.A:3", "log:A#3-1"]


async def test_a_session_that_others_have_written_already_is_only_told_what_runs_in_it(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.lose("A")
    await at.do("HSET", at.keys.session(at.sid("S")), "running", "", "count", "9")
    await look_again(at, log)
    held = await at.held("session:", "order:")
    assert (held["session:S.running"], held["session:S.count"], held["order:S="]) == ("A", "9", ["A"])


async def test_a_chat_that_is_written_again_is_its_session_s_newest_and_there_once(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    log = await at.log("A")
    await at.lose("A")
    await look_again(at, log)
    assert (await at.held("order:"))["order:S="] == ["A", "B"]


@pytest.mark.parametrize("why", ["claimed", "ended", "erased", "record expired"])
async def test_what_is_not_lost_but_somebody_s_doing_is_not_written_again(why: str, at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    chats = at.keys.chats(at.sid("S"))
    if why == "claimed":
        await at.claim("A", force=True)
        await at.do("DEL", at.keys.log(at.cid("A")))
    elif why == "ended":
        await at.end("A", log=await at.log("A"))
        await at.do("HDEL", at.keys.session(at.sid("S")), "ended")
        await at.do("DEL", at.keys.log(at.cid("A")))
    elif why == "erased":
        await at.users.erase(log.origin.session)
    else:
        await at.end("A", log=await at.log("A"))
        await at.do("DEL", chats, at.keys.log(at.cid("A")))
    async with at.seen() as seen:
        await look_again(at, log)
    assert (log.state, seen) == ("fenced", {})


async def test_a_session_in_which_another_chat_ended_last_loses_nothing(at: Place) -> None:
    await at.open()
    await at.say("first")
    await at.end("first")
    await at.say("A")
    log = await at.log("A")
    await at.lose("A")
    await look_again(at, log)
    assert log.state == "open"
    assert (await at.held("chats:"))["chats:(S).owner"] == ME.owner
