"""Nobody reaches what is somebody else's, by any route that is published, now or later."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from typing import Any

import pytest

from app.main import create_app
from coze_simulator.auth_server import RunningAuth
from tests.support import Client, RedisServer, RunningApp, data_of, error_of, wait_until

from .helpers import (
    A_FILE,
    ADMIN,
    ADMIN_ELSEWHERE,
    ALICE,
    ALICE_ELSEWHERE,
    BOB,
    NO_PERSON,
    OWNERS,
    PLAIN_QUERIES,
    PUBLIC,
    TESTER,
    UNKNOWN,
    USER,
    Belongings,
    Operation,
    ask,
    calling,
    comparable,
    operations,
    settle_in,
    settled_contents,
)

OPERATIONS = list(operations(create_app().openapi()))
NOBODYS = {"model": "coze", "bot_id": "7380000000000000009"}
"""Names in addresses that belong to nobody, and are the same for everybody."""
COZES = {"conversation_id": "7380000000000000005", "message_id": "7380000000000000007"}
"""Coze's ids, in the addresses of its own API: tests/coze_clients/test_tenants.py walks through that."""
OUR_OPERATIONS = [each for each in OPERATIONS if not each.path.startswith("/coze/api/")]
WITH_IDS = [operation for operation in OUR_OPERATIONS if set(operation.ids) - set(NOBODYS)]
NOT_FOUND = {"session_id": "COZE_SESSION_NOT_FOUND", "chat_id": "COZE_CHAT_NOT_FOUND"}
NOT_FOUND |= {"file_id": "COZE_FILE_NOT_FOUND", "response_id": "response_not_found"}
NOT_FOUND["conversation_id"] = "COZE_CONVERSATION_NOT_FOUND"


def code_of(response: Any) -> str:
    """Of a failure, ours or in the shape of OpenAI's clients."""
    code: str = response.json()["error"]["code"]
    return code


async def unknown_answers(client: Client) -> dict[str, Any]:
    """What each operation answers this caller about an id that does not exist."""
    answers = {}
    for operation in WITH_IDS:
        for n, body in enumerate(operation.bodies()):
            parameter = operation.ids[-1]
            response = await ask(client, operation, body, **UNKNOWN)
            answers[f"{operation} {n}"] = comparable(response, UNKNOWN[parameter])
            if operation.for_admins and response.status_code == 403:
                assert code_of(response) == "AUTH_FORBIDDEN"
            elif parameter in NOT_FOUND:
                assert (response.status_code, code_of(response)) == (404, NOT_FOUND[parameter])
    return answers


async def try_everything(
    stranger: Client, victim: Belongings, unknown: dict[str, Any], *, user_id: str = USER
) -> int:
    """Every operation on every id of the victim: each time the answer is that of an unknown id."""
    tried = 0
    for operation in WITH_IDS:
        parameter = operation.ids[-1]
        values = [user_id] if parameter == "user_id" else victim.named(parameter)
        assert values, f"the victim has no {parameter}"
        for value in values:
            for n, body in enumerate(operation.bodies()):
                response = await ask(stranger, operation, body, **{"user_id": user_id, parameter: value})
                seen = comparable(response, value)
                assert seen == unknown[f"{operation} {n}"], f"{operation} tells of {parameter} {value}"
                tried += 1
    return tried


def test_the_walk_knows_every_parameter_that_a_published_route_takes() -> None:
    for operation in OUR_OPERATIONS:
        assert len(operation.ids) <= 1 or operation.ids == ("user_id", "conversation_id"), (
            f"{operation} takes several ids: teach the walk about it"
        )
        assert set(operation.ids) <= set(UNKNOWN | NOBODYS), (
            f"teach the walk what {operation} takes: {operation.ids}"
        )
        assert set(operation.queries) <= PLAIN_QUERIES, f"does one of {operation.queries} name something?"
    assert len(WITH_IDS) >= 9


PLAYGROUND = ("/coze/playground", "/coze/playground/", "/coze/playground/{name}")
CONSOLE = ("/coze/console", "/coze/console/", "/coze/console/{name}")
DOCS = ("/docs", "/docs/{name}")
"""Static files, the same for everybody."""


def test_what_is_routed_but_not_published_is_known_by_name() -> None:
    published = {operation.path for operation in OPERATIONS}
    routed = {getattr(route, "path_format", getattr(route, "path", "")) for route in create_app().routes}
    assert routed - published <= {"/openapi.json", *DOCS, "/coze/metrics", "", *PLAYGROUND, *CONSOLE}


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_every_published_route_but_the_public_ones_refuses_a_caller_without_a_token(
    secured: RunningApp, auth: RunningAuth, operation: Operation
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        del alice.http.headers["HtySudoerToken"]
        response = await ask(alice, operation, operation.body, **(COZES | UNKNOWN | NOBODYS))
        if operation.path in PUBLIC:
            assert response.status_code == 200
        elif operation.path.startswith("/coze/api/"):
            assert (response.status_code, response.json()["code"]) == (401, 4100)
        elif operation.path.startswith("/coze/openai/"):
            assert (response.status_code, response.json()["error"]["code"]) == (401, "auth_missing")
        else:
            assert (response.status_code, error_of(response)["code"]) == (401, "AUTH_MISSING")
        alice.http.headers["HtySudoerToken"] = "a.b.c"
        response = await ask(alice, operation, operation.body, **(COZES | UNKNOWN | NOBODYS))
        assert response.status_code == (200 if operation.path in PUBLIC else 401)


async def test_two_tenants_with_two_users_each_find_nothing_of_one_another_and_change_nothing(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, *OWNERS) as clients:
        own = [
            await settle_in(client, f"user of {who.name}")
            for client, who in zip(clients, OWNERS, strict=True)
        ]
        unknown = [await unknown_answers(client) for client in clients]
        before = settled_contents(redis)
        tried = 0
        for v, victim in enumerate(own):
            for s, stranger in enumerate(clients):
                if s != v:
                    name = f"user of {OWNERS[v].name}"
                    tried += await try_everything(stranger, victim, unknown[s], user_id=name)
        assert tried >= 12 * 25
        assert settled_contents(redis) == before, "a stranger changed something"
        for client, mine in zip(clients, own, strict=True):
            states = [data_of(await client.result(chat_id))["status"] for chat_id in mine.chats]
            assert states == ["completed", "requires_action", "processing"]
            await client.post(f"/coze/chats/{mine.running}/cancel")


@pytest.mark.parametrize("stranger", [NO_PERSON, TESTER, ADMIN_ELSEWHERE, BOB], ids=lambda who: who.name)
async def test_neither_a_role_nor_the_lack_of_a_person_opens_what_is_somebody_elses(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, stranger: Any
) -> None:
    async with calling(secured, auth, ALICE, stranger) as [alice, other]:
        own = await settle_in(alice)
        unknown = await unknown_answers(other)
        before = settled_contents(redis)
        assert await try_everything(other, own, unknown) >= 25
        assert settled_contents(redis) == before
        await alice.post(f"/coze/chats/{own.running}/cancel")


async def test_the_same_token_sent_from_another_tenants_host_is_another_owner(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        assert (await alice.get(f"/coze/sessions/{session_id}")).status_code == 200
        alice.http.headers["HtyHost"] = "music.huiwings.cn"
        assert (await alice.get(f"/coze/sessions/{session_id}")).status_code == 404
        alice.http.headers["HtyHost"] = "MOICEN.com:443"
        assert (await alice.get(f"/coze/sessions/{session_id}")).status_code == 200


async def test_an_admin_sees_and_may_change_all_of_its_own_tenant(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, ADMIN) as [alice, admin]:
        own = await settle_in(alice)
        for operation in WITH_IDS:
            if operation.method == "GET" and operation.ids != ("user_id",) and "events" not in operation.path:
                [parameter] = operation.ids
                for value in own.named(parameter):
                    response = await ask(admin, operation, **{parameter: value})
                    assert response.status_code == 200, f"{operation}: {response.text}"
        listed = data_of(await admin.get(f"/coze/users/{USER}/sessions"))["sessions"]
        assert {session["session_id"] for session in listed} == set(own.sessions)
        assert data_of(await admin.post(f"/coze/chats/{own.running}/cancel"))["status"] == "cancelled"
        assert (await admin.delete(f"/coze/sessions/{own.sessions[0]}")).status_code == 200
        assert (await alice.get(f"/coze/sessions/{own.sessions[0]}")).status_code == 410


@pytest.mark.parametrize("caller", [ALICE, TESTER, NO_PERSON], ids=lambda who: who.name)
async def test_admin_routes_answer_403_to_everybody_else(
    secured: RunningApp, auth: RunningAuth, caller: Any
) -> None:
    routes = [operation for operation in OPERATIONS if operation.for_admins]
    assert len(routes) >= 8
    async with calling(secured, auth, caller, ADMIN) as [client, admin]:
        for operation in routes:
            response = await ask(client, operation, **UNKNOWN)
            assert (response.status_code, error_of(response)["code"]) == (403, "AUTH_FORBIDDEN")
            names_something = set(operation.ids) & set(NOT_FOUND)
            assert (await ask(admin, operation, **UNKNOWN)).status_code == (404 if names_something else 200)


async def test_lists_show_ones_own_alone_even_where_users_have_the_same_name(
    secured: RunningApp, auth: RunningAuth
) -> None:
    callers = (*OWNERS, NO_PERSON)
    async with calling(secured, auth, *callers, ADMIN, ADMIN_ELSEWHERE) as [*clients, admin, elsewhere]:
        opened = [await client.open_session(USER) for client in clients]
        for client, session_id in zip(clients, opened, strict=True):
            listed = data_of(await client.get(f"/coze/users/{USER}/sessions"))["sessions"]
            assert [session["session_id"] for session in listed] == [session_id]
        for client, root in ((admin, "moicen.com"), (elsewhere, "huiwings.cn")):
            listed = data_of(await client.get(f"/coze/users/{USER}/sessions"))["sessions"]
            expected = {s for s, who in zip(opened, callers, strict=True) if who.root == root}
            assert {session["session_id"] for session in listed} == expected


async def test_somebody_elses_chat_is_no_place_in_ones_own_list(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, BOB) as [alice, bob]:
        mine, others = await alice.open_session(), await bob.open_session()
        await alice.send(mine, "one")
        foreign = data_of(await bob.send(others, "two"))["chat_id"]
        pages = [
            comparable(await alice.get(f"/coze/sessions/{mine}/chats", params={"before": before}), before)
            for before in (foreign, UNKNOWN["chat_id"])
        ]
        assert pages[0] == pages[1]


async def test_no_file_can_be_uploaded_for_or_used_in_what_is_somebody_elses(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, simulator: Any
) -> None:
    async with calling(secured, auth, *OWNERS) as clients:
        own = [await settle_in(client) for client in clients]
        mine = [await client.open_session() for client in clients]
        simulator.reset()
        before = settled_contents(redis)
        for client, session_id in zip(clients, mine, strict=True):
            for victim in own:
                if victim.files == own[clients.index(client)].files:
                    continue
                foreign, unknown = [
                    await client.post("/coze/files", files=A_FILE, params={"session_id": given})
                    for given in (victim.sessions[0], UNKNOWN["session_id"])
                ]
                assert comparable(foreign) == comparable(unknown)
                assert (foreign.status_code, error_of(foreign)["code"]) == (404, "COZE_SESSION_NOT_FOUND")
                foreign, unknown = [
                    await client.send(session_id, "look", attachments=[{"file_id": given}])
                    for given in (victim.files[0], UNKNOWN["file_id"])
                ]
                assert comparable(foreign) == comparable(unknown)
                assert (foreign.status_code, error_of(foreign)["code"]) == (404, "COZE_FILE_NOT_FOUND")
        assert simulator.requests() == []
        assert settled_contents(redis) == before
        for client, belongings in zip(clients, own, strict=True):
            await client.post(f"/coze/chats/{belongings.running}/cancel")


async def test_an_idempotency_key_means_something_to_its_owner_alone(
    secured: RunningApp, auth: RunningAuth
) -> None:
    key = {"Idempotency-Key": "the-same-for-all"}
    async with calling(secured, auth, ALICE, BOB, ALICE_ELSEWHERE) as clients:
        opened, chats = [], []
        for client in clients:
            first = await client.post("/coze/sessions", json={"user_id": USER}, headers=key)
            again = await client.post("/coze/sessions", json={"user_id": USER}, headers=key)
            assert data_of(first)["session_id"] == data_of(again)["session_id"]
            opened.append(data_of(first)["session_id"])
            chats.append(data_of(await client.send(opened[-1], "hello", headers=key))["chat_id"])
        assert len(set(opened)) == len(set(chats)) == 3
        # Another's key is not found out either: with another body it is a new key, not a reused one.
        async with calling(secured, auth, TESTER) as [other]:
            body = {"user_id": "somebody else"}
            assert (await other.post("/coze/sessions", json=body, headers=key)).status_code == 200


# -- and in time -------------------------------------------------------------------------------------------


def commands_run(redis: RedisServer) -> int:
    with redis.client() as client:
        stats = client.info("commandstats")
    return sum(v["calls"] for name, v in stats.items() if "|" not in name and name != "cmdstat_info")


async def test_somebody_elses_id_costs_the_store_as_much_as_an_unknown_one(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    """Counted, so that no noise hides a difference: the least of several tries, for leases are renewed."""
    async with calling(secured, auth, ALICE, BOB) as [alice, bob]:
        session_id = await alice.open_session()
        chat_id = data_of(await alice.send(session_id, "hello"))["chat_id"]
        file_id = data_of(await alice.post("/coze/files", files=A_FILE))["file_id"]
        foreign = {"session_id": session_id, "chat_id": chat_id, "file_id": file_id, "user_id": "u-1"}
        foreign["conversation_id"] = (await alice.session(session_id))["conversation_id"]
        foreign["response_id"] = f"resp_{chat_id}"

        async def cost(operation: Operation, values: dict[str, str]) -> int:
            least = 1 << 30
            for _ in range(6):
                before = commands_run(redis)
                assert (await ask(bob, operation, operation.body, **values)).status_code == 404
                least = min(least, commands_run(redis) - before)
            return least

        for operation in WITH_IDS:
            if operation.ids[-1] in NOT_FOUND and not operation.for_admins:
                assert await cost(operation, foreign) == await cost(operation, UNKNOWN), str(operation)


async def test_somebody_elses_id_is_as_much_work_as_an_unknown_one(
    secured: RunningApp, auth: RunningAuth, simulator: Any
) -> None:
    """Measured in CPU time of the service's thread, which does not see what else this machine does. Waiting
    is not in it; that is for Redis, whose commands are counted above, or for Coze, who must not be asked."""

    async def spent() -> float:
        return time.thread_time()

    async with calling(secured, auth, ALICE, BOB) as [alice, bob]:
        session_id = await alice.open_session()
        chat_id = data_of(await alice.send(session_id, "hello"))["chat_id"]
        file_id = data_of(await alice.post("/coze/files", files=A_FILE))["file_id"]
        foreign = {"session_id": session_id, "chat_id": chat_id, "file_id": file_id, "user_id": "u-1"}
        foreign["conversation_id"] = (await alice.session(session_id))["conversation_id"]
        foreign["response_id"] = f"resp_{chat_id}"

        asked = len(simulator.requests())

        async def medians(operation: Operation) -> list[float]:
            took: tuple[list[float], list[float]] = ([], [])
            for _ in range(40):
                for times, values in zip(took, (foreign, UNKNOWN), strict=True):
                    before = await asyncio.to_thread(secured.call, spent)
                    await ask(bob, operation, operation.body, **values)
                    times.append(await asyncio.to_thread(secured.call, spent) - before)
            return [statistics.median(times) for times in took]

        for operation in WITH_IDS:
            if operation.ids[-1] not in NOT_FOUND or operation.for_admins:
                continue
            for _attempt in range(
                4
            ):  # a task in the background may have been at work; a real difference stays
                a, b = await medians(operation)
                if abs(a - b) < 0.0005 + 0.25 * min(a, b):
                    break
            else:
                pytest.fail(f"{operation}: {a * 1000:.2f} ms for somebody else's, {b * 1000:.2f} ms for none")
        assert len(simulator.requests()) == asked, "Coze was not asked"


async def test_a_stranger_does_not_wait_for_the_conversation_that_is_just_being_made(
    secured: RunningApp, auth: RunningAuth, simulator: Any
) -> None:
    simulator.knob(path="/v1/conversation/create", first_byte=3)
    async with calling(secured, auth, ALICE, BOB) as [alice, bob]:
        session_id = await alice.open_session()
        assert (await bob.send(session_id, "hello")).status_code == 404

        async def conversation() -> str | None:
            found: str | None = (await alice.session(session_id))["conversation_id"]
            return found

        assert await conversation() is None, "the answer came first"
        await wait_until(conversation)


async def test_guessed_and_malformed_ids_are_unknown_ids(secured: RunningApp, auth: RunningAuth) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        chat_id = data_of(await alice.send(session_id, "hello"))["chat_id"]
        file_id = data_of(await alice.post("/coze/files", files=A_FILE))["file_id"]
        unknown = await unknown_answers(alice)
        spoilt = [
            "x",
            "*",
            "coze_session_*",
            "%00",
            "%2E",
            "%0d%0a",
            "a" * 3000,
            "{00}",
            "%F0%9F%98%80",
            "null",
        ]
        for real in (session_id, chat_id, file_id, f"resp_{chat_id}"):
            spoilt += [real.upper(), real[:-1], real + "a", real + "%20", real + "%0a", real + "%00"]
            spoilt.append(real[:-1] + ("a" if real[-1] != "a" else "b"))
            spoilt.append(real.replace(real.split("_")[2], secrets.choice(["0" * 13, "9" * 13])))
        for operation in WITH_IDS:
            parameter = operation.ids[-1]
            if parameter == "user_id":
                continue
            for value in spoilt:
                values = {**UNKNOWN, parameter: value}
                response = await ask(alice, operation, operation.body, **values)
                assert comparable(response) == unknown[f"{operation} 0"], f"{operation} {value!r}"
