"""The failures that tests/faults makes, and an hour without any: which alert has to fire for each."""

from __future__ import annotations

import asyncio

import redis as redis_client

from tests.support.ports import free_port

from .recording import JOB, Stand, Story

ANY: tuple[dict[str, str], ...] = ({},)
REDIS_AWAY = {"CozeRedisAway": ANY, "CozeRedisInterrupted": ANY}


def down(number: int) -> list[dict[str, str]]:
    return [{"instance": f"replica-{number}:6000", "job": JOB}]


async def nothing(stand: Stand, group: asyncio.TaskGroup) -> None:
    """A quiet hour."""


# -- Coze ----------------------------------------------------------------------------------------------------


async def coze_cannot_be_reached(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.upstream("refuse")


async def coze_answers_with_its_gateway(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.upstream("html502")


async def coze_says_nothing(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.upstream("hang")


async def coze_refuses_each_chat(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.knob(path="/v3/chat", fail=4015)


async def coze_is_slow(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.knob(path="/v3/chat", delay=14)


async def streams_are_cut(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.knob(path="/v3/chat", cut=1500)


async def the_token_is_refused(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.knob(path="*", fail=4100, fail_http=401)


async def the_account_is_empty(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.simulator.knob(path="/v3/chat", fail=4028)


# -- Redis ---------------------------------------------------------------------------------------------------


async def redis_is_killed(stand: Stand, group: asyncio.TaskGroup) -> None:
    await asyncio.to_thread(stand.pair.redis.kill)


async def redis_is_silent(stand: Stand, group: asyncio.TaskGroup) -> None:
    stand.pair.redis.pause()


async def redis_is_full(stand: Stand, group: asyncio.TaskGroup) -> None:
    with stand.pair.redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)


async def redis_is_read_only(stand: Stand, group: asyncio.TaskGroup) -> None:
    with stand.pair.redis.client() as client:
        client.replicaof("127.0.0.1", free_port())


async def redis_restarts(stand: Stand, group: asyncio.TaskGroup) -> None:
    await asyncio.to_thread(stand.pair.redis.restart)


async def redis_fails_over(stand: Stand, group: asyncio.TaskGroup) -> None:
    await asyncio.to_thread(stand.pair.redis.force_failover)  # type: ignore[attr-defined]


async def redis_is_slow(stand: Stand, group: asyncio.TaskGroup) -> None:
    """Somebody else's commands hold it up for 0.4 s, again and again."""
    while True:
        await asyncio.to_thread(_hold_up, stand.pair.redis.port)
        await asyncio.sleep(0.05)


def _hold_up(port: int) -> None:
    with redis_client.Redis(port=port, socket_timeout=10) as client:
        client.execute_command("DEBUG", "SLEEP", 0.4)


# -- processes -----------------------------------------------------------------------------------------------


async def _run_long_chats(stand: Stand, count: int = 6) -> None:
    for number in range(count):
        session_id = await stand.session(f"long-{number}")
        await stand.clients[0].start(session_id, "long [[sim:deltas=60;gap=0.1;reasoning=0]]")


async def an_owner_is_killed(stand: Stand, group: asyncio.TaskGroup) -> None:
    await _run_long_chats(stand)
    await asyncio.to_thread(stand.first.kill)


async def an_owner_hangs(stand: Stand, group: asyncio.TaskGroup) -> None:
    """With most of the chats that there are: their answers are fetched again, and were not cut."""
    stand.quiet.set()
    await _run_long_chats(stand, 20)
    stand.first.pause()


async def all_are_gone(stand: Stand, group: asyncio.TaskGroup) -> None:
    await asyncio.gather(*(asyncio.to_thread(replica.kill) for replica in stand.pair.replicas))


async def a_process_dies_again_and_again(stand: Stand, group: asyncio.TaskGroup) -> None:
    for _ in range(3):
        await _run_long_chats(stand)
        await asyncio.to_thread(stand.first.kill)
        await asyncio.to_thread(stand.first.start)
        await asyncio.sleep(5)  # so that each of its lives is scraped


# -- callers -------------------------------------------------------------------------------------------------


async def the_auth_service_is_away(stand: Stand, group: asyncio.TaskGroup) -> None:
    assert stand.auth is not None
    stand.auth.app.mode = "off"


async def more_users_come_than_may(stand: Stand, group: asyncio.TaskGroup) -> None:
    for number in range(1000):
        body = {"user_id": f"newcomer-{number}"}
        await stand.clients[0].post("/coze/sessions", json=body)
        await asyncio.sleep(0.5)


async def a_queue_waits_for_tools(stand: Stand, group: asyncio.TaskGroup) -> None:
    """At night: nobody else is there, and nobody hands the outputs in."""
    stand.quiet.set()
    session_id = await stand.session("night")
    client = stand.clients[0]
    await client.send(session_id, "[[sim:requires_action=function]]")
    await client.start(session_id, "behind it", on_busy="enqueue")


PATIENT = {"COZE_IDLE_TIMEOUT": "60", "COZE_TIMEOUT": "60", "COZE_CHAT_TIMEOUT": "120"}
STORIES = [
    Story("a quiet hour", nothing, {}, scrapes=232, replicas=2),
    Story("Coze cannot be reached", coze_cannot_be_reached, {"CozeChatsFailing": ANY}),
    Story("Coze's gateway answers for it", coze_answers_with_its_gateway, {"CozeChatsFailing": ANY}),
    Story(
        "Coze says nothing",
        coze_says_nothing,
        {"CozeChatsFailing": ANY},
        scrapes=36,
        values={"COZE_FIRST_BYTE_TIMEOUT": "3"},
    ),
    Story("Coze refuses each chat", coze_refuses_each_chat, {"CozeChatsFailing": ANY}),
    Story("Coze is slow", coze_is_slow, {"CozeFirstDeltaSlow": ANY}, scrapes=44, values=PATIENT),
    Story("streams are cut", streams_are_cut, {"CozeAnswersCut": ANY}),
    Story(
        "the token is refused",
        the_token_is_refused,
        {"CozeCredentialResting": [{"credential": "0"}], "CozeChatsFailing": ANY},
    ),
    Story(
        "the account is empty",
        the_account_is_empty,
        {"CozeCredentialResting": [{"credential": "0"}], "CozeChatsFailing": ANY},
    ),
    Story("Redis is killed", redis_is_killed, REDIS_AWAY),
    Story("Redis is silent", redis_is_silent, REDIS_AWAY),
    Story("Redis is full", redis_is_full, REDIS_AWAY),
    Story("Redis is read-only", redis_is_read_only, REDIS_AWAY),
    Story("Redis restarts", redis_restarts, {"CozeRedisInterrupted": ANY}),
    Story("Redis fails over", redis_fails_over, {"CozeRedisInterrupted": ANY}, sentinels=True),
    Story("Redis is slow", redis_is_slow, {"CozeRedisSlow": ANY}, values={"REDIS_TIMEOUT": "5"}, scrapes=30),
    Story(
        "an owner is killed",
        an_owner_is_killed,
        {"CozeReplicaDown": down(1), "CozeChatsTakenOver": ANY},
        replicas=2,
    ),
    Story(
        "an owner hangs",
        an_owner_hangs,
        {"CozeReplicaDown": down(1), "CozeChatsTakenOver": ANY},
        replicas=2,
    ),
    Story(
        "all replicas are gone",
        all_are_gone,
        {"CozeServiceDown": ANY, "CozeReplicaDown": [*down(1), *down(2)]},
        replicas=2,
    ),
    Story(
        "a process dies again and again",
        a_process_dies_again_and_again,
        {"CozeReplicaRestarting": down(1), "CozeChatsTakenOver": ANY},
        replicas=2,
        scrapes=36,
    ),
    Story("the auth service is away", the_auth_service_is_away, {"CozeAuthServiceAway": ANY}, auth=True),
    Story(
        "more users come than may",
        more_users_come_than_may,
        {"CozeLimitReached": [{"limit": "active_users", "layer": "service"}]},
        values={"COZE_MAX_ACTIVE_USERS": "8"},
    ),
    Story("a queue waits for tools", a_queue_waits_for_tools, {"CozeQueueStuck": ANY}),
]
