"""What is counted: rates, usage and quota."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

import pytest

from app.exceptions import QuotaExceeded, RateLimited
from app.models import Identity
from app.models.chats import Usage
from app.stores.index import user_key
from app.stores.usage import UsageStore, Used, today, usage_of_end

from .place import (
    ADMIN,
    DAY,
    ELSEWHERE,
    FOREIGN_ADMIN,
    HOUR,
    ME,
    MINUTE,
    NOON,
    SESSION,
    STRANGER,
    Clock,
    Place,
    layers,
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
    spenders = ("user(me)", "owner(me)", "root", "all")
    assert await at.held("spent:") == {
        **{f"spent:{whose}:{DAY_NUMBER}": DAY // 2 + MINUTE for whose in spenders},
        **{f"spent:{whose}:{DAY_NUMBER}=": "35" for whose in spenders},
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


# -- usage ---------------------------------------------------------------------------------------------


async def use(
    at: Place, chat: str, session: str = "S", user: str = "u", owner: Identity = ME, **more: str
) -> None:
    await at.open(session, user, owner, **more)
    await at.say(chat, session, who=owner)
    await at.end(chat)


async def used(at: Place, who: Identity, first: date, last: date) -> list[Used]:
    return [row async for portion in at.usage.rows(who, first, last) for row in portion]


async def rows(at: Place, who: Identity, days: int = 3) -> list[tuple[str, str, int, int, int, int]]:
    found = await used(at, who, today() - timedelta(days), today())
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
    found = await used(at, ME, first - timedelta(9), today())
    assert [(row.day, row.chats) for row in found] == [(first - timedelta(1), 1), (first, 1)]
    assert [row.day for row in await used(at, ME, first, first)] == [first]
    assert [row.day for row in await used(at, ADMIN, first, first)] == [first]


async def test_names_that_find_no_row_share_one_that_tells_no_name(at: Place) -> None:
    await at.with_usage_rows(2)
    await use(at, "A")
    await use(at, "B", "T", "v")
    await use(at, "C", "V", "w")
    await use(at, "D", "W", "x", bot_id="made up")
    await use(at, "E", "X", "v")
    one = (1, 30, 20, 10)
    assert await rows(at, ME) == [("", "", 2, 60, 40, 20), ("u", "bot", *one), ("v", "bot", 2, 60, 40, 20)]
    await at.usage.erase(ME, "u")
    assert await rows(at, ME) == [("", "", 2, 60, 40, 20), ("v", "bot", 2, 60, 40, 20)]


async def test_many_rows_come_in_portions(at: Place) -> None:
    await use(at, "A")
    [key] = [name for name in await at.names() if b":usage:" in name]
    await at.do("HSET", key, *(part for n in range(2500) for part in (f"u{n}\x1fbot", "1 2 3 4")))
    portions = [len(portion) async for portion in at.usage.rows(ME, today(), today())]
    assert portions == [*[200] * 12, 101]


@asynccontextmanager
async def _steps(at: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    """Replies to each script about usage, as they come."""
    replies: list[Any] = []
    send = at.redis._without_errors

    async def seen(name: str, commands: Any, alone: bool = False) -> list[Any]:
        got = await send(name, commands, alone)
        asked = zip(commands, got, strict=True)
        replies.extend(reply for command, reply in asked if command.name.startswith("usage"))
        return got

    with monkeypatch.context() as patched:
        patched.setattr(type(at.redis), "_without_errors", staticmethod(seen))
        yield replies


async def test_a_report_over_many_days_reads_at_most_a_thousand_rows_in_a_step(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(at, "A")
    [key] = [name for name in await at.names() if b":usage:" in name]
    of_owner, day = key.rsplit(b":", 1)
    rows_of_a_day = [part for n in range(400) for part in (f"u{n}\x1fbot", "1 2 3 4")]
    for back in range(1, 8):
        name = b"%b:%d" % (of_owner, int(day) - back)
        await at.do("HSET", name, *rows_of_a_day)
        await at.do("PEXPIRE", name, DAY)
    async with _steps(at, monkeypatch) as replies:
        assert len(await used(at, ME, today() - timedelta(10), today())) == 7 * 400 + 1
    found = [sum(len(rows) // 2 for rows in reply) for reply in replies]
    assert (sum(found), max(found)) == (7 * 400 + 1, 800)


async def test_an_erasure_finds_the_rows_of_a_name_a_portion_at_a_time(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(at, "A")
    [key] = [name for name in await at.names() if b":usage:" in name]
    bots = [part for n in range(30) for part in (f"u\x1fbot {n}", "1 2 3 4")]
    await at.do("HSET", key, *(part for n in range(2500) for part in (f"u{n}\x1fbot", "1 2 3 4")), *bots)
    async with _steps(at, monkeypatch) as replies:
        await at.usage.erase(ME, "u")
    assert {row[0] for row in await rows(at, ME)} == {f"u{n}" for n in range(2500)}
    assert len([reply for reply in replies if reply[1] != b"0"]) >= 2500 // 500


async def test_an_erasure_takes_a_name_as_it_is_written(at: Place) -> None:
    await use(at, "A")
    for n, name in enumerate(("u*", "[u]", "\\u", "?")):
        await use(at, f"B{n}", f"T{n}", name, Identity(root=ME.root, hty_id=f"other {n}"))
        for who in (ME, ADMIN):
            await at.usage.erase(who, name)
        assert [row[0] for row in await rows(at, ADMIN)] == ["u"]


async def test_reports_and_erasures_take_turns_as_other_long_reads_do(at: Place) -> None:
    await use(at, "A")
    await use(at, "B", "T", owner=STRANGER)
    async with at.large.taken(ME.owner):
        waiting = [asyncio.create_task(rows(at, ME)), asyncio.create_task(at.usage.erase(ME, "v"))]
        assert len(await rows(at, STRANGER)) == 1
        await at.usage.erase(STRANGER, "v")
        assert not any(task.done() for task in waiting)
    assert len((await asyncio.gather(*waiting))[0]) == 1  # type: ignore[arg-type]  # of the first one


async def test_who_has_used_nothing_has_no_rows(at: Place) -> None:
    await use(at, "A")
    assert [portion async for portion in at.usage.rows(STRANGER, today(), today())] == []


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


async def test_the_quota_counts_what_the_user_has_spent_today(at: Place) -> None:
    await at.with_quota()
    usage = UsageStore(at.redis, at.keys, days=40, daily_tokens=layers("tokens a day", user=60))
    user = user_key(ME.owner, "u")
    await use(at, "A")
    (await usage.charge(ME.owner, user, 0))()
    await use(at, "B")
    with pytest.raises(QuotaExceeded) as refused:
        (await usage.charge(ME.owner, user, 0))()
    told = {name: refused.value.details[name] for name in ("layer", "setting", "limit", "used")}
    assert told == {"layer": "user", "setting": "SETTING_OF_USER", "limit": 60, "used": 60}
    (await usage.charge(ME.owner, user_key(ME.owner, "v"), 0))()
    (await usage.charge(STRANGER.owner, user_key(STRANGER.owner, "u"), 0))()


@pytest.mark.parametrize(
    ("layer", "refused"),
    [
        ("owner", {("me", "v")}),
        ("root", {("me", "v"), ("stranger", "u")}),
        ("service", {("me", "v"), ("stranger", "u"), ("elsewhere", "u")}),
    ],
)
async def test_a_quota_of_a_layer_counts_all_that_was_spent_in_it(
    layer: str, refused: set[tuple[str, str]], at: Place
) -> None:
    """Sums of several shards: another session lies in another one."""
    await at.with_quota()
    usage = UsageStore(at.redis, at.keys, days=40, daily_tokens=layers("tokens a day", **{layer: 60}))
    await use(at, "A")
    await use(at, "B", "T", user="w")
    found = {}
    for who, user in ((ME, "v"), (STRANGER, "u"), (ELSEWHERE, "u")):
        try:
            (await usage.charge(who.owner, user_key(who.owner, user), 0))()
        except QuotaExceeded as error:
            found[who.hty_id, user] = error.details["layer"], error.details["used"]
    assert found == dict.fromkeys(refused, (layer, 60))


@pytest.mark.parametrize("layer", ["user", "owner", "root", "service"])
async def test_what_runs_counts_until_it_is_over(layer: str, at: Place) -> None:
    """Of many that are begun before the first is over each found the quota unspent."""
    await at.with_quota()
    usage = UsageStore(at.redis, at.keys, days=40, daily_tokens=layers("tokens a day", **{layer: 10_000}))
    payer = ME.owner, user_key(ME.owner, "u")
    first = await usage.charge(*payer, 90_000)  # alone one may have all that is left, and more
    for _ in range(2):
        with pytest.raises(RateLimited) as refused:
            await usage.charge(*payer, 10)
        assert refused.value.details == {"layer": layer, "used": 0} | {
            "setting": f"SETTING_OF_{layer.upper()}",
            "limit": 10_000,
        }
    first()
    over = await asyncio.gather(*(usage.charge(*payer, 1000) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(each, RateLimited) for each in over) == 16  # 3,000 each, with the answer
    [each() for each in over if not isinstance(each, BaseException)]
    usage.shared_by(4)  # each of them is taken to have as much ahead
    over = await asyncio.gather(*(usage.charge(*payer, 1000) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(each, RateLimited) for each in over) == 19
    [each() for each in over if not isinstance(each, BaseException)]
    usage.hold(*payer, 50_000)()
    (await usage.charge(*payer, 0))()


async def test_without_a_quota_nothing_is_asked(at: Place) -> None:
    sent: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(at.redis, "pipeline", sent.append)
        (await at.usage.charge(ME.owner, user_key(ME.owner, "u"), 0))()
    assert sent == []
