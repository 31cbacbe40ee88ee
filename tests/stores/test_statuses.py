"""A chat's status while it is not over: that of its run's state, whichever version has stored its record."""

from __future__ import annotations

import orjson
import pytest

from .place import ME, Place


async def statuses(at: Place, *chats: str) -> list[str]:
    """As each of the three ways of reading tells them; they must agree."""
    newest_first = [at.cid(chat) for chat in reversed(chats)]
    alone = [await at.chats.record(chat_id, ME) for chat_id in newest_first]
    _, history, _ = await at.sessions.read(at.sid("S"), ME, history=9)
    page, _ = await at.sessions.page(at.sid("S"), ME, limit=9, before="")
    [told] = {
        tuple((chat["chat_id"], chat["status"]) for chat in map(orjson.loads, records))
        for records in (alone, history, page)
    }
    assert [chat_id for chat_id, _ in told] == newest_first
    return [status for _, status in reversed(told)]


async def store_status(at: Place, chat: str, status: str) -> None:
    """As the version before stored it: within the record."""
    await at.do("HSET", at.keys.chats(at.cid(chat)), at.cid(chat), at.record(chat, status))


async def test_a_queued_chat_is_pending_until_it_is_made_ready(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await at.say("C", on_busy="enqueue")
    assert await statuses(at, "A", "B", "C") == ["processing", "pending", "pending"]
    await at.end("A")
    assert await statuses(at, "A", "B", "C") == ["completed", "processing", "pending"]
    await at.claim("B", force=True)
    assert await statuses(at, "A", "B", "C") == ["completed", "processing", "pending"]


async def test_what_the_version_before_queued_is_processing_once_it_is_made_ready(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    await store_status(at, "B", "pending")
    assert await statuses(at, "A", "B") == ["processing", "pending"]
    await at.end("A")
    assert await statuses(at, "A", "B") == ["completed", "processing"]


@pytest.mark.parametrize("expect", ["waiting", None])
async def test_a_chat_that_goes_on_after_waiting_is_processing(expect: str | None, at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.wait_for_tools("A")
    assert await statuses(at, "A") == ["requires_action"]
    if expect is None:
        await at.do("HSET", at.keys.run(at.cid("A")), "cancel", "1")
    assert await at.claim("A", force=True, expect=expect) is not None  # type: ignore[arg-type]
    assert await statuses(at, "A") == ["processing"]


async def test_what_a_caller_wrote_is_not_taken_for_the_status(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.say("B", on_busy="enqueue")
    chat = orjson.loads(await at.chats.record(at.cid("B"), ME))
    assert (chat["status"], chat["user_message"]["metadata"]) == ("pending", {"status": "processing"})


async def test_a_record_that_tells_how_its_chat_ended_is_right_whatever_its_run_says(at: Place) -> None:
    await at.open()
    await at.say("A")
    await store_status(at, "A", "failed")
    assert await statuses(at, "A") == ["failed"]


async def test_a_chat_whose_run_is_lost_has_the_status_of_its_record(at: Place) -> None:
    await at.open()
    await at.say("A")
    await at.do("DEL", at.keys.run(at.cid("A")))
    assert await statuses(at, "A") == ["processing"]


async def test_only_a_chat_that_is_queued_has_its_first_frame_say_pending(at: Place) -> None:
    await at.open()
    await at.say("A", on_busy="enqueue")
    await at.say("B", on_busy="enqueue")
    held = await at.held("log:")
    assert held["log:A#1-1"] == {"n": b"1", "f": at.frame("processing")}
    assert held["log:B#1-1"] == {"n": b"1", "f": at.frame("pending")}
