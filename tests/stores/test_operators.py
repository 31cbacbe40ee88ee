"""For operators: the processes that are there, and the newest failures of a root."""

from __future__ import annotations

import orjson

from app.models import Identity
from app.models.chats import Chat, ErrorInfo, UserMessage
from app.stores.failures import KEPT
from app.stores.replicas import ReplicaStore
from app.utils import iso

from .place import ADMIN, DAY, ELSEWHERE, FOREIGN_ADMIN, ME, MINUTE, SECOND, STRANGER, Clock, Place

WHO = "what nobody may read"


def another(at: Place, name: str) -> ReplicaStore:
    return ReplicaStore(at.redis, at.keys, name)


async def test_a_process_that_says_that_it_is_there_is_listed_with_what_it_says(at: Place) -> None:
    about = {"version": "1", "started_at": "2027-01-15", "running_chats": 2, "open_streams": 3}
    await at.replicas.say(about)
    await at.replicas.say(about | {"running_chats": 1})
    [replica] = await at.replicas.all()
    assert {name: replica[name] for name in about} == about | {"running_chats": 1}
    assert replica["process"] == at.process
    assert (await at.dump())["{index}:replicas"] == MINUTE


async def test_who_has_been_silent_for_a_minute_is_forgotten_by_whoever_speaks_next(
    at: Place, clock: Clock
) -> None:
    about = {"started_at": "2027-01-15"}
    await another(at, "dead").say(about)
    await at.age(30 * SECOND)
    await another(at, "slow").say(about)
    await at.age(30 * SECOND)
    await at.replicas.say(about)
    assert [each["process"] for each in await at.replicas.all()] == sorted(["dead", "slow", at.process])
    clock.now += 1
    await at.replicas.say(about)
    assert [each["process"] for each in await at.replicas.all()] == sorted(["slow", at.process])
    seen = {each["process"]: each["seen_at"] for each in await at.replicas.all()}
    assert seen[at.process] == iso(clock.now)


async def test_where_nobody_speaks_any_more_nothing_is_left(at: Place) -> None:
    await at.replicas.say({"started_at": "2027-01-15"})
    await at.age(MINUTE + SECOND)
    assert await at.replicas.all() == []


async def fail(at: Place, chat: str, session: str = "S", owner: Identity = ME) -> None:
    """A chat of that name fails in a session that is there."""
    record = await at.open(session, owner=owner)
    failed = Chat(
        chat_id=at.cid(chat, session),
        session_id=at.sid(session),
        status="failed",
        created_at=iso(),
        updated_at=iso(),
        user_message=UserMessage(content=WHO, timestamp=iso(), message_id="m"),
        error_message=WHO,
        error=ErrorInfo(code="COZE_API_ERROR", message=WHO, coze_code=4101, logid="l-1", hint="do this"),
    )
    await at.failures.note(record, failed)


async def test_a_failure_is_told_to_its_root_alone_without_a_word_of_what_was_said(at: Place) -> None:
    await fail(at, "A")
    await fail(at, "B", "elsewhere", ELSEWHERE)
    await fail(at, "C", "stranger's", STRANGER)
    newest = await at.failures.newest(ADMIN, 10)
    assert [each["chat_id"] for each in newest] == [at.cid("C"), at.cid("A")]
    assert [each["chat_id"] for each in await at.failures.newest(FOREIGN_ADMIN, 10)] == [at.cid("B")]
    assert len(await at.failures.newest(ADMIN, 1)) == 1
    told = newest[1]
    assert (told["code"], told["coze_code"], told["logid"]) == ("COZE_API_ERROR", 4101, "l-1")
    assert (told["session_id"], told["bot_id"], told["hint"]) == (at.sid("S"), "bot", "do this")
    assert WHO not in orjson.dumps(newest).decode()
    assert {"user_id", "content"}.isdisjoint(told)


async def test_a_root_keeps_its_newest_hundred_for_seven_days_since_the_last(at: Place) -> None:
    for n in range(KEPT + 2):
        await fail(at, f"chat {n}")
    newest = await at.failures.newest(ADMIN, 1000)
    assert [each["chat_id"] for each in newest] == [at.cid(f"chat {n}") for n in range(KEPT + 1, 1, -1)]
    [life] = [life for name, life in (await at.held("{index}:failures:")).items() if not name.endswith("=")]
    assert life == 7 * DAY


async def test_what_failed_in_erased_sessions_leaves_and_all_else_stays(at: Place) -> None:
    await fail(at, "A")
    await fail(at, "B", "T")
    await fail(at, "C")
    await fail(at, "D", "elsewhere", ELSEWHERE)
    await at.failures.forget(ME, {at.sid("S"), at.sid("elsewhere")})
    assert [each["chat_id"] for each in await at.failures.newest(ADMIN, 10)] == [at.cid("B")]
    assert len(await at.failures.newest(FOREIGN_ADMIN, 10)) == 1
