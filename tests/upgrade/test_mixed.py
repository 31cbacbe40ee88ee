"""Two versions side by side on one Redis, as in every rolling deployment: no chat is lost.

``previous`` holds the commit of the version before this one. Its ``app`` is run as it was, with the packages
that are installed now. At a release it is moved on to the commit that was released, in the first commit after
it (``git rev-parse HEAD > tests/upgrade/previous``): from then on that is what is out there. Until then it
stays, however many layouts are tried in between.

A layout in Redis may change only so that these tests pass: what one version writes, the other one reads, and
goes on with. Where that cannot be had, the start must refuse while a replica of the other version lives, and
say "stop all first"; then these tests are to show that instead.

Replica 0 is always the previous version, replica 1 this one. ``upgrade``: the previous one goes, this one
goes on with everything. ``rollback``: the other way about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.folding import Checked, place_of
from tests.faults.support import (
    AWAY,
    Cluster,
    Reader,
    check_completed,
    nonce,
    open_session,
    posts,
    result,
    submissions,
    waiting_chat,
)
from tests.support import Client, SimControl, data_of, outputs_for, wait_until

from .support import both_versions

OLD, NEW = 0, 1
UPGRADE, ROLLBACK = (OLD, NEW), (NEW, OLD)
DIRECTIONS = pytest.mark.parametrize(("going", "staying"), [UPGRADE, ROLLBACK], ids=["upgrade", "rollback"])
MADE_BY = pytest.mark.parametrize("maker", [OLD, NEW], ids=["old", "new"])
TYPING = "deltas=40;gap=0.05;reasoning=0;followups=1"
"""About two seconds."""


async def follow_from(clients: list[Client], where: int, chat_id: str, last_id: str | None) -> Reader:
    """Reads a chat to its end on one replica."""
    reader = Reader(clients)
    reader.chat_id, reader.checked.last_id = chat_id, last_id
    assert await asyncio.wait_for(reader.resume(where), 20)
    return reader


def reader_of(clients: list[Client], writer: int, *, first: int = 0) -> Reader:
    """The previous version brings what it fetched from Coze in ``message.completed`` alone: a chat that it
    may have repaired need not keep the folding rule."""
    reader = Reader(clients, first=first)
    reader.checked.by_rule = writer == NEW
    return reader


def resumed(reader: Reader, where: int) -> Checked:
    """What a client has that read so many frames and then goes on, from this reader's frames."""
    checked = Checked(by_rule=reader.checked.by_rule)
    for event in reader.checked.frames[:where]:
        checked.take(event)
    return checked


# -- side by side ------------------------------------------------------------------------------------------


@MADE_BY
async def test_each_version_follows_the_chats_of_the_other(
    maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    session_id, word = await open_session(sides[maker]), nonce()
    owner, live, cut = Reader(sides, first=maker), Reader(sides), Reader(sides)
    sending = asyncio.create_task(owner.send(session_id, f"{word} [[sim:{TYPING}]]"))
    await owner.started.wait()
    live.chat_id = cut.chat_id = owner.chat_id
    following = asyncio.create_task(live.resume(1 - maker))
    await cut.resume(1 - maker, frames=5)
    await wait_until(lambda: len(owner.checked.frames) >= 15)
    await cut.resume(maker, frames=5)
    assert await asyncio.wait_for(cut.resume(1 - maker), 20)
    assert await sending
    assert await asyncio.wait_for(following, 20)
    for reader in (owner, live, cut):
        chat = reader.checked.check_whole()
        await check_completed(chat, mixed.simulator, word, recovered=False)
    if maker == OLD:  # a packed log is a snapshot and the end to a reader at the previous version
        assert [event.raw for event in live.checked.frames] == [event.raw for event in owner.checked.frames]


@MADE_BY
@pytest.mark.parametrize(
    "knobs",
    [
        "deltas=9;reasoning=0",
        pytest.param("deltas=9;fail_at=4", marks=pytest.mark.full),
        pytest.param("card=1", marks=pytest.mark.full),
        pytest.param("multi=2;deltas=4", marks=pytest.mark.full),
    ],
)
async def test_each_version_reads_the_ended_chats_of_the_other_from_every_place(
    knobs: str, maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    session_id, word = await open_session(sides[maker]), nonce()
    owner = reader_of(sides, maker, first=maker)
    assert await owner.send(session_id, f"{word} [[sim:{knobs}]]")
    chat = owner.checked.check_whole()
    for where in (OLD, NEW):
        for number in range(len(owner.checked.frames) + 1):
            reader = Reader(sides)
            reader.chat_id, reader.checked = owner.chat_id, resumed(owner, number)
            assert await asyncio.wait_for(reader.resume(where), 20)
            assert reader.checked.check_whole() == chat, f"from {number} on {where}"
            if where == NEW or maker == OLD:
                assert [event.raw for event in reader.checked.frames] == [
                    event.raw for event in owner.checked.frames
                ]
        assert await result(sides[where], owner.chat_id or "") == chat


@pytest.mark.full
@MADE_BY
async def test_each_version_reads_what_the_other_has_taken_over(
    maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    """Two epochs in one log, packed by whoever took it over."""
    session_id, word = await open_session(sides[maker]), nonce()
    reader = reader_of(sides, 1 - maker, first=maker)
    sending = asyncio.create_task(reader.send(session_id, f"{word} [[sim:{TYPING}]]"))
    await wait_until(lambda: len(reader.checked.frames) >= 8)
    mixed.replicas[maker].kill()
    with pytest.raises(AWAY):
        await sending
    chat = await reader.follow()
    await check_completed(chat, mixed.simulator, word, recovered=True)
    assert {place_of(event.id or "")[0] for event in reader.checked.frames} == {1, 2}
    await asyncio.to_thread(mixed.replicas[maker].start)
    for where in (OLD, NEW):
        for number in (0, 3, len(reader.checked.frames) - 1, len(reader.checked.frames)):
            again = Reader(sides)
            again.chat_id, again.checked = reader.chat_id, resumed(reader, number)
            assert await asyncio.wait_for(again.resume(where), 20)
            assert again.checked.check_whole() == chat


@MADE_BY
async def test_tool_outputs_are_answered_by_the_other_version_and_read_by_both(
    maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    word = nonce()
    waiting = await waiting_chat(sides, word, "deltas=8;gap=0.03;reasoning=0", where=maker)
    chat_id = waiting["chat_id"]
    behind = await sides[maker].start(waiting["session_id"], f"{word} behind", on_busy="enqueue")
    readers = [Reader(sides, first=where) for where in (OLD, NEW)]
    for where, reader in enumerate(readers):
        reader.chat_id = chat_id
        assert await reader.resume(where)
        assert reader.checked.check_whole()["status"] == "requires_action"
    path = f"/coze/chats/{chat_id}/tool_outputs"
    body = outputs_for(waiting, word)
    answered = data_of(await sides[1 - maker].post(path, json=body))
    assert (answered["status"], word in answered["content"]) == ("completed", True)
    assert submissions(mixed.simulator, waiting) == 1
    for where, reader in enumerate(readers):
        later = await follow_from(sides, where, chat_id, reader.checked.last_id)
        assert later.checked.check_whole() | {"waits_until": None} == answered | {"waits_until": None}
    again = await sides[maker].post(path, json=body)
    assert again.status_code == 409
    for client in sides:
        await check_completed(await client.ended(behind), mixed.simulator, f"{word} behind", recovered=False)


@MADE_BY
async def test_what_is_queued_at_the_one_is_started_by_the_other(
    maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    session_id, word = await open_session(sides[maker]), nonce()
    await sides[maker].start(session_id, f"{word} no 0 [[sim:deltas=16;gap=0.05;reasoning=0]]")
    queued = [
        await sides[where].start(session_id, f"{word} no {number}", on_busy="enqueue")
        for number, where in enumerate([OLD, NEW, OLD, NEW], start=1)
    ]
    for number, chat_id in enumerate(queued, start=1):
        chat = await sides[number % 2].ended(chat_id)
        await check_completed(chat, mixed.simulator, f"{word} no {number}", recovered=False)
    asked = [r["message"].split()[2] for r in mixed.simulator.requests(contains=word, path="/v3/chat")]
    assert asked == ["0", "1", "2", "3", "4"]


@MADE_BY
async def test_each_version_cancels_chats_of_the_other(
    maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    other, word = sides[1 - maker], nonce()
    running_in = await open_session(sides[maker])
    running = await sides[maker].start(running_in, f"{word} running [[sim:deltas=100;gap=0.1;reasoning=0]]")
    queued = await sides[maker].start(running_in, f"{word} queued", on_busy="enqueue")
    waiting = await waiting_chat(sides, f"{word} waiting", where=maker)
    await wait_until(lambda: posts(mixed.simulator, f"{word} running"))
    for chat_id in (queued, running, waiting["chat_id"]):
        cancelled = data_of(await other.post(f"/coze/chats/{chat_id}/cancel"))
        assert cancelled["status"] == "cancelled"
        assert (await result(sides[maker], chat_id))["status"] == "cancelled"
    assert posts(mixed.simulator, f"{word} queued") == 0
    for session_id in (running_in, waiting["session_id"]):
        for client in sides:
            assert (await client.send(session_id, "next")).status_code == 200


@pytest.mark.full
@MADE_BY
async def test_each_version_ends_and_interrupts_in_sessions_of_the_other(
    maker: int, mixed: Cluster, sides: list[Client]
) -> None:
    other, word = sides[1 - maker], nonce()
    first = await waiting_chat(sides, word, where=maker)
    next_id = await other.start(first["session_id"], f"{word} interrupting", on_busy="interrupt")
    assert (await other.ended(next_id))["status"] == "completed"
    assert (await result(sides[maker], first["chat_id"]))["status"] == "cancelled"
    second = await waiting_chat(sides, word, where=maker)
    queued = await sides[maker].start(second["session_id"], f"{word} queued", on_busy="enqueue")
    assert data_of(await other.delete(f"/coze/sessions/{second['session_id']}"))["status"] == "terminated"
    for client in sides:
        assert (await client.ended(queued))["status"] == "cancelled"
        await wait_until(lambda c=client: _is_cancelled(c, second["chat_id"]))
    assert mixed.redis.keys_without_ttl() == []


async def _is_cancelled(client: Client, chat_id: str) -> bool:
    return bool((await result(client, chat_id))["status"] == "cancelled")


@pytest.fixture
async def brief(previous_code: Path, simulator: SimControl) -> AsyncIterator[tuple[Cluster, list[Client]]]:
    """With sessions of two seconds."""
    async with both_versions(previous_code, simulator, COZE_SESSION_EXPIRE="2") as opened:
        yield opened


@pytest.mark.full
@pytest.mark.parametrize("answerer", [OLD, NEW], ids=["old", "new"])
async def test_a_chat_that_waits_is_not_lost_where_the_previous_version_looks_after_it(
    answerer: int, brief: tuple[Cluster, list[Client]]
) -> None:
    """This version is away (stopped, not dead) while what it has noted of the waiting chat becomes due."""
    pair, clients = brief
    word = nonce()
    waiting = await waiting_chat(clients, word, where=NEW)
    session_id, chat_id = waiting["session_id"], waiting["chat_id"]
    queued = await clients[NEW].start(session_id, f"{word} queued", on_busy="enqueue")
    until = datetime.fromisoformat(waiting["updated_at"]) + timedelta(seconds=6)

    async def lived_long_enough() -> bool:
        session = await clients[OLD].session(session_id)
        return datetime.fromisoformat(session["expires_at"]) > until

    async def waits() -> bool:
        await clients[OLD].session(session_id)
        return bool((await result(clients[answerer], chat_id))["status"] == "requires_action")

    pair.replicas[NEW].pause()
    try:
        await wait_until(lived_long_enough, pause=0.1)
    finally:
        pair.replicas[NEW].resume()
    await wait_until(waits)
    answered = data_of(await clients[answerer].answer_tools(waiting, word))
    assert (answered["status"], word in answered["content"]) == ("completed", True)
    assert submissions(pair.simulator, waiting, accepted=True) == 1
    for client in clients:
        await check_completed(await client.ended(queued), pair.simulator, f"{word} queued")


# -- one of them goes -------------------------------------------------------------------------------------


@dataclass
class Everything:
    """Chats of one version, in each state that there is."""

    maker: int
    word: str
    running: Reader
    watched: Reader
    """The same chat, followed at the other version."""
    waiting: dict[str, Any]
    ended: Reader
    queued: dict[str, str] = field(default_factory=dict)
    """Chat ids by their words, in their order."""
    tasks: list[asyncio.Task[bool]] = field(default_factory=list)


async def set_up(mixed: Cluster, sides: list[Client], maker: int, staying: int) -> Everything:
    word, clients = nonce(), sides
    ended = Reader(clients, first=maker)
    assert await ended.send(await open_session(clients[maker]), f"{word} ended [[sim:deltas=6]]")
    waiting = await waiting_chat(clients, f"{word} waiting", "deltas=4", where=maker)
    session_id = await open_session(clients[maker])
    running, watched = (reader_of(clients, staying, first=side) for side in (maker, 1 - maker))
    made = Everything(maker, word, running, watched, waiting, ended)
    message = f"{word} running [[sim:{TYPING}]]"
    made.tasks.append(asyncio.create_task(running.send(session_id, message)))
    await running.started.wait()
    watched.chat_id = running.chat_id
    made.tasks.append(asyncio.create_task(watched.resume(1 - maker)))
    for number, where in enumerate([maker, 1 - maker]):
        for name, session in (("behind", waiting["session_id"]), ("next", session_id)):
            text = f"{word} {name} {number}"
            made.queued[text] = await clients[where].start(session, text, on_busy="enqueue")
    await wait_until(lambda: min(len(r.checked.frames) for r in (running, watched)) >= 4)
    return made


async def check_all(mixed: Cluster, sides: list[Client], made: Everything, staying: int) -> None:
    """Everything goes on at the version that stays: whole, once, in order."""
    client = sides[staying]
    await asyncio.gather(*made.tasks, return_exceptions=True)
    for reader in (made.running, made.watched):
        reader.clients = [client]
        reader.place = 0
        chat = await reader.follow(20)
        await check_completed(chat, mixed.simulator, f"{made.word} running")
    assert (await result(client, made.waiting["chat_id"]))["status"] == "requires_action"
    answered = data_of(await client.answer_tools(made.waiting, made.word))
    assert (answered["status"], made.word in answered["content"]) == ("completed", True)
    assert submissions(mixed.simulator, made.waiting, accepted=True) == 1
    for text, chat_id in made.queued.items():
        await check_completed(await client.ended(chat_id), mixed.simulator, text)
    for name in ("behind", "next"):
        asked = mixed.simulator.requests(contains=f"{made.word} {name}", path="/v3/chat")
        assert [record["message"].split()[2] for record in asked] == ["0", "1"]
    for number in (0, 3, len(made.ended.checked.frames)):
        again = Reader([client])
        again.chat_id, again.checked = made.ended.chat_id, resumed(made.ended, number)
        assert await asyncio.wait_for(again.resume(0), 20)
        assert again.checked.check_whole() == made.ended.checked.result
    for session_id in (made.waiting["session_id"], made.running.checked.check_whole()["session_id"]):
        assert (await client.send(session_id, "and then?")).status_code == 200


@pytest.mark.parametrize(
    ("how", "going", "staying"),
    [
        pytest.param("stopped", *UPGRADE, id="stopped-upgrade"),
        pytest.param("killed", *UPGRADE, id="killed-upgrade", marks=pytest.mark.full),
        pytest.param("stopped", *ROLLBACK, id="stopped-rollback", marks=pytest.mark.full),
        pytest.param("killed", *ROLLBACK, id="killed-rollback"),
    ],
)
async def test_one_version_goes_and_the_other_goes_on_with_everything(
    how: str, going: int, staying: int, mixed: Cluster, sides: list[Client]
) -> None:
    both = await asyncio.gather(*(set_up(mixed, sides, maker, staying) for maker in (OLD, NEW)))
    leaving = mixed.replicas[going]
    if how == "stopped":
        await asyncio.to_thread(leaving.stop)
    else:
        leaving.kill()
    await asyncio.gather(*(check_all(mixed, sides, made, staying) for made in both))


@pytest.mark.full
@DIRECTIONS
async def test_an_ended_session_of_the_version_that_went_is_read_by_the_one_that_stays(
    going: int, staying: int, mixed: Cluster, sides: list[Client]
) -> None:
    """Its records, lists, usage; and what was told with an Idempotency-Key is told again."""
    session_id, word = await open_session(sides[going]), nonce()
    headers = {"Idempotency-Key": word}
    chat = data_of(await sides[going].send(session_id, f"{word} [[sim:deltas=5]]", headers=headers))
    seen = await sides[going].session(session_id)
    mixed.replicas[going].kill()
    same = data_of(await sides[staying].send(session_id, f"{word} [[sim:deltas=5]]", headers=headers))
    assert same["chat_id"] == chat["chat_id"]
    told = await sides[staying].session(session_id)
    assert [each["chat_id"] for each in told["chat_history"]] == [chat["chat_id"]]
    assert (told["chat_count"], told["conversation_id"]) == (1, seen["conversation_id"])
    assert posts(mixed.simulator, word) == 1


@pytest.mark.full
@DIRECTIONS
async def test_a_whole_deployment_back_and_forth_loses_nothing(
    going: int, staying: int, mixed: Cluster, sides: list[Client]
) -> None:
    """The one goes, comes back, then the other goes, while chats wait and run all the time."""
    for round_number in range(3):
        for victim in (going, staying):
            both = await asyncio.gather(*(set_up(mixed, sides, maker, 1 - victim) for maker in (OLD, NEW)))
            if round_number % 2:
                mixed.replicas[victim].kill()
            else:
                await asyncio.to_thread(mixed.replicas[victim].stop)
            await asyncio.gather(*(check_all(mixed, sides, made, 1 - victim) for made in both))
            await asyncio.to_thread(mixed.replicas[victim].start)
