"""/coze/admin: what an admin sees and does in his own root, and that it ends there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from coze_simulator.auth_server import RunningAuth
from tests.support import Client, RedisServer, RunningApp, data_of, error_of, wait_until

from .helpers import (
    ADMIN,
    ADMIN_ELSEWHERE,
    ALICE,
    ALICE_ELSEWHERE,
    BOB,
    USER,
    calling,
    settle_in,
    settled_contents,
)

WORDS = "words that only the user may read"


async def fail(client: Client, user_id: str = USER) -> dict[str, Any]:
    """A chat that Coze refuses, as its record has it."""
    session_id = await client.open_session(user_id)
    chat_id = await client.start(session_id, f"[[sim:fail=4101]] {WORDS}")
    chat = await client.ended(chat_id)
    assert chat["status"] == "failed"
    return chat


async def failures(admin: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data_of(await admin.get("/coze/admin/failures"))["failures"]
    return found


async def listed(admin: Client, count: int) -> list[dict[str, Any]]:
    """Once there are so many: they are written behind the end."""

    async def there() -> list[dict[str, Any]] | None:
        found = await failures(admin)
        return found if len(found) == count else None

    return await wait_until(there)


async def test_an_admin_is_told_what_failed_in_its_root_and_no_word_of_what_was_said(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    who = (ALICE, BOB, ALICE_ELSEWHERE, ADMIN, ADMIN_ELSEWHERE)
    async with calling(secured, auth, *who) as [alice, bob, elsewhere, admin, foreign]:
        chats = [await fail(alice), await fail(bob)]
        other = await fail(elsewhere)
        await alice.send(await alice.open_session(), "this one is answered")
        told = await listed(admin, 2)
        assert {each["chat_id"] for each in told} == {chat["chat_id"] for chat in chats}
        [its] = await listed(foreign, 1)
        assert its["chat_id"] == other["chat_id"]
        [first] = [each for each in told if each["chat_id"] == chats[0]["chat_id"]]
        error = chats[0]["error"]
        assert (
            (first["code"], first["coze_code"])
            == (error["code"], error["coze_code"])
            == (
                "COZE_API_ERROR",
                4101,
            )
        )
        assert (first["hint"], first["logid"]) == (error["hint"], error["logid"])
        assert first["logid"]
        assert (first["session_id"], first["at"]) == (chats[0]["session_id"], chats[0]["completed_at"])
        stored = {name: value for name, value in settled_contents(redis).items() if ":failures:" in name}
        assert len(stored) == 2
        for text in (WORDS, USER, ALICE.name, ALICE.root):
            assert text not in repr(stored)
        newest = data_of(await admin.get("/coze/admin/failures", params={"limit": 1}))["failures"]
        assert newest == told[:1]


async def test_erasing_a_user_takes_his_failures_out_and_nobody_elses(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, BOB, ADMIN) as [alice, bob, admin]:
        await fail(alice, "goes")
        stays = [await fail(alice, "stays"), await fail(bob, "goes")]
        await listed(admin, 3)
        assert data_of(await alice.delete("/coze/users/goes"))["remaining_sessions"] == 0
        assert {each["chat_id"] for each in await failures(admin)} == {chat["chat_id"] for chat in stays}
        assert data_of(await admin.delete("/coze/admin/users/goes"))["erased_sessions"] == 1, "bob's"
        assert [each["chat_id"] for each in await failures(admin)] == [stays[0]["chat_id"]]


async def test_an_admin_looks_at_a_session_without_prolonging_it(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, ADMIN) as [alice, admin]:
        session_id = await alice.open_session()
        chat_id = data_of(await alice.send(session_id, "hello"))["chat_id"]
        own = await alice.session(session_id)
        before = settled_contents(redis)
        seen = data_of(await admin.get(f"/coze/admin/sessions/{session_id}"))
        assert settled_contents(redis) == before
        lifetimes = seen.pop("lifetimes")
        assert seen == own
        [events] = lifetimes["events"]
        assert events["chat_id"] == chat_id
        settings, now = secured.settings, datetime.fromisoformat(own["last_activity_at"])

        def seconds(moment: str) -> float:
            return (datetime.fromisoformat(moment) - now).total_seconds()

        assert seconds(lifetimes["chats_until"]) == pytest.approx(settings.session_expire, abs=60)
        assert seconds(lifetimes["forgotten_at"]) == pytest.approx(settings.session_expire + 86_400, abs=60)
        assert seconds(events["events_until"]) == pytest.approx(settings.result_expire, abs=60)
        short = data_of(await admin.get(f"/coze/admin/sessions/{session_id}", params={"history_limit": 0}))
        assert (short["chat_history"], short["lifetimes"]["events"]) == ([], [])


async def test_an_admin_cancels_ends_and_erases_in_its_own_root(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, ADMIN) as [alice, admin]:
        own = await settle_in(alice)
        cancelled = data_of(await admin.post(f"/coze/admin/chats/{own.running}/cancel"))
        assert (cancelled["chat_id"], cancelled["status"]) == (own.running, "cancelled")
        waits = own.chats[1]
        ended = data_of(await admin.delete(f"/coze/admin/sessions/{own.sessions[1]}"))
        assert ended["status"] == "terminated"
        assert (await alice.get(f"/coze/sessions/{own.sessions[1]}")).status_code == 410
        assert data_of(await alice.result(waits))["status"] == "cancelled"
        gone = await admin.get(f"/coze/admin/sessions/{own.sessions[1]}")
        assert (gone.status_code, error_of(gone)["code"]) == (410, "COZE_SESSION_TERMINATED")
        erased = data_of(await admin.delete(f"/coze/admin/users/{USER}"))
        assert (erased["erased_sessions"], erased["remaining_sessions"]) == (4, 0), "with a response's"
        assert data_of(await alice.get(f"/coze/users/{USER}/sessions"))["sessions"] == []


async def test_a_foreign_admin_finds_nothing_and_changes_nothing(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE, ADMIN_ELSEWHERE) as [alice, foreign]:
        own = await settle_in(alice)
        before = settled_contents(redis)
        calls = [
            await foreign.get(f"/coze/admin/sessions/{own.sessions[2]}"),
            await foreign.delete(f"/coze/admin/sessions/{own.sessions[2]}"),
            await foreign.post(f"/coze/admin/chats/{own.running}/cancel"),
        ]
        codes = [(call.status_code, error_of(call)["code"]) for call in calls]
        session, chat = (404, "COZE_SESSION_NOT_FOUND"), (404, "COZE_CHAT_NOT_FOUND")
        assert codes == [session, session, chat]
        erased = data_of(await foreign.delete(f"/coze/admin/users/{USER}"))
        assert (erased["erased_sessions"], erased["erased_chats"], erased["remaining_sessions"]) == (0, 0, 0)
        assert data_of(await foreign.get("/coze/admin/usage"))["rows"] == []
        assert await failures(foreign) == []
        assert settled_contents(redis) == before
        assert data_of(await alice.result(own.running))["status"] == "processing"
        await alice.post(f"/coze/chats/{own.running}/cancel")


async def test_usage_is_that_of_the_admin_s_root(secured: RunningApp, auth: RunningAuth) -> None:
    who = (ALICE, BOB, ALICE_ELSEWHERE, ADMIN)
    async with calling(secured, auth, *who) as [alice, bob, elsewhere, admin]:
        for client, user_id in ((alice, "a"), (bob, "b"), (elsewhere, "c")):
            await client.send(await client.open_session(user_id), "hello")
        params = {"group_by": "day,user"}
        report = data_of(await admin.get("/coze/admin/usage", params=params))
        assert {row["user_id"]: row["chats"] for row in report["rows"]} == {"a": 1, "b": 1}
        assert report == data_of(await admin.get("/coze/usage", params=params))


async def test_an_api_key_is_nobodys_admin(
    start_secured: Callable[..., RunningApp], auth: RunningAuth
) -> None:
    key = "a-key-of-sixteen-or-more"
    service = start_secured(COZE_API_KEYS=f"app:{key}")
    async with calling(service, auth, ADMIN) as [client]:
        for name in ("HtySudoerToken", "HtyHost"):
            del client.http.headers[name]
        client.http.headers["Authorization"] = f"Bearer {key}"
        for path in ("stats", "failures", "usage"):
            response = await client.get(f"/coze/admin/{path}")
            assert (response.status_code, error_of(response)["code"]) == (403, "AUTH_FORBIDDEN")


async def test_stats_name_the_processes_their_versions_and_what_is_open_in_them(
    start_secured: Callable[..., RunningApp], auth: RunningAuth
) -> None:
    one, two = [start_secured(COZE_REDIS_PREFIX="two:") for _ in range(2)]  # others live beside them
    async with calling(one, auth, ALICE, ADMIN) as [alice, admin]:
        chat_id = await alice.start(await alice.open_session(), "[[sim:delay=100]] slow")

        async def both() -> list[dict[str, Any]] | None:
            found = data_of(await admin.get("/coze/admin/stats"))["replicas"]
            return found if len(found) == 2 else None

        async with alice.events(chat_id) as reader:
            await reader.until("conversation.chat.in_progress")
            mine, other = await wait_until(both)
            assert (mine["running_chats"], mine["open_streams"]) == (1, 1)
            assert (other["running_chats"], other["open_streams"]) == (0, 0)
        assert mine["process"] != other["process"]
        assert mine["version"] == other["version"] == data_of(await admin.get("/coze/admin/stats"))["version"]
        assert mine["started_at"] < mine["seen_at"]
        await alice.post(f"/coze/chats/{chat_id}/cancel")
    async with calling(two, auth, ADMIN) as [admin]:
        first, _ = data_of(await admin.get("/coze/admin/stats"))["replicas"]
        assert first["process"] == other["process"], "the one that answers comes first"
