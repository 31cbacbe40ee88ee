"""Leases, the cancel flag, Coze's ids, a log that is written again: what is done for a running chat."""

from __future__ import annotations

import asyncio

import pytest

from app.stores.open_log import OpenLog
from app.stores.leases import CancelTicket

from .place import DAY, HOLD, HOUR, LEASE, ME, MINUTE, SECOND, SESSION, TOMBSTONE, Clock, Place, whole_life

# -- leases --------------------------------------------------------------------------------------------


async def test_renewing_moves_what_is_there_and_tells_what_is_gone(at: Place) -> None:
    await at.open()
    await at.open("T")
    await at.say("A")
    await at.say("B", "T")
    await at.age(25 * SECOND)
    async with at.seen() as seen:
        lost = await at.leases.renew([(at.cid("A"), 1), (at.cid("B"), 7), (at.cid("C"), 1)])
    assert lost == [(at.cid("B"), 7), (at.cid("C"), 1)]
    assert seen == {"leases.A:1": LEASE, "leases": LEASE + DAY}


async def test_renewing_what_is_gone_brings_nothing_back(at: Place) -> None:
    assert await at.leases.renew([(at.cid("A"), 1)]) == [(at.cid("A"), 1)]
    assert await at.dump() == {}


async def test_renewing_where_nothing_is_left_does_not_keep_others_leases_alive(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.age(HOUR)
    async with at.seen() as seen:
        await at.leases.renew([(at.cid("B"), 1)])
    assert seen == {}


async def test_renewing_a_lease_never_shortens_what_others_need(at: Place) -> None:
    await at.open()
    await at.open("T")
    await at.say("A")
    await at.wait_for_tools("A")
    await at.say("B", "T")
    before = (await at.held("leases"))["leases"]
    await at.leases.renew([(at.cid("B"), 1)])
    assert (await at.held("leases"))["leases"] == before == SESSION + DAY


async def test_leases_are_found_from_the_moment_on_at_which_they_run_out(at: Place, clock: Clock) -> None:
    await at.open()
    await at.open("T")
    await at.say("A")
    clock.now += SECOND
    await at.say("B", "T")
    assert await at.due() == []
    clock.now += LEASE - SECOND - 1
    assert await at.due() == []
    clock.now += 1
    assert await at.due() == [(at.cid("A"), 1)]
    clock.now += SECOND
    assert await at.due() == [(at.cid("A"), 1), (at.cid("B"), 1)]


async def test_a_look_for_leases_brings_the_oldest_and_not_all_at_once(at: Place) -> None:
    members = [part for number in range(30) for part in (number, f"{at.cid('A')}:{number}")]
    await at.redis.command("ZADD", at.leases_key(), *members)
    await at.redis.command("PEXPIRE", at.leases_key(), DAY)
    assert await at.due() == [(at.cid("A"), number) for number in range(20)]


async def test_released_leases_are_for_the_next_one_at_once(at: Place) -> None:
    await at.open()
    await at.say("A")
    async with at.seen() as seen:
        await at.leases.release([(at.cid("A"), 1), (at.cid("B"), 1)])
    assert seen == {"leases.A:1": "0"}
    assert await at.due() == [(at.cid("A"), 1)]


async def test_a_release_tells_how_many_leases_were_still_there(at: Place) -> None:
    await at.open()
    await at.say("A")
    members = [f"{at.cid('A')}:1", f"{at.cid('B')}:1"]
    assert await at.redis.run(at.leases._release, [at.leases_key()], members) == 1
    assert await at.redis.run(at.leases._release, [at.leases_key()], members[1:]) == 0


# -- cancelling ----------------------------------------------------------------------------------------


async def test_cancelling_a_running_chat_raises_a_flag_and_names_its_owner(at: Place) -> None:
    await at.open()
    await at.say("A")
    async with at.seen() as seen:
        ticket = await at.leases.cancel(at.cid("A"), at.sid("S"))
    assert ticket == CancelTicket("started", 1, at.process)
    assert seen == {"run:A.cancel": "1"}


async def test_cancelling_a_running_chat_without_a_named_owner(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.redis.command("HDEL", at.keys.run(at.cid("A")), "process")
    assert await at.leases.cancel(at.cid("A"), at.sid("S")) == CancelTicket("started", 1, "")


async def test_cancelling_a_waiting_chat_lets_anybody_end_it_soon(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    async with at.seen() as seen:
        ticket = await at.leases.cancel(at.cid("A"), at.sid("S"))
    assert ticket == CancelTicket("waiting", 1, "")
    assert seen == {"run:A.cancel": "1", "leases.A:1": LEASE}


async def test_cancelling_a_queued_chat_takes_it_out_of_the_queue_with_a_lease(at: Place) -> None:
    await at.open()
    await at.say("A")
    for chat in "BCD":
        await at.say(chat, on_busy="enqueue")
    async with at.seen() as seen:
        ticket = await at.leases.cancel(at.cid("C"), at.sid("S"))
    assert ticket == CancelTicket("ready", 1, "")
    assert seen == {
        "run:C.cancel": "1",
        "run:C.state": "ready",
        "queue:S=": ["B", "D"],
        "queued.C": None,
        "leases.C:1": LEASE,
    }


async def test_cancelling_a_chat_that_is_over_changes_nothing(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.end("A")
    async with at.seen() as seen:
        assert await at.leases.cancel(at.cid("A"), at.sid("S")) == CancelTicket("gone")
    assert seen == {}


async def test_counting_what_is_queued(at: Place) -> None:
    await at.open()
    await at.say("A")
    assert await at.leases.queued() == 0
    await at.say("B", on_busy="enqueue")
    assert await at.leases.queued() == 1


# -- Coze's ids ----------------------------------------------------------------------------------------


async def commit_ids(at: Place, log: OpenLog, *ids: str) -> None:
    at.writer.commit_ids(log, *ids)
    async with asyncio.timeout(10):
        while log.ids is not None:
            await asyncio.sleep(0.005)


async def test_coze_s_ids_are_kept_with_the_run_and_the_first_conversation_with_the_session(
    at: Place,
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    async with at.seen() as seen:
        await commit_ids(at, log, "z-1", "c-1", "bot-a")
    assert seen == {
        "run:A.coze_chat_id": "z-1",
        "run:A.conversation_id": "c-1",
        "run:A.credential": "bot-a",
        "session:S.conversation_id": "c-1",
        "session:S.credential": "bot-a",
        "session:S.seeded": "1",
    }
    assert await at.leases.run_ids(at.cid("A")) == (1, "z-1")
    async with at.seen() as seen:
        await commit_ids(at, log, "", "c-2", "bot-b")
    assert seen == {"run:A.conversation_id": "c-2", "run:A.credential": "bot-b"}


async def test_a_chat_without_a_conversation_yet_tells_its_own_id_alone(at: Place) -> None:
    await at.open()
    await at.say("A")
    async with at.seen() as seen:
        await commit_ids(at, await at.log("A"), "z-1", "", "bot-a")
    assert seen == {"run:A.coze_chat_id": "z-1"}


async def test_ids_make_no_session_where_there_is_none(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.redis.command("DEL", at.keys.session(at.sid("S")))
    await commit_ids(at, log, "z-1", "c-1", "bot-a")
    assert await at.held("session:") == {}
    assert (await at.run("A"))["conversation_id"] == "c-1"


@pytest.mark.parametrize("owner", ["another", "nobody"])
async def test_the_ids_of_a_former_owner_are_not_kept(owner: str, at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    if owner == "another":
        await at.claim("A", force=True)
    else:
        await at.redis.command("DEL", at.keys.run(at.cid("A")))
    async with at.seen() as seen:
        await commit_ids(at, log, "z-1", "c-1", "bot-a")
    assert seen == {}


async def test_the_reply_tells_whether_the_ids_were_kept(at: Place) -> None:
    await at.open()
    await at.say("A")
    keys = [at.keys.run(at.cid("A")), at.keys.session(at.sid("S"))]
    assert await at.redis.run(at.writer._ids, keys, [1, "z", "c", "b"]) == 1
    assert await at.redis.run(at.writer._ids, keys, [2, "z", "c", "b"]) == 0


# -- the log -------------------------------------------------------------------------------------------


async def written(log: OpenLog) -> None:
    async with asyncio.timeout(10):
        while log.committed < log.last and log.state == "open":
            await asyncio.sleep(0.005)


async def test_frames_are_appended_as_one_entry_that_names_its_first_and_last(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    async with at.seen() as seen:
        at.writer.append(log, [b"2\n\n", b"3\n\n"])
        assert (log.visible, log.size) == (3, 6)
        await written(log)
    assert seen == {"log:A#1-3": {"n": b"2", "f": b"2\n\n3\n\n"}}


async def test_a_snapshot_takes_what_is_before_it_out_of_the_log(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    at.writer.append(log, [b"2\n\n"])
    await written(log)
    async with at.seen() as seen:
        at.writer.snapshot(log, b"all\n\n")
        await written(log)
    assert seen == {"log:A#1-1": None, "log:A#1-2": None, "log:A#1-3": {"n": b"3", "f": b"all\n\n"}}
    assert (log.first, log.trim, log.visible) == (3, False, 3)


async def test_a_former_owner_s_frames_are_refused_and_it_learns_that_it_is_one(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.claim("A", force=True)
    async with at.seen() as seen:
        at.writer.append(log, [b"2\n\n"])
        await written(log)
    assert (log.state, seen) == ("fenced", {})
    assert at.writer.backlog == 0


async def test_an_entry_whose_answer_was_lost_is_not_written_twice(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.redis.command("XADD", at.keys.log(at.cid("A")), "1-2", "n", "2", "f", "2\n\n")
    async with at.seen() as seen:
        at.writer.append(log, [b"2\n\n"])
        await written(log)
    assert (log.state, log.sent, seen) == ("open", None, {})


async def test_an_owner_that_looks_again_after_its_lease_was_lost_writes_nothing_that_is_there(
    at: Place,
) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    async with at.seen() as seen:
        at.writer.look_again(log)
        async with asyncio.timeout(10):
            while at.writer.backlog:
                await asyncio.sleep(0.005)
    assert (log.state, log.outages, seen) == ("open", 0, {})


# -- written again -------------------------------------------------------------------------------------


async def look_again(at: Place, log: OpenLog) -> None:
    at.writer.look_again(log)
    async with asyncio.timeout(10):
        while at.writer.backlog:
            await asyncio.sleep(0.005)


async def test_a_log_that_is_lost_alone_is_written_again_and_lives_as_long_as_its_run(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A", frames=[b"1\n\n", b"2\n\n"])
    await at.redis.command("DEL", at.keys.log(at.cid("A")))
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
    await at.redis.command("DEL", at.keys.log(at.cid("A")))
    await at.redis.command("PEXPIRE", at.keys.run(at.cid("A")), MINUTE)
    await look_again(at, log)
    assert (await at.held("log:A"))["log:A"] == HOLD


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
    await at.redis.client.flushdb()
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
    await at.redis.client.flushdb()
    await look_again(at, log)
    assert {name: (await at.run("A"))[name] for name in ("epoch", "state", "request")} == {
        "epoch": "3",
        "state": "started",
        "request": "{}",
    }
    assert sorted(await at.held("leases.", "log:A#")) == ["leases.A:3", "log:A#3-1"]


async def test_a_session_that_others_have_written_already_is_only_told_what_runs_in_it(at: Place) -> None:
    await at.open()
    await at.say("A")
    log = await at.log("A")
    await at.lose("A")
    await at.redis.command("HSET", at.keys.session(at.sid("S")), "running", "", "count", "9")
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
    run, chats = at.keys.run(at.cid("A")), at.keys.chats(at.sid("S"))
    if why == "claimed":
        await at.claim("A", force=True)
        await at.redis.command("DEL", at.keys.log(at.cid("A")))
    elif why == "ended":
        await at.redis.command("DEL", run, at.keys.log(at.cid("A")))
    elif why == "erased":
        await at.users.erase(log.origin.session)
    else:
        await at.end("A", log=await at.log("A"))
        await at.redis.command("DEL", chats, at.keys.log(at.cid("A")))
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
