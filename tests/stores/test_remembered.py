"""What is remembered beside sessions, and for longer: files and conversations."""

from __future__ import annotations

from typing import Any

import pytest

from app.exceptions import (
    ConversationNotFound,
    FileNotFound,
)
from app.models import Identity
from app.stores.files import FileRecord
from app.stores.index import name_key, user_key
from app.stores.scripts import uploaders_forget
from app.stores.sessions import SessionRecord
from app.utils import new_id

from .place import (
    ADMIN,
    DAY,
    ELSEWHERE,
    FOREIGN_ADMIN,
    ME,
    MINUTE,
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


async def test_whose_a_file_is_comes_before_what_its_record_says(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await upload(at, "F")
    near = Identity(root=ME.root, hty_id=f"{ME.hty_id}o")
    for who in (ME, ADMIN):
        assert await at.files.find([record.file_id], who) == [record]

    def parsed(_: bytes) -> FileRecord:
        raise AssertionError("the record has come")

    monkeypatch.setattr(FileRecord, "parse", parsed)
    for who in (STRANGER, ELSEWHERE, FOREIGN_ADMIN, near, Identity(root=ME.root, hty_id="")):
        with pytest.raises(FileNotFound):
            await at.files.find([record.file_id], who)


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


async def test_an_administrator_erases_the_files_of_all_of_a_name_a_portion_of_them_at_a_time(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await upload(at, f"F{number}", Identity("r.example", f"somebody-{number}"))
    monkeypatch.setattr("app.stores.files._ERASED_AT_ONCE", 3)
    run, sizes = at.redis.run, list[int]()

    async def noted(command: Any) -> Any:
        reply = await run(command)
        if isinstance(reply, list):
            sizes.append(len(reply))
        return reply

    monkeypatch.setattr(at.redis, "run", noted)
    assert await at.files.erase(ADMIN, "u") == (7, False)
    assert max(sizes) == 3
    assert await at.names() == []


async def test_a_user_who_has_got_a_file_again_stays_among_those_who_have_any(at: Place) -> None:
    """An erasure that has looked at all of his finds at the end that he has another one."""
    await upload(at, "A")
    uploaders = at.keys.uploaders(name_key(ME.owner, "u"))
    mine, theirs = user_key(ME.owner, "u").encode(), user_key(STRANGER.owner, "u").encode()
    await at.do("ZADD", uploaders, await at.now() + DAY, theirs)
    await at.redis.run(uploaders_forget(uploaders=uploaders, files=at.keys.files(""), users=[mine, theirs]))
    assert await at.do("ZRANGE", uploaders, 0, -1) == [mine]


# -- conversations -------------------------------------------------------------------------------------

NINETY = 90 * DAY
HAD = "{name(u)}:had:user(me)"


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
        HAD: NINETY,
        f"{HAD}.c-1": NINETY,
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
        HAD: NINETY,
        f"{HAD}.c-1": NINETY,
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
    for index in ("{name(u)}:conversations.user(me):", f"{HAD}."):
        assert sorted(await at.held(index)) == [f"{index}c-2", f"{index}c-3"]


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
        "{name(u)}:had:user(stranger)",
        "{name(u)}:had:user(stranger).c-3",
    ]
    await keep(at, "c-1", mine)
    await at.conversations.forget(ADMIN, "u")
    assert await at.held("{name(u)}:") == {}


async def test_of_many_conversations_a_call_forgets_a_bounded_number_and_no_step_takes_all(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = await at.open(), await at.open("T", owner=STRANGER)
    for number in range(700):
        await keep(at, f"c-{number}", mine)
    for number in range(700):
        await keep(at, f"d-{number}", theirs)
    monkeypatch.setattr("app.stores.conversations._ERASED_PER_CALL", 100)
    named = at.keys.conversations(name_key(ME.owner, "u"))
    for who, lefts in ((ME, (900, 700)), (ADMIN, (200, 0))):
        for left in lefts:
            assert await at.conversations.forget(who, "u")
            assert await at.do("ZCARD", named) == left
        assert not await at.conversations.forget(who, "u")
    assert await at.held("{name(u)}:") == {}


async def keep_as_before(at: Place, conversation: str, session: SessionRecord) -> None:
    """As the version before does: it enters a conversation under its name alone."""
    record, named, _, _, user = at.conversations._places(session.owner, session.user_id, conversation)
    digest = record.rpartition(":")[2]
    at.name(digest, conversation)
    await at.do("SET", record, "bot bot-a", "PX", NINETY)
    await at.do("ZADD", named, await at.now() + NINETY, f"{user}:{digest}")
    await at.do("PEXPIRE", named, NINETY)


@pytest.mark.parametrize("who", [ME, ADMIN])
async def test_what_the_version_before_has_written_is_forgotten_too(at: Place, who: Identity) -> None:
    mine, theirs = await at.open(), await at.open("T", owner=STRANGER)
    await keep(at, "c-1", mine)
    await keep_as_before(at, "c-1", mine)  # it used what this one had written
    await keep_as_before(at, "c-2", mine)
    await keep_as_before(at, "d-1", theirs)
    assert await at.conversations.forget(who, "u") is False
    assert [name for name in await at.held("{name(u)}:") if "c-" in name or "(me)" in name] == []
    if who is ME:
        theirs_filed = "{name(u)}:had:user(stranger)"
        assert await at.held(theirs_filed) == {theirs_filed: NINETY, f"{theirs_filed}.d-1": NINETY}
        assert await at.conversations.use(STRANGER, "u", "d-1") == ("bot", "bot-a", "")
        await at.conversations.forget(STRANGER, "u")
    assert await at.held("{name(u)}:") == {}


async def test_forgetting_ones_own_reads_nothing_of_the_others_of_that_name(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much they have is not told by how long it takes either."""
    mine, theirs = await at.open(), await at.open("T", owner=STRANGER)
    run, replies = at.redis.run, list[Any]()

    async def noted(command: Any) -> Any:
        replies.append(await run(command))
        return replies[-1]

    async def forgetting() -> list[Any]:
        await keep(at, "c-1", mine)
        replies.clear()
        with monkeypatch.context() as patched:
            patched.setattr(at.redis, "run", noted)
            await at.conversations.forget(ME, "u")
        return [*replies]

    alone = await forgetting()
    for number in range(1200):
        await keep(at, f"d-{number}", theirs)
    assert await forgetting() == alone == [0, 1, 0]
    for number in range(1200):  # what the version before wrote is gone through once
        await keep_as_before(at, f"d-{number}", theirs)
    assert await forgetting() == [500, 500, 200, *alone]
    assert await forgetting() == alone


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


# -- conversations as their user sees them ---------------------------------------------------------------


async def speak(at: Place, chat: str, title: str = "") -> SessionRecord:
    """The session after a message whose first one is ``title``."""
    return (await at.say(chat, on_busy="enqueue", title=title)).session


ABOUT = "{name(u)}:conversation:c-1.about"
LISTED = "{name(u)}:listed:user(me)"


async def test_a_conversation_that_somebody_has_spoken_in_is_listed_with_what_is_told_of_it(
    at: Place,
) -> None:
    await at.open()
    await keep(at, "c-1", await speak(at, "A", "Trips"))
    held = await at.held("{name(u)}:")
    told = {
        ABOUT: NINETY,
        f"{ABOUT}.id": "c-1",
        f"{ABOUT}.bot": "bot",
        f"{ABOUT}.created": 0,
        f"{ABOUT}.title": "Trips",
        f"{ABOUT}.used": 0,
    }
    assert held == {
        "{name(u)}:conversation:c-1": NINETY,
        "{name(u)}:conversation:c-1=": "bot bot-a",
        **told,
        "{name(u)}:conversations": NINETY,
        "{name(u)}:conversations.user(me):c-1": NINETY,
        "{name(u)}:conversations.user(me):c-1.about": NINETY,
        HAD: NINETY,
        f"{HAD}.c-1": NINETY,
        f"{HAD}.c-1.about": NINETY,
        LISTED: NINETY,
        f"{LISTED}.c-1": NINETY,
    }
    await at.age(DAY)
    async with at.seen() as seen:
        assert await at.conversations.use(ME, "u", "c-1") == ("bot", "bot-a", "Trips")
    moved = [name for name in held if name not in told and not name.endswith("=")]
    assert seen == {**dict.fromkeys(moved, NINETY), ABOUT: NINETY, f"{ABOUT}.used": 0}


async def test_a_conversation_keeps_its_first_title_and_one_without_has_none(at: Place) -> None:
    await at.open()
    for chat, title, shown in (("A", "", None), ("B", "Trips", "Trips"), ("C", "Other", "Trips")):
        session = await speak(at, chat, title)
        assert session.title == (shown or "")
        assert (await at.dump()).get("session:S.title") == shown
        await keep(at, "c-1", session)
        assert (await at.dump()).get(f"{ABOUT}.title") == shown


async def test_another_session_changes_neither_title_nor_begin_of_a_conversation(
    at: Place, clock: Clock
) -> None:
    await at.open()
    await keep(at, "c-1", await speak(at, "A", "Trips"))
    clock.now += DAY
    await at.open("T")
    await keep(at, "c-1", (await at.say("B", "T", title="Other")).session)
    held = await at.held(f"{ABOUT}.")
    assert (held[f"{ABOUT}.title"], held[f"{ABOUT}.created"], held[f"{ABOUT}.used"]) == ("Trips", -DAY, 0)


async def test_a_deleted_conversation_leaves_a_mark_for_a_day_and_does_not_come_back(at: Place) -> None:
    await at.open()
    session = await speak(at, "A", "Trips")
    await keep(at, "c-1", session)
    await at.conversations.delete(ME, "u", "c-1")
    assert await at.held("{name(u)}:") == {ABOUT: DAY, f"{ABOUT}.deleted": "1"}
    async with at.seen() as seen:
        assert await at.conversations.remember(session, "c-1", "bot-a") is False
        await at.conversations.remember_again(session, "c-1", "bot-a")
    assert seen == {}


async def test_one_that_is_forgotten_leaves_nothing_and_may_come_back(at: Place) -> None:
    await at.open()
    session = await speak(at, "A", "Trips")
    for _ in range(2):
        await keep(at, "c-1", session)
        await at.conversations.forget_one(session, "c-1")
        assert await at.held("{name(u)}:") == {}
    assert await at.conversations.remember(session, "c-1", "bot-a") is True
    await at.conversations.forget(ME, "u")
    assert await at.held("{name(u)}:") == {}


async def test_a_list_shows_what_was_used_last_first_by_pages(at: Place) -> None:
    await at.open()
    session = await speak(at, "A")
    for number in range(1, 5):
        await keep(at, f"c-{number}", session)
        await at.age(MINUTE)
    # The version before erases the proof of ownership alone.
    await at.do("DEL", at.conversations._places(ME.owner, "u", "c-3").record)
    for before, limit, shown, more in (
        ("", 2, ["c-4"], True),
        ("", 4, ["c-4", "c-2", "c-1"], False),
        ("c-3", 1, ["c-2"], True),
        ("c-3", 2, ["c-2", "c-1"], False),
        ("c-1", 2, [], False),
        ("unknown", 2, [], False),
    ):
        page = await at.conversations.page(ME, "u", limit=limit, before=before)
        assert ([each["conversation_id"] for each in page[0]], page[1]) == (shown, more)
    assert await at.conversations.page(STRANGER, "u", limit=2, before="") == ([], False)


async def test_a_list_forgets_conversations_whose_time_is_up(at: Place, clock: Clock) -> None:
    await at.open()
    session = await speak(at, "A")
    await keep(at, "c-1", session)
    clock.now += NINETY - 1
    await keep(at, "c-2", session)
    assert sorted(await at.held(f"{LISTED}.")) == [f"{LISTED}.c-1", f"{LISTED}.c-2"]
    clock.now += 1
    await keep(at, "c-3", session)
    assert sorted(await at.held(f"{LISTED}.")) == [f"{LISTED}.c-2", f"{LISTED}.c-3"]


async def test_a_session_says_that_its_conversation_is_listed_when_somebody_has_spoken(at: Place) -> None:
    session = await at.open()
    await at.sessions.set_conversation(at.sid("S"), "c-1", "bot-a", 0)
    await at.conversations.remember_again(session, "c-1", "bot-a")
    assert "session:S.listed" not in await at.dump()
    await at.conversations.remember_again(await speak(at, "A"), "c-1", "bot-a")
    assert (await at.dump())["session:S.listed"] == "1"
