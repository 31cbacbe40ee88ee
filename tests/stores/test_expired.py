"""Very much that has expired at once: it leaves a part at a time, and counts no more meanwhile."""

from __future__ import annotations

import pytest

from app.exceptions import SessionLimitReached
from app.models import Identity
from app.redis_client import HeldKeys, Key
from app.stores.files import FileRecord
from app.stores.index import digest_of, name_key, owner_key, user_key
from app.stores.owned import Owned, OwnedStore
from app.utils import new_id, shard_of

from .place import DAY, ME, STRANGER, Place

MANY = 250
ONE_STEP = 100
"""That leave a set in one step."""


async def fill(at: Place, keys: list[Key], *, before: int = 1, members: list[str] | None = None) -> None:
    """Each holds ``MANY`` (or ``members``) whose time was up ``before`` milliseconds ago, and some more."""
    then = await at.now() - before
    for key in keys:
        named = members or [new_id("session") for _ in range(MANY)]
        scored = [part for number, name in enumerate(named) for part in (then - number, name)]
        await at.do("ZADD", key, *scored)
        await at.do("PEXPIRE", key, DAY)


async def sizes(at: Place, keys: list[Key]) -> set[int]:
    return {await at.do("ZCARD", key) for key in keys}


def indexes(at: Place, who: Identity = ME) -> HeldKeys:
    return at.index.held(who.owner, user_key(who.owner, "u"))


def for_erasure(at: Place) -> list[Key]:
    """Where my sessions are entered for whoever erases me."""
    return [
        at.keys.remaining_sessions(user_key(ME.owner, "u")),
        at.keys.users_by_name(name_key(ME.owner, "u")),
    ]


async def test_with_each_newcomer_a_part_of_what_has_expired_leaves(at: Place) -> None:
    keys = [*indexes(at), *for_erasure(at)]
    await fill(at, keys)
    for left in (MANY - ONE_STEP, MANY - 2 * ONE_STEP, 0, 0):
        assert await at.index.admit(at.sid("S"), ME.owner, "u") is None
        assert await sizes(at, keys) == {left + 1}


async def test_what_has_expired_and_not_left_takes_nobody_s_place(at: Place) -> None:
    at.with_limits(user=2, owner=3, root=3, service=4, users=2)
    await fill(at, [*indexes(at)])
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await at.index.admit(at.sid("T"), ME.owner, "u")
    await fill(at, [*indexes(at)])
    crowd = await at.index.admit(at.sid("V"), ME.owner, "u")
    assert crowd is not None
    assert [session for session, _ in crowd.sessions] == [at.sid("S"), at.sid("T")]
    await fill(at, [*indexes(at), *indexes(at, STRANGER)])
    assert await at.index.admit(at.sid("W"), STRANGER.owner, "u") is None
    with pytest.raises(SessionLimitReached):
        await at.index.admit(at.sid("X"), "r.example|third", "u")
    assert await at.index.counts() == (3, 2)


async def test_a_session_or_user_that_has_expired_and_not_left_comes_in_only_where_there_is_room(
    at: Place,
) -> None:
    at.with_limits(user=1, users=1)
    await at.index.admit(at.sid("T"), STRANGER.owner, "u")
    mine = indexes(at)
    others = [new_id("session") for _ in range(MANY)]  # those that were up first leave first
    await fill(at, [mine.user_sessions], before=0, members=[at.sid("S"), *others])
    users = [mine.owner_users, mine.root_users, mine.users]
    await fill(at, users, before=0, members=[user_key(ME.owner, "u"), *others])
    with pytest.raises(SessionLimitReached):
        await at.index.admit(at.sid("S"), ME.owner, "u")


async def test_a_user_leaves_with_his_last_session_that_lives(at: Place) -> None:
    mine = indexes(at)
    await at.index.admit(at.sid("S"), ME.owner, "u")
    await fill(at, [mine.user_sessions])
    await at.index.remove(at.sid("S"), ME.owner, user_key(ME.owner, "u"))
    assert await sizes(at, [mine.owner_users, mine.root_users, mine.users]) == {0}


async def test_with_each_single_chat_a_part_leaves_where_erasure_looks(at: Place) -> None:
    await fill(at, for_erasure(at))
    await at.index.enter_single(at.sid("S"), ME.owner, "u")
    assert await sizes(at, for_erasure(at)) == {MANY - ONE_STEP + 1}


async def test_what_is_queued_or_waits_and_was_forgotten_leaves_a_part_at_a_time_and_is_not_counted(
    at: Place,
) -> None:
    await at.open("S")
    await at.open("T")
    shard = shard_of(at.sid("S"))
    keys = [at.keys.queued(shard), at.keys.waiting(shard)]
    await fill(at, keys)
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", "T")
    await at.wait_for_tools("C")
    assert await sizes(at, keys) == {MANY - ONE_STEP + 1}
    assert await at.leases.queued() == 1
    assert (await at.users.counts())["chats"] == {"processing": 1, "pending": 1, "requires_action": 1}


async def test_with_each_file_a_part_of_those_that_have_expired_leaves(at: Place) -> None:
    user = user_key(ME.owner, "u")
    keys = [at.keys.files(user), at.keys.uploaders(name_key(ME.owner, "u"))]
    await fill(at, keys)
    record = FileRecord(
        file_id=new_id("file"), owner=ME.owner, user=user, user_id="u", coze_id="f", credential="0-aa",
        logid=None, name="n", mime="text/plain", type="file", size=1, created=0, expires=await at.now() + DAY,
    )  # fmt: skip
    await at.files.add(record)
    assert await sizes(at, keys) == {MANY - ONE_STEP + 1}


async def test_with_each_conversation_a_part_of_those_that_have_expired_leaves(at: Place) -> None:
    name, user = name_key(ME.owner, "u"), user_key(ME.owner, "u")
    own = [at.keys.conversations_had(name, user), at.keys.conversation_list(name, user)]
    named = at.keys.conversations(name)
    await fill(at, [named, *own])
    await fill(at, [named], before=-(10**14))  # those that are in their user's own set, too
    session = await at.open(conversation=("c", "0-aa"), title="t")
    await at.say("A")
    await at.end("A")
    session = (await at.sessions.read(session.session_id, ME, history=0, touch=False))[0]
    assert await at.conversations.remember(session, "c", "0-aa")
    had, listed = [await at.do("ZCARD", key) for key in own]
    assert (had, listed) == (MANY - ONE_STEP + 2, MANY - ONE_STEP + 1)
    assert await at.do("ZCARD", named) == 2 * (MANY - ONE_STEP) + 2
    page, more = await at.conversations.page(ME, "u", limit=1, before="")
    assert ([each["conversation_id"] for each in page], more) == (["c"], False)
    assert await at.conversations.page(ME, "u", limit=1, before="c") == ([], False)


async def test_a_list_of_conversations_shows_and_counts_none_that_has_expired(at: Place) -> None:
    name, user = name_key(ME.owner, "u"), user_key(ME.owner, "u")
    listed = at.keys.conversation_list(name, user)
    digest = digest_of(ME.owner, "u", "gone")
    await fill(at, [listed], members=[digest, "another"])
    record = at.keys.conversation(name, digest)
    await at.do("SET", record, "bot 0-aa", "PX", DAY)
    await at.do("HSET", f"{record}.about", "id", "gone")
    await at.do("PEXPIRE", f"{record}.about", DAY)
    for before in ("", "gone"):
        assert await at.conversations.page(ME, "u", limit=1, before=before) == ([], False)


async def test_with_each_use_at_coze_s_door_a_part_of_what_has_expired_leaves(at: Place) -> None:
    owned, name = OwnedStore(at.redis, at.keys, days=9), name_key(ME.owner, "u")
    whose = owner_key(ME.owner)
    listed = Key(at.keys.owned_lists(whose) + "bot")
    labelled, begun = at.keys.labelled(name), at.keys.begun(name, whose)
    await fill(at, [listed, labelled, begun])
    await fill(at, [labelled], before=-(10**14))
    await owned.remember(Owned(ME.owner, "7", "bot", "0-aa", user_id="u"))
    assert await sizes(at, [listed, begun]) == {MANY - ONE_STEP + 1}
    assert await at.do("ZCARD", labelled) == 2 * (MANY - ONE_STEP) + 1
    page = await owned.page(ME, "bot", first=0, size=5, newest_first=True)
    assert ([each.conversation_id for each in page.conversations], page.has_more) == (["7"], False)
