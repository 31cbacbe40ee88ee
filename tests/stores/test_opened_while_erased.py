"""An erasure between the two steps of an opening: the index is entered, and the record is not written yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.exceptions import ConversationNotFound, SessionTerminated
from app.models import Identity
from app.stores.files import FileRecord
from app.stores.index import user_key
from app.stores.owned import Owned, OwnedStore
from app.utils import new_id

from .place import ADMIN, DAY, ME, MINUTE, SECOND, STRANGER, Place

WHO = pytest.mark.parametrize("who", [ME, ADMIN], ids=["user", "admin"])


@asynccontextmanager
async def stopped_before(
    at: Place, command: str, opening: Awaitable[Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """The opening has done all that comes before ``command``, and does the rest behind the block."""
    run, come, go_on = at.redis.run, asyncio.Event(), asyncio.Event()

    async def held(each: Any, **more: Any) -> Any:
        if each.name == command and asyncio.current_task() is task:
            come.set()
            await go_on.wait()
        return await run(each, **more)

    monkeypatch.setattr(at.redis, "run", held)
    task = asyncio.ensure_future(opening)
    await asyncio.wait_for(come.wait(), 30)
    yield
    go_on.set()
    await task


async def erase_sessions(at: Place, who: Identity) -> tuple[int, int]:
    """As an erasure does it -> how many went and how many are left."""
    left = await at.users.remaining(who, "u", 20)
    for session in left.sessions:
        await at.users.erase(session)
    await at.users.forget_users(who, "u", left.users)
    return len(left.sessions), left.found - len(left.sessions)


def conversations(at: Place) -> OwnedStore:
    return OwnedStore(at.redis, at.keys, days=90)


async def erase_conversations(at: Place, who: Identity) -> tuple[int, bool]:
    owned = conversations(at)
    found, more = await owned.of_user(who, "u", 20)
    for each in found:
        await owned.forget(each)
    return len(found), more


async def left(at: Place) -> list[str]:
    return [name for name in await at.dump() if not name.startswith("erased:")]


def a_conversation(user_id: str = "u") -> Owned:
    return Owned(ME.owner, "71", "bot", "0-aa", user_id=user_id, created=1)


async def a_file(at: Place) -> FileRecord:
    now = await at.now()
    return FileRecord(
        *(new_id("file"), ME.owner, user_key(ME.owner, "u"), "u", "z-1", "bot-a", None),
        *("a.png", "image/png", "image", 3, now, now + 7 * DAY),
    )


@WHO
@pytest.mark.parametrize("single", [False, True], ids=["session", "single"])
async def test_a_session_that_is_being_opened_is_left_and_found_by_the_next_erasure(
    at: Place, who: Identity, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stopped_before(at, "session_open", at.open(single=single), monkeypatch):
        assert await erase_sessions(at, who) == (0, 1)
    assert await erase_sessions(at, who) == (1, 0)
    assert await erase_sessions(at, who) == (0, 0)
    assert await left(at) == []


@WHO
async def test_a_conversation_that_is_being_written_down_is_found_by_the_next_erasure(
    at: Place, who: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = conversations(at).remember(a_conversation())
    async with stopped_before(at, "owned_remember", opening, monkeypatch):
        assert await erase_conversations(at, who) == (0, True)
    assert await erase_conversations(at, who) == (1, False)
    assert await left(at) == []


@WHO
async def test_a_conversation_that_is_about_to_get_its_user_is_found_by_the_next_erasure(
    at: Place, who: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = conversations(at)
    unnamed = await owned.remember(a_conversation(user_id=""))
    opening = owned.serve(unnamed, ended="", session_id="s", user_id="u", bot_id="bot")
    async with stopped_before(at, "owned_serve", opening, monkeypatch):
        assert await erase_conversations(at, who) == (0, True)
    assert await erase_conversations(at, who) == (1, False)
    assert await left(at) == []


@WHO
async def test_a_file_that_is_being_written_down_is_found_by_the_next_erasure(
    at: Place, who: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stopped_before(at, "SET", at.files.add(await a_file(at)), monkeypatch):
        assert await at.files.erase(who, "u") == (0, True)
    assert await at.files.erase(who, "u") == (1, False)
    assert await left(at) == []


@WHO
async def test_a_picture_that_is_sent_twice_at_once_is_erased_with_the_first_of_them(
    at: Place, who: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure finds the record of the first, under the same id."""
    record = await a_file(at)
    async with stopped_before(at, "SET", at.files.add(record), monkeypatch):
        await at.files.add(record)
        assert await at.files.erase(who, "u") == (1, False)
    assert await left(at) == []


@WHO
async def test_what_was_entered_a_minute_ago_and_never_written_leaves(at: Place, who: Identity) -> None:
    """Whoever opened it has died. An erasure that is asked again ends."""
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.index.enter_single(at.sid("T"), ME.owner, "u")
    await conversations(at).remember(a_conversation())
    await at.files.add(record := await a_file(at))
    await at.do("DEL", at.keys.file(record.file_id))
    await at.do("DEL", conversations(at)._places(ME.owner, "71").record)
    await at.age(MINUTE - 20 * SECOND)
    assert await erase_sessions(at, who) == (0, 2)
    assert await erase_conversations(at, who) == (0, True)
    assert await at.files.erase(who, "u") == (0, True)
    await at.age(20 * SECOND)
    assert await erase_sessions(at, who) == (0, 0)
    assert await erase_conversations(at, who) == (0, False)
    assert await at.files.erase(who, "u") == (0, False)
    assert [name for name in await left(at) if "kept" in name or "names" in name] == []
    assert [name for name in await left(at) if "labelled" in name or "begun" in name] == []
    assert [name for name in await left(at) if "files" in name or "uploaders" in name] == []


async def test_what_lives_longer_by_another_setting_is_not_taken_for_new(at: Place) -> None:
    await at.index.admit(at.sid("S"), ME.owner, "u")
    at.with_limits(expire=60)
    assert await erase_sessions(at, ME) == (0, 0)
    await conversations(at).remember(a_conversation())
    await at.do("DEL", conversations(at)._places(ME.owner, "71").record)
    assert await OwnedStore(at.redis, at.keys, days=30).of_user(ME, "u", 20) == ([], False)


async def test_those_who_are_idle_are_erased_at_once_however_new_they_are(at: Place) -> None:
    await at.open()
    await conversations(at).remember(a_conversation())
    await at.files.add(await a_file(at))
    assert await erase_sessions(at, ME) == (1, 0)
    assert await erase_conversations(at, ME) == (1, False)
    assert await at.files.erase(ME, "u") == (1, False)
    assert await left(at) == []


async def test_who_finds_his_conversation_erased_leaves_no_label_behind(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = conversations(at)
    await owned.remember(a_conversation())
    async with stopped_before(at, "owned_label", owned.use(ME, "71"), monkeypatch):
        assert await erase_conversations(at, ME) == (1, False)
    assert await left(at) == []
    unnamed = await owned.remember(a_conversation(user_id=""))
    async with stopped_before(at, "owned_label", unserved(owned, unnamed), monkeypatch):
        await owned.forget(unnamed)
    assert await left(at) == []


async def unserved(owned: OwnedStore, conversation: Owned) -> None:
    with pytest.raises(ConversationNotFound):
        await owned.serve(conversation, ended="", session_id="s", user_id="u", bot_id="bot")


async def test_a_conversation_that_its_owner_has_deleted_is_in_no_erasures_way(at: Place) -> None:
    owned = conversations(at)
    await owned.forget(await owned.remember(a_conversation()))
    assert await erase_conversations(at, ME) == (0, False)
    assert await left(at) == []


async def test_many_that_were_never_written_do_not_hide_what_is_older(at: Place) -> None:
    await at.open("A")
    await at.age(SECOND)
    for label in "BCD":
        await at.index.enter_single(at.sid(label), ME.owner, "u")
    remaining = await at.users.remaining(ME, "u", 2)
    assert [session.session_id for session in remaining.sessions] == [at.sid("A")]
    assert remaining.found == 4


async def test_an_administrator_comes_to_all_users_beside_those_who_are_uploading(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.stores.files._ERASED_AT_ONCE", 1)
    async with stopped_before(at, "SET", at.files.add(await a_file(at)), monkeypatch):
        await at.age(SECOND)
        theirs = FileRecord(
            *(new_id("file"), STRANGER.owner, user_key(STRANGER.owner, "u"), "u", "z-2", "bot-a", None),
            *("a.png", "image/png", "image", 3, 0, await at.now() + 7 * DAY),
        )
        await at.files.add(theirs)
        assert await at.files.erase(ADMIN, "u") == (1, True)
    assert await at.files.erase(ADMIN, "u") == (1, False)
    assert await left(at) == []


async def test_a_session_that_was_erased_is_not_opened_again(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two with one Idempotency-Key open it; the second has entered it when it is erased, and its entry goes
    with the first one's."""
    await at.open()
    async with stopped_before(at, "session_open", refused(at), monkeypatch):
        assert await erase_sessions(at, ME) == (1, 0)
    assert await left(at) == []
    await refused(at)
    assert await erase_sessions(at, ME) == (0, 0), "it stays entered"
    assert await left(at) == []


@pytest.mark.parametrize(("single", "command"), [(False, "index_admit"), (True, "index_single")])
async def test_a_session_that_was_erased_does_not_come_back_into_the_indexes(
    at: Place, single: bool, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was used, and the time at which its places there end is moved."""
    session = await at.open(single=single)
    async with stopped_before(at, command, at.sessions.renew_index(session), monkeypatch):
        assert await erase_sessions(at, ME) == (1, 0)
    assert await erase_sessions(at, ME) == (0, 0)
    assert await left(at) == []


async def refused(at: Place) -> None:
    with pytest.raises(SessionTerminated):
        await at.open()
