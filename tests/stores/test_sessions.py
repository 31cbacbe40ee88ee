"""Sessions: opened, read, paged, ended, erased; each step with all that it changes in Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from app.exceptions import (
    IdempotencyKeyReused,
    ServiceError,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
)
from app.models import Identity
from app.redis_client import Number
from app.stores.large_reads import SMALL_BYTES
from app.stores.scripts import session_erase, session_page, session_read
from app.stores.sessions import IdempotencyKey

from .place import (
    ADMIN,
    DAY,
    FOREIGN_ADMIN,
    HOLD,
    HOUR,
    LEASE,
    ME,
    MINUTE,
    SECOND,
    SESSION,
    STRANGER,
    TOMBSTONE,
    Clock,
    Place,
    whole_life,
)

# -- opening -------------------------------------------------------------------------------------------


async def test_a_new_session_has_its_time_and_its_records_go_with_it(at: Place) -> None:
    await at.open(metadata={"a": "b"})
    assert await at.held("session:", "chats:", "order:") == {
        "session:S": SESSION + TOMBSTONE,
        "session:S.owner": ME.owner,
        "session:S.status": "active",
        "session:S.created": 0,
        "session:S.updated": 0,
        "session:S.activity": 0,
        "session:S.indexed": 0,
        "session:S.expires": SESSION,
        "session:S.conversation_id": "",
        "session:S.running": "",
        "session:S.seeded": "",
        "session:S.count": "0",
        "session:S.user_id": "u",
        "session:S.bot_id": "bot",
        "session:S.user": "user(me)",
        "session:S.auto_save": "1",
        "session:S.messages": "[]",
        "session:S.metadata": '{"a":"b"}',
        "session:S.idempotency": "",
        "chats:(S)": SESSION,
        "chats:(S).owner": ME.owner,
    }


async def test_opening_a_session_again_changes_nothing_of_it_and_answers_the_same(at: Place) -> None:
    first = await at.open()
    await at.age(MINUTE)
    async with at.seen() as seen:
        again = await at.open(bot_id="another", metadata={"x": "y"})
    assert [name for name in seen if not name.startswith("{index}")] == []
    assert (again.bot_id, again.owner, again.session_id) == (first.bot_id, ME.owner, at.sid("S"))


# -- who may see it, and when it is over ---------------------------------------------------------------

READ_BY: list[tuple[Identity, type[ServiceError] | None]] = [
    (ME, None),
    (ADMIN, None),
    (STRANGER, SessionNotFound),
    (FOREIGN_ADMIN, SessionNotFound),
    (Identity("r.example", "me2"), SessionNotFound),
]


@pytest.mark.parametrize(("who", "error"), READ_BY)
async def test_only_the_owner_and_the_root_s_admins_see_a_session(
    who: Identity, error: type[ServiceError] | None, at: Place
) -> None:
    await at.open()
    await at.age(MINUTE)
    if error is None:
        session, _, _ = await at.sessions.read(at.sid("S"), who, history=0)
        assert session.owner == ME.owner
        assert await at.sessions.page(at.sid("S"), who, limit=1, before="") == ([], False)
        assert (await at.sessions.end(at.sid("S"), who)).session.text(b"status") == "terminated"
        return
    async with at.seen() as seen:
        with pytest.raises(error):
            await at.sessions.read(at.sid("S"), who, history=5)
        with pytest.raises(error):
            await at.sessions.page(at.sid("S"), who, limit=1, before="")
        with pytest.raises(error):
            await at.sessions.end(at.sid("S"), who)
        with pytest.raises(error):
            await at.say("A", who=who)
    assert seen == {}


async def test_redis_tells_nothing_of_a_session_to_whoever_may_not_see_it(at: Place) -> None:
    await at.open()
    who: dict[str, Any] = {
        "at": at.keys.of_session(at.sid("S")),
        "mine": STRANGER.owner,
        "admin_prefix": "",
        "limit": 5,
        "small": 0,
    }
    read = await at.redis.run(session_read(**who, touch=True, session_ttl=SESSION, hold=HOLD))
    page = await at.redis.run(session_page(**who, before=""))
    assert (read, page) == ([b"none", [], [], [], 0, 0], [b"none", [], [], 0, b"", 0])


async def test_redis_reads_nothing_of_a_session_for_whoever_may_not_see_it(at: Place) -> None:
    """By the time that it takes a long one could be told from one that is not there."""
    if at.clock is not None:
        pytest.skip("an embedded Redis does not count its commands")
    await at.open()
    sid = at.sid("S")

    async def wholes() -> object:
        [counted] = await at.redis.info("commandstats")
        return counted.get("cmdstat_hgetall")

    before = await wholes()
    for refused in (
        at.sessions.read(sid, STRANGER, history=5),
        at.sessions.page(sid, STRANGER, limit=1, before=""),
        at.sessions.change(sid, STRANGER, {"title": "mine"}),
        at.sessions.end(sid, STRANGER),
        at.say("A", who=STRANGER),
    ):
        with pytest.raises(SessionNotFound):
            await refused
    assert await wholes() == before
    await at.sessions.read(sid, ME, history=5)
    assert await wholes() != before


async def test_a_page_holds_a_mebibyte_and_the_next_one_goes_on_behind_it(at: Place) -> None:
    """Where it held all that was asked for, a few readers at once made everybody's Redis too slow."""
    await at.open()
    chats, order, names = at.keys.chats(at.sid("S")), at.keys.of_session(at.sid("S")).order, "ABCDE"
    for name, size in zip(names, (300_000, 600_000, 400_000, 3_000_000, 10), strict=True):
        record = orjson.dumps({"chat_id": at.cid(name), "text": "x" * size})
        await at.redis.run(Number("HSET", chats, at.cid(name), record))
        await at.redis.run(Number("RPUSH", order, at.cid(name)))

    _, records, _ = await at.sessions.read(at.sid("S"), ME, history=100)
    assert [orjson.loads(each)["chat_id"] for each in records] == [at.cid("A"), at.cid("B")]
    pages, before, more = [], "", True
    while more:
        found, more = await at.sessions.page(at.sid("S"), ME, limit=100, before=before)
        pages.append([orjson.loads(each)["chat_id"] for each in found])
        before = pages[-1][-1]
    assert pages == [[at.cid(name) for name in page] for page in ("AB", "C", "D", "E")]


async def test_what_is_long_waits_for_a_turn_and_what_is_short_does_not(at: Place) -> None:
    """Many connections that asked for histories at once made Redis too slow for everybody."""
    await at.open()
    await at.open("short")
    chats, order = at.keys.chats(at.sid("S")), at.keys.of_session(at.sid("S")).order
    for name in "AB":
        record = orjson.dumps({"chat_id": at.cid(name), "text": "x" * (SMALL_BYTES // 2)})
        await at.redis.run(Number("HSET", chats, at.cid(name), record))
        await at.redis.run(Number("RPUSH", order, at.cid(name)))

    async with at.large.taken(ME.owner):
        long = [
            asyncio.create_task(at.sessions.read(at.sid("S"), ME, history=2)),
            asyncio.create_task(at.sessions.page(at.sid("S"), ME, limit=2, before="")),
        ]
        _, records, _ = await at.sessions.read(at.sid("S"), ME, history=1)
        page, more = await at.sessions.page(at.sid("S"), ME, limit=1, before="")
        assert (len(records), len(page), more) == (1, 1, True)
        assert (await at.sessions.read(at.sid("short"), ME, history=100))[1] == []
        assert not any(read.done() for read in long)
    (_, records, _), (page, more) = await asyncio.gather(*long)
    assert (len(records), len(page), more) == (2, 2, False)


async def test_a_session_with_long_texts_waits_for_a_turn_and_is_whole(at: Place) -> None:
    texts = [{"role": "user", "content": "x" * SMALL_BYTES}]
    await at.sessions.open(at.sid("S"), ME, user_id="u", bot_id="b", additional_messages=texts)
    async with at.large.taken(ME.owner):
        read = asyncio.create_task(at.sessions.read(at.sid("S"), ME, history=0))
        listed = asyncio.create_task(at.users.sessions(ME, "u", 10))
        assert await at.users.sessions(ME, "another", 10) == []
        assert not any(task.done() for task in (read, listed))
    session, _, _ = await read
    assert session.additional_messages == texts
    assert [each.additional_messages for each in await listed] == [texts]


async def test_a_page_passes_over_what_was_deleted(at: Place) -> None:
    """A page of deleted chats alone could not say where the next one begins, and was a 500."""
    await at.open()
    for name in "ABCD":
        await at.redis.run(Number("RPUSH", at.keys.of_session(at.sid("S")).order, at.cid(name)))
    for name in "BD":
        record = orjson.dumps({"chat_id": at.cid(name)})
        await at.redis.run(Number("HSET", at.keys.chats(at.sid("S")), at.cid(name), record))

    assert len((await at.sessions.read(at.sid("S"), ME, history=4))[1]) == 2
    first, more = await at.sessions.page(at.sid("S"), ME, limit=1, before="")
    assert ([orjson.loads(each)["chat_id"] for each in first], more) == ([at.cid("B")], True)
    second, more = await at.sessions.page(at.sid("S"), ME, limit=1, before=at.cid("B"))
    assert ([orjson.loads(each)["chat_id"] for each in second], more) == ([at.cid("D")], False)
    assert await at.sessions.page(at.sid("S"), ME, limit=1, before=at.cid("D")) == ([], False)


async def test_a_session_that_nobody_has_opened_is_not_found(at: Place) -> None:
    for step in (
        at.sessions.read(at.sid("S"), ME, history=0),
        at.sessions.page(at.sid("S"), ME, limit=1, before=""),
        at.sessions.end(at.sid("S"), ME),
        at.say("A"),
    ):
        with pytest.raises(SessionNotFound):
            await step  # type: ignore[misc]
    assert await at.dump() == {}


async def test_a_session_is_there_to_its_last_millisecond_and_not_after_it(at: Place, clock: Clock) -> None:
    await at.open()
    clock.now += SESSION
    await at.sessions.read(at.sid("S"), ME, history=0, touch=False)
    clock.now += 1
    async with at.seen() as seen:
        for step in (
            at.sessions.read(at.sid("S"), ME, history=0),
            at.sessions.page(at.sid("S"), ME, limit=1, before=""),
            at.sessions.end(at.sid("S"), ME),
            at.say("A"),
        ):
            with pytest.raises(SessionExpired):
                await step  # type: ignore[misc]
    assert seen == {}


async def test_a_terminated_session_says_so_even_after_its_time(at: Place) -> None:
    await at.open()
    await at.sessions.end(at.sid("S"), ME)
    await at.age(2 * HOUR)
    async with at.seen() as seen:
        for step in (
            at.sessions.read(at.sid("S"), ME, history=0),
            at.sessions.page(at.sid("S"), ME, limit=1, before=""),
            at.say("A"),
        ):
            with pytest.raises(SessionTerminated):
                await step  # type: ignore[misc]
    assert seen == {}


# -- reading -------------------------------------------------------------------------------------------


async def test_reading_an_idle_session_gives_it_its_whole_life_again(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.end("A")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        session, records, due = await at.sessions.read(at.sid("S"), ME, history=5)
    assert seen == whole_life()
    assert (session.number(b"count"), records, due) == (1, [at.record("A", "completed")], False)


async def test_looking_at_a_session_without_touching_it_changes_nothing(at: Place) -> None:
    await at.open()
    await at.age(10 * MINUTE)
    async with at.seen() as seen:
        _, _, due = await at.sessions.read(at.sid("S"), ME, history=5, touch=False)
    assert (seen, due) == ({}, False)


async def test_reading_renews_a_running_chat_and_what_waits_behind_it(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        await at.sessions.read(at.sid("S"), ME, history=0)
    assert seen == whole_life("A", "B", runs=True, queued=["B"])


async def test_reading_renews_a_chat_that_is_to_be_started_as_a_running_one(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.end("A")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        await at.sessions.read(at.sid("S"), ME, history=0)
    assert seen == whole_life("B", runs=True)


async def test_reading_renews_a_waiting_chat_but_leaves_its_lease_to_whoever_finds_it_due(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.wait_for_tools("A")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        await at.sessions.read(at.sid("S"), ME, history=0)
    expected = whole_life("A", "B", waits="A", queued=["B"]) | {"leases": SESSION + DAY}
    del expected["queued"]  # it lives longer already: when B came, A ran
    assert seen == expected
    assert (await at.held("leases"))["leases.A:1"] == SESSION - 50 * SECOND


async def test_reading_brings_back_a_waiting_chat_s_lease_that_is_gone(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    await at.leases.drop(at.cid("A"), 1)
    await at.age(50 * SECOND)
    await at.sessions.read(at.sid("S"), ME, history=0)
    assert await at.held("leases") == {"leases": SESSION + DAY, "leases.A:1": SESSION}


async def test_what_was_forgotten_among_the_waiting_leaves_at_its_time(at: Place, clock: Clock) -> None:
    await at.open()
    await at.open("T")
    await at.say("A")
    await at.say("B", "T")
    await at.wait_for_tools("A")
    clock.now += SESSION + TOMBSTONE - 1
    await at.open("T")
    await at.do("HSET", at.keys.session(at.sid("T")), "expires", clock.now + SESSION)
    await at.wait_for_tools("B")
    assert "waiting.A" in await at.held("waiting")
    clock.now += 1
    await at.sessions.read(at.sid("T"), ME, history=0)
    assert await at.held("waiting") == {
        "waiting": SESSION + TOMBSTONE + DAY,
        "waiting.B": SESSION + TOMBSTONE,
    }


async def test_history_is_the_newest_records_and_no_more_than_asked_for(at: Place) -> None:
    await at.open()
    for chat in "ABC":
        await at.say(chat)
        await at.end(chat)

    async def newest(count: int) -> list[bytes]:
        return (await at.sessions.read(at.sid("S"), ME, history=count))[1]

    done = {chat: at.record(chat, "completed") for chat in "ABC"}
    assert await newest(0) == []
    assert await newest(1) == [done["C"]]
    assert await newest(2) == [done["C"], done["B"]]
    assert await newest(9) == [done["C"], done["B"], done["A"]]


async def test_the_indexes_are_due_when_they_have_not_heard_of_a_session_for_more_than_a_minute(
    at: Place, clock: Clock
) -> None:
    await at.open()

    async def due() -> bool:
        return (await at.sessions.read(at.sid("S"), ME, history=0))[2]

    clock.now += MINUTE
    assert not await due()
    clock.now += 1
    assert await due()
    assert (await at.held("session:S"))["session:S.indexed"] == 0
    assert not await due()


async def test_a_session_of_a_single_chat_is_remembered_for_an_hour_and_not_a_day(at: Place) -> None:
    await at.open(single=True)
    await at.say("A")
    await at.end("A")
    assert (await at.held("session:S"))["session:S"] == SESSION + HOUR


async def test_the_chat_of_a_single_chat_s_session_lives_an_hour_longer_than_that(at: Place) -> None:
    await at.open(single=True)
    await at.say("A")
    shown = await at.held("session:S", "run:", "log:")
    assert [shown[name] for name in ("session:S", "run:A", "log:A")] == [SESSION + HOLD + HOUR] * 3


# -- pages ---------------------------------------------------------------------------------------------


async def test_pages_go_back_from_any_chat_and_say_whether_more_follow(at: Place) -> None:
    await at.open()
    for chat in "ABC":
        await at.say(chat)
        await at.end(chat)
    done = {chat: at.record(chat, "completed") for chat in "ABC"}

    async def page(limit: int, before: str = "") -> tuple[list[bytes], bool]:
        return await at.sessions.page(at.sid("S"), ME, limit=limit, before=before and at.cid(before))

    await at.age(MINUTE)
    async with at.seen() as seen:
        assert await page(2) == ([done["C"], done["B"]], True)
        assert await page(3) == ([done["C"], done["B"], done["A"]], False)
        assert await page(9) == ([done["C"], done["B"], done["A"]], False)
        assert await page(1, "C") == ([done["B"]], True)
        assert await page(2, "C") == ([done["B"], done["A"]], False)
        assert await page(1, "B") == ([done["A"]], False)
        assert await page(1, "A") == ([], False)
        assert await page(1, "unknown") == ([], False)
    assert seen == {}


# -- the end -------------------------------------------------------------------------------------------


async def test_an_idle_session_that_is_ended_keeps_its_word_for_a_day(at: Place) -> None:
    await at.open()
    await at.age(10 * MINUTE)
    async with at.seen() as seen:
        end = await at.sessions.end(at.sid("S"), ME)
    assert (end.running, end.queued, end.session.text(b"reason")) == (None, [], "deleted")
    assert {name: value for name, value in seen.items() if not name.startswith("{index}")} == {
        "session:S": TOMBSTONE,
        "session:S.status": "terminated",
        "session:S.reason": "deleted",
        "session:S.updated": 0,
    }


@pytest.mark.parametrize("how", ["deleted", "evicted"])
@pytest.mark.parametrize(("size", "stays"), [(1000, True), (10_000, False)])
async def test_what_is_large_in_a_session_goes_with_its_end_and_each_end_is_told_alike(
    at: Place, how: str, size: int, *, stays: bool
) -> None:
    said = {"role": "user", "content": "x" * size}
    await at.open(additional_messages=[said], metadata={"a": "b"})
    if how == "evicted":
        await at.sessions.end_idle(at.sid("S"))
    told = [(await at.sessions.end(at.sid("S"), ME)).session for _ in range(2)]
    assert told[0].view(at.limits) == told[1].view(at.limits)
    for session in told:
        assert session.additional_messages == ([said] if stays else [])
        assert session.view(at.limits)["metadata"] == ({"a": "b"} if stays else {})
    held = sum(len(f"{name}{value}") for name, value in (await at.held("session:S")).items())
    assert held < 1000 + size * stays


LARGEST = 4096 - len('[{"role":"user","content":""}]{}')
"""How much its message may say, before the session counts as large."""


@pytest.mark.parametrize(("size", "kept"), [(LARGEST, TOMBSTONE), (LARGEST + 1, SESSION)])
async def test_an_expired_session_is_remembered_for_a_day_unless_it_is_large(
    at: Place, size: int, kept: int
) -> None:
    await at.open(additional_messages=[{"role": "user", "content": "x" * size}])
    assert (await at.held("session:S"))["session:S"] == SESSION + kept
    await at.sessions.read(at.sid("S"), ME, history=0)
    assert (await at.held("session:S"))["session:S"] == SESSION + kept
    await at.say("A")  # whoever ends it has to find the session
    assert (await at.held("session:S"))["session:S"] == SESSION + HOLD + TOMBSTONE
    await at.end("A")
    assert (await at.held("session:S"))["session:S"] == SESSION + kept


async def test_ending_a_session_again_answers_the_same_and_changes_nothing(at: Place) -> None:
    await at.open()
    first = await at.sessions.end(at.sid("S"), ME)
    await at.age(MINUTE)
    async with at.seen() as seen:
        again = await at.sessions.end(at.sid("S"), ME, "erased")
    assert seen == {}
    for told in (first, again):
        assert [told.session.text(field) for field in (b"status", b"reason", b"user")] == [
            *("terminated", "deleted", told.session.text(b"user"))
        ]


async def test_ending_a_session_cancels_its_running_chat_and_all_that_is_queued(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", on_busy="enqueue")
    await at.say("D", on_busy="enqueue")
    await at.do("DEL", at.keys.run(at.cid("C")))
    async with at.seen() as seen:
        end = await at.sessions.end(at.sid("S"), ME)
    assert (end.running, end.queued) == (at.cid("A"), [at.cid("B"), at.cid("C"), at.cid("D")])
    assert {name: value for name, value in seen.items() if not name.startswith(("{index}", "session:"))} == {
        "run:A.cancel": "1",
        "run:B.cancel": "1",
        "run:D.cancel": "1",
        "leases.B:1": 2 * SECOND,
        "leases.D:1": 2 * SECOND,
        "queue:S": None,
        "queue:S=": None,
        "queued": None,
        "queued.B": None,
        "queued.C": None,
        "queued.D": None,
    }


async def test_ending_a_session_makes_its_waiting_chat_due_at_once(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    async with at.seen() as seen:
        end = await at.sessions.end(at.sid("S"), ME)
    assert end.running == at.cid("A")
    assert {name: value for name, value in seen.items() if name.startswith(("run", "lease", "waiting"))} == {
        "run:A.cancel": "1",
        "leases.A:1": 2 * SECOND,
    }


async def test_the_lease_of_a_running_chat_stays_its_owner_s_when_the_session_is_ended(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.sessions.end(at.sid("S"), ME)
    assert (await at.held("leases"))["leases.A:1"] == LEASE


async def test_ending_writes_no_run_for_a_chat_whose_run_is_gone(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.do("DEL", at.keys.run(at.cid("A")))
    await at.sessions.end(at.sid("S"), ME)
    assert await at.held("run:") == {}


async def test_only_an_idle_session_gives_way(at: Place) -> None:
    for session in ("S", "T", "I"):
        await at.open(session)
    await at.say("A")
    await at.say("B", "T")
    await at.say("C", "T", on_busy="enqueue")
    await at.do("HSET", at.keys.session(at.sid("T")), "running", "")  # between two chats
    async with at.seen() as seen:
        assert await at.sessions.end_idle(at.sid("S")) == b"busy"
        assert await at.sessions.end_idle(at.sid("T")) == b"busy"
        assert await at.sessions.end_idle(at.sid("none")) == b"none"
    assert seen == {}
    assert await at.sessions.end_idle(at.sid("I"), "inactive") == b"active"
    assert (await at.held("session:I"))["session:I.reason"] == "inactive"
    async with at.seen() as seen:
        assert await at.sessions.end_idle(at.sid("I")) == b"terminated"
    assert seen == {}


async def test_a_newcomer_outlasts_an_evictor_that_died_before_it_took_the_place(
    at: Place, clock: Clock
) -> None:
    at.with_limits(user=1)
    await at.open("S")
    assert await at.sessions.end_idle(at.sid("S")) == b"active"
    newcomer = asyncio.create_task(at.open("T"))
    for _ in range(60):  # Redis' clock goes on like ours: six seconds
        if newcomer.done():
            break
        await asyncio.sleep(0.1)
        clock.now += 100
    assert (await newcomer).session_id == at.sid("T")


async def test_a_session_that_has_expired_needs_no_ending(at: Place) -> None:
    await at.open()
    await at.age(SESSION + MINUTE)
    async with at.seen() as seen:
        assert await at.sessions.end_idle(at.sid("S")) == b"expired"
    assert seen == {}


async def test_a_terminated_session_still_cancels_the_chat_that_runs_in_it(at: Place) -> None:
    """The first caller may have died between the two: ending again reaches the chat again."""
    await at.open()
    await at.say("A")
    await at.sessions.end(at.sid("S"), ME)
    await at.do("HDEL", at.keys.run(at.cid("A")), "cancel")
    async with at.seen() as seen:
        assert (await at.sessions.end(at.sid("S"), ME)).running == at.cid("A")
    assert seen == {"run:A.cancel": "1"}


# -- its conversation ----------------------------------------------------------------------------------


async def test_the_first_conversation_stays(at: Place) -> None:
    await at.open()
    async with at.seen() as seen:
        assert await at.sessions.set_conversation(at.sid("S"), "c-1", "bot-a", 7) == "c-1"
        assert await at.sessions.set_conversation(at.sid("S"), "c-2", "bot-b", 8) == "c-1"
    assert seen == {
        "session:S.conversation_id": "c-1",
        "session:S.credential": "bot-a",
        "session:S.kept": "7",
    }


async def test_no_conversation_is_put_beside_a_chat_that_brings_its_own(at: Place) -> None:
    await at.open()
    assert await at.sessions.awaits_conversation(at.sid("S"))
    await at.say("A")
    assert not await at.sessions.awaits_conversation(at.sid("S"))
    async with at.seen() as seen:
        assert await at.sessions.set_conversation(at.sid("S"), "c-1", "bot-a", 7) == ""
    assert seen == {}


@pytest.mark.parametrize("session", [{"single": True}, {"auto_save_history": False}])
async def test_nobody_waits_for_a_conversation_that_nobody_makes(at: Place, session: dict[str, Any]) -> None:
    await at.open(**session)
    assert not await at.sessions.awaits_conversation(at.sid("S"))
    assert not await at.sessions.awaits_conversation(at.sid("none"))


async def test_a_conversation_makes_no_session(at: Place) -> None:
    assert await at.sessions.set_conversation(at.sid("S"), "c-1", "bot-a", 7) is None
    assert await at.dump() == {}


# -- Idempotency-Keys and erasing ----------------------------------------------------------------------

KEY = IdempotencyKey("k", "a1")


async def test_an_idempotency_key_means_one_session_for_a_day(at: Place) -> None:
    at.name(KEY.digest(ME.owner), "K")
    async with at.seen() as seen:
        assert await at.sessions.claim_key(ME, KEY, at.sid("S")) == at.sid("S")
    assert seen == {"{index}:idem:K": DAY, "{index}:idem:K=": "a1 S"}
    await at.age(HOUR)
    async with at.seen() as seen:
        assert await at.sessions.claim_key(ME, KEY, at.sid("T")) == at.sid("S")
        with pytest.raises(IdempotencyKeyReused):
            await at.sessions.claim_key(ME, IdempotencyKey("k", "b2"), at.sid("T"))
    assert seen == {}
    assert await at.sessions.claim_key(STRANGER, KEY, at.sid("T")) == at.sid("T")


async def test_erasing_a_session_leaves_a_mark_and_nothing_else(at: Place) -> None:
    at.name(KEY.digest(ME.owner), "K")
    await at.sessions.claim_key(ME, KEY, at.sid("S"))
    session = await at.open(idempotency=KEY.digest(ME.owner))
    await at.say("A", key=KEY)
    await at.end("A")
    await at.say("B")
    await at.say("C", on_busy="enqueue", key=IdempotencyKey("k3", "c3"))
    assert await at.users.erase(session) == 3
    await at.leases.drop(at.cid("B"), 1)
    left = {name: value for name, value in (await at.dump()).items() if not name.startswith("{index}:names")}
    assert left == {
        "erased:S": TOMBSTONE,
        "erased:S=": "1",
        "queued": SESSION + HOLD + TOMBSTONE + DAY,
        "queued.C": SESSION + HOLD + TOMBSTONE,  # it is only counted, and leaves at its time
        **{name: value for name, value in left.items() if name.startswith(("usage", "owners"))},
    }


async def test_erasing_takes_the_keys_that_were_used_while_it_went_on(at: Place) -> None:
    """``erase`` deletes them in portions first; what is added in between goes with the script."""
    session = await at.open()
    await at.say("A", key=KEY)
    reply = await at.redis.run(session_erase(at=at.keys.of_session(at.sid("S"))))
    assert (reply, session.session_id) == (1, at.sid("S"))
    assert await at.held("session:", "chats:", "order:", "run:", "log:", "used:", "idem:", "erased:") == {
        "erased:S": TOMBSTONE,
        "erased:S=": "1",
    }
