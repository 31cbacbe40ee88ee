"""Leases, the cancel flag, Coze's ids: what is done for a running chat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.redis_client import Command, RedisRefused
from app.stores.leases import CancelTicket
from app.stores.scripts import chat_ids, lease_release

from .place import (
    BOUND,
    DAY,
    HOUR,
    LEASE,
    SECOND,
    SESSION,
    Clock,
    Place,
    commit_ids,
)

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
    await at.do("ZADD", at.leases_key(), *members)
    await at.do("PEXPIRE", at.leases_key(), DAY)
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
    assert await at.redis.run(lease_release(leases=at.leases_key(), members=members)) == 1
    assert await at.redis.run(lease_release(leases=at.leases_key(), members=members[1:])) == 0


async def test_what_redis_says_against_leases_is_raised(at: Place) -> None:
    await at.redis.run(Command[bytes]("SET", at.leases_key(), "odd", "PX", DAY))
    with pytest.raises(RedisRefused):
        await at.leases.renew([(at.cid("A"), 1)])
    with pytest.raises(RedisRefused):
        await at.leases.release([(at.cid("A"), 1)])


async def test_all_leases_of_a_process_are_renewed_in_one_pipeline(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.open()
    await at.say("A")
    await at.leases.renew([(at.cid("A"), 1)])  # Redis knows the script from here on
    pipeline, sent = at.redis.pipeline, []

    async def counted(commands: Sequence[Any]) -> list[Any]:
        if commands:
            sent.append(commands)
        return await pipeline(commands)

    monkeypatch.setattr(at.redis, "pipeline", counted)
    await at.leases.renew([(at.cid("A"), 1), (at.cid("B"), 1)])
    assert [len(commands) for commands in sent] == [1]
    await at.leases.renew([])
    assert len(sent) == 1


async def test_the_session_of_a_chat_is_known_until_that_is_over(at: Place) -> None:
    await at.open()
    await at.say("A")
    assert await at.leases.session_of(at.cid("A")) == at.sid("S")
    await at.end("A")
    assert await at.leases.session_of(at.cid("A")) is None
    assert await at.leases.run_ids(at.cid("A")) == (0, "")


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
    await at.do("HDEL", at.keys.run(at.cid("A")), "process")
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
    assert log.ids_stored, "nobody is told ids that no replica would find"
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
    await at.do("DEL", at.keys.session(at.sid("S")))
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
        await at.do("DEL", at.keys.run(at.cid("A")))
    async with at.seen() as seen:
        await commit_ids(at, log, "z-1", "c-1", "bot-a")
    assert seen == {}
    assert not log.ids_stored


async def test_ids_that_redis_refuses_are_sent_until_it_takes_them_whatever_else_it_takes(at: Place) -> None:
    await at.open()
    await at.say("A")
    log, run = await at.log("A"), at.keys.run(at.cid("A"))
    await at.do("RENAME", run, f"{run}:aside")
    await at.do("SET", run, "odd", "PX", DAY)
    at.writer.commit_ids(log, "z-1", "c-1", "bot-a")
    at.writer.append(log, [b"2\n\n"])
    async with asyncio.timeout(BOUND):
        while log.committed < 2:
            await asyncio.sleep(0.005)
    assert log.ids is not None
    assert not log.ids_stored
    await at.redis.wait_open()  # a busy machine's probe may have been late
    await at.do("RENAME", f"{run}:aside", run)
    await at.written()
    assert log.ids_stored
    assert await at.leases.run_ids(at.cid("A")) == (1, "z-1")


async def test_the_reply_tells_whether_the_ids_were_kept(at: Place) -> None:
    await at.open()
    await at.say("A")
    values = {"chat": at.cid("A"), "coze_chat": "z", "conversation": "c", "credential": "b"}
    for epoch, stored in ("1", 1), ("2", 0):
        command = chat_ids(at=at.keys.of_session(at.sid("S")), epoch=epoch, **values)
        assert await at.redis.run(command) == stored
