"""Limits in layers: a user id, its owner, the root domain, the whole service. What is taken counts in each
layer, and who is refused in one takes nothing in any."""

from __future__ import annotations

from typing import Any

import pytest

from app.exceptions import RateLimited, SessionLimitReached
from app.models import Identity
from app.stores.index import user_key
from app.stores.layers import Limit, Limits, Shares
from app.stores.scripts import rate_take

from .place import ELSEWHERE, ME, SECOND, SESSION, STRANGER, Clock, Place

APP = Identity("api_key:app", None)
LAYERS = ("user", "owner", "root", "service")


# -- what a share is -------------------------------------------------------------------------------------


def test_an_owner_and_a_root_have_their_shares_of_the_total() -> None:
    limits = Limits.of("sessions", Limit(50, "TOTAL"), Shares(0.2, 0.5), user=Limit(3, "PER_USER"))
    assert limits.numbers(ME.owner) == [3, 10, 25, 50]
    assert [limit.setting for limit in limits.of_owner(ME.owner)] == [
        "PER_USER",
        "COZE_OWNER_SHARE of TOTAL",
        "COZE_ROOT_SHARE of TOTAL",
        "TOTAL",
    ]


def test_who_is_the_root_itself_has_the_share_of_the_root() -> None:
    limits = Limits.of("sessions", Limit(50, "TOTAL"), Shares(0.2, 0.5), user=Limit(3, "PER_USER"))
    assert limits.numbers(APP.owner) == [3, 0, 25, 50]


def test_an_owner_s_own_limit_holds_beside_his_share_and_the_smaller_one_counts() -> None:
    for own, expected in ((7, (7, "OWN")), (40, (10, "COZE_OWNER_SHARE of TOTAL"))):
        limits = Limits.of("streams", Limit(50, "TOTAL"), Shares(0.2, 0.5), owner=Limit(own, "OWN"))
        assert limits.of_owner(ME.owner)[1] == expected
        assert limits.of_owner(APP.owner)[1] == (own, "OWN")


def test_a_share_of_little_is_one_and_the_whole_is_no_limit_of_its_own() -> None:
    assert Limits.of("x", Limit(3, "TOTAL"), Shares(0.2, 1)).numbers(ME.owner) == [0, 1, 0, 3]
    assert Limits.of("x", Limit(), Shares(0.2, 0.5)).numbers(ME.owner) == [0, 0, 0, 0]


def test_a_refusal_says_layer_setting_and_number() -> None:
    limits = Limits.of("sessions", Limit(50, "TOTAL"), Shares(0.2, 0.5))
    message, details = limits.refusal(ME.owner, 1)
    assert message == "At most 10 sessions for one caller (COZE_OWNER_SHARE of TOTAL)"
    assert details == {"layer": "owner", "setting": "COZE_OWNER_SHARE of TOTAL", "limit": 10}


# -- rates -----------------------------------------------------------------------------------------------


async def take(at: Place, who: Identity = ME, user: str = "u") -> str:
    """``granted``, or the layer that refuses and after how many seconds it has a token."""
    try:
        await at.rates.take("messages", who.owner, user_key(who.owner, user))
    except RateLimited as limited:
        refusal = limited
    else:
        return "granted"
    layer, seconds = refusal.details["layer"], str(refusal.retry_after)
    limit = str(refusal.details["limit"])
    headers = {"RateLimit-Limit": limit, "RateLimit-Remaining": "0", "RateLimit-Reset": seconds}
    assert refusal.headers == headers
    assert refusal.details["setting"] == f"SETTING_OF_{layer.upper()}"
    return f"{layer} {seconds}"


async def test_a_minute_s_worth_of_tokens_can_be_taken_at_once_and_comes_back_steadily(
    at: Place, clock: Clock
) -> None:
    assert [await take(at) for _ in range(3)] == ["granted", "granted", "user 30"]
    clock.now += 15 * SECOND
    assert await take(at) == "user 15"
    clock.now += 15 * SECOND
    assert [await take(at), await take(at)] == ["granted", "user 30"]
    clock.now += 45 * SECOND
    assert [await take(at), await take(at)] == ["granted", "user 15"]


async def test_an_owner_who_makes_up_user_ids_has_the_rate_of_an_owner(at: Place) -> None:
    at.with_rates(user=2, owner=3, root=5, service=6)
    assert [await take(at, ME, f"fake{n}") for n in range(4)] == [*["granted"] * 3, "owner 20"]
    assert [await take(at, STRANGER, f"fake{n}") for n in range(3)] == [*["granted"] * 2, "root 12"]
    assert [await take(at, ELSEWHERE, "u"), await take(at, ELSEWHERE, "u")] == ["granted", "service 10"]


async def test_who_is_refused_in_one_layer_takes_nothing_in_the_others(at: Place) -> None:
    at.with_rates(user=1, owner=2, root=3, service=4)
    assert await take(at) == "granted"
    assert [await take(at) for _ in range(20)] == ["user 60"] * 20
    assert await take(at, ME, "v") == "granted"
    assert [await take(at, ME, f"w{n}") for n in range(20)] == ["owner 30"] * 20
    assert await take(at, STRANGER) == "granted"
    assert await take(at, ELSEWHERE) == "granted"


async def test_a_refusal_writes_nothing(at: Place) -> None:
    at.with_rates(user=5, owner=1)
    await take(at)
    async with at.seen() as seen:
        assert await take(at, ME, "v") == "owner 60"
    assert seen == {}


async def test_of_several_layers_without_a_token_that_is_told_which_takes_longest(
    at: Place, clock: Clock
) -> None:
    at.with_rates(user=2, owner=1)
    assert await take(at) == "granted"
    clock.now += 15 * SECOND
    assert await take(at) == "owner 45"
    at.with_rates(user=1, owner=2)
    await at.redis.on_each("FLUSHALL")
    assert [await take(at, ME, "v"), await take(at), await take(at)] == ["granted", "granted", "user 60"]


async def test_of_layers_that_take_equally_long_the_narrowest_is_told(at: Place, clock: Clock) -> None:
    at.with_rates(user=1, owner=1, root=1)
    assert [await take(at), await take(at)] == ["granted", "user 60"]


async def test_a_token_is_there_when_its_last_millisecond_is_over_and_not_before(
    at: Place, clock: Clock
) -> None:
    assert [await take(at), await take(at)] == ["granted", "granted"]
    clock.now += 30 * SECOND - 1
    assert await take(at) == "user 1"
    clock.now += 1
    assert await take(at) == "granted"


async def test_who_is_the_root_itself_is_not_held_to_the_rate_of_an_owner(at: Place) -> None:
    at.with_rates(user=9, owner=1, root=2)
    assert [await take(at, APP) for _ in range(3)] == ["granted", "granted", "root 30"]


async def test_who_only_looks_takes_nothing_and_is_refused_as_who_takes(at: Place) -> None:
    at.with_rates(user=2)
    whose = "messages", ME.owner, user_key(ME.owner, "u")
    for _ in range(9):
        await at.rates.look(*whose)
    assert await at.names() == []
    assert [await take(at) for _ in range(3)] == ["granted", "granted", "user 30"]
    with pytest.raises(RateLimited) as refused:
        await at.rates.look(*whose)
    assert (refused.value.retry_after, refused.value.details["layer"]) == (30, "user")


async def test_where_there_is_no_rate_nothing_is_asked(at: Place) -> None:
    at.with_rates()
    await take(at)
    assert await at.names() == []


async def take_of(at: Place, *per_minute: int) -> Any:
    buckets = at.keys.rate("messages", "u", "o", "r")
    return await at.redis.run(rate_take(buckets=buckets, takes=True, per_minute=[*per_minute]))


async def test_a_bucket_lives_a_little_longer_than_it_takes_to_fill(at: Place, clock: Clock) -> None:
    filled = {
        "{index}:rate:messages:u": 61_000,
        "{index}:rate:messages:u.tokens": "2.000000",
        "{index}:rate:messages:u.at": 0,
        "{index}:rate:messages:all": 61_000,
        "{index}:rate:messages:all.tokens": "8.000000",
        "{index}:rate:messages:all.at": 0,
    }
    assert await take_of(at, 3, 0, 0, 9) == [0, 0]
    assert await at.dump() == filled
    assert await take_of(at, 3, 0, 0, 9) == [0, 0]
    clock.now += 10 * SECOND
    assert await take_of(at, 3, 0, 0, 9) == [0, 0]
    assert (await at.dump())["{index}:rate:messages:u.tokens"] == "0.500000"
    assert await take_of(at, 3, 0, 0, 9) == [10_000, 0]
    clock.now += 50 * SECOND
    assert await take_of(at, 3, 0, 0, 9) == [0, 0]
    assert await at.dump() == filled


async def test_a_bucket_never_holds_more_than_a_minute_s_worth(at: Place) -> None:
    await take_of(at, 3, 3, 3, 3)
    await at.age(50 * SECOND)
    assert await take_of(at, 3, 3, 3, 3) == [0, 0]
    names = ("u", "o", "r", "all")
    held = await at.dump()
    assert [held[f"{{index}}:rate:messages:{name}.tokens"] for name in names] == ["2.000000"] * 4


async def test_a_clock_that_went_back_takes_no_tokens_away(at: Place, clock: Clock) -> None:
    assert await take_of(at, 3, 3, 3, 3) == [0, 0]
    clock.now -= 40 * SECOND
    assert await take_of(at, 3, 3, 3, 3) == [0, 0]
    assert (await at.dump())["{index}:rate:messages:o.tokens"] == "1.000000"


# -- sessions and users ----------------------------------------------------------------------------------


async def admit(at: Place, session: str, who: Identity = ME, user: str = "u", over: str = "") -> str:
    """``ok``, ``evict`` or ``refused``, with the layer that is full and what it has as many of as may be."""
    try:
        crowd = await at.index.admit(at.sid(session), who.owner, user, at.sid(over) if over else "")
    except SessionLimitReached as refused:
        return f"refused: {told(refused)}"
    if crowd is None:
        return "ok"
    assert crowd.sessions
    return f"evict: {told(crowd.refusal)}"


def told(refusal: SessionLimitReached) -> str:
    layer = refusal.details["layer"]
    assert refusal.details["setting"] == f"SETTING_OF_{layer.upper()}"
    assert f"(SETTING_OF_{layer.upper()})" in refusal.message
    what = "users" if "active users" in refusal.message else "sessions"
    return f"{refusal.details['limit']} {what}, {layer}"


async def test_an_owner_who_makes_up_user_ids_has_the_users_of_an_owner(at: Place) -> None:
    at.with_users(owner=2, root=3, service=4)
    assert [await admit(at, f"S{n}", ME, f"x{n}") for n in range(2)] == ["ok", "ok"]
    assert await admit(at, "S2", ME, "x2") == "refused: 2 users, owner"
    assert [await admit(at, f"T{n}", STRANGER, f"x{n}") for n in range(2)] == ["ok", "refused: 3 users, root"]
    assert await admit(at, "V", ELSEWHERE) == "ok"
    assert await admit(at, "W", ELSEWHERE, "v") == "refused: 4 users, service"


async def test_who_is_refused_is_entered_nowhere(at: Place) -> None:
    at.with_users(owner=1)
    await admit(at, "S")
    async with at.seen() as seen:
        assert await admit(at, "T", ME, "v") == "refused: 1 users, owner"
    assert seen == {}


async def test_the_sessions_of_all_of_an_owner_s_users_count_for_him(at: Place) -> None:
    at.with_limits(user=9, owner=3, root=4, service=5)
    assert [await admit(at, f"S{n}", ME, f"u{n}") for n in range(4)] == [
        *["ok"] * 3,
        "refused: 3 sessions, owner",
    ]
    assert await admit(at, "T1", STRANGER) == "ok"
    assert await admit(at, "T2", STRANGER, "v") == "refused: 4 sessions, root"
    assert [await admit(at, f"V{n}", ELSEWHERE, f"u{n}") for n in range(2)] == [
        "ok",
        "refused: 5 sessions, service",
    ]


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_user_who_has_sessions_gives_up_one_of_his_own_whichever_layer_is_full(
    layer: str, at: Place
) -> None:
    at.with_limits(**{"user": 99, "service": 99, layer: 2})
    assert [await admit(at, "S"), await admit(at, "T")] == ["ok", "ok"]
    assert await admit(at, "V") == f"evict: 2 sessions, {layer}"
    assert await admit(at, "V", over="S") == "ok"


async def test_the_narrowest_layer_that_is_full_is_told(at: Place) -> None:
    at.with_limits(user=1, owner=1, root=1, service=1)
    await admit(at, "S")
    assert await admit(at, "T") == "evict: 1 sessions, user"
    assert await admit(at, "T", ME, "v") == "refused: 1 sessions, owner"
    assert await admit(at, "T", STRANGER) == "refused: 1 sessions, root"
    assert await admit(at, "T", ELSEWHERE) == "refused: 1 sessions, service"


async def test_who_is_the_root_itself_is_not_held_to_the_limits_of_an_owner(at: Place) -> None:
    at.with_users(owner=1, root=2)
    at.with_limits(owner=1, root=3)
    assert [await admit(at, f"S{n}", APP, f"x{n}") for n in range(3)] == [
        *["ok"] * 2,
        "refused: 2 users, root",
    ]


async def test_places_of_all_layers_come_back_when_sessions_end_or_expire(at: Place, clock: Clock) -> None:
    at.with_users(owner=1)
    await admit(at, "S")
    await at.index.remove(at.sid("S"), ME.owner, user_key(ME.owner, "u"))
    assert await admit(at, "T", ME, "v") == "ok"
    clock.now += SESSION - 1
    assert await admit(at, "V", ME, "w") == "refused: 1 users, owner"
    clock.now += 1
    assert await admit(at, "V", ME, "w") == "ok"


async def test_a_user_with_sessions_of_the_version_before_is_no_new_one(at: Place) -> None:
    """That version enters sessions with the user and with all: not with the owner and the root."""
    at.with_users(owner=1)
    await admit(at, "S")
    await admit(at, "T", STRANGER)
    held = at.index.held(STRANGER.owner, user_key(STRANGER.owner, "u"))
    await at.do("DEL", held.owner_sessions, held.root_sessions, held.owner_users, held.root_users)
    await admit(at, "V", STRANGER, "another")
    assert await admit(at, "W", STRANGER) == "ok"


async def test_a_session_that_lives_on_is_entered_in_all_layers(at: Place) -> None:
    await admit(at, "S")
    held = at.index.held(ME.owner, user_key(ME.owner, "u"))
    entered = await at.dump()
    await at.do("DEL", held.owner_sessions, held.root_sessions, held.owner_users, held.root_users)
    at.with_users(owner=1, service=1)
    at.with_limits(owner=1, service=1)
    await at.index.renew(at.sid("S"), ME.owner, "u")
    assert await at.dump() == entered
