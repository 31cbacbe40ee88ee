"""Indexes of sessions and users: limits, times, clean-up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.exceptions import (
    SessionLimitReached,
)
from app.models import Identity
from app.stores import users
from app.stores.index import name_key, user_key
from app.stores.scripts import index_forget_user
from app.stores.sessions import SessionRecord

from .place import (
    ADMIN,
    DAY,
    HOUR,
    ME,
    MINUTE,
    SECOND,
    SESSION,
    STRANGER,
    TOMBSTONE,
    Clock,
    Place,
)

KEPT = SESSION + TOMBSTONE
SESSIONS = ("{index}:user:user(me)", *(f"{{index}}:sessions{layer}" for layer in (":owner(me)", ":root", "")))
USERS = tuple(f"{{index}}:users{layer}" for layer in (":owner(me)", ":root", ""))
"""Where a session of mine is entered, and I as a user who has any."""

# -- sessions and their users --------------------------------------------------------------------------


async def test_a_session_is_entered_everywhere_with_its_time(at: Place) -> None:
    assert await at.index.admit(at.sid("S"), ME.owner, "u") is None
    assert await at.dump() == {
        "{index}:user:user(me)": KEPT,
        "{index}:user:user(me).S": SESSION,
        "{index}:sessions:owner(me)": KEPT,
        "{index}:sessions:owner(me).S": SESSION,
        "{index}:sessions:root": KEPT,
        "{index}:sessions:root.S": SESSION,
        "{index}:sessions": KEPT,
        "{index}:sessions.S": SESSION,
        "{index}:users:owner(me)": KEPT,
        "{index}:users:owner(me).user(me)": SESSION,
        "{index}:users:root": KEPT,
        "{index}:users:root.user(me)": SESSION,
        "{index}:users": KEPT,
        "{index}:users.user(me)": SESSION,
        "{index}:kept:user(me)": KEPT,
        "{index}:kept:user(me).S": KEPT,
        "{index}:names:name(u)": KEPT,
        "{index}:names:name(u).user(me)": KEPT,
    }


async def test_entering_again_moves_all_times(at: Place) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    entered = await at.dump()
    await at.age(HOUR // 2)
    await at.index.renew(at.sid("S"), ME.owner, "u")
    assert await at.dump() == entered


async def test_a_shorter_life_does_not_shorten_what_others_need(at: Place) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    at.with_limits(expire=60)
    await at.index.admit(at.sid("T"), ME.owner, "u")
    held = await at.dump()
    assert {name: left for name, left in held.items() if "." not in name} == dict.fromkeys(
        (name for name in held if "." not in name), KEPT
    )


async def test_a_user_with_as_many_as_may_be_is_told_which_could_go(at: Place) -> None:
    at.with_limits(user=2)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.age(MINUTE)
    await at.index.admit(at.sid("T"), ME.owner, "u")
    async with at.seen() as seen:
        crowd = await at.index.admit(at.sid("V"), ME.owner, "u")
    now = await at.now()
    assert crowd is not None
    assert [session for session, _ in crowd.sessions] == [at.sid("S"), at.sid("T")]
    assert abs(crowd.now - now) < 20 * SECOND
    assert [round((entered - crowd.now) / MINUTE) for _, entered in crowd.sessions] == [-1, 0]
    assert seen == {}


async def test_a_full_service_makes_a_user_give_up_one_of_his_own(at: Place) -> None:
    at.with_limits(service=2)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    crowd = await at.index.admit(at.sid("V"), ME.owner, "u")
    assert crowd is not None
    assert [session for session, _ in crowd.sessions] == [at.sid("S")]


async def test_a_full_service_refuses_a_user_who_has_none(at: Place) -> None:
    at.with_limits(service=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    async with at.seen() as seen:
        with pytest.raises(SessionLimitReached):
            await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    assert seen == {}


async def test_with_as_many_users_as_may_be_no_other_gets_in(at: Place) -> None:
    at.with_limits(users=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    async with at.seen() as seen:
        with pytest.raises(SessionLimitReached):
            await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    assert seen == {}
    assert await at.index.admit(at.sid("T"), ME.owner, "u") is None


async def test_the_last_places_are_given_away(at: Place) -> None:
    at.with_limits(user=2, service=3, users=2)
    assert await at.index.admit(at.sid("S"), ME.owner, "u") is None
    assert await at.index.admit(at.sid("T"), ME.owner, "u") is None
    assert await at.index.admit(at.sid("V"), STRANGER.owner, "u") is None


async def test_a_session_that_is_entered_may_always_be_entered_again(at: Place) -> None:
    at.with_limits(user=1, service=1, users=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    assert await at.index.admit(at.sid("S"), ME.owner, "u") is None


async def test_what_is_over_leaves_in_the_step_in_which_a_newcomer_enters(at: Place) -> None:
    at.with_limits(user=1, service=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    async with at.seen() as seen:
        assert await at.index.admit(at.sid("T"), ME.owner, "u", over=at.sid("S")) is None
    assert {name: value for name, value in seen.items() if value is None} == dict.fromkeys(
        (f"{sessions}.S" for sessions in SESSIONS), None
    )


async def test_a_newcomer_that_is_refused_after_all_leaves_no_user_without_sessions(at: Place) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    at.with_limits(service=1)
    with pytest.raises(SessionLimitReached):
        await at.index.admit(at.sid("V"), ME.owner, "u", over=at.sid("S"))
    held = await at.held("{index}:users", "{index}:user:", "{index}:sessions")
    assert {name for name in held if "." in name} == {
        "{index}:user:user(stranger).T",
        *(f"{{index}}:sessions{layer}.T" for layer in (":owner(stranger)", ":root", "")),
        *(f"{{index}}:users{layer}.user(stranger)" for layer in (":owner(stranger)", ":root", "")),
    }


async def test_what_has_expired_counts_no_more_from_its_very_moment(at: Place, clock: Clock) -> None:
    at.with_limits(user=1, service=1, users=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    clock.now += SESSION - 1
    assert await at.index.admit(at.sid("T"), ME.owner, "u") is not None
    clock.now += 1
    assert await at.index.admit(at.sid("T"), STRANGER.owner, "u") is None
    assert sorted(await at.held("{index}:sessions.", "{index}:users.")) == [
        "{index}:sessions.T",
        "{index}:users.user(stranger)",
    ]


async def test_a_session_that_is_over_leaves_the_live_indexes_and_its_user_with_the_last(at: Place) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.index.admit(at.sid("T"), ME.owner, "u")
    user = user_key(ME.owner, "u")
    async with at.seen() as seen:
        await at.index.remove(at.sid("S"), ME.owner, user)
    assert seen == dict.fromkeys((f"{sessions}.S" for sessions in SESSIONS), None)
    async with at.seen() as seen:
        await at.index.remove(at.sid("T"), ME.owner, user)
    assert {name for name in seen if "." in name} == {
        *(f"{sessions}.T" for sessions in SESSIONS),
        *(f"{users}.user(me)" for users in USERS),
    }
    assert sorted(await at.held("{index}:kept:user(me).")) == [
        "{index}:kept:user(me).S",
        "{index}:kept:user(me).T",
    ]


async def test_a_user_of_whom_anything_is_left_stays_in_the_indexes(at: Place, clock: Clock) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    clock.now += KEPT
    async with at.seen() as seen:
        await at.users.forget_users(ME, "u", [user_key(ME.owner, "u")])
    assert seen == {}
    await at.do("PEXPIRE", at.keys.remaining_sessions(user_key(ME.owner, "u")), DAY)
    clock.now += 1
    await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    await at.users.forget_users(ME, "u", [user_key(ME.owner, "u")])
    assert sorted(await at.held("{index}:users.", "{index}:names:name(u).")) == [
        "{index}:names:name(u).user(stranger)",
        "{index}:users.user(stranger)",
    ]


async def test_forgetting_a_user_tells_whether_he_left(at: Place) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    user = user_key(ME.owner, "u")
    command = index_forget_user(
        remaining_sessions=at.keys.remaining_sessions(user),
        held=at.index.held(ME.owner, user),
        users_by_name=at.keys.users_by_name(name_key(ME.owner, "u")),
        user=user,
    )
    assert await at.redis.run(command) == 0
    await at.index.remove_erased(at.sid("S"), user)
    async with at.seen() as seen:
        assert await at.redis.run(command) == 1
    assert {name for name in seen if "." in name} == {
        "{index}:names:name(u).user(me)",
        *(f"{users}.user(me)" for users in USERS),
    }


async def test_a_session_of_a_single_chat_is_entered_where_erasure_looks_and_nowhere_else(at: Place) -> None:
    async with at.seen() as seen:
        await at.index.enter_single(at.sid("S"), ME.owner, "u")
    assert seen == {
        "{index}:kept:user(me)": KEPT,
        "{index}:kept:user(me).S": KEPT,
        "{index}:names:name(u)": KEPT,
        "{index}:names:name(u).user(me)": KEPT,
    }


async def test_single_chats_renew_the_indexes_and_never_shorten_them(at: Place, clock: Clock) -> None:
    await at.index.enter_single(at.sid("S"), ME.owner, "u")
    clock.now += KEPT
    await at.do("PEXPIRE", at.keys.remaining_sessions(user_key(ME.owner, "u")), DAY)
    await at.index.enter_single(at.sid("T"), ME.owner, "u")
    expected = {
        "{index}:kept:user(me)": KEPT,
        "{index}:kept:user(me).T": KEPT,
        "{index}:names:name(u)": KEPT,
        "{index}:names:name(u).user(me)": KEPT,
    }
    assert await at.dump() == expected
    at.with_limits(expire=60)
    await at.index.enter_single(at.sid("V"), ME.owner, "u")
    assert await at.dump() == expected | {"{index}:kept:user(me).V": MINUTE + TOMBSTONE}


async def test_the_clean_up_takes_what_is_late_and_tells_what_expires_soonest(
    at: Place, clock: Clock
) -> None:
    at.with_limits(user=9)
    for session in ("S", "T"):
        await at.index.admit(at.sid(session), ME.owner, "u")
    clock.now += MINUTE
    for session in ("V", "W"):
        await at.index.admit(at.sid(session), STRANGER.owner, "u")
    clock.now += SESSION - MINUTE - 1
    assert (await at.index.prune(5))[:2] == (0, 0)
    clock.now += 1
    sessions, users, _, oldest = await at.index.prune(1)
    assert (sessions, users) == (1, 1)
    assert [session for session, _ in oldest] == [at.sid("T")]
    assert await at.index.prune(2) == (
        *(1, 0, clock.now),
        [(at.sid("V"), clock.now - SESSION + MINUTE), (at.sid("W"), clock.now - SESSION + MINUTE)],
    )
    assert sorted(await at.held("{index}:users.", "{index}:sessions.")) == [
        "{index}:sessions.V",
        "{index}:sessions.W",
        "{index}:users.user(stranger)",
    ]


async def test_a_session_in_the_indexes_that_no_longer_exists_is_cleaned_up(at: Place) -> None:
    await at.open()
    await at.index.admit(at.sid("T"), ME.owner, "u")
    await at.age(5 * MINUTE)
    cleaned = await at.users.clean_up(10)
    assert (cleaned.orphaned_sessions, cleaned.inactive_sessions, cleaned.more) == (1, 0, False)
    assert sorted(await at.held("{index}:sessions.")) == ["{index}:sessions.S"]


async def test_of_the_sessions_of_a_name_only_those_that_are_listed_are_read_whole(at: Place) -> None:
    owners = [ME, STRANGER, Identity(ME.root, "third")]
    for number, owner in enumerate(owners):
        await at.open(f"S{number}", owner=owner, metadata={"k": "v" * 100})
    await at.age(SECOND)
    await at.say("A", "S1", who=STRANGER)  # the newest activity
    whole: list[str] = []
    read = at.users._whole

    async def reading(ids: Sequence[str]) -> list[SessionRecord | None]:
        whole.extend(ids)
        return await read(ids)

    at.users._whole = reading  # type: ignore[method-assign]
    listed = await at.users.sessions(ADMIN, "u", 1)
    assert [record.session_id for record in listed] == [at.sid("S1")] == whole
    assert listed[0].view(at.limits)["metadata"] == {"k": "v" * 100}
    assert {record.owner for record in await at.users.sessions(ADMIN, "u", 9)} == {o.owner for o in owners}
    assert [record.owner for record in await at.users.sessions(ME, "u", 9)] == [ME.owner]


async def test_sessions_past_a_bound_of_bytes_are_listed_without_what_may_be_long(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "MOST_WHOLE_BYTES", 1500)
    monkeypatch.setattr(users, "_WHOLE_AT_ONCE", 1)
    for name in ("SA", "SB", "SC"):
        await at.open(name, metadata={"k": "v" * 500}, additional_messages=[{"content": "x" * 500}])
    listed = await at.users.sessions(ME, "u", 5)
    views = [record.view(at.limits) for record in listed]
    assert [bool(view["metadata"]) for view in views] == [True, True, False]
    assert [bool(record.additional_messages) for record in listed] == [True, True, False]
    for record, view in zip(listed, views, strict=True):
        whole, _, _ = await at.sessions.read(record.session_id, ME, history=0, touch=False)
        differ = {name for name, value in whole.view(at.limits).items() if view[name] != value}
        assert differ <= {"metadata", "context"}
