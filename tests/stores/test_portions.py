"""Very many users of one name, sessions of one user, owners of one root: no step reads all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from app.models import Identity
from app.redis_client import Command
from app.stores.index import name_key, owner_key, user_key
from app.stores.usage import today
from app.utils import new_id

from .place import ADMIN, DAY, ME, SESSION, STRANGER, Place

MANY = 2500
ONE_STEP = 2200
"""Values in a reply: a thousand rows, or five hundred members with their scores, and what a set gives beyond
that."""
COMMANDS = 500
"""That travel together."""


def _values(reply: Any) -> int:
    return sum(map(_values, reply)) if isinstance(reply, list | tuple) else 1


@contextmanager
def in_portions(at: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing in it is longer than one step may be."""
    send, longest, most = at.redis._send, 0, 0

    async def noted(name: str, commands: Any, alone: bool = False) -> Any:
        nonlocal longest, most
        replies = await send(name, commands, alone)
        longest, most = max(longest, *map(_values, replies)), max(most, len(commands))
        return replies

    with monkeypatch.context() as patched:
        patched.setattr(at.redis, "_send", noted)
        yield
    assert longest <= ONE_STEP
    assert most <= COMMANDS


async def do_all(at: Place, commands: list[Command[Any]]) -> None:
    for begin in range(0, len(commands), 500):
        await at.redis.pipeline(commands[begin : begin + 500])


def somebody(number: int) -> Identity:
    return Identity(ME.root, f"somebody-{number}")


async def name_many(at: Place) -> None:
    """Users of the name "u", of whom each has a session of which nothing is left."""
    now, commands = await at.now(), list[Command[Any]]()
    names = at.keys.users_by_name(name_key(ME.owner, "u"))
    for number in range(MANY):
        user = user_key(somebody(number).owner, "u")
        commands.append(Command("ZADD", names, now + SESSION + number, user))
        commands.append(Command("PEXPIRE", names, DAY))
        for key in (at.keys.user_sessions(user), at.keys.remaining_sessions(user)):
            commands.append(Command("ZADD", key, now + SESSION + number, new_id("session")))
            commands.append(Command("PEXPIRE", key, DAY))
    await do_all(at, commands)


async def test_an_administrator_s_list_of_a_name_that_very_many_have_is_read_in_portions(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await name_many(at)
    for session, owner in (("S", ME), ("T", STRANGER)):
        await at.open(session, owner=owner)
    with in_portions(at, monkeypatch):
        found = await at.users.sessions(ADMIN, "u", 10)
    assert sorted(record.session_id for record in found) == [at.sid("S"), at.sid("T")]


async def test_of_more_users_of_a_name_than_are_looked_at_those_count_of_whom_something_happened_last(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for session, owner in (("S", ME), ("T", STRANGER), ("V", somebody(1)), ("W", somebody(2))):
        await at.open(session, owner=owner)
        await at.age(1000)
    names = at.keys.users_by_name(name_key(ME.owner, "u"))
    await at.do("ZADD", names, await at.now() + DAY + SESSION + 1, user_key(ME.owner, "u"))
    monkeypatch.setattr("app.stores.users._WHOLE_AT_ONCE", 1)
    monkeypatch.setattr("app.stores.users._MOST_LISTED", 3)
    found = await at.users.sessions(ADMIN, "u", 10)
    assert {record.session_id for record in found} == {at.sid("S"), at.sid("V"), at.sid("W")}


async def test_an_erasure_reads_no_more_users_of_a_name_than_it_looks_at(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await name_many(at)
    with in_portions(at, monkeypatch):
        left = await at.users.remaining(ADMIN, "u", 20)
    assert left.users == [user_key(somebody(number).owner, "u") for number in range(20)]
    assert left.more_users == MANY - 20
    assert (await at.users.remaining(ME, "u", 20)).more_users == 0


async def have_many(at: Place) -> None:
    """Sessions of the user "u" of which nothing is left."""
    key, now = at.keys.user_sessions(user_key(ME.owner, "u")), await at.now()
    await do_all(at, [Command("ZADD", key, now + SESSION + n, new_id("session")) for n in range(MANY)])


async def test_a_user_s_own_very_many_sessions_are_read_in_portions(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for session in "STV":
        await at.open(session)
    await have_many(at)
    with in_portions(at, monkeypatch):
        found = await at.users.sessions(ME, "u", 10)
    assert {record.session_id for record in found} == {at.sid(session) for session in "STV"}


async def test_of_more_sessions_than_are_looked_at_those_count_that_live_longest(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.open("S")
    await have_many(at)
    monkeypatch.setattr("app.stores.users._MOST_LISTED", 700)
    assert await at.users.sessions(ME, "u", 10) == []


async def test_all_sessions_in_a_conversation_are_found_among_very_many(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for session in "STV":
        await at.open(session, conversation=("c-2" if session == "V" else "c-1", "0-aa"))
    await have_many(at)
    with in_portions(at, monkeypatch):
        found = await at.users.ids_in_conversation(ME, "u", "c-1")
    assert sorted(found) == [at.sid("S"), at.sid("T")]


async def use_by_many(at: Place) -> None:
    """Each of very many owners of the root has used something of today, in one shard."""
    day, commands = today().toordinal() - 719_163, list[Command[Any]]()
    at_shard = at.keys.usage(7, root=owner_key(ME.root))
    for number in range(MANY):
        owner = owner_key(somebody(number).owner)
        used = f"{at.keys.usage(7, owner).usage}{day}"
        row = "u\x1fbot" if number % 2 else "v\x1fbot"
        commands += [
            Command("HSET", used, row, "1 4 3 2"),
            Command("PEXPIRE", used, DAY),
            Command("SADD", f"{at_shard.usage_owners}{day}", owner),
            Command("PEXPIRE", f"{at_shard.usage_owners}{day}", DAY),
        ]
    await do_all(at, commands)


async def root_used(at: Place) -> int:
    portions = at.usage.rows(ADMIN, today() - timedelta(2), today())
    return sum([used.chats async for portion in portions for used in portion])


async def test_the_usage_of_a_root_with_very_many_owners_is_read_in_portions(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use_by_many(at)
    with in_portions(at, monkeypatch):
        assert await root_used(at) == MANY


async def test_an_owner_who_comes_twice_while_owners_are_read_counts_once(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a set tells its members while it gets smaller."""
    await use_by_many(at)
    send = at.redis._send

    async def twice(name: str, commands: Any, alone: bool = False) -> Any:
        replies = await send(name, commands, alone)
        both = zip(commands, replies, strict=True)
        return [[reply[0], reply[1] * 2] if each.name == "SSCAN" else reply for each, reply in both]

    monkeypatch.setattr(at.redis, "_send", twice)
    assert await root_used(at) == MANY


async def test_usage_is_erased_in_portions(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await use_by_many(at)
    pipeline, steps = at.redis.pipeline, list[int]()

    async def noted(commands: Any) -> Any:
        replies = await pipeline(commands)
        both = zip(commands, replies, strict=True)
        steps.extend(reply[0] for each, reply in both if each.name == "usage_erase")
        return replies

    with in_portions(at, monkeypatch):
        monkeypatch.setattr(at.redis, "pipeline", noted)
        await at.usage.erase(ADMIN, "u")
    assert sum(steps) == MANY
    assert max(steps) <= ONE_STEP / 2
    assert await root_used(at) == MANY / 2


async def test_long_days_of_one_owner_are_read_and_erased_in_portions(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, used = today().toordinal() - 719_163, at.keys.usage(7, owner_key(ME.owner)).usage
    rows = [part for n in range(600) for part in (f"u{n % 300}\x1fb{n // 300}", "1 4 3 2")]
    for ago in range(4):
        await at.do("HSET", f"{used}{day - ago}", *rows)
        await at.do("PEXPIRE", f"{used}{day - ago}", DAY)
    portions = at.usage.rows(ME, today() - timedelta(3), today())
    with in_portions(at, monkeypatch):
        assert len([row async for portion in portions for row in portion]) == 2400
        await at.usage.erase(ME, "u7")
    portions = at.usage.rows(ME, today() - timedelta(3), today())
    assert len([row async for portion in portions for row in portion]) == 2400 - 8


async def test_an_erasure_looks_at_a_bounded_number_of_users_who_have_no_files_any_more(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, now = at.keys.uploaders(name_key(ME.owner, "u")), await at.now()
    await do_all(at, [Command("ZADD", key, now + DAY, user_key(somebody(n).owner, "u")) for n in range(MANY)])
    monkeypatch.setattr("app.stores.files._ERASED_PER_CALL", 1700)
    with in_portions(at, monkeypatch):
        assert await at.files.erase(ADMIN, "u") == (0, True)
    assert await at.do("ZCARD", key) == MANY - 2000
    assert await at.files.erase(ADMIN, "u") == (0, False)
    assert await at.names() == []


async def test_an_erasure_looks_at_a_bounded_number_of_files_that_are_gone(
    at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, now = at.keys.files(user_key(ME.owner, "u")), await at.now()
    await do_all(at, [Command("ZADD", key, now + DAY, f"coze_file_{n:013d}_a") for n in range(MANY)])
    monkeypatch.setattr("app.stores.files._ERASED_PER_CALL", 1700)
    with in_portions(at, monkeypatch):
        assert await at.files.erase(ME, "u") == (0, True)
    assert await at.do("ZCARD", key) == MANY - 2000
    assert [(await at.files.erase(ME, "u"))[1], await at.names()] == [False, []]
