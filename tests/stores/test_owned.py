"""Conversations of Coze's own clients: whose they are, what serves them, and their chats by Coze's ids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.exceptions import ConversationNotFound
from app.models import Identity
from app.stores import owned as module
from app.stores.index import name_key, owner_key
from app.stores.owned import Owned, OwnedStore
from app.stores.scripts import chat_ids, owned_forget

from .place import ADMIN, DAY, ELSEWHERE, ME, MINUTE, STRANGER, Clock, Place

MINE = Owned(
    owner=ME.owner,
    conversation_id="71",
    bot_id="bot",
    credential="0-aa",
    name="first",
    section_id="s-1",
    view='{"id":"71"}',
    created=1,
)
LIFE = 90 * DAY


def store(at: Place) -> OwnedStore:
    return OwnedStore(at.redis, at.keys, days=90)


async def test_a_conversation_is_its_owners_for_days_from_its_last_use(at: Place, clock: Clock) -> None:
    owned = store(at)
    assert await owned.remember(MINE) == MINE
    for other in (STRANGER, ELSEWHERE, ADMIN):
        with pytest.raises(ConversationNotFound):
            await owned.use(other, "71")
    await at.age(LIFE - DAY)
    assert await owned.use(ME, "71") == MINE
    await at.age(LIFE - DAY)
    assert await owned.use(ME, "71") == MINE
    await at.age(LIFE + 1)
    with pytest.raises(ConversationNotFound):
        await owned.use(ME, "71")
    assert await at.names() == []


async def test_using_it_says_when(at: Place) -> None:
    owned = store(at)
    await owned.remember(MINE)
    await at.age(DAY)
    async with at.seen() as seen:
        await owned.use(ME, "71")
    assert [value for name, value in seen.items() if name.endswith(".used")] == [0]


async def test_remembering_it_again_changes_nothing_but_its_time(at: Place) -> None:
    owned = store(at)
    await owned.remember(MINE)
    assert await owned.remember(replace(MINE, name="second", bot_id="other")) == MINE
    assert (await owned.page(ME, "other", first=0, size=5, newest_first=True)).conversations == []


async def test_the_first_chat_says_whose_it_is_and_one_session_serves_it(at: Place) -> None:
    owned = store(at)
    await owned.remember(MINE)
    first = await owned.serve(MINE, ended="", session_id="s-a", user_id="u", bot_id="real")
    assert (first.session_id, first.user_id, first.bot_id) == ("s-a", "u", "real")
    # Of two that found none, the second gets the first one's; and so does who found an older one over.
    again = await owned.serve(MINE, ended="", session_id="s-b", user_id="v", bot_id="z")
    assert (again.session_id, again.user_id, again.bot_id) == ("s-a", "u", "real")
    assert (
        await owned.serve(first, ended="s-a", session_id="s-c", user_id="u", bot_id="b")
    ).session_id == "s-c"
    assert (
        await owned.serve(first, ended="s-a", session_id="s-d", user_id="u", bot_id="b")
    ).session_id == "s-c"
    for bot, listed in (("bot", []), ("real", ["71"])):
        page = await owned.page(ME, bot, first=0, size=5, newest_first=True)
        assert [each.conversation_id for each in page.conversations] == listed
    await owned.forget(first)
    with pytest.raises(ConversationNotFound):
        await owned.serve(first, ended="s-c", session_id="s-e", user_id="u", bot_id="b")


async def test_lists_are_in_the_order_of_use_by_pages_and_forget_what_is_over(
    at: Place, clock: Clock
) -> None:
    owned = store(at)
    for number in range(5):
        await owned.remember(replace(MINE, conversation_id=f"7{number}"))
        await at.age(MINUTE)
    await owned.use(ME, "71")
    for first, size, newest_first, listed, has_more in (
        (0, 3, True, ["71", "74", "73"], True),
        (3, 3, True, ["72", "70"], False),
        (0, 2, False, ["70", "72"], True),
    ):
        page = await owned.page(ME, "bot", first=first, size=size, newest_first=newest_first)
        assert [each.conversation_id for each in page.conversations] == listed
        assert page.has_more is has_more
    assert (await owned.page(STRANGER, "bot", first=0, size=3, newest_first=True)).conversations == []
    await at.age(LIFE - 5 * MINUTE)
    await owned.use(ME, "71")
    list_of_mine = [name for name in await at.names() if b"owned_by" in name]
    assert await at.do("ZCARD", list_of_mine[0]) == 4, "what is over stays in the list"


async def test_a_list_ends_after_a_bounded_number_and_redis_walks_no_further(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = store(at)
    for number in range(7):
        await owned.remember(replace(MINE, conversation_id=f"7{number}"))
    monkeypatch.setattr(module, "_MOST_LISTED", 6)
    run, asked = at.redis.run, list[Any]()

    async def noted(command: Any) -> Any:
        asked.append(command)
        return await run(command)

    monkeypatch.setattr(at.redis, "run", noted)
    for newest_first in (True, False):
        for first, listed, has_more in ((0, 3, True), (3, 3, False), (6, 0, False), (499_950, 0, False)):
            page = await owned.page(ME, "bot", first=first, size=3, newest_first=newest_first)
            assert (len(page.conversations), page.has_more) == (listed, has_more)
    assert len(asked) == 2 * 2, "past the bound Redis is not asked"


async def test_a_change_is_noted_and_nothing_is_made_of_one_that_is_gone(at: Place) -> None:
    owned = store(at)
    await owned.remember(MINE)
    await owned.change(MINE, {"name": "second", "section": "s-2"})
    assert await owned.use(ME, "71") == replace(MINE, name="second", section_id="s-2")
    await owned.forget(MINE)
    await owned.change(MINE, {"name": "third"})
    await owned.forget(MINE)
    assert await at.names() == []


async def test_erasing_a_user_finds_what_he_began_and_nothing_else(at: Place) -> None:
    owned = store(at)
    await owned.remember(MINE)
    await owned.serve(MINE, ended="", session_id="s-a", user_id="u", bot_id="bot")
    theirs = replace(MINE, owner=STRANGER.owner, conversation_id="72", user_id="u")
    await owned.remember(theirs)
    later = await owned.serve(MINE, ended="s-a", session_id="s-b", user_id="v", bot_id="bot")
    assert later.user_id == "u"
    assert await owned.of_user(ME, "v", 5) == ([], False)
    found, more = await owned.of_user(ME, "u", 5)
    assert ([each.conversation_id for each in found], more) == (["71"], False)
    everybodys, more = await owned.of_user(ADMIN, "u", 1)
    assert (len(everybodys), more) == (1, True)
    for each in (await owned.of_user(ADMIN, "u", 5))[0]:
        await owned.forget(each)
    assert await owned.of_user(ADMIN, "u", 5) == ([], False)
    with pytest.raises(ConversationNotFound):
        await owned.use(STRANGER, "72")
    assert await at.names() == []


async def test_what_a_user_began_is_found_by_him_until_its_time_is_up(at: Place, clock: Clock) -> None:
    owned = store(at)
    await owned.remember(replace(MINE, user_id="u"))
    await at.age(LIFE - 1)
    await owned.remember(replace(MINE, conversation_id="72", user_id="u"))
    sets = [name for name in await at.names() if b"labelled" in name or b"begun" in name]
    assert [await at.do("ZCARD", name) for name in sets] == [2, 2]
    await at.age(1)
    await owned.remember(replace(MINE, conversation_id="73", user_id="u"))
    assert [await at.do("ZCARD", name) for name in sets] == [2, 2]


async def test_what_a_user_began_long_ago_and_still_uses_is_erased_with_him(at: Place) -> None:
    owned = store(at)
    await owned.remember(replace(MINE, user_id="u"))
    for _ in range(3):
        await at.age(LIFE - 2 * DAY)
        await owned.use(ME, "71")
    await owned.remember(
        replace(MINE, conversation_id="72", user_id="u")
    )  # takes what is over out of the sets
    found, more = await owned.of_user(ME, "u", 5)
    assert (sorted(each.conversation_id for each in found), more) == (["71", "72"], False)
    for each in found:
        await owned.forget(each)
    assert await at.names() == []


# -- the session that serves a conversation, and its chats --------------------------------------------------


async def committed(at: Place, chat: str, coze_chat: str, epoch: str = "1") -> int:
    command = chat_ids(
        at=at.keys.of_session(at.sid("S")),
        chat=at.cid(chat),
        epoch=epoch,
        coze_chat=coze_chat,
        conversation="71",
        credential="0-aa",
    )
    return await at.redis.run(command)


async def test_it_takes_any_number_of_chats_is_in_no_list_and_counts_in_no_limit(at: Place) -> None:
    await at.open(serves_conversation=True, conversation=("71", "0-aa"))
    assert (await at.sessions.read(at.sid("S"), ME, history=0))[0].serves_conversation
    assert await at.index.newest([at.readable("x")], 10) == []
    assert await at.index.counts() == (0, 0)
    assert (await at.say("A")).kind == "started"
    await at.end("A")
    assert (await at.say("B")).kind == "started"
    assert (await at.held("session:S"))["session:S.single"] == "conversation"


async def test_cozes_chat_id_is_kept_beside_the_records_and_goes_with_them(at: Place) -> None:
    await at.open(serves_conversation=True, conversation=("71", "0-aa"))
    await at.say("A")
    assert await at.chats.by_coze_id(at.sid("S"), "81") is None
    assert await committed(at, "A", "81", epoch="2") == 0
    assert await at.chats.by_coze_id(at.sid("S"), "81") is None
    assert await committed(at, "A", "81") == 1
    assert await at.chats.by_coze_id(at.sid("S"), "81") == at.cid("A")
    await at.end("A")
    for number in range(100):
        await at.say(f"B{number}")
        await at.end(f"B{number}")
    assert await at.chats.by_coze_id(at.sid("S"), "81") is None
    assert not [name for name in await at.held("chats:") if "coze:" in name or "of:" in name]


async def test_chats_of_other_sessions_keep_no_such_thing(at: Place) -> None:
    await at.open()
    await at.say("A")
    assert await committed(at, "A", "81") == 1
    assert await at.chats.by_coze_id(at.sid("S"), "81") is None


# -- erasing, where others of the root use the same name ----------------------------------------------------


async def begin(at: Place, conversation_id: str, who: Identity = ME) -> Owned:
    return await store(at).remember(
        replace(MINE, owner=who.owner, conversation_id=conversation_id, user_id="u")
    )


async def begin_as_before(at: Place, conversation_id: str, who: Identity = ME) -> None:
    """As the version before does: it enters a conversation under its user's name alone."""
    owned = await begin(at, conversation_id, who)
    name = name_key(who.owner, "u")
    await at.do("ZREM", at.keys.begun(name, owner_key(who.owner)), conversation_id)
    await at.do("ZADD", at.keys.labelled(name), await at.now() + LIFE, f"{owned.owner}\0{conversation_id}")


async def erase_all(at: Place, who: Identity, limit: int = 5) -> list[str]:
    owned, erased, more = store(at), list[str](), True
    while more:
        found, more = await owned.of_user(who, "u", limit)
        for each in found:
            await owned.forget(each)
            erased.append(each.conversation_id)
    return sorted(erased)


async def test_erasing_reads_as_much_however_many_others_have_begun_under_that_name(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = store(at)
    run, replies = at.redis.run, list[Any]()

    async def noted(command: Any) -> Any:
        replies.append(await run(command))
        return replies[-1]

    monkeypatch.setattr(at.redis, "run", noted)
    monkeypatch.setattr(module, "_AT_ONCE", 5)

    async def reading() -> tuple[list[int], list[str]]:
        replies.clear()
        found, _ = await owned.of_user(ME, "u", 3)
        return [len(reply) for reply in replies if isinstance(reply, list)], [
            each.conversation_id for each in found
        ]

    for number in range(5):
        await begin(at, f"c{number}")
    alone = await reading()
    assert alone == ([0, 4], ["c0", "c1", "c2"]), "nothing to be filed; what a call erases, and one more"
    for number in range(30):
        await begin(at, f"d{number}", STRANGER)
    assert await reading() == alone
    for number in range(12):
        await begin_as_before(at, f"e{number}", STRANGER)
    assert (await reading())[0] == [5, 5, 2, 0, 4], "what the version before wrote is gone through once"
    assert await reading() == alone


@pytest.mark.parametrize("who", [ME, ADMIN])
async def test_what_the_version_before_has_begun_is_erased_too(
    at: Place, monkeypatch: pytest.MonkeyPatch, who: Identity
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    monkeypatch.setattr(module, "_FILED_PER_CALL", 4)
    for number in range(3):
        await begin(at, f"c{number}")
    for number in range(3, 8):
        await begin_as_before(at, f"c{number}")
        await begin_as_before(at, f"d{number}", STRANGER)
    mine, theirs = [f"c{number}" for number in range(8)], [f"d{number}" for number in range(3, 8)]
    assert await erase_all(at, who) == (mine if who is ME else mine + theirs)
    assert await erase_all(at, STRANGER) == (theirs if who is ME else [])
    assert await at.names() == []


async def test_the_version_before_finds_all_that_this_one_has_begun(at: Place) -> None:
    await begin(at, "c0")
    await begin(at, "d0", STRANGER)
    named = at.keys.labelled(name_key(ME.owner, "u"))
    found = await at.do("ZRANGEBYSCORE", named, await at.now(), "+inf")
    assert found == [f"{ME.owner}\0c0".encode(), f"{STRANGER.owner}\0d0".encode()]


async def test_an_administrators_erasure_goes_on_where_the_last_one_ended(at: Place) -> None:
    owned = store(at)
    for number in range(4):
        await begin(at, f"c{number}")
        await begin(at, f"d{number}", STRANGER)
    await at.redis.run(owned_forget(at=owned._places(ME.owner, "c0")))
    await at.age(MINUTE)
    assert len(await erase_all(at, ADMIN, limit=3)) == 7
    assert await at.names() == []
