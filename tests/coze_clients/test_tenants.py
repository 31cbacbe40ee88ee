"""Two tenants: by no route of the door does one see or change anything of the other's."""

from __future__ import annotations

from typing import Any

from app.main import create_app
from tests.security.helpers import contents
from tests.support import RedisServer, SimControl, mask

from .support import BOT, CozeCaller, asking, events_of
from .table import OVER, RUNS, UNKNOWN, WAITS, Ids, calls, settle_in

ON_A_PICTURE = "POST /v3/chat with somebody else's picture"


async def answers(caller: CozeCaller, ids: Ids) -> dict[str, Any]:
    """What the caller is told by each route, without what differs each time and what he wrote himself."""
    told = {}
    listed = calls(ids)
    picture = listed["POST /v1/conversation/create"]["json"]["messages"]
    listed[ON_A_PICTURE] = {"json": asking("x", additional_messages=picture)}
    for name, how in listed.items():
        method, path = name.split(" ")[:2]
        response = await caller.call(method, path.format(**ids, bot_id="7380000000000000010"), **how)
        text = response.text
        for given in ids.values():
            text = text.replace(given, "<given>")
        told[name] = (response.status_code, mask(text), response.headers.get("content-type"))
    return told


def test_the_table_has_every_published_route_of_the_door() -> None:
    published = {
        f"{method.upper()} {path.removeprefix('/coze/api')}"
        for path, operations in create_app().openapi()["paths"].items()
        if path.startswith("/coze/api/")
        for method in operations
    }
    assert published == set(calls(UNKNOWN))


async def test_another_tenant_is_told_the_same_as_of_what_does_not_exist_and_changes_nothing(
    app: CozeCaller, other: CozeCaller, redis: RedisServer, simulator: SimControl
) -> None:
    own = await settle_in(app, OVER, WAITS, RUNS)
    running = {name: own[-1][name] for name in ("conversation_id", "chat_id")}
    try:
        await check_nothing_is_seen_or_changed(other, own, redis, simulator)
        states = [(await chat_of(app, ids))["status"] for ids in own]
        assert states == ["completed", "requires_action", "in_progress"]
    finally:
        await app.data("POST", "/v3/chat/cancel", json=running)


async def check_nothing_is_seen_or_changed(
    stranger: CozeCaller, own: list[Ids], redis: RedisServer, simulator: SimControl
) -> None:
    unknown = await answers(stranger, UNKNOWN)
    before = contents(redis)
    simulator.reset()
    for ids in own:
        told = await answers(stranger, ids)
        assert told == unknown, {name: told[name] for name in told if told[name] != unknown[name]}
    assert contents(redis) == before, "a stranger changed something"
    theirs = {ids["conversation_id"] for ids in own} | {ids["chat_id"] for ids in own}
    for request in simulator.requests():
        assert not theirs & {request["conversation_id"], request["chat_id"]}, request
    listed = await stranger.data("GET", "/v1/conversations", params={"bot_id": BOT})
    assert listed["conversations"] == []


async def chat_of(caller: CozeCaller, ids: Ids) -> Any:
    about = {name: ids[name] for name in ("conversation_id", "chat_id")}
    return await caller.data("GET", "/v3/chat/retrieve", params=about)


async def test_a_chat_of_ones_own_conversation_is_not_found_under_another_one_of_ones_own(
    app: CozeCaller,
) -> None:
    streams = [await app.chat("hello") for _ in range(2)]
    first, second = (events_of(stream)[0][1] for stream in streams)
    mixed = {"conversation_id": first["conversation_id"], "chat_id": second["id"]}
    assert await app.code("GET", "/v3/chat/retrieve", params=mixed) == 4001
    assert await app.code("GET", "/v3/chat/message/list", params=mixed) == 4001
    assert await app.code("POST", "/v3/chat/cancel", json=mixed) == 4001


async def test_our_own_ids_lead_nowhere(app: CozeCaller) -> None:
    response = await app.call("POST", "/v3/chat", json=asking("hello"))
    ours = response.headers["x-coze-chat-id"]
    chat = events_of(response.content)[0][1]
    ids = {"conversation_id": chat["conversation_id"], "chat_id": ours}
    assert await app.code("GET", "/v3/chat/retrieve", params=ids) == 4001
    for wrong in ("../..", "7380000000000000005/../x", "", "9" * 40, "{x}"):
        params = {"conversation_id": wrong, "chat_id": chat["id"]}
        assert await app.code("GET", "/v3/chat/retrieve", params=params) in (4000, 4002)
