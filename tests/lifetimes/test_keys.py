"""Whoever makes a session live longer makes everything live longer that a chat of it still needs.

One replica gives sessions five seconds, the other 30 days: what the first has made and the second renews
must live as long as the session then does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tests.support import Client, RedisServer, RunningApp, data_of, open_client, outputs_for, wait_until

from .support import PREFIX, lives, too_short

MONTH = 30 * 86_400
DAY_MS = 86_400_000


@dataclass
class Scene:
    """A chat (``first``) that waits or runs at the brief replica, and two in the queue behind it."""

    redis: RedisServer
    brief: Client
    long: Client
    session_id: str
    first: str
    queued: list[str]


@pytest.fixture
async def replicas(
    redis: RedisServer, start_app: Callable[..., RunningApp]
) -> AsyncIterator[tuple[Client, Client]]:
    """The brief one and the long one."""
    services = [
        start_app(
            REDIS_URL=redis.url,
            COZE_REDIS_PREFIX=PREFIX,
            COZE_SESSION_EXPIRE=str(seconds),
            COZE_CHAT_TIMEOUT="60",
        )
        for seconds in (5, MONTH)
    ]
    async with AsyncExitStack() as stack:
        brief, long = [await stack.enter_async_context(open_client(each.base_url)) for each in services]
        yield brief, long
        for session in data_of(await long.get("/coze/users/u-1/sessions"))["sessions"]:
            await long.delete(f"/coze/sessions/{session['session_id']}")
    for service in services:
        service.wait_idle()


async def scene(state: str, redis: RedisServer, replicas: tuple[Client, Client]) -> Scene:
    brief, long = replicas
    session_id = await brief.open_session()
    if state == "waiting":
        message = "[[sim:requires_action=function;deltas=40;gap=0.1]] tools"
        first = data_of(await brief.send(session_id, message))["chat_id"]
    else:
        first = await brief.start(session_id, "[[sim:delay=40]] slow")
    queued = [await brief.start(session_id, f"no {number}", on_busy="enqueue") for number in (1, 2)]
    return Scene(redis, brief, long, session_id, first, queued)


async def read(scene: Scene) -> list[str]:
    await scene.long.session(scene.session_id)
    return []


async def queue_a_message(scene: Scene) -> list[str]:
    scene.queued.append(await scene.long.start(scene.session_id, "one more", on_busy="enqueue"))
    return []


async def end_a_queued_one(scene: Scene) -> list[str]:
    chat_id = scene.queued.pop()
    assert data_of(await scene.long.post(f"/coze/chats/{chat_id}/cancel"))["status"] == "cancelled"
    return [chat_id]


async def interrupt(scene: Scene) -> list[str]:
    """The first ends, the newcomer runs at the long replica or at the brief one."""
    newcomer = await scene.long.start(scene.session_id, "[[sim:delay=40]] I first", on_busy="interrupt")

    async def runs() -> bool:
        chat = data_of(await scene.long.result(newcomer))
        return bool(chat["status"] == "processing")

    await wait_until(runs)
    over, scene.first = scene.first, newcomer
    return [over]


async def claim(scene: Scene) -> list[str]:
    """The chat goes on at the long replica."""
    waiting = data_of(await scene.brief.result(scene.first))
    path = f"/coze/chats/{scene.first}/tool_outputs"
    body = outputs_for(waiting)
    answer = await scene.long.post(path, json=body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    return []


async def end(scene: Scene) -> list[str]:
    """The first ends at the long replica, and the next of the queue waits there for its tools."""
    response = await scene.long.post(f"/coze/chats/{scene.first}/cancel")
    assert data_of(response)["status"] == "cancelled"
    over, scene.first = scene.first, scene.queued.pop(0)

    async def done() -> bool:
        return bool(data_of(await scene.long.result(scene.queued[-1]))["status"] == "completed")

    await wait_until(done)
    return [over, scene.first, *scene.queued]


Step = Callable[[Scene], Awaitable[list[str]]]
TABLE: list[tuple[str, Step]] = [
    ("waiting", read),
    ("waiting", queue_a_message),
    ("waiting", end_a_queued_one),
    ("waiting", claim),
    ("waiting", interrupt),
    ("waiting", end),
    ("running", read),
    ("running", queue_a_message),
    ("running", end_a_queued_one),
    ("running", interrupt),
]


@pytest.mark.parametrize(("state", "step"), [pytest.param(s, f, id=f"{s}-{f.__name__}") for s, f in TABLE])
async def test_no_key_that_is_still_needed_goes_before_its_session(
    state: str, step: Step, redis: RedisServer, simulator: object, replicas: tuple[Client, Client]
) -> None:
    at = await scene(state, redis, replicas)
    over = await step(at)
    after = lives(redis, at.session_id)
    short = too_short(after, over)
    assert short == {}, f"they go before their session, which lives {after.session} ms"
    assert redis.keys_without_ttl() == []


async def test_reading_a_session_gives_it_its_life_from_the_reader(
    redis: RedisServer, simulator: object, replicas: tuple[Client, Client]
) -> None:
    """Or the table above would have compared nothing."""
    at = await scene("waiting", redis, replicas)
    await read(at)
    assert lives(redis, at.session_id).session > 29 * DAY_MS


async def test_a_waiting_chat_has_an_entry_among_the_leases_that_is_due_with_its_session(
    redis: RedisServer, simulator: object, replicas: tuple[Client, Client]
) -> None:
    at = await scene("waiting", redis, replicas)
    found = lives(redis, at.session_id)
    [due] = [left for member, left in found.leases.items() if member.startswith(at.first)]
    assert 0 < due <= found.session + 1
    await read(at)
    # Reading need not touch it: whoever finds it due looks at the session, and scores it anew.

    def scored_anew() -> bool:
        found = lives(redis, at.session_id)
        return any(m.startswith(at.first) and left > 29 * DAY_MS for m, left in found.leases.items())

    await wait_until(scored_anew, 15)
    assert (await at.brief.result(at.first)).json()["data"]["task_status"] == "requires_action"
    assert too_short(lives(redis, at.session_id), []) == {}
    await at.long.delete(f"/coze/sessions/{at.session_id}")
    assert lives(redis, at.session_id).leases == {}
