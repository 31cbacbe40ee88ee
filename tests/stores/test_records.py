"""A chat's record: who gets it, and what reading it takes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from app.exceptions import ChatNotFound
from app.models import Identity
from app.redis_client import Command
from app.stores.large_reads import SMALL_BYTES

from .place import ADMIN, ELSEWHERE, FOREIGN_ADMIN, ME, STRANGER, Place


async def put_long_record(at: Place, chat: str, status: str = "completed") -> bytes:
    """Longer than what everybody reads at once; the chat is over."""
    await at.end(chat)
    record = orjson.dumps(orjson.loads(at.record(chat, status)) | {"content": "x" * SMALL_BYTES})
    await at.do("HSET", at.keys.chats(at.cid(chat)), at.cid(chat), record)
    return record


async def test_the_owner_and_an_administrator_of_the_root_read_it_and_nobody_else(at: Place) -> None:
    await at.open()
    await at.say("A")
    for identity in (ME, ADMIN):
        assert await at.chats.record(at.cid("A"), identity) == at.record("A")
    for identity in (STRANGER, ELSEWHERE, FOREIGN_ADMIN):
        with pytest.raises(ChatNotFound):
            await at.chats.record(at.cid("A"), identity)


@pytest.mark.parametrize("who", [STRANGER, FOREIGN_ADMIN])
async def test_redis_sends_as_much_of_somebody_elses_record_as_of_none(
    at: Place, monkeypatch: pytest.MonkeyPatch, who: Identity
) -> None:
    """One of 10 MB took ten times as long as an unknown one."""
    await at.open()
    await at.say("A")
    await put_long_record(at, "A")
    send, replies = at.redis._send, list[Any]()

    async def seen(name: str, commands: list[Command[object]], alone: bool = False) -> Any:
        replies.append(await send(name, commands, alone))
        return replies[-1]

    monkeypatch.setattr(at.redis, "_send", seen)
    for step in (at.chats.record(at.cid("A"), who), at.chats.forget(at.cid("A"), who, lambda _: b"")):
        with pytest.raises(ChatNotFound):
            await step
    foreign = replies.copy()
    replies.clear()
    for step in (at.chats.record(at.cid("none"), who), at.chats.forget(at.cid("none"), who, lambda _: b"")):
        with pytest.raises(ChatNotFound):
            await step
    assert foreign == replies
    assert len(replies) == 2, "one round trip each"


async def test_a_long_one_waits_for_a_turn_and_a_short_one_does_not(at: Place) -> None:
    await at.open()
    await at.say("A")
    long = await put_long_record(at, "A")
    await at.say("B")
    async with at.large.taken(ME.owner):
        read = asyncio.create_task(at.chats.record(at.cid("A"), ME))
        assert await at.chats.record(at.cid("B"), ME) == at.record("B")
        with pytest.raises(ChatNotFound):  # who may not see it does not wait, and so learns nothing
            await at.chats.record(at.cid("A"), STRANGER)
        assert not read.done()
    assert await read == long


async def test_a_long_one_is_deleted_in_a_turn_too(at: Place) -> None:
    await at.open()
    await at.say("A")
    long = await put_long_record(at, "A")
    given = list[bytes]()

    def rest_of(record: bytes) -> bytes:
        given.append(record)
        return b""

    async with at.large.taken(ME.owner):
        deletes = asyncio.create_task(at.chats.forget(at.cid("A"), ME, rest_of))
        for _ in range(5):
            assert await at.chats.by_coze_id(at.sid("S"), "unknown") is None
        assert not deletes.done()
    await deletes
    assert given == [long]
    with pytest.raises(ChatNotFound):
        await at.chats.record(at.cid("A"), ME)
