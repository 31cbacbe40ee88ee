"""Hours pass: real replicas on a real redis-server, whose wall clocks a test moves with libfaketime.

Redis and the replicas share one clock, as machines do that keep theirs right: expiry and lease times come
from Redis, but a session's status, ids and usage reports also from the replicas. Monotonic clocks stay real,
so that no time-out passes of itself: what takes hours here is the waiting, not the work. The simulated Coze
keeps the real time; nothing here searches it by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support import Client, FakeClock, data_of, error_of, fake_clock, redis_server, wait_until

from .support import (
    Clients,
    Cluster,
    Reader,
    check_completed,
    cluster,
    keys,
    nonce,
    open_session,
    posts,
    result,
    submissions,
    waiting_chat,
)

SESSION_SECONDS = 3600
RESULT_SECONDS = 1800
OVER = ("completed", "failed", "cancelled")


@contextmanager
def hours_cluster(count: int, **values: str) -> Iterator[tuple[Cluster, FakeClock]]:
    """Replicas and a redis-server on one clock that can be moved. Skips where there is no libfaketime."""
    with ExitStack() as stack:
        clock = stack.enter_context(fake_clock())
        if clock is None:
            pytest.skip("no libfaketime (Debian: apt install libfaketime; elsewhere: LIBFAKETIME=<path>)")
        redis = stack.enter_context(redis_server(environment=clock.environment))
        chosen = {"COZE_SESSION_EXPIRE": str(SESSION_SECONDS), "COZE_RESULT_EXPIRE": str(RESULT_SECONDS)}
        yield (
            stack.enter_context(
                cluster(count=count, redis=redis, **{**chosen, **clock.environment, **values})
            ),
            clock,
        )


async def look(client: Client, session_id: str) -> dict[str, Any]:
    """Reads the session, which is activity; it must be alive."""
    session = await client.session(session_id)
    assert session["status"] == "active"
    return session


async def nothing_is_due(pair: Cluster) -> None:
    """Until whatever ran out has been found: a chat that waits is then scored anew, or ended."""

    def due() -> list[str]:
        with pair.redis.client() as client:
            now = client.time()[0] * 1000  # type: ignore[index]
        return [member for member, score in pair.leases() if score <= now]

    await wait_until(lambda: not due(), 10)


async def usage_of(client: Client) -> int:
    """How many chats have been counted."""
    count: int = data_of(await client.get("/coze/usage"))["total"]["chats"]
    return count


async def test_a_chat_waits_three_hours_for_its_tools_while_its_session_is_looked_at() -> None:
    with hours_cluster(2) as (pair, clock):
        async with Clients(pair.urls) as clients:
            word = nonce()
            waiting = await waiting_chat(clients, f"{word} no 0")
            session_id, chat_id = waiting["session_id"], waiting["chat_id"]
            queued = [
                await clients[number % 2].start(session_id, f"{word} no {number}", on_busy="enqueue")
                for number in (1, 2, 3)
            ]
            for half_hour in range(6):
                clock.advance(minutes=30)
                await look(clients[half_hour % 2], session_id)
                await nothing_is_due(pair)
                assert (await result(clients[half_hour % 2], chat_id))["status"] == "requires_action"
                busy = await clients[0].send(session_id, "may I?")
                assert (busy.status_code, error_of(busy)["details"]["chat_id"]) == (409, chat_id)
            assert posts(pair.simulator, word) == 1
            answered = data_of(await clients[1].answer_tools(waiting, word))
            assert (answered["status"], word in answered["content"]) == ("completed", True)
            assert submissions(pair.simulator, waiting) == 1
            for number, queued_id in enumerate(queued, start=1):
                chat = await clients[number % 2].ended(queued_id)
                await check_completed(chat, pair.simulator, f"{word} no {number}", recovered=False)
            asked = [r["message"].split()[2] for r in pair.simulator.requests(contains=word, path="/v3/chat")]
            assert asked == ["0", "1", "2", "3"]
            assert (await clients[0].send(session_id, "and now?")).status_code == 200
            await pair.settle()


@pytest.mark.parametrize("how", [pytest.param("cancel", marks=pytest.mark.full), "interrupt", "delete"])
async def test_a_chat_that_has_waited_for_hours_can_still_be_ended(how: str) -> None:
    with hours_cluster(1) as (pair, clock):
        async with Clients(pair.urls) as clients:
            [client], word = clients, nonce()
            waiting = await waiting_chat(clients, word)
            session_id, chat_id = waiting["session_id"], waiting["chat_id"]
            queued = await client.start(session_id, f"{word} queued", on_busy="enqueue")
            for _ in range(6):
                clock.advance(minutes=30)
                await look(client, session_id)
                await nothing_is_due(pair)
            if how == "cancel":
                cancelled = data_of(await client.post(f"/coze/chats/{chat_id}/cancel"))
                assert cancelled["status"] == "cancelled"
            elif how == "interrupt":
                next_id = await client.start(session_id, f"{word} interrupting", on_busy="interrupt")
                assert (await client.ended(next_id))["status"] == "completed"
            else:
                ended = await client.delete(f"/coze/sessions/{session_id}")
                assert data_of(ended)["status"] == "terminated"
            assert (await result(client, chat_id))["status"] == "cancelled"
            after = (await client.ended(queued))["status"]
            assert after == ("cancelled" if how == "delete" else "completed")
            assert submissions(pair.simulator, waiting) == 0
            await pair.settle()


async def test_a_chat_whose_session_nobody_looks_at_ends_with_it() -> None:
    with hours_cluster(2) as (pair, clock):
        async with Clients(pair.urls) as clients:
            word = nonce()
            waiting = await waiting_chat(clients, word)
            session_id, chat_id = waiting["session_id"], waiting["chat_id"]
            queued = await clients[1].start(session_id, f"{word} queued", on_busy="enqueue")
            seen = await look(clients[0], session_id)
            assert [chat["waits_until"] for chat in seen["chat_history"] if chat["chat_id"] == chat_id] == [
                seen["expires_at"]
            ]
            clock.advance(minutes=59)
            assert (await result(clients[0], chat_id))["status"] == "requires_action"
            counted = await usage_of(clients[0])
            clock.advance(minutes=2)
            for each in (chat_id, queued):

                async def over(each: str = each) -> dict[str, Any] | None:
                    chat = await result(clients[0], each)
                    return (
                        chat if chat["status"] not in ("requires_action", "pending", "processing") else None
                    )

                chat = await wait_until(over, 15)
                assert (chat["status"], chat["error"]["code"]) == ("failed", "COZE_SESSION_EXPIRED")
                assert chat["waits_until"] is None
            assert await usage_of(clients[1]) == counted + 2
            assert pair.simulator.requests(path="/v3/chat/cancel") == []
            assert posts(pair.simulator, f"{word} queued") == 0
            gone = await clients[0].get(f"/coze/sessions/{session_id}")
            assert (gone.status_code, error_of(gone)["code"]) == (410, "COZE_SESSION_EXPIRED")
            clock.advance(seconds=RESULT_SECONDS - 120)
            for client in clients:
                assert (await result(client, chat_id))["error"]["code"] == "COZE_SESSION_EXPIRED"
            clock.advance(seconds=240)
            for client in clients:
                assert (await client.result(chat_id)).status_code == 404
            await pair.settle()


async def test_a_queue_that_takes_longer_than_its_session_lives_is_answered_to_its_end() -> None:
    """One replica: each jump of the clock outlives every lease, and with a second one it would look as if the
    owner had died. Each of seven chats takes 500 s; the session would live 600 s."""
    with hours_cluster(1, COZE_SESSION_EXPIRE="600") as (pair, clock):
        async with Clients(pair.urls) as clients:
            [client], word = clients, nonce()
            session_id = await open_session(client)
            messages = [f"{word} no {number} [[sim:delay=0.8;deltas=3;reasoning=0]]" for number in range(7)]
            chats = [await client.start(session_id, message, on_busy="enqueue") for message in messages]
            for number in range(7):
                await wait_until(lambda n=number: posts(pair.simulator, f"{word} no {n}"))
                clock.advance(seconds=500)
                chat = await client.ended(chats[number])
                await check_completed(chat, pair.simulator, f"{word} no {number}", recovered=False)
            asked = [r["message"].split()[2] for r in pair.simulator.requests(contains=word, path="/v3/chat")]
            assert asked == [str(number) for number in range(7)]
            await look(client, session_id)
            await pair.settle()


@pytest.mark.full
async def test_a_packed_log_lives_as_long_as_it_is_said_to() -> None:
    with hours_cluster(2) as (pair, clock):
        async with Clients(pair.urls) as clients:
            session_id = await open_session(clients[0])
            reader = Reader(clients)
            assert await reader.send(session_id, f"{nonce()} [[sim:deltas=6;reasoning=0]]")
            clock.advance(seconds=RESULT_SECONDS - 60)
            whole = Reader(clients)
            whole.chat_id = reader.chat_id
            assert await whole.resume(1)
            assert [event.raw for event in whole.checked.frames] == [
                event.raw for event in reader.checked.frames
            ]
            clock.advance(seconds=120)
            assert keys(pair.redis, f"*:log:{reader.chat_id}") == []
            short = Reader(clients)
            short.chat_id = reader.chat_id
            assert await short.resume(1)
            assert short.checked.check_whole() == reader.checked.check_whole()
            await pair.settle()


@pytest.mark.full
async def test_two_hundred_days_later_redis_is_empty() -> None:
    with hours_cluster(1) as (pair, clock):
        async with Clients(pair.urls) as clients:
            waiting = await waiting_chat(clients, nonce())
            await clients[0].start(waiting["session_id"], nonce(), on_busy="enqueue")
            other = await open_session(clients[0])
            await clients[0].send(other, nonce())
            clock.advance(hours=200 * 24)
            await nothing_is_due(pair)
            clock.advance(hours=200 * 24)  # what its end has left: a record, what was used
            await wait_until(lambda: not keys(pair.redis, "*"), 10)
