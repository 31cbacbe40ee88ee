"""What is counted: rates, usage and quota."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.exceptions import (
    QuotaExceeded,
    RateLimited,
)
from app.models import Identity, Usage
from app.stores.index import owner_key, user_key
from app.stores.scripts import rate_take, usage_erase, usage_read
from app.stores.usage import UsageStore, today, usage_of_end
from app.utils import shard_of

from .place import (
    ADMIN,
    DAY,
    FOREIGN_ADMIN,
    HOUR,
    ME,
    MINUTE,
    NOON,
    SECOND,
    SESSION,
    STRANGER,
    Clock,
    Place,
)

# -- what was used -------------------------------------------------------------------------------------

DAY_NUMBER = NOON // DAY
USED = f"usage:owner(me):{DAY_NUMBER}"


async def test_a_chat_counts_for_the_day_on_which_it_ends(at: Place, clock: Clock) -> None:
    await at.open()
    await at.say("A")
    async with at.seen() as seen:
        await at.end("A", usage="30 20 10")
    life = DAY // 2 + 40 * DAY
    assert {name: value for name, value in seen.items() if name.startswith(("usage", "owners", "spent"))} == {
        USED: life,
        f"{USED}.u\x1fbot": "1 30 20 10",
        f"owners:root:{DAY_NUMBER}": life,
        f"owners:root:{DAY_NUMBER}=": ["owner(me)"],
    }


async def test_chats_of_one_day_add_up_and_keep_its_time(at: Place, clock: Clock) -> None:
    await at.open()
    await at.say("A")
    await at.end("A", usage="30 20 10")
    await at.age(HOUR // 2)
    await at.say("B")
    async with at.seen() as seen:
        await at.end("B", usage="5 3 2")
    assert {name: value for name, value in seen.items() if name.startswith(("usage", "owners"))} == {
        f"{USED}.u\x1fbot": "2 35 23 12"
    }


async def test_the_next_day_begins_anew(at: Place, clock: Clock) -> None:
    await at.open()
    await at.say("A")
    await at.end("A")
    clock.now = NOON + DAY // 2
    await at.do("HSET", at.keys.session(at.sid("S")), "expires", clock.now + SESSION)
    await at.say("B")
    await at.end("B", usage="5 3 2")
    held = await at.held("usage:", "owners:")
    assert held[f"usage:owner(me):{DAY_NUMBER + 1}.u\x1fbot"] == "1 5 3 2"
    assert held[f"usage:owner(me):{DAY_NUMBER + 1}"] == 41 * DAY
    assert held[f"{USED}.u\x1fbot"] == "1 30 20 10"


async def test_large_sums_stay_whole_numbers(at: Place) -> None:
    await at.open()
    many = Usage(token_count=1 << 50, input_count=1 << 50, output_count=1)
    for chat in "AB":
        await at.say(chat)
        await at.end(chat, usage=usage_of_end(many))
    [row] = [value for name, value in (await at.held("usage:")).items() if name.endswith("bot")]
    assert row == f"2 {1 << 51} {1 << 51} 2"


async def test_a_user_s_tokens_are_counted_until_midnight_where_there_is_a_quota(
    at: Place, clock: Clock
) -> None:
    await at.with_quota()
    await at.open()
    for chat, usage in (("A", "30 20 10"), ("B", "5 3 2"), ("C", "0 0 0")):
        await at.say(chat)
        await at.end(chat, usage=usage)
    assert await at.held("spent:") == {
        f"spent:user(me):{DAY_NUMBER}": DAY // 2 + MINUTE,
        f"spent:user(me):{DAY_NUMBER}=": "35",
    }


async def test_a_chat_without_tokens_spends_nothing(at: Place, clock: Clock) -> None:
    await at.with_quota()
    await at.open()
    await at.say("A")
    await at.end("A", usage="0 0 0")
    assert await at.held("spent:") == {}
    assert (await at.held("usage:"))[f"{USED}.u\x1fbot"] == "1 0 0 0"


async def test_without_a_quota_nothing_is_spent_and_waiting_counts_for_nothing(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    assert await at.held("usage:", "owners:", "spent:") == {}
    await at.claim("A", force=True, expect="waiting")
    await at.end("A", epoch=2)
    assert await at.held("spent:") == {}


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


async def take_of_three(at: Place) -> Any:
    return await at.redis.run(rate_take(bucket=at.keys.rate("messages", "u"), per_minute=3))


async def test_a_bucket_tells_what_is_left_and_lives_a_little_longer_than_it_takes_to_fill(
    at: Place, clock: Clock
) -> None:
    async def take() -> Any:
        return await take_of_three(at)

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
    assert await take_of_three(at) == [1, 2, 0]
    clock.now -= 40 * SECOND
    assert await take_of_three(at) == [1, 1, 0]


async def test_a_bucket_never_holds_more_than_a_minute_s_worth(at: Place) -> None:
    await take_of_three(at)
    await at.age(50 * SECOND)
    assert await take_of_three(at) == [1, 2, 0]


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
        await at.do("DEL", at.keys.session(at.sid("S")))
    found = await at.usage.rows(ME, first - timedelta(9), today())
    assert [(row.day, row.chats) for row in found] == [(first - timedelta(1), 1), (first, 1)]
    assert [row.day for row in await at.usage.rows(ME, first, first)] == [first]
    assert [row.day for row in await at.usage.rows(ADMIN, first, first)] == [first]


async def test_a_day_without_usage_is_not_spoken_of(at: Place) -> None:
    await use(at, "A")
    day = today().toordinal() - 719_163
    keys = at.keys.usage(shard_of(at.sid("S")))
    owner, root = owner_key(STRANGER.owner), owner_key(ME.root)
    command = usage_read(at=keys, owner=owner, root=root, first_day=day, last_day=day)
    assert await at.redis.run(command) == []


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
    keys, root = at.keys.usage(shard_of(at.sid("S"))), owner_key(ME.root)
    command = usage_erase(at=keys, owner="", root=root, first_day=day - 1, last_day=day + 1, row="u\x1f")
    assert await at.redis.run(command) == 2


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
