"""A chat is created: what begins at once, what waits, what is refused; each with all that it changes."""

from __future__ import annotations

from typing import Any

import pytest

from app.exceptions import (
    ChatExpired,
    ChatNotFound,
    ChatState,
    IdempotencyKeyReused,
    NotTheNewest,
    SessionBusy,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
)
from app.models import Identity
from app.stores import chats as chats_module
from app.stores.chats import ANY_CHAT, BusyPolicy
from app.stores.layers import PLACE_BYTES
from app.stores.scripts import chat_forget
from app.stores.sessions import IdempotencyKey

from .place import DAY, HOLD, HOUR, LEASE, ME, MINUTE, SECOND, SESSION, TOMBSTONE, Clock, Place, whole_life

KEY = IdempotencyKey("k", "a1")


def new_chat(at: Place, chat: str, state: str, sent: bytes) -> dict[str, Any]:
    """What of a chat that has just been made is its own, its times apart."""
    return {
        f"chats:(S).{chat}": at.shown(chat),
        f"run:{chat}.sid": "S",
        f"run:{chat}.epoch": "1",
        f"run:{chat}.state": state,
        f"run:{chat}.process": "me",
        f"run:{chat}.request": '{"message":"hello"}',
        f"log:{chat}#1-1": {"n": b"1", "f": sent},
    }


async def test_in_an_idle_session_a_chat_begins_at_once(at: Place) -> None:
    await at.open()
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        created = await at.say("A")
    assert (created.kind, created.in_the_way, created.displaced, created.index_due) == (
        "started",
        None,
        None,
        False,
    )
    assert created.session.running == at.cid("A")
    assert seen == {
        **new_chat(at, "A", "started", at.frame("processing")),
        **whole_life("A", runs=True),
        "order:S=": ["A"],
        "session:S.running": "A",
        "session:S.count": "1",
        "session:S.updated": 0,
        "leases": LEASE + DAY,
        "leases.A:1": LEASE,
    }


async def test_a_message_to_a_busy_session_goes_to_the_tail_of_its_queue(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        created = await at.say("C", on_busy="enqueue")
    assert (created.kind, created.in_the_way, created.displaced) == ("queued", at.cid("A"), None)
    assert created.session.running == at.cid("A")
    assert seen == {
        **new_chat(at, "C", "queued", at.frame("pending")),
        **whole_life("A", "B", "C", runs=True, queued=["B", "C"]),
        "order:S=": ["C", "B", "A"],
        "queue:S=": ["B", "C"],
        "session:S.count": "3",
        "session:S.updated": 0,
    }


async def test_the_queue_behind_a_waiting_chat_does_not_make_the_session_live_longer(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        assert (await at.say("B", on_busy="enqueue")).kind == "queued"
    assert {
        name: value for name, value in seen.items() if not name.startswith(("run:B.", "log:B#", "chats:(S)."))
    } == {
        **whole_life("A", "B", waits="A", queued=["B"]),
        "order:S=": ["B", "A"],
        "queue:S=": ["B"],
        "session:S.count": "2",
        "session:S.updated": 0,
        "leases": SESSION + DAY,
    }


REFUSED: list[tuple[BusyPolicy, int]] = [("reject", 5), ("enqueue", 2), ("enqueue", 1)]


@pytest.mark.parametrize(("policy", "most"), REFUSED)
async def test_a_busy_session_and_a_full_queue_refuse_and_change_nothing(
    policy: BusyPolicy, most: int, at: Place
) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", on_busy="enqueue")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        with pytest.raises(SessionBusy) as refused:
            await at.say("D", on_busy=policy, max_queued=most)
    assert refused.value.details == {"chat_id": at.cid("A")}
    assert ("queue is full" in str(refused.value)) == (policy == "enqueue")
    assert seen == {}


async def test_the_last_place_of_a_queue_is_given_away(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue", max_queued=2)
    assert (await at.say("C", on_busy="enqueue", max_queued=2)).kind == "queued"


QUEUES: list[tuple[list[int], int, bool]] = [
    ([], PLACE_BYTES * 3, True),
    ([], PLACE_BYTES * 3 + 1, False),
    ([PLACE_BYTES + 1], PLACE_BYTES, True),
    ([PLACE_BYTES + 1], PLACE_BYTES + 1, False),
]


@pytest.mark.parametrize(("queued", "size", "fits"), QUEUES)
async def test_a_long_message_takes_several_places_of_a_queue(
    at: Place, queued: list[int], size: int, fits: bool
) -> None:
    await at.open()
    await at.say("A")
    for number, length in enumerate(queued):
        await at.say(f"Q{number}", on_busy="enqueue", request=b"x" * length)
    saying = at.say("D", on_busy="enqueue", max_queued=3, request=b"x" * size)
    if fits:
        assert (await saying).kind == "queued"
    else:
        with pytest.raises(SessionBusy):
            await saying


# -- interrupting --------------------------------------------------------------------------------------


async def test_an_interrupt_goes_before_all_that_is_queued_however_long_the_queue_is(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        created = await at.say("I", on_busy="interrupt", max_queued=1)
    assert (created.kind, created.in_the_way, created.displaced) == ("queued", at.cid("A"), None)
    assert seen == {
        **new_chat(at, "I", "queued", at.frame("pending")),
        **whole_life("A", "B", "I", runs=True, queued=["B", "I"]),
        "run:I.interrupt": "1",
        "order:S=": ["I", "B", "A"],
        "queue:S=": ["I", "B"],
        "session:S.count": "3",
        "session:S.updated": 0,
    }


async def test_of_two_interrupts_the_later_takes_the_place_of_the_earlier(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("I", on_busy="interrupt")
    async with at.seen() as seen:
        created = await at.say("J", on_busy="interrupt")
    assert (created.kind, created.in_the_way, created.displaced) == ("queued", at.cid("A"), at.cid("I"))
    assert (await at.held("queue:"))["queue:S="] == ["J", "B"]
    assert {name: value for name, value in seen.items() if ".I" in name or ":I" in name} == {
        "run:I.cancel": "1",
        "queued.I": None,
        "leases.I:1": 2 * SECOND,
    }


async def test_a_message_that_is_no_interrupt_displaces_none(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("I", on_busy="interrupt")
    assert (await at.say("B", on_busy="enqueue")).displaced is None
    assert (await at.held("queue:"))["queue:S="] == ["I", "B"]


async def test_an_interrupt_in_an_idle_session_is_a_message_like_any_other(at: Place) -> None:
    await at.open()
    assert (await at.say("A", on_busy="interrupt")).kind == "started"
    assert "interrupt" not in await at.run("A")
    assert await at.held("queue") == {}


async def test_an_interrupt_waits_at_the_head_of_an_empty_queue(at: Place) -> None:
    await at.open()
    await at.say("A")
    created = await at.say("I", on_busy="interrupt")
    assert (created.kind, created.displaced) == ("queued", None)
    assert (await at.held("queue:"))["queue:S="] == ["I"]


# -- repetitions ---------------------------------------------------------------------------------------


async def test_an_idempotency_key_is_kept_for_a_day_and_can_be_erased_with_its_session(at: Place) -> None:
    await at.open()
    at.name(KEY.digest(ME.owner, at.sid("S")), "K")
    other = IdempotencyKey("other", "b2")
    at.name(other.digest(ME.owner, at.sid("S")), "L")
    async with at.seen() as seen:
        await at.say("A", key=KEY)
    assert {name: value for name, value in seen.items() if name.startswith(("idem", "used"))} == {
        "idem:K": DAY,
        "idem:K=": "a1 A",
        "used:S": DAY,
        "used:S=": ["idem:K"],
    }
    await at.age(HOUR)
    await at.say("B", key=other, on_busy="enqueue")
    assert await at.held("used") == {"used:S": DAY, "used:S=": ["idem:K", "idem:L"]}


async def test_a_message_without_a_key_leaves_none(at: Place) -> None:
    await at.open()
    await at.say("A")
    assert await at.held("idem", "used") == {}


async def test_a_repeated_key_tells_the_first_chat_and_changes_nothing(at: Place) -> None:
    await at.open()
    await at.say("A", key=KEY)
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        created = await at.say("B", key=KEY)
        assert (created.kind, created.chat_id) == ("same", at.cid("A"))
        with pytest.raises(IdempotencyKeyReused):
            await at.say("B", key=IdempotencyKey("k", "b2"))
    assert seen == {}


@pytest.mark.parametrize("over", ["terminated", "expired"])
async def test_a_repeated_key_tells_the_first_chat_when_the_session_is_over_too(over: str, at: Place) -> None:
    await at.open()
    await at.say("A", key=KEY)
    if over == "terminated":
        await at.sessions.end(at.sid("S"), ME)
    else:
        await at.age(SESSION + HOLD + MINUTE)
    async with at.seen() as seen:
        assert (await at.say("B", key=KEY)).chat_id == at.cid("A")
        with pytest.raises(SessionTerminated if over == "terminated" else SessionExpired):
            await at.say("B", key=IdempotencyKey("other", "b2"))
    assert seen == {}


async def test_a_key_whose_chat_is_forgotten_says_so(at: Place) -> None:
    await at.open()
    await at.say("A", key=KEY)
    await at.do("HDEL", at.keys.chats(at.cid("A")), at.cid("A"))
    async with at.seen() as seen:
        with pytest.raises(ChatExpired):
            await at.say("B", key=KEY)
    assert seen == {}


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("kind", ["started", "queued"])
async def test_a_creation_whose_answer_was_lost_is_told_again(
    kind: str, key: IdempotencyKey | None, at: Place
) -> None:
    await at.open()
    if kind == "queued":
        await at.say("first")
    await at.say("A", key=key, on_busy="enqueue")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        again = await at.say("A", key=key, on_busy="reject")
    assert seen == {}
    assert (again.kind, again.chat_id, again.displaced, again.index_due) == (kind, at.cid("A"), None, False)
    assert again.in_the_way == at.cid("A" if kind == "started" else "first")
    assert again.session.owner == ME.owner


async def test_a_key_tells_nothing_where_there_is_no_session_any_more(at: Place) -> None:
    await at.open()
    await at.say("A", key=KEY)
    await at.do("DEL", at.keys.session(at.sid("S")))
    with pytest.raises(SessionNotFound):
        await at.say("B", key=KEY)


async def test_a_message_without_a_key_looks_at_none(at: Place) -> None:
    await at.open()
    await at.say("A", key=KEY)
    assert (await at.say("B", on_busy="enqueue")).kind == "queued"


# -- what stands in no one's way -----------------------------------------------------------------------


async def test_a_chat_whose_run_is_gone_does_not_keep_its_session_busy(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.do("DEL", at.keys.run(at.cid("A")))
    created = await at.say("B")
    assert (created.kind, created.in_the_way) == ("started", None)
    assert (await at.held("session:"))["session:S.running"] == "B"


async def test_a_session_of_a_single_chat_takes_no_second_one(at: Place) -> None:
    await at.open(single=True)
    await at.say("A")
    await at.end("A")
    async with at.seen() as seen:
        with pytest.raises(SessionNotFound):
            await at.say("B")
    assert seen == {}


async def test_a_single_session_goes_on_from_its_newest_chat_alone(at: Place) -> None:
    await at.open(single=True)
    await at.say("A")
    with pytest.raises(SessionBusy):
        await at.say("B", after=at.cid("A"))
    await at.end("A")
    assert (await at.say("B", after=at.cid("A"))).kind == "started"
    await at.end("B")
    async with at.seen() as seen:
        with pytest.raises(NotTheNewest):
            await at.say("C", after=at.cid("A"))
    assert seen == {}
    assert (await at.say("C", after=ANY_CHAT)).kind == "started"
    assert (await at.held("order:"))["order:S="] == ["C", "B", "A"]


async def test_what_a_key_made_counts_before_what_is_the_newest(at: Place) -> None:
    await at.open(single=True)
    await at.say("A")
    await at.end("A")
    await at.say("B", after=at.cid("A"), key=KEY)
    again = await at.say("C", after=at.cid("A"), key=KEY)
    assert (again.kind, again.chat_id) == ("same", at.cid("B"))


async def test_a_chat_that_is_over_is_forgotten_but_for_its_place(at: Place) -> None:
    await at.open(single=True)
    await at.say("A")
    with pytest.raises(ChatState):
        await at.chats.forget(at.cid("A"), ME, lambda _: b"")
    await at.end("A")
    with pytest.raises(ChatNotFound):
        await at.chats.forget(at.cid("A"), Identity("elsewhere.com", "somebody"), lambda _: b"")
    assert await at.held("log:")
    await at.chats.forget(at.cid("A"), ME, lambda _: b"")
    assert await at.held("log:") == {}
    assert (await at.held("order:"))["order:S="] == ["A"]
    with pytest.raises(ChatNotFound):
        await at.chats.forget(at.cid("A"), ME, lambda _: b"")
    assert (await at.say("B", after=at.cid("A"))).kind == "started"


async def test_a_chat_whose_record_has_changed_since_it_was_read_is_not_forgotten(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.end("A")
    place = at.keys.of_session(at.sid("S"))
    async with at.seen() as seen:
        kinds = [
            await at.redis.run(chat_forget(at=place, chat=at.cid(chat), record=b"as it was", rest=b""))
            for chat in ("A", "B")
        ]
    assert (kinds, seen) == ([b"changed", b"none"], {})


async def test_of_a_chat_that_waits_a_part_of_the_record_may_go_and_not_all(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    with pytest.raises(ChatState):
        await at.chats.forget(at.cid("A"), ME, lambda _: b"")
    await at.chats.forget(at.cid("A"), ME, lambda record: record.replace(b"hello", b"bye"))
    assert b"bye" in await at.chats.record(at.cid("A"), ME)


async def test_a_session_takes_one_chat_after_another(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.end("A")
    assert (await at.say("B")).kind == "started"
    assert (await at.held("order:"))["order:S="] == ["B", "A"]


async def test_the_indexes_are_due_with_a_message_too(at: Place, clock: Clock) -> None:
    await at.open()
    clock.now += MINUTE + 1
    assert (await at.say("A")).index_due
    assert not (await at.say("B", on_busy="enqueue")).index_due


async def test_only_the_newest_chats_are_kept_and_what_was_theirs_goes(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats_module, "MAX_RECORDS", 3)
    await at.open()
    for chat in "ABC":
        await at.say(chat, on_busy="enqueue")
    assert (await at.held("order:"))["order:S="] == ["C", "B", "A"]
    await at.end("A")
    async with at.seen() as seen:
        await at.say("D", on_busy="enqueue")
    gone = {name: value for name, value in seen.items() if value is None}
    assert gone == {
        "chats:(S).A": None,
        "log:A": None,
        "log:A#1-2": None,
    }
    assert (await at.held("order:"))["order:S="] == ["D", "C", "B"]
    assert "chats:(S).B" in await at.held("chats:")


async def test_a_chat_that_is_pushed_out_while_it_runs_loses_its_run(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats_module, "MAX_RECORDS", 1)
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    assert await at.held("run:A", "log:A", "chats:(S).A") == {}
    assert (await at.held("order:"))["order:S="] == ["B"]


async def test_what_is_queued_is_counted_until_its_time_and_no_longer(at: Place, clock: Clock) -> None:
    await at.open()
    await at.open("T")
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", "T")
    clock.now += SESSION + HOLD + TOMBSTONE - 1
    await at.do("HSET", at.keys.session(at.sid("T")), "expires", clock.now)
    await at.say("D", "T", on_busy="enqueue")
    assert sorted(await at.held("queued.")) == ["queued.B", "queued.D"]
    clock.now += 1
    await at.say("E", "T", on_busy="enqueue")
    assert sorted(await at.held("queued.")) == ["queued.D", "queued.E"]
