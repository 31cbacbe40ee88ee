"""Who may claim a chat, and what a claim changes: the epoch, the log, the lease, the session's life."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.exceptions import IdempotencyKeyReused
from app.stores.leases import MAX_CLAIMS, SubmittedOutputs
from app.stores.sessions import IdempotencyKey

from .place import DAY, HOLD, HOUR, LEASE, ME, MINUTE, SECOND, SESSION, TOMBSTONE, Clock, Place, whole_life

OUTPUTS = b'[{"tool_call_id":"t","output":"o"}]'
KEY = IdempotencyKey("k", "a1")
CLAIM_MARK = {"n": b"0", "f": b""}


async def started(at: Place) -> None:
    await at.open()
    await at.say("A")


async def queued(at: Place) -> None:
    """B waits behind A."""
    await started(at)
    await at.say("B", on_busy="enqueue")


async def waiting(at: Place) -> None:
    await started(at)
    await at.wait_for_tools("A")


# -- not to be had -------------------------------------------------------------------------------------


async def test_a_chat_that_is_over_is_not_claimed_and_its_lease_goes(at: Place) -> None:
    await started(at)
    await at.do("DEL", at.keys.run(at.cid("A")))
    async with at.seen() as seen:
        assert await at.claim("A", force=True) is None
        assert await at.claim("A", epoch=None, force=True) is None
    assert seen == {"leases": None, "leases.A:1": None}


async def test_a_lease_of_an_earlier_epoch_is_worth_nothing_and_goes(at: Place) -> None:
    await started(at)
    assert await at.claim("A", force=True) is not None
    await at.do("ZADD", at.leases_key(), 0, f"{at.cid('A')}:1")
    async with at.seen() as seen:
        assert await at.claim("A", epoch=1, force=True) is None
    assert seen == {"leases.A:1": None}


async def test_a_lease_that_has_not_run_out_keeps_others_away(at: Place) -> None:
    await started(at)
    await at.age(10 * SECOND)
    async with at.seen() as seen:
        assert await at.claim("A") is None
        assert await at.claim("A", epoch=None) is None
    assert seen == {}


async def test_a_lease_holds_until_its_very_moment(at: Place, clock: Clock) -> None:
    await started(at)
    clock.now += LEASE - 1
    assert await at.claim("A") is None
    clock.now += 1
    assert await at.claim("A") is not None


async def test_a_claim_that_expects_another_state_changes_nothing(at: Place) -> None:
    await started(at)
    async with at.seen() as seen:
        assert await at.claim("A", force=True, expect="waiting") is None
    assert seen == {}


# -- taking over ---------------------------------------------------------------------------------------


async def test_a_takeover_raises_the_epoch_and_shuts_the_former_owner_out(at: Place) -> None:
    await started(at)
    await at.say("B", on_busy="enqueue")
    await at.age(LEASE + SECOND)
    async with at.seen() as seen:
        claim = await at.claim("A")
    assert claim is not None
    assert (claim.kind, claim.epoch, claim.before, claim.record) == ("claimed", 2, "started", at.record("A"))
    assert claim.session.running == at.cid("A")
    assert dict(zip(claim.run[::2], claim.run[1::2], strict=True))[b"epoch"] == b"2"
    assert seen == {
        **whole_life("A", "B", runs=True, queued=["B"]),
        "log:A#2-0": CLAIM_MARK,
        "leases": LEASE + DAY,
        "leases.A:1": None,
        "leases.A:2": LEASE,
        "run:A.epoch": "2",
        "run:A.claims": "1",
    }


async def test_a_claim_names_its_new_owner(at: Place) -> None:
    await started(at)
    await at.do("HSET", at.keys.run(at.cid("A")), "process", "another")
    await at.claim("A", force=True)
    assert (await at.run("A"))["process"] == at.process


async def test_whichever_epoch_is_claimed_where_none_is_named(at: Place) -> None:
    await started(at)
    await at.claim("A", force=True)
    await at.age(LEASE + SECOND)
    claim = await at.claim("A", epoch=None)
    assert claim is not None
    assert claim.epoch == 3
    assert sorted(await at.held("leases.")) == ["leases.A:3"]


async def test_a_chat_without_a_lease_can_be_claimed(at: Place) -> None:
    await started(at)
    await at.leases.drop(at.cid("A"), 1)
    assert await at.claim("A") is not None


async def test_the_sixth_owner_ends_the_chat_instead_of_trying_again(at: Place) -> None:
    await started(at)
    kinds = []
    for epoch in range(1, MAX_CLAIMS + 2):
        claim = await at.claim("A", epoch=epoch, force=True)
        assert claim is not None
        kinds.append(claim.kind)
    assert kinds == ["claimed"] * MAX_CLAIMS + ["exhausted"]


async def test_a_queued_chat_that_is_ended_early_has_no_owner_before(at: Place) -> None:
    await queued(at)
    await at.do("HSET", at.keys.run(at.cid("B")), "state", "ready")
    before = await at.run("B")
    async with at.seen() as seen:
        claim = await at.claim("B")
    assert claim is not None
    assert (claim.kind, claim.epoch, claim.before, claim.unowned) == ("start", 1, "ready", True)
    assert claim.record == at.record("B")
    assert await at.run("B") == before | {"state": "started", "process": at.process}
    assert seen == {"run:B.state": "started", "leases.B:1": LEASE}


async def test_a_chat_that_its_interrupter_has_displaced_can_be_claimed_from_the_queue(at: Place) -> None:
    await queued(at)
    claim = await at.claim("B")
    assert claim is not None
    assert (claim.kind, claim.before) == ("start", "queued")


async def test_starting_a_chat_that_is_next_renews_the_session(at: Place) -> None:
    await queued(at)
    await at.end("A")
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        claim = await at.claim("B", force=True, expect="ready")
    assert claim is not None
    assert (claim.kind, claim.epoch) == ("start", 1)
    assert seen == {
        **whole_life("B", runs=True),
        "run:B.state": "started",
        "leases.B:1": LEASE,
        "leases": LEASE + DAY,
    }


async def test_claiming_a_chat_of_a_session_that_is_over_keeps_what_it_needs_to_end(at: Place) -> None:
    await started(at)
    await at.sessions.end(at.sid("S"), ME)
    await at.do("PEXPIRE", at.keys.run(at.cid("A")), MINUTE)
    await at.do("PEXPIRE", at.keys.log(at.cid("A")), HOUR)
    async with at.seen() as seen:
        claim = await at.claim("A", force=True)
    assert claim is not None
    assert claim.kind == "claimed"
    assert {
        name: value for name, value in seen.items() if isinstance(value, int) and "leases" not in name
    } == {
        "run:A": HOLD  # and the log, which lives longer already, stays as it is
    }


async def test_a_claim_does_not_renew_a_session_in_which_another_chat_runs(at: Place) -> None:
    await queued(at)
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        assert await at.claim("B") is not None
    assert [name for name in seen if name.startswith(("session:", "chats:", "order:", "queue"))] == []


async def test_a_chat_whose_record_is_gone_can_still_be_claimed(at: Place) -> None:
    await started(at)
    await at.do("HDEL", at.keys.chats(at.cid("A")), at.cid("A"))
    claim = await at.claim("A", force=True)
    assert claim is not None
    assert claim.record == b""


async def test_a_waiting_chat_whose_record_is_gone_gets_none_from_a_claim(at: Place) -> None:
    await waiting(at)
    await at.do("HDEL", at.keys.chats(at.cid("A")), at.cid("A"))
    claim = await at.claim("A", force=True, expect="waiting")
    assert claim is not None
    assert "chats:(S).A" not in await at.held("chats:")


# -- waiting for tool outputs --------------------------------------------------------------------------


async def test_tool_outputs_bring_a_waiting_chat_back_to_life(at: Place) -> None:
    await waiting(at)
    await at.age(50 * SECOND)
    async with at.seen() as seen:
        claim = await at.claim("A", force=True, expect="waiting", outputs=SubmittedOutputs(OUTPUTS, (7, 3)))
    assert claim is not None
    assert (claim.kind, claim.epoch, claim.before, claim.unowned) == ("claimed", 2, "waiting", False)
    assert claim.record == at.record("A", "requires_action")
    assert seen == {
        **whole_life("A", runs=True),
        "chats:(S).A": at.shown("A", "processing"),
        "log:A#2-0": CLAIM_MARK,
        "leases": LEASE + DAY,
        "leases.A:1": None,
        "leases.A:2": LEASE,
        "run:A.epoch": "2",
        "run:A.state": "started",
        "run:A.tool_outputs": OUTPUTS.decode(),
        "waiting": None,
        "waiting.A": None,
    }


NOTES = {"approved_by": "somebody"}


async def test_what_came_with_tool_outputs_is_noted_in_the_record(at: Place) -> None:
    await waiting(at)
    record = orjson.loads(at.record("A", "requires_action")) | {"metadata": {"a": "b"}}
    await at.do("HSET", at.keys.chats(at.cid("A")), at.cid("A"), orjson.dumps(record))
    outputs = SubmittedOutputs(OUTPUTS, notes=NOTES)
    claim = await at.claim("A", force=True, expect="waiting", outputs=outputs)
    assert claim is not None
    noted = record | {"metadata": {"a": "b"} | NOTES}
    assert orjson.loads(claim.record) == noted
    stored = await at.do("HGET", at.keys.chats(at.cid("A")), at.cid("A"))
    assert orjson.loads(stored) == noted | {"status": "processing"}


async def test_a_note_that_is_none_goes_out_of_the_record(at: Place) -> None:
    await waiting(at)
    record = orjson.loads(at.record("A", "requires_action")) | {"metadata": {"a": "b", "old": "note"}}
    await at.do("HSET", at.keys.chats(at.cid("A")), at.cid("A"), orjson.dumps(record))
    outputs = SubmittedOutputs(OUTPUTS, notes={"old": None, **NOTES})
    claim = await at.claim("A", force=True, expect="waiting", outputs=outputs)
    assert claim is not None
    stored = await at.do("HGET", at.keys.chats(at.cid("A")), at.cid("A"))
    assert orjson.loads(stored)["metadata"] == orjson.loads(claim.record)["metadata"] == {"a": "b"} | NOTES


async def test_a_claim_of_a_chat_whose_record_is_lost_notes_nothing(at: Place) -> None:
    await waiting(at)
    await at.do("DEL", at.keys.chats(at.cid("A")))
    outputs = SubmittedOutputs(OUTPUTS, notes=NOTES)
    claim = await at.claim("A", force=True, expect="waiting", outputs=outputs)
    assert claim is not None
    assert claim.record == b""
    assert await at.held("chats:") == {}


async def test_going_on_after_tool_outputs_is_no_failed_attempt(at: Place) -> None:
    await waiting(at)
    await at.claim("A", force=True, expect="waiting", outputs=SubmittedOutputs(OUTPUTS))
    assert "claims" not in await at.run("A")


async def test_a_claim_without_tool_outputs_leaves_none(at: Place) -> None:
    await waiting(at)
    await at.claim("A", force=True, expect="waiting")
    assert "tool_outputs" not in await at.run("A")
    assert await at.held("idem", "used") == {}


async def test_a_claim_without_a_key_looks_at_none(at: Place) -> None:
    await at.open()
    await at.say("A", key=KEY)
    assert await at.claim("A", force=True) is not None


async def test_tool_outputs_with_a_key_are_taken_once(at: Place) -> None:
    await waiting(at)
    at.name(KEY.digest(at.cid("A")), "K")
    async with at.seen() as seen:
        assert await at.claim(
            "A", force=True, expect="waiting", outputs=SubmittedOutputs(OUTPUTS, (7, 3), KEY)
        )
    assert {name: value for name, value in seen.items() if name.startswith(("idem", "used"))} == {
        "idem:K": DAY,
        "idem:K=": "a1 2 7 3",
        "used:S": DAY,
        "used:S=": ["idem:K"],
    }
    going_on = await at.chats.continuation(at.cid("A"), at.sid("S"), KEY)
    assert going_on == (2, (7, 3))
    await at.age(HOUR)
    async with at.seen() as seen:
        again = SubmittedOutputs(b"others", (0, 0), KEY)
        assert await at.claim("A", force=True, expect="waiting", outputs=again) is None
        reused = SubmittedOutputs(OUTPUTS, (7, 3), IdempotencyKey("k", "b2"))
        with pytest.raises(IdempotencyKeyReused):
            await at.claim("A", force=True, expect="waiting", outputs=reused)
    assert seen == {}


async def test_a_second_set_of_tool_outputs_is_kept_beside_the_first(at: Place) -> None:
    await waiting(at)
    other = IdempotencyKey("other", "b2")
    for number, key in enumerate((KEY, other), 1):
        at.name(key.digest(at.cid("A")), "K" if key is KEY else "L")
        claimed = await at.claim(
            "A",
            epoch=number,
            force=True,
            expect="waiting",
            outputs=SubmittedOutputs(OUTPUTS, (number, 0), key),
        )
        assert claimed is not None
        await at.age(HOUR // 2)
        await at.end("A", "requires_action", epoch=number + 1, log=None)
    held = await at.held("used", "idem:")
    assert (held["used:S="], held["used:S"]) == (["idem:K", "idem:L"], DAY - HOUR // 2)
    assert held["idem:L="] == "b2 3 2 0"
    repeated = SubmittedOutputs(OUTPUTS, (1, 0), KEY)  # of the turn before, though the chat waits again
    assert await at.claim("A", epoch=3, force=True, expect="waiting", outputs=repeated) is None


# -- a waiting chat whose lease is due -----------------------------------------------------------------


async def test_a_waiting_chat_found_due_goes_on_waiting_while_its_session_lives(at: Place) -> None:
    await waiting(at)
    await at.age(HOUR // 2)
    await at.sessions.read(at.sid("S"), ME, history=0)
    await at.age(HOUR // 2 + MINUTE)
    assert await at.due() == [(at.cid("A"), 1)]
    async with at.seen() as seen:
        assert await at.claim("A") is None
    left = SESSION - HOUR // 2 - MINUTE
    assert seen == {"leases.A:1": left}
    assert (await at.held("session:"))["session:S.expires"] == left


async def test_a_waiting_chat_ends_with_its_session(at: Place) -> None:
    await waiting(at)
    await at.say("B", on_busy="enqueue")
    await at.age(SESSION + MINUTE)
    async with at.seen() as seen:
        claim = await at.claim("A")
    assert claim is not None
    assert (claim.kind, claim.epoch, claim.before) == ("expired", 2, "waiting")
    assert {name: value for name, value in seen.items() if "leases" not in name} == {
        "log:A#2-0": CLAIM_MARK,
        "run:A.epoch": "2",
        "run:A.state": "started",
        "run:A.expired": "1",
        "waiting": None,
        "waiting.A": None,
    }


async def test_a_session_s_very_last_millisecond_is_its_waiting_chat_s_too(at: Place, clock: Clock) -> None:
    await waiting(at)
    await at.do("ZADD", at.leases_key(), 0, f"{at.cid('A')}:1")
    clock.now += SESSION - 1
    assert await at.claim("A") is None
    await at.do("ZADD", at.leases_key(), 0, f"{at.cid('A')}:1")
    clock.now += 1
    claim = await at.claim("A")
    assert claim is not None
    assert claim.kind == "expired"


@pytest.mark.parametrize("how", ["terminated", "gone"])
async def test_a_waiting_chat_ends_where_its_session_is_over_before_its_time(how: str, at: Place) -> None:
    await waiting(at)
    if how == "gone":
        await at.do("DEL", at.keys.session(at.sid("S")))
    else:
        await at.do("HSET", at.keys.session(at.sid("S")), "status", "terminated")
    claim = await at.claim("A", force=True)
    assert claim is not None
    assert claim.kind == "expired"


async def test_a_cancelled_chat_that_waits_is_ended_as_cancelled_and_not_as_expired(at: Place) -> None:
    await waiting(at)
    await at.leases.cancel(at.cid("A"), at.sid("S"))
    claim = await at.claim("A", force=True)
    assert claim is not None
    assert (claim.kind, claim.epoch) == ("claimed", 2)
    assert "expired" not in await at.run("A")


async def test_what_has_expired_stays_so_for_its_next_owner_and_renews_nothing(at: Place) -> None:
    await waiting(at)
    await at.age(SESSION + MINUTE)
    await at.claim("A")
    await at.age(LEASE + SECOND)
    async with at.seen() as seen:
        claim = await at.claim("A", epoch=2)
    assert claim is not None
    assert (claim.kind, claim.epoch, claim.before) == ("expired", 3, "started")
    assert [name for name in seen if name.startswith(("session:", "chats:", "order:"))] == []
    assert "claims" not in await at.run("A")


async def test_a_queued_chat_that_expired_behind_a_waiting_one_is_ended_in_its_first_epoch(at: Place) -> None:
    await queued(at)
    await at.do("HSET", at.keys.run(at.cid("B")), "state", "ready", "expired", "1")
    claim = await at.claim("B")
    assert claim is not None
    assert (claim.kind, claim.epoch, claim.before) == ("expired", 1, "ready")
    assert list(await at.held("log:B#")) == ["log:B#1-1"]


async def test_the_lease_of_a_chat_that_expired_lives_as_long_as_any_other(at: Place) -> None:
    await waiting(at)
    await at.age(SESSION + MINUTE)
    await at.claim("A")
    shown: dict[str, Any] = await at.held("leases")
    assert shown["leases.A:2"] == LEASE
    assert shown["leases"] >= LEASE + DAY - SECOND


async def test_the_run_of_a_waiting_chat_that_expired_lives_long_enough_to_be_ended(
    at: Place, clock: Clock
) -> None:
    await waiting(at)
    clock.now += SESSION + TOMBSTONE - MINUTE
    await at.claim("A", force=True)
    held = await at.held("run:A", "log:A")
    assert (held["run:A"], held["log:A"]) == (HOLD, HOLD)
