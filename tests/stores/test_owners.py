"""What a process does about leases: it renews its own, claims what has run out, and goes on with it.

The stores, the chats that run and the keeper of leases are real; what a chat does at Coze is stood in for by
something that waits until it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from app.exceptions import InternalError, RedisUnavailable, SessionExpired
from app.observing.metrics import Metrics
from app.observing.tracing import Tracing
from app.redis_client import Command
from app.stores.leases import MAX_CLAIMS, RunState
from app.stores.log_reader import LogReader
from app.stores.open_log import ChatEnd
from app.tasks.job import Fresh, GiveUp, Job, Recover
from app.tasks.lease_keeper import LeaseKeeper
from app.tasks.places import Places
from app.tasks.runner import Runner
from app.tasks.running import RunningChats
from app.utils.signals import until
from tests.support import wait_until

from .place import BOUND, HOUR, LEASE, MINUTE, SECOND, SESSION, Clock, Place, layers


class _Runner:
    """Ends a chat when it is cancelled, and does nothing before."""

    def __init__(self, at: Place) -> None:
        self._at = at

    async def run(self, job: Job) -> None:
        await until(lambda: job.cancelled, job.changed)
        record = job.chat.model_copy(update={"status": "cancelled"}).model_dump_json().encode()
        self._at.writer.finish(job.log, [b"end\n\n"], ChatEnd(record, 1, packed=b"packed"))


class Owner:
    """A process that may own chats."""

    def __init__(self, at: Place) -> None:
        self._at = at
        self.metrics = Metrics()
        self.looks = 0
        self.chats = RunningChats(
            runner=cast(Runner, _Runner(at)),
            writer=at.writer,
            leases=at.leases,
            logs=LogReader(at.redis, at.keys, at.process),
            metrics=self.metrics,
            tracing=Tracing(),
            conversations=at.conversations,
            failures=at.failures,
            sessions=at.sessions,
            usage=at.usage,
            places=Places(layers("chats")),
        )
        self.keeper = LeaseKeeper(at.redis, at.leases, self.chats, scan_seconds=self._look)

    @property
    def takeovers(self) -> int:
        """As the metrics tell them."""
        [family] = self.metrics.takeovers.collect()
        return int(next(sample.value for sample in family.samples if sample.name.endswith("_total")))

    def _look(self) -> float:
        self.looks += 1
        return 0.005

    async def take_over(
        self, chat: str, *, epoch: int | None = 1, force: bool = True, expect: RunState | None = None
    ) -> Job | None:
        return await self.chats.take_over(
            self._at.cid(chat), self._at.sid("S"), epoch=epoch, force=force, expect=expect
        )

    async def looked(self, times: int = 5) -> None:
        """Returns when it has looked for leases so often."""
        looks = self.looks
        await wait_until(lambda: self.looks >= looks + times, BOUND)

    def job(self, chat: str) -> Job | None:
        return self.chats.get(self._at.cid(chat))


@pytest.fixture
async def owner(at: Place) -> AsyncIterator[Owner]:
    owner = Owner(at)
    yield owner
    await owner.chats.stop()


async def due(at: Place, chat: str, epoch: int = 1) -> None:
    """Its lease has run out."""
    await at.redis.run(Command[int]("ZADD", at.leases_key(), "XX", 0, f"{at.cid(chat)}:{epoch}"))


# -- taking over -----------------------------------------------------------------------------------------


async def test_a_chat_that_is_taken_over_opens_with_a_snapshot_behind_what_was_there(
    at: Place, owner: Owner
) -> None:
    await at.open()
    await at.say("A")
    job = await owner.take_over("A")
    assert job is not None
    assert owner.job("A") is job
    assert (job.log.epoch, job.start, job.at_coze) == (2, Recover(), True)
    assert [entry.epoch for entry in job.log.earlier] == [1, 2]
    assert job.log.frames == [job.fold.snapshot_frame()]
    assert owner.takeovers == 1


async def test_a_chat_that_nobody_has_begun_starts_with_its_first_frame(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.end("A")
    job = await owner.take_over("B", expect="ready")
    assert job is not None
    assert (job.log.epoch, job.start, job.log.earlier, len(job.log.frames)) == (1, Fresh(), [], 1)
    assert b'"pending"' in job.log.frames[0]
    assert owner.takeovers == 0


async def test_what_is_not_to_be_had_is_not_started(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    assert await owner.take_over("A", force=False) is None
    assert (owner.job("A"), len(owner.chats), owner.takeovers) == (None, 0, 0)


async def test_a_process_that_gives_its_chats_away_takes_none(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    owner.chats.handing_over = True
    async with at.seen() as seen:
        assert await owner.take_over("A") is None
    assert seen == {}


async def test_a_chat_that_was_begun_too_often_is_given_up(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    for epoch in range(1, MAX_CLAIMS + 1):
        await at.claim("A", epoch=epoch, force=True)
    job = await owner.take_over("A", epoch=MAX_CLAIMS + 1)
    assert job is not None
    assert isinstance(job.start, GiveUp)
    assert isinstance(job.start.error, InternalError)
    assert owner.takeovers == 1


async def test_a_chat_that_waited_until_its_session_s_end_is_given_up(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    await at.age(SESSION + MINUTE)
    job = await owner.take_over("A")
    assert job is not None
    assert isinstance(job.start, GiveUp)
    assert isinstance(job.start.error, SessionExpired)
    assert owner.takeovers == 0


async def test_going_on_with_tool_outputs_is_no_takeover(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    assert await owner.take_over("A", expect="waiting") is not None
    assert owner.takeovers == 0


# -- what follows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["ours", "anybody's"])
async def test_the_next_of_the_queue_starts_where_the_last_one_ended(
    whose: str, at: Place, owner: Owner
) -> None:
    """Unless that process drains: then the lease has run out from the start, and it is anybody's."""
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    job = await owner.take_over("A")
    assert job is not None
    at.writer.draining = whose == "anybody's"
    job.cancel()
    await wait_until(lambda: owner.job("A") is None, BOUND)
    assert (owner.job("B") is not None) == (whose == "ours")
    assert (await at.run("B"))["state"] == ("started" if whose == "ours" else "ready")


async def test_where_nothing_is_queued_nothing_starts(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    job = await owner.take_over("A")
    assert job is not None
    job.cancel()
    await wait_until(lambda: owner.job("A") is None, BOUND)
    assert (len(owner.chats), job.log.next_chat, job.log.state) == (0, None, "committed")


# -- leases that are gone --------------------------------------------------------------------------------


async def test_whose_lease_is_gone_writes_again_what_redis_has_lost(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    job = await owner.take_over("A")
    assert job is not None
    await at.written()
    await at.lose("A")
    await at.leases.drop(at.cid("A"), 2)
    owner.keeper.start()
    await wait_until(lambda: at.redis.run(Command[int]("EXISTS", at.keys.run(at.cid("A")))), BOUND)
    await at.written()
    assert job.log.state == "open"
    assert (await at.held("leases."))["leases.A:2"] == LEASE


LATE: list[tuple[str, str, int, bool]] = [
    ("its chat is over", "B", 1, False),
    ("it is of another epoch", "A", 7, False),
    ("its chat is just ending", "A", 2, True),
]


@pytest.mark.parametrize(("why", "chat", "epoch", "ends"), LATE, ids=[why for why, *_ in LATE])
async def test_a_lease_that_is_gone_for_a_good_reason_makes_nobody_look(
    why: str, chat: str, epoch: int, ends: bool, at: Place, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of this may have come to pass while the renewal was under way."""
    await at.open()
    await at.say("A")
    job = await owner.take_over("A")
    assert job is not None
    if ends:
        job.log.end = ChatEnd(b"", 0)
    renewals, looked_at = 0, list[Job]()

    async def renew(held: Any) -> list[tuple[str, int]]:
        nonlocal renewals
        renewals += 1
        return [(at.cid(chat), epoch)]

    monkeypatch.setattr(at.leases, "renew", renew)
    monkeypatch.setattr(RunningChats, "lease_is_gone", lambda _, gone: looked_at.append(gone))
    owner.keeper.start()
    await wait_until(lambda: renewals, BOUND)
    await owner.looked()
    assert looked_at == []


# -- leases that have run out ----------------------------------------------------------------------------


async def test_a_lease_that_has_run_out_is_claimed_by_whoever_finds_it(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await due(at, "A")
    owner.keeper.start()
    job: Job = await wait_until(lambda: owner.job("A"), BOUND)
    assert (job.log.epoch, (await at.held("leases."))["leases.A:2"]) == (2, LEASE)


async def test_the_lease_of_a_chat_that_is_over_is_taken_away(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await at.end("A")
    await at.redis.run(Command[int]("ZADD", at.leases_key(), 1, f"{at.cid('A')}:1"))
    await at.redis.run(Command[int]("PEXPIRE", at.leases_key(), 60_000))
    owner.keeper.start()

    async def gone() -> bool:  # not by a dump, whose keys may go while they are looked at
        return bool(await at.do("ZCARD", at.leases_key()) == 0)

    await wait_until(gone, BOUND)
    assert len(owner.chats) == 0


async def test_a_chat_whose_run_redis_threw_away_is_taken_over_by_its_record(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await at.redis.run(Command[int]("DEL", at.keys.run(at.cid("A"))))
    await due(at, "A")
    owner.keeper.start()
    job: Job = await wait_until(lambda: owner.job("A"), BOUND)
    assert (job.log.epoch, job.start) == (2, Recover())


async def test_a_chat_of_one_s_own_whose_lease_is_late_is_not_claimed(
    at: Place, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.open()
    await at.say("A")
    job = await owner.take_over("A")
    monkeypatch.setattr(owner.keeper, "_until_busy", asyncio.Event().wait)  # the renewal is late
    await due(at, "A", 2)
    owner.keeper.start()
    await owner.looked()
    assert owner.job("A") is job
    assert (await at.run("A"))["epoch"] == "2"


async def test_a_chat_that_was_taken_away_comes_back_when_its_owner_is_gone(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    await owner.take_over("A")
    await at.claim("A", epoch=2, force=True)
    await due(at, "A", 3)
    owner.keeper.start()

    def ours_again() -> bool:
        job = owner.job("A")
        return job is not None and job.log.epoch == 4

    await wait_until(ours_again, BOUND)


async def test_one_that_cannot_be_claimed_does_not_keep_the_others_waiting(
    at: Place, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.open()
    await at.open("T")
    await at.say("A")
    await at.say("B", "T")
    session_of, refused = at.leases.session_of, 0

    async def of_all_but_one(chat_id: str) -> str | None:
        nonlocal refused
        if chat_id == at.cid("A"):
            refused += 1
            raise RedisUnavailable
        return await session_of(chat_id)

    monkeypatch.setattr(at.leases, "session_of", of_all_but_one)
    await due(at, "A")
    await due(at, "B")
    owner.keeper.start()
    await wait_until(lambda: owner.job("B"), BOUND)
    looks = owner.looks
    await wait_until(lambda: refused >= 3, BOUND)
    assert owner.looks == looks, "what went wrong is told, and not taken for a look that has ended"


@pytest.mark.parametrize("why", ["trouble", "leaving"])
async def test_nothing_is_claimed_after_trouble_or_by_a_process_that_leaves(
    why: str, at: Place, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage every lease may have run out while its owner lives: for its length nobody claims."""
    await at.open()
    await at.open("T")
    await at.say("A")
    await at.say("B", "T")
    assert await owner.take_over("A") is not None
    # So that it is not the renewal's own pace that keeps the lease.
    monkeypatch.setattr(owner.keeper, "_until_busy", asyncio.Event().wait)
    await due(at, "A", 2)
    await due(at, "B")
    if why == "trouble":
        at.redis.outages += 1
    else:
        at.writer.draining = True
    owner.keeper.start()
    await owner.looked()
    assert owner.job("B") is None
    assert (await at.run("B"))["epoch"] == "1"
    assert (await at.held("leases."))["leases.A:2"] == (LEASE if why == "trouble" else "0")


async def test_the_lease_of_a_chat_that_runs_is_renewed(at: Place, owner: Owner, clock: Clock) -> None:
    await at.open()
    await at.say("A")
    await owner.take_over("A")
    clock.now += LEASE - SECOND
    owner.keeper.start()

    async def renewed() -> bool:
        return (await at.held("leases."))["leases.A:2"] == LEASE

    await wait_until(renewed, BOUND)
    assert (await at.held("leases"))["leases"] >= LEASE + HOUR


# -- cancelling over processes ---------------------------------------------------------------------------


async def test_who_is_rung_cancels_the_chat_if_it_is_his(at: Place, owner: Owner) -> None:
    await at.open()
    await at.say("A")
    job = await owner.take_over("A")
    assert job is not None
    await at.leases.notify_owner(at.process, at.cid("not here"))
    await at.leases.notify_owner(at.process, at.cid("A"))
    owner.keeper.start()
    async with asyncio.timeout(BOUND):
        await until(lambda: job.cancelled, job.changed)
