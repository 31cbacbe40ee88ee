"""What is counted and remembered beside sessions: indexes, files, conversations, rates, usage."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.exceptions import (
    ConversationNotFound,
    FileNotFound,
    QuotaExceeded,
    RateLimited,
    SessionLimitReached,
)
from app.models import Identity
from app.stores.files import FileRecord, new_file_id
from app.stores.index import name_key, owner_key, user_key
from app.stores.sessions import SessionRecord
from app.stores.usage import UsageStore, today

from .place import (
    ADMIN,
    DAY,
    FOREIGN_ADMIN,
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

# -- sessions and their users --------------------------------------------------------------------------


async def test_a_session_is_entered_everywhere_with_its_time(at: Place) -> None:
    assert await at.index.admit(at.sid("S"), ME.owner, "u") is None
    assert await at.dump() == {
        "{index}:user:user(me)": KEPT,
        "{index}:user:user(me).S": SESSION,
        "{index}:sessions": KEPT,
        "{index}:sessions.S": SESSION,
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
    await at.index.keep(at.sid("S"), ME.owner, "u")
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
    at.with_limits(per_user=2)
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
    at.with_limits(total=2)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    crowd = await at.index.admit(at.sid("V"), ME.owner, "u")
    assert crowd is not None
    assert [session for session, _ in crowd.sessions] == [at.sid("S")]


async def test_a_full_service_refuses_a_user_who_has_none(at: Place) -> None:
    at.with_limits(total=1)
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
    at.with_limits(per_user=2, total=3, users=2)
    assert await at.index.admit(at.sid("S"), ME.owner, "u") is None
    assert await at.index.admit(at.sid("T"), ME.owner, "u") is None
    assert await at.index.admit(at.sid("V"), STRANGER.owner, "u") is None


async def test_a_session_that_is_entered_may_always_be_entered_again(at: Place) -> None:
    at.with_limits(per_user=1, total=1, users=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    assert await at.index.admit(at.sid("S"), ME.owner, "u") is None


async def test_what_is_over_leaves_in_the_step_in_which_a_newcomer_enters(at: Place) -> None:
    at.with_limits(per_user=1, total=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    async with at.seen() as seen:
        assert await at.index.admit(at.sid("T"), ME.owner, "u", over=at.sid("S")) is None
    assert {name: value for name, value in seen.items() if value is None} == {
        "{index}:user:user(me).S": None,
        "{index}:sessions.S": None,
    }


async def test_a_newcomer_that_is_refused_after_all_leaves_no_user_without_sessions(at: Place) -> None:
    at.with_limits(total=1)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    at.with_limits(total=0)
    with pytest.raises(SessionLimitReached):
        await at.index.admit(at.sid("V"), ME.owner, "u", over=at.sid("S"))
    assert await at.held("{index}:users", "{index}:user:", "{index}:sessions") == {}


async def test_what_has_expired_counts_no_more_from_its_very_moment(at: Place, clock: Clock) -> None:
    at.with_limits(per_user=1, total=1, users=1)
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
        await at.index.forget(at.sid("S"), user)
    assert seen == {"{index}:user:user(me).S": None, "{index}:sessions.S": None}
    async with at.seen() as seen:
        await at.index.forget(at.sid("T"), user)
    assert sorted(name for name in seen if "." in name) == [
        "{index}:sessions.T",
        "{index}:user:user(me).T",
        "{index}:users.user(me)",
    ]
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
    await at.redis.command("PEXPIRE", at.keys.kept_sessions(user_key(ME.owner, "u")), DAY)
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
    keys = [at.keys.kept_sessions(user), at.keys.all_users, at.keys.namesakes(name_key(ME.owner, "u"))]
    assert await at.redis.run(at.users._forget, keys, [user]) == 0
    await at.index.forget_kept(at.sid("S"), user)
    async with at.seen() as seen:
        assert await at.redis.run(at.users._forget, keys, [user]) == 1
    assert sorted(name for name in seen if "." in name) == [
        "{index}:names:name(u).user(me)",
        "{index}:users.user(me)",
    ]


async def test_a_session_of_a_single_chat_is_entered_where_erasure_looks_and_nowhere_else(at: Place) -> None:
    async with at.seen() as seen:
        await at.index.keep_single(at.sid("S"), ME.owner, "u")
    assert seen == {
        "{index}:kept:user(me)": KEPT,
        "{index}:kept:user(me).S": KEPT,
        "{index}:names:name(u)": KEPT,
        "{index}:names:name(u).user(me)": KEPT,
    }


async def test_single_chats_renew_the_indexes_and_never_shorten_them(at: Place, clock: Clock) -> None:
    await at.index.keep_single(at.sid("S"), ME.owner, "u")
    clock.now += KEPT
    await at.redis.command("PEXPIRE", at.keys.kept_sessions(user_key(ME.owner, "u")), DAY)
    await at.index.keep_single(at.sid("T"), ME.owner, "u")
    expected = {
        "{index}:kept:user(me)": KEPT,
        "{index}:kept:user(me).T": KEPT,
        "{index}:names:name(u)": KEPT,
        "{index}:names:name(u).user(me)": KEPT,
    }
    assert await at.dump() == expected
    at.with_limits(expire=60)
    await at.index.keep_single(at.sid("V"), ME.owner, "u")
    assert await at.dump() == expected | {"{index}:kept:user(me).V": MINUTE + TOMBSTONE}


async def test_the_clean_up_takes_what_is_late_and_tells_what_expires_soonest(
    at: Place, clock: Clock
) -> None:
    at.with_limits(per_user=9)
    for session in ("S", "T"):
        await at.index.admit(at.sid(session), ME.owner, "u")
    clock.now += MINUTE
    for session in ("V", "W"):
        await at.index.admit(at.sid(session), STRANGER.owner, "u")
    clock.now += SESSION - MINUTE - 1
    assert (await at.index.prune(5))[:2] == (0, 0)
    clock.now += 1
    sessions, users, crowd = await at.index.prune(1)
    assert (sessions, users) == (1, 1)
    assert [session for session, _ in crowd.sessions] == [at.sid("T")]
    sessions, users, crowd = await at.index.prune(2)
    assert (sessions, users) == (1, 0)
    assert crowd == (
        clock.now,
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


# -- files ---------------------------------------------------------------------------------------------

WEEK = 7 * DAY


async def upload(at: Place, label: str, owner: Identity = ME) -> FileRecord:
    now = await at.now()
    record = FileRecord(
        *(new_file_id(), owner.owner, user_key(owner.owner, "u"), "u", "z-1", "bot-a", None),
        *("a.png", "image/png", "image", 3, now, now + WEEK),
    )
    at.name(record.file_id, label)
    await at.files.add(record)
    return record


async def test_a_file_is_indexed_by_its_user_and_its_name_until_it_expires(at: Place) -> None:
    record = await upload(at, "F")
    held = await at.dump()
    held.pop("file:F=")
    assert held == {
        "file:F": WEEK,
        "{index}:files:user(me)": WEEK,
        "{index}:files:user(me).F": WEEK,
        "{index}:uploaders:name(u)": WEEK,
        "{index}:uploaders:name(u).user(me)": WEEK,
    }
    assert await at.files.find([record.file_id], ME) == [record]
    with pytest.raises(FileNotFound):
        await at.files.find([record.file_id], STRANGER)


async def test_a_file_index_forgets_what_has_expired_and_lives_for_its_newest(
    at: Place, clock: Clock
) -> None:
    await upload(at, "F")
    clock.now += WEEK - 1
    await upload(at, "G")
    assert sorted(await at.held("{index}:files:user(me).")) == [
        "{index}:files:user(me).F",
        "{index}:files:user(me).G",
    ]
    clock.now += 1
    await upload(at, "H")
    held = await at.held("{index}:files:")
    assert sorted(held) == ["{index}:files:user(me)", "{index}:files:user(me).G", "{index}:files:user(me).H"]
    assert held["{index}:files:user(me)"] == WEEK


# -- conversations -------------------------------------------------------------------------------------

NINETY = 90 * DAY


async def keep(at: Place, conversation: str, session: SessionRecord) -> None:
    record = at.conversations._places(session.owner, session.user_id, conversation)[0]
    at.name(record.rpartition(":")[2], conversation)
    await at.conversations.keep(session, conversation, "bot-a")


async def test_a_conversation_is_remembered_with_bot_and_credential_for_its_user_alone(at: Place) -> None:
    session = await at.open()
    before = await at.dump()
    await keep(at, "c-1", session)
    held = {name: value for name, value in (await at.dump()).items() if name not in before}
    assert held == {
        "{name(u)}:conversation:c-1": NINETY,
        "{name(u)}:conversation:c-1=": "bot bot-a",
        "{name(u)}:conversations": NINETY,
        "{name(u)}:conversations.user(me):c-1": NINETY,
    }
    assert await at.conversations.use(ME, "u", "c-1") == ("bot", "bot-a")
    for who, user in ((STRANGER, "u"), (ME, "other")):
        with pytest.raises(ConversationNotFound):
            await at.conversations.use(who, user, "c-1")


async def test_using_a_conversation_keeps_it_for_its_full_time(at: Place) -> None:
    session = await at.open()
    await keep(at, "c-1", session)
    await at.age(DAY)
    async with at.seen() as seen:
        await at.conversations.use(ME, "u", "c-1")
    assert seen == {
        "{name(u)}:conversation:c-1": NINETY,
        "{name(u)}:conversations": NINETY,
        "{name(u)}:conversations.user(me):c-1": NINETY,
    }


async def test_looking_for_an_unknown_conversation_leaves_nothing(at: Place) -> None:
    with pytest.raises(ConversationNotFound):
        await at.conversations.use(ME, "u", "c-1")
    assert await at.dump() == {}


async def test_conversations_whose_time_is_up_leave_the_index(at: Place, clock: Clock) -> None:
    session = await at.open()
    await keep(at, "c-1", session)
    clock.now += NINETY - 1
    await keep(at, "c-2", session)
    assert "{name(u)}:conversations.user(me):c-1" in await at.held("{name(u)}:conversations.")
    clock.now += 1
    await keep(at, "c-3", session)
    assert sorted(await at.held("{name(u)}:conversations")) == [
        "{name(u)}:conversations",
        "{name(u)}:conversations.user(me):c-2",
        "{name(u)}:conversations.user(me):c-3",
    ]


async def test_forgetting_conversations_takes_the_user_s_own_and_an_admin_s_of_that_name(at: Place) -> None:
    mine, theirs = await at.open(), await at.open("T", owner=STRANGER)
    await keep(at, "c-1", mine)
    await keep(at, "c-2", mine)
    await keep(at, "c-3", theirs)
    await at.conversations.forget(ME, "u")
    assert sorted(await at.held("{name(u)}:")) == [
        "{name(u)}:conversation:c-3",
        "{name(u)}:conversation:c-3=",
        "{name(u)}:conversations",
        "{name(u)}:conversations.user(stranger):c-3",
    ]
    await keep(at, "c-1", mine)
    await at.conversations.forget(ADMIN, "u")
    assert await at.held("{name(u)}:") == {}


async def test_forgetting_tells_how_many_went(at: Place) -> None:
    session = await at.open()
    for number in (1, 2):
        await keep(at, f"c-{number}", session)
    name = name_key(ME.owner, "u")
    keys = [at.keys.conversations(name)]
    args = ["", at.keys.conversation_prefix(name)]
    assert await at.redis.run(at.conversations._forget, keys, args) == 2


async def test_a_conversation_of_a_session_that_was_erased_meanwhile_is_not_kept(at: Place) -> None:
    session = await at.open()
    await at.sessions.set_conversation(at.sid("S"), "c-1", "bot-a", 0)
    async with at.seen() as seen:
        await at.conversations.keep_of(session, "c-1", "bot-a")
    assert seen["session:S.kept"] == 0
    assert await at.conversations.use(ME, "u", "c-1") == ("bot", "bot-a")
    await at.conversations.drop(session, "c-1")
    await at.redis.command("DEL", at.keys.session(at.sid("S")))
    await at.conversations.keep_of(session, "c-1", "bot-a")
    assert await at.held("{name(u)}:", "session:") == {}


# -- rates ---------------------------------------------------------------------------------------------


async def test_a_minute_s_worth_of_tokens_can_be_taken_at_once_and_comes_back_steadily(
    at: Place, clock: Clock
) -> None:
    async def take() -> str:
        try:
            await at.rates.take("messages", "u")
        except RateLimited as limited:
            return str(limited.headers["RateLimit-Reset"])
        return "granted"

    assert [await take() for _ in range(3)] == ["granted", "granted", "30"]
    clock.now += 15 * SECOND
    assert await take() == "15"
    clock.now += 15 * SECOND
    assert [await take(), await take()] == ["granted", "30"]
    clock.now += 45 * SECOND
    assert [await take(), await take()] == ["granted", "15"]


async def test_a_bucket_tells_what_is_left_and_lives_a_little_longer_than_it_takes_to_fill(
    at: Place, clock: Clock
) -> None:
    key = at.keys.rate("messages", "u")

    async def take() -> Any:
        return await at.redis.run(at.rates._take, [key], [3])

    assert await take() == [1, 2, 0]
    assert await at.dump() == {
        "rate:messages:u": 61_000,
        "rate:messages:u.tokens": "2.000000",
        "rate:messages:u.at": 0,
    }
    assert await take() == [1, 1, 0]
    clock.now += 10 * SECOND
    assert await take() == [1, 0, 0]
    assert (await at.dump())["rate:messages:u.tokens"] == "0.500000"
    assert await take() == [0, 0, 10_000]
    clock.now += 50 * SECOND
    assert await take() == [1, 2, 0]
    assert await at.dump() == {
        "rate:messages:u": 61_000,
        "rate:messages:u.tokens": "2.000000",
        "rate:messages:u.at": 0,
    }


async def test_a_clock_that_went_back_takes_no_tokens_away(at: Place, clock: Clock) -> None:
    key = at.keys.rate("messages", "u")
    assert await at.redis.run(at.rates._take, [key], [3]) == [1, 2, 0]
    clock.now -= 40 * SECOND
    assert await at.redis.run(at.rates._take, [key], [3]) == [1, 1, 0]


async def test_a_bucket_never_holds_more_than_a_minute_s_worth(at: Place) -> None:
    key = at.keys.rate("messages", "u")
    await at.redis.run(at.rates._take, [key], [3])
    await at.age(50 * SECOND)
    assert await at.redis.run(at.rates._take, [key], [3]) == [1, 2, 0]


# -- usage ---------------------------------------------------------------------------------------------


async def use(
    at: Place, chat: str, session: str = "S", user: str = "u", owner: Identity = ME, **more: str
) -> None:
    await at.open(session, user, owner, **more)
    await at.say(chat, session, who=owner)
    await at.end(chat)


async def rows(at: Place, who: Identity, days: int = 3) -> list[tuple[str, str, int, int, int, int]]:
    found = await at.usage.rows(who, today() - timedelta(days), today())
    assert all(row.day <= today() for row in found)
    return sorted(row[1:] for row in found)


async def test_usage_is_told_to_its_owner_and_all_of_a_root_to_its_admins(at: Place) -> None:
    await use(at, "A")
    await use(at, "B", "T", "v", bot_id="other")
    await use(at, "C", "V", owner=STRANGER)
    mine = [("u", "bot", 1, 30, 20, 10), ("v", "other", 1, 30, 20, 10)]
    theirs = [("u", "bot", 1, 30, 20, 10)]
    assert await rows(at, ME) == mine
    assert await rows(at, STRANGER) == theirs
    assert await rows(at, ADMIN) == sorted(mine + theirs)
    assert await rows(at, FOREIGN_ADMIN) == []


async def test_usage_is_told_by_day(at: Place, clock: Clock) -> None:
    for chat in "AB":
        await use(at, chat)
        first = today()
        clock.now += DAY
        await at.redis.command("DEL", at.keys.session(at.sid("S")))
    found = await at.usage.rows(ME, first - timedelta(9), today())
    assert [(row.day, row.chats) for row in found] == [(first - timedelta(1), 1), (first, 1)]
    assert [row.day for row in await at.usage.rows(ME, first, first)] == [first]
    assert [row.day for row in await at.usage.rows(ADMIN, first, first)] == [first]


async def test_a_day_without_usage_is_not_spoken_of(at: Place) -> None:
    await use(at, "A")
    day = today().toordinal() - 719_163
    replies = await at.usage._on_shards(
        at.usage._read, [owner_key(STRANGER.owner), owner_key(ME.root), day, day]
    )
    assert [reply for reply in replies if reply] == []


async def test_erasing_a_user_s_usage_leaves_that_of_others(at: Place) -> None:
    await use(at, "A")
    await use(at, "B", "T", "uv")
    await use(at, "C", "V", owner=STRANGER)
    async with at.seen() as seen:
        await at.usage.erase(ME, "u")
    assert [name for name, value in seen.items() if value is not None] == []
    assert await rows(at, ADMIN) == [("u", "bot", 1, 30, 20, 10), ("uv", "bot", 1, 30, 20, 10)]
    assert len(await at.held("owners:")) == 2
    [owners] = [value for name, value in (await at.held("owners:")).items() if name.endswith("=")]
    assert owners == ["owner(me)", "owner(stranger)"]


async def test_an_owner_of_whom_nothing_is_left_leaves_the_set_of_owners(at: Place) -> None:
    await use(at, "A")
    await use(at, "C", "V", owner=STRANGER)
    await at.usage.erase(ME, "u")
    [owners] = [value for name, value in (await at.held("owners:")).items() if name.endswith("=")]
    assert owners == ["owner(stranger)"]


async def test_an_admin_erases_everybody_of_that_name_in_the_root(at: Place) -> None:
    await use(at, "A")
    await use(at, "C", "V", owner=STRANGER)
    await use(at, "D", "W", "v")
    await at.usage.erase(FOREIGN_ADMIN, "u")
    assert len(await rows(at, ADMIN)) == 3
    await at.usage.erase(ADMIN, "u")
    assert await rows(at, ADMIN) == [("v", "bot", 1, 30, 20, 10)]


async def test_erasing_tells_how_many_rows_went(at: Place) -> None:
    await use(at, "A")
    await use(at, "B", "T", bot_id="other")
    day = today().toordinal() - 719_163
    replies = await at.usage._on_shards(at.usage._erase, ["", owner_key(ME.root), day - 1, day + 1, "u\x1f"])
    assert sum(replies) == 2


async def test_the_quota_counts_what_the_user_has_spent_today(at: Place) -> None:
    await at.with_quota()
    usage = UsageStore(at.redis, at.keys, days=40, daily_tokens=60)
    user = user_key(ME.owner, "u")
    await use(at, "A")
    await usage.check_quota(user)
    await use(at, "B")
    with pytest.raises(QuotaExceeded):
        await usage.check_quota(user)
    await usage.check_quota(user_key(STRANGER.owner, "u"))
