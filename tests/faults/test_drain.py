"""SIGTERM: nothing new, nothing lost, the chats elsewhere before a lease could run out, and out in time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import httpx
import pytest

from coze_simulator import SIMULATOR_BOT_ID
from tests.files.helpers import PNG
from tests.support import Client, ServiceProcess, error_of, open_client, service_process, wait_until

from .folding import place_of
from .support import AWAY, VALUES, Clients, Cluster, Reader, check_completed, cluster, nonce, open_session

DRAIN_SECONDS = 3.0
LEASE_SECONDS = 600.0
"""Of the replica that leaves: no test lasts as long, so whoever goes on has not waited for a lease to run
out."""
ENDED_BY_SIGTERM = {0, -signal.SIGTERM}


@pytest.fixture
def leaving(pair: Cluster) -> Iterator[ServiceProcess]:
    """A third replica, that is about to end."""
    values = {**VALUES, "REDIS_URL": pair.redis.url, "COZE_API_URL": pair.simulator.chat_url}
    with service_process(
        {**values, "DRAIN_SECONDS": f"{DRAIN_SECONDS:g}", "LEASE_SECONDS": f"{LEASE_SECONDS:g}"}
    ) as process:
        yield process


def of_first_epoch(reader: Reader) -> list[bytes]:
    return [event.raw for event in reader.checked.frames if place_of(event.id or "")[0] == 1]


class Leaver(Reader):
    """A client that is told to reconnect, and does."""

    def __init__(self, clients: list[Client]) -> None:
        super().__init__(clients)
        self.before: list[bytes] = []
        """Frames of the first owner."""

    async def live(self, session_id: str, message: str) -> None:
        await self.send(session_id, message)
        self.before = of_first_epoch(self)
        while not self.checked.done:
            self.place = 1
            await self._once(0.1)


async def is_draining(client: Client) -> bool:
    response = await client.get("/coze/health/ready")
    return response.status_code == 503 and error_of(response)["code"] == "SHUTTING_DOWN"


async def drain(pair: Cluster, leaving: ServiceProcess, count: int, knobs: str, check: int) -> None:
    """SIGTERM with ``count`` streams open on ``leaving``; the first ``check`` chats are looked at closely."""
    async with Clients([leaving.base_url, pair.replicas[1].base_url], timeout=60) as clients:
        readers = [Leaver(clients) for _ in range(count)]
        words = [nonce() for _ in readers]
        sessions: list[str] = []
        for begin in range(0, count, 50):
            some = range(begin, min(begin + 50, count))
            sessions += await asyncio.gather(*(open_session(clients[1]) for _ in some))
        async with asyncio.TaskGroup() as group:
            for number, (reader, word) in enumerate(zip(readers, words, strict=True)):
                group.create_task(reader.live(sessions[number], f"{word} [[sim:{knobs}]]"))
                if number % 50 == 49:  # not all in one instant, which a pool of 64 connections refuses
                    await wait_until(lambda n=number: all(r.checked.frames for r in readers[: n + 1]), 30)
            await wait_until(lambda: all(len(r.checked.frames) >= 2 for r in readers), 60)
            leaving.terminate()
            await wait_until(lambda: is_draining(clients[0]), DRAIN_SECONDS, pause=0.01)
            refused = await clients[0].send(sessions[0], "more")
            assert (refused.status_code, error_of(refused)["code"]) == (503, "SHUTTING_DOWN")
            status = await asyncio.to_thread(leaving.wait, 60)
        assert status in ENDED_BY_SIGTERM
        assert all(reader.reconnects == 1 for reader in readers), "told to come back, never just cut"
        for reader, word in list(zip(readers, words, strict=True))[:check]:
            chat = reader.checked.check_whole()
            await check_completed(chat, pair.simulator, word)
            # Every frame that left the first owner is in the log, byte for byte.
            fresh = Reader(clients)
            fresh.chat_id = reader.chat_id
            assert await fresh.resume(1)
            assert of_first_epoch(fresh) == reader.before
        assert all(reader.checked.check_whole()["status"] == "completed" for reader in readers)
        with pytest.raises(AWAY):
            await clients[0].get("/coze/health")
    assert "Traceback" not in leaving.log
    assert '"level": "ERROR"' not in leaving.log


async def test_sigterm_hands_open_streams_to_the_other_replica(
    pair: Cluster, leaving: ServiceProcess
) -> None:
    await drain(pair, leaving, 40, "deltas=30;gap=0.2;reasoning=0", check=40)


@pytest.mark.full
@pytest.mark.timeout(200)
async def test_sigterm_with_two_hundred_streams_loses_no_frame() -> None:
    with cluster(DRAIN_SECONDS=f"{DRAIN_SECONDS:g}", COZE_POLL_INTERVAL="1") as pair:
        await drain(pair, pair.replicas[0], 200, "deltas=60;gap=0.2;reasoning=0", check=200)
        await pair.settle()


@pytest.mark.full
@pytest.mark.timeout(200)
async def test_sigterm_with_a_thousand_streams_ends_in_time() -> None:
    with cluster(
        DRAIN_SECONDS=f"{DRAIN_SECONDS:g}",
        COZE_POLL_INTERVAL="3",
        COZE_IDLE_TIMEOUT="90",
        COZE_CHAT_TIMEOUT="150",
    ) as pair:
        await drain(pair, pair.replicas[0], 1000, "delay=50;deltas=3;reasoning=0", check=50)
        await pair.settle(30)


async def test_a_draining_process_finishes_what_it_can_and_hands_its_queue_on(
    pair: Cluster, leaving: ServiceProcess
) -> None:
    async with Clients([leaving.base_url, pair.replicas[1].base_url]) as clients:
        session_id, first, second = await open_session(clients[1]), nonce(), nonce()
        reader = Reader(clients)
        sending = asyncio.create_task(
            reader.send(session_id, f"{first} [[sim:deltas=14;gap=0.05;reasoning=0]]")
        )
        await wait_until(lambda: len(reader.checked.frames) >= 2)
        queued = await clients[0].start(session_id, f"{second} [[sim:deltas=3]]", on_busy="enqueue")
        leaving.terminate()
        assert await sending
        chat = reader.checked.check_whole()
        await check_completed(chat, pair.simulator, first, recovered=False)
        await check_completed(await clients[1].ended(queued), pair.simulator, second, recovered=False)
    assert await asyncio.to_thread(leaving.wait) in ENDED_BY_SIGTERM


@pytest.mark.full
async def test_a_client_that_waits_for_a_whole_answer_gets_a_202_on_leaving(
    pair: Cluster, leaving: ServiceProcess
) -> None:
    async with open_client(leaving.base_url) as client, open_client(pair.replicas[1].base_url) as other:
        session_id, word = await open_session(client), nonce()
        waiting = asyncio.create_task(client.send(session_id, f"{word} [[sim:delay=6]]"))
        await wait_until(client.running_chats)
        await wait_until(lambda: pair.simulator.requests(contains=word))
        leaving.terminate()
        response: httpx.Response = await waiting
        assert response.status_code == 202
        chat_id = response.headers["location"].split("/")[3]
        await check_completed(await other.ended(chat_id), pair.simulator, word)


async def test_what_coze_does_not_answer_is_given_up_with_an_answer_of_ours(
    pair: Cluster, leaving: ServiceProcess
) -> None:
    async with open_client(leaving.base_url, timeout=60) as client:
        pair.simulator.knob(path="/v1/files/upload", first_byte=60)
        files = {"file": ("a.png", PNG)}
        uploading = asyncio.create_task(client.post("/coze/files", files=files))
        await wait_until(lambda: pair.simulator.requests(path="/v1/files/upload"))
        leaving.terminate()
        response = await uploading
    assert (response.status_code, error_of(response)["code"]) == (500, "INTERNAL_ERROR")
    assert await asyncio.to_thread(leaving.wait, 60) in ENDED_BY_SIGTERM
    assert "request given up, the process ends: /coze/files" in leaving.log
    assert "Traceback" not in leaving.log


# -- behind a proxy that asks another replica --------------------------------------------------------------

ELSEWHERE = {"X-Coze-Elsewhere": "1"}
"""Our nginx sends it, and repeats the call elsewhere where the answer has X-Accel-Redirect."""
SLOW = "[[sim:first_byte=40]] slow"


def asked(door: str, *, stream: bool) -> tuple[str, dict[str, object]]:
    """Path and body of a question that begins a chat."""
    question = {"role": "user", "content": SLOW, "content_type": "text"}
    bodies: dict[str, dict[str, object]] = {
        "/coze/openai/v1/chat/completions": {"model": "coze", "messages": [question]},
        "/coze/openai/v1/responses": {"model": "coze", "input": SLOW},
        "/coze/api/v3/chat": {
            "bot_id": SIMULATOR_BOT_ID,
            "user_id": "u",
            "additional_messages": [question],
        },
    }
    return door, bodies[door] | {"stream": stream}


DOORS = ("/coze/openai/v1/chat/completions", "/coze/openai/v1/responses", "/coze/api/v3/chat")


async def test_what_has_begun_a_chat_is_never_sent_elsewhere_and_what_has_not_is(
    pair: Cluster, leaving: ServiceProcess
) -> None:
    calls = [asked(door, stream=stream) for door in DOORS for stream in (False, True)]
    async with open_client(leaving.base_url, timeout=60) as client:
        session_id = await open_session(client)
        before = len(pair.simulator.requests(path="/v3/chat"))
        waiting = [
            asyncio.create_task(client.post(path, json=body, headers=ELSEWHERE)) for path, body in calls
        ]
        await wait_until(lambda: len(pair.simulator.requests(path="/v3/chat")) == before + len(calls), 30)
        leaving.terminate()
        await wait_until(lambda: is_draining(client), DRAIN_SECONDS, pause=0.01)
        for headers in (ELSEWHERE, {}):
            refused = await client.post(
                f"/coze/sessions/{session_id}/messages", json={"message": "more"}, headers=headers
            )
            assert refused.status_code == 503
            assert refused.headers.get("X-Accel-Redirect") == ("@elsewhere" if headers else None)
        for (path, _), answer in zip(calls, await asyncio.gather(*waiting), strict=True):
            assert answer.status_code in (400, 503), (path, answer.text)
            assert "X-Accel-Redirect" not in answer.headers, path
            assert answer.headers["X-Coze-Chat-Id"], path
            assert "Retry-After" not in answer.headers, f"{path}: it would be asked and paid for again"
        assert await asyncio.to_thread(leaving.wait, 60) in ENDED_BY_SIGTERM
