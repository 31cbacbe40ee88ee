"""The owner of a chat dies, or is taken for dead: another replica ends it, once, with Coze's answer."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import Client, ServiceProcess, data_of, open_client, wait_until

from .folding import place_of
from .support import AWAY, Cluster, Reader, check_completed, keys, nonce, open_session

DELTAS = 40
TYPING = f"deltas={DELTAS};gap=0.05;reasoning=0;followups=1"
"""About 2 s."""


async def kill_in_mid_answer(pair: Cluster, clients: list[Client], victim: int, dice: random.Random) -> None:
    """One chat whose owner is killed; a client has all of it in the end."""
    session_id, word = await open_session(clients[victim]), nonce()
    reader = Reader(clients, first=victim)
    sending = asyncio.create_task(reader.send(session_id, f"{word} [[sim:{TYPING}]]"))
    # Counted in frames, not in seconds: however slow this machine is, the end is still half a second off.
    frames = dice.randrange(2, DELTAS - 10)
    await wait_until(lambda: len(reader.checked.frames) >= frames, pause=0.01)
    assert not reader.checked.done
    pair.replicas[victim].kill()
    with pytest.raises(AWAY):
        await sending
    assert not reader.checked.done
    # The client has found out which replica is alive.
    async with asyncio.timeout(30):
        while not reader.checked.done:
            await reader.resume(1 - victim)
    chat = reader.checked.check_whole()
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert place_of(reader.checked.last_id or "")[0] == 2


async def kill_many(pair: Cluster, clients: list[Client], kills: int, seed: int) -> None:
    """Kills the replicas in turn; each is started again while the other works."""
    dice = random.Random(seed)
    with ThreadPoolExecutor(1) as pool:
        restart = pool.submit(lambda: None)
        for number in range(kills):
            victim = number % 2
            await kill_in_mid_answer(pair, clients, victim, dice)
            await asyncio.wrap_future(restart)
            restart = pool.submit(pair.replicas[victim].start)
            await asyncio.wrap_future(restart)


async def test_an_owner_killed_in_mid_answer_loses_nothing(pair: Cluster, clients: list[Client]) -> None:
    await kill_many(pair, clients, 1, seed=1)


@pytest.mark.full
@pytest.mark.timeout(500)
async def test_fifty_owners_killed_at_random_moments_lose_nothing(
    pair: Cluster, clients: list[Client], seed: int
) -> None:
    await kill_many(pair, clients, 50, seed)


@pytest.mark.full
async def test_all_chats_of_a_killed_process_are_taken_over_at_once(
    pair: Cluster, clients: list[Client]
) -> None:
    words = [nonce() for _ in range(30)]
    readers = [Reader(clients) for _ in words]
    sessions = await asyncio.gather(*(open_session(clients[0]) for _ in words))

    async def one(reader: Reader, session_id: str, word: str) -> None:
        chat = await reader.whole(session_id, f"{word} [[sim:deltas=40;gap=0.05;reasoning=0]]", timeout=60)
        await check_completed(chat, pair.simulator, word, recovered=True)

    async with asyncio.TaskGroup() as group:
        for reader, session_id, word in zip(readers, sessions, words, strict=True):
            group.create_task(one(reader, session_id, word))
        # Coze has begun them all: frame 1 is ours, frame 2 the first of Coze's.
        await wait_until(lambda: all(len(reader.checked.frames) >= 2 for reader in readers))
        pair.replicas[0].kill()


STORED = {
    "as streamed": "",
    "otherwise": ";stored_text=Quite another answer: WORD",
    "several answers": ";multi=3",
    "a card": ";card=1;first_byte=6",
    "reasoning": ";reasoning=1",
}


async def test_what_a_takeover_finds_is_told_by_deltas_and_snapshots_alone(
    pair: Cluster, clients: list[Client]
) -> None:
    """Of each shape one chat, read on both replicas; one kill. ``Checked`` folds by the rule, and compares
    before the terminal frame. The log holds less than the reader on the dead replica has seen."""
    words = {name: nonce() for name in STORED}
    near = {name: Reader(clients) for name in STORED}
    far = {name: Reader(clients) for name in STORED}
    sessions = {name: await open_session(clients[0]) for name in STORED}
    sending, reading = [], []
    # All at once: the first must still be under way when the last has begun.
    for name, knobs in STORED.items():
        message = f"{words[name]} [[sim:deltas=40;gap=0.1;reasoning=0{knobs.replace('WORD', words[name])}]]"
        sending.append(asyncio.create_task(near[name].send(sessions[name], message)))
    for name in STORED:
        await near[name].started.wait()
        far[name].chat_id = near[name].chat_id
        reading.append(asyncio.create_task(far[name].resume(1)))
    typed = [reader for name, reader in near.items() if name != "a card"]
    await wait_until(lambda: all(len(reader.checked.frames) > 8 for reader in typed))
    await wait_until(lambda: [r for r in pair.simulator.requests(contains=words["a card"]) if r["chat_id"]])
    pair.replicas[0].kill()
    await asyncio.gather(*sending, return_exceptions=True)
    assert all(await asyncio.gather(*reading))
    for name, reader in near.items():
        chat = await reader.follow()
        await check_completed(chat, pair.simulator, words[name], recovered=True)
        assert far[name].checked.check_whole() == chat
        fresh = Reader(clients)
        fresh.chat_id = reader.chat_id
        assert await fresh.resume(1)
        assert fresh.checked.check_whole() == chat


async def test_a_chat_killed_before_coze_said_a_word_is_found_by_our_id(
    pair: Cluster, clients: list[Client]
) -> None:
    """The POST has arrived and the chat exists at Coze, but no byte of it has come back."""
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    message = f"{word} [[sim:deltas=6;reasoning=0;first_byte=6]]"
    sending = asyncio.create_task(reader.send(session_id, message))
    await reader.started.wait()
    await wait_until(lambda: [r for r in pair.simulator.requests(contains=word) if r["chat_id"]])
    pair.replicas[0].kill()
    with pytest.raises(AWAY):
        await sending
    chat = await reader.follow()
    await check_completed(chat, pair.simulator, word, recovered=True)


@pytest.mark.full
async def test_a_chat_killed_before_it_was_sent_fails_and_is_not_sent_twice(
    pair: Cluster, clients: list[Client]
) -> None:
    """Coze refuses the connection, so the owner dies with nothing sent: nobody can tell, nobody sends."""
    session_id, word = await open_session(clients[0]), nonce()
    pair.simulator.knob(path="/v3/chat", match=word, fail=4013)
    reader = Reader(clients)
    sending = asyncio.create_task(reader.send(session_id, word))
    await reader.started.wait()
    pair.replicas[0].kill()
    with pytest.raises(AWAY):
        await sending
    chat = await reader.follow()
    assert (chat["status"], chat["error"]["retryable"]) == ("failed", True)
    assert chat["error"]["code"] == "COZE_API_ERROR"
    pair.simulator.clear_knobs()
    again = data_of(await clients[1].send(session_id, word))
    assert word in again["content"]


async def stop_and_continue(
    pair: Cluster, clients: list[Client], knobs: str, until_claimed: bool = True
) -> Reader:
    """The owner sleeps for longer than its lease, is taken over, and wakes up."""
    session_id, word = await open_session(clients[0]), nonce()
    stays, moves = Reader(clients), Reader(clients)
    staying = asyncio.create_task(stays.send(session_id, f"{word} [[sim:{knobs}]]"))
    await wait_until(lambda: len(stays.checked.frames) >= 4)
    moves.chat_id = stays.chat_id
    moving = asyncio.create_task(moves.resume(1))
    await wait_until(lambda: len(moves.checked.frames) >= 3)
    pair.replicas[0].pause()
    try:
        await wait_until(lambda: place_of(moves.checked.last_id or "0-0")[0] == 2)
        if until_claimed:
            assert await asyncio.wait_for(moving, 20)
    finally:
        pair.replicas[0].resume()
    # A client with an id of the new epoch may come to the old owner, whatever that believes.
    third = Reader(clients)
    third.chat_id = stays.chat_id
    third.checked.last_id = moves.checked.last_id
    async with clients[0].events(third.chat_id or "", moves.checked.last_id) as events:
        names = [event.event async for event in events]
    assert names[-2:] == ["result", "done"]
    assert await asyncio.wait_for(moving, 20)
    if not await asyncio.wait_for(staying, 20):
        await stays.follow(10)
    for reader in (stays, moves):
        chat = reader.checked.check_whole()
        await check_completed(chat, pair.simulator, word, recovered=True)
    assert stays.checked.result == moves.checked.result
    # Read from the start, on both: the same, and one terminal event.
    for where in (0, 1):
        fresh = Reader(clients)
        fresh.chat_id = stays.chat_id
        assert await fresh.resume(where)
        fresh.checked.check_whole()
    return stays


async def test_an_owner_that_wakes_up_after_its_lease_is_fenced(pair: Cluster, clients: list[Client]) -> None:
    reader = await stop_and_continue(pair, clients, "deltas=60;gap=0.05;reasoning=0")
    epochs = [place_of(event.id or "")[0] for event in reader.checked.frames]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2}


@pytest.mark.full
async def test_an_owner_that_wakes_up_while_the_new_one_still_works_is_fenced(
    pair: Cluster, clients: list[Client]
) -> None:
    await stop_and_continue(pair, clients, "deltas=90;gap=0.05;reasoning=0", until_claimed=False)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_owners_that_wake_up_at_any_moment_are_fenced(pair: Cluster, clients: list[Client]) -> None:
    for deltas in (30, 40, 50, 60, 70, 80):
        for until_claimed in (True, False):
            await stop_and_continue(pair, clients, f"deltas={deltas};gap=0.05;reasoning=0", until_claimed)


@pytest.mark.full
async def test_an_owner_that_was_stopped_before_coze_answered_does_not_ask_again(
    pair: Cluster, clients: list[Client]
) -> None:
    session_id, word = await open_session(clients[0]), nonce()
    reader = Reader(clients)
    message = f"{word} [[sim:deltas=6;reasoning=0;first_byte=3]]"
    sending = asyncio.create_task(reader.send(session_id, message))
    await wait_until(lambda: [r for r in pair.simulator.requests(contains=word) if r["chat_id"]])
    pair.replicas[0].pause()
    try:
        other = Reader(clients)
        await reader.started.wait()
        other.chat_id = reader.chat_id
        assert await asyncio.wait_for(other.resume(1), 15)
    finally:
        pair.replicas[0].resume()
    await asyncio.wait_for(sending, 20)
    chat = other.checked.check_whole()
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert (await clients[1].result(chat["chat_id"])).json()["data"]["task_status"] == "completed"


@pytest.mark.full
@pytest.mark.timeout(120)
async def test_a_chat_whose_owners_keep_dying_ends_failed(pair: Cluster, clients: list[Client]) -> None:
    """Coze never ends it. Five owners in a row die; the sixth says so."""
    session_id, word = await open_session(clients[0]), nonce()
    chat_id = await clients[0].start(session_id, f"{word} [[sim:delay=100]]")
    await wait_until(lambda: [r for r in pair.simulator.requests(contains=word) if r["chat_id"]])
    owner: ServiceProcess = pair.replicas[0]
    for epoch in range(2, 8):
        owner.kill()
        other = pair.replicas[1 - pair.replicas.index(owner)]

        def claimed(epoch: int = epoch) -> bool:
            with pair.redis.client() as client:
                run = keys(pair.redis, f"*:run:{chat_id}")
                return not run or int(client.hget(run[0], "epoch") or 0) >= epoch  # type: ignore[arg-type]

        await wait_until(claimed)
        owner.start()
        owner = other
    async with open_client(owner.base_url) as client:
        chat = await client.ended(chat_id)
    assert (chat["status"], chat["error"]["code"]) == ("failed", "INTERNAL_ERROR")
