"""What is remembered beside sessions, and for longer: files and conversations."""

from __future__ import annotations

import pytest

from app.exceptions import (
    ConversationNotFound,
    FileNotFound,
)
from app.models import Identity
from app.stores.files import FileRecord
from app.stores.index import name_key, user_key
from app.stores.scripts import conversation_forget
from app.stores.sessions import SessionRecord
from app.utils import new_id

from .place import (
    ADMIN,
    DAY,
    ME,
    STRANGER,
    Clock,
    Place,
)

# -- files ---------------------------------------------------------------------------------------------

WEEK = 7 * DAY


async def upload(at: Place, label: str, owner: Identity = ME) -> FileRecord:
    now = await at.now()
    record = FileRecord(
        *(new_id("file"), owner.owner, user_key(owner.owner, "u"), "u", "z-1", "bot-a", None),
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
    await at.conversations.remember(session, conversation, "bot-a")


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
    assert await at.conversations.use(ME, "u", "c-1") == ("bot", "bot-a", "")
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
    keys = {
        "conversations": at.keys.conversations(name),
        "records": at.keys.conversation_prefix(name),
        "lists": at.keys.conversation_list(name),
    }
    assert await at.redis.run(conversation_forget(**keys, user="")) == 2


async def test_a_conversation_of_a_session_that_was_erased_meanwhile_is_not_kept(at: Place) -> None:
    session = await at.open()
    await at.sessions.set_conversation(at.sid("S"), "c-1", "bot-a", 0)
    async with at.seen() as seen:
        await at.conversations.remember_again(session, "c-1", "bot-a")
    assert seen["session:S.kept"] == 0
    assert await at.conversations.use(ME, "u", "c-1") == ("bot", "bot-a", "")
    await at.conversations.forget_one(session, "c-1")
    await at.do("DEL", at.keys.session(at.sid("S")))
    await at.conversations.remember_again(session, "c-1", "bot-a")
    assert await at.held("{name(u)}:", "session:") == {}
