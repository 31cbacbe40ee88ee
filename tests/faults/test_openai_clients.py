"""OpenAI's SDK while replicas die: it cannot resume, so it gets the rest, or all of it again, or an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.openai.support import Told, async_client, said
from tests.support import Client, wait_until

from .support import LEASE_SECONDS, Cluster, check_completed, keys, nonce, result

MODEL = "coze"
TYPING = "deltas=24;gap=0.05;reasoning=0"
"""About 1.2 s."""


@asynccontextmanager
async def proxy(pair: Cluster) -> AsyncIterator[str]:
    """A balancer that passes connections to the first replica that listens; returns its address."""
    pipes: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for replica in pair.replicas:
            with contextlib.suppress(OSError):
                back, forth = await asyncio.open_connection("127.0.0.1", replica.port)
                pipes.update(asyncio.create_task(pipe(*ends)) for ends in ((reader, forth), (back, writer)))
                return
        writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in pipes:
            task.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


async def read(client: AsyncOpenAI, told: Told, text: str, **options: Any) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=[said(text)], stream=True, **options)
    async for chunk in stream:
        told.take(chunk)


def run_field(pair: Cluster, chat_id: str, field: str) -> bytes | None:
    [key] = keys(pair.redis, f"*:run:{chat_id}") or [""]
    with pair.redis.client() as client:
        value: bytes | None = client.hget(key, field)
        return value


@pytest.mark.full
async def test_an_owner_killed_before_coze_said_a_word_is_found_by_the_key(
    pair: Cluster, clients: list[Client]
) -> None:
    """Nothing of Coze's has come back yet. With a key the conversation is made first, and can be searched."""
    word = nonce()
    question = [said(f"{word} [[sim:deltas=6;reasoning=0;first_byte=6]]")]
    async with proxy(pair) as url, async_client(url, max_retries=3) as ai:
        call = asyncio.create_task(
            ai.chat.completions.create(
                model=MODEL, messages=question, extra_headers={"Idempotency-Key": word}
            )
        )
        await wait_until(lambda: [r for r in pair.simulator.requests(contains=word) if r["chat_id"]])
        pair.replicas[0].kill()
        completion = await call
    chat = await result(clients[1], completion.id.removeprefix("chatcmpl-"))
    await check_completed(chat, pair.simulator, word, recovered=True)


async def test_a_whole_answer_outlives_the_replica_that_was_asked(
    pair: Cluster, clients: list[Client]
) -> None:
    """The SDK repeats the call by itself; with an Idempotency-Key that is the same call on any replica."""
    word = nonce()
    async with proxy(pair) as url, async_client(url, max_retries=3) as ai:
        call = asyncio.create_task(
            ai.chat.completions.create(
                model=MODEL,
                messages=[said("earlier"), said("yes", "assistant"), said(f"{word} [[sim:{TYPING}]]")],
                extra_headers={"Idempotency-Key": word},
            )
        )
        await wait_until(lambda: pair.simulator.requests(path="/v3/chat", contains=word))
        await wait_until(lambda: pair.simulator.state()["running_chats"])
        pair.replicas[0].kill()
        completion = await call
    chat = await result(clients[1], completion.id.removeprefix("chatcmpl-"))
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert completion.choices[0].message.content == chat["content"]


async def test_a_stream_that_broke_off_is_had_again_from_its_start(
    pair: Cluster, clients: list[Client]
) -> None:
    word, broken, again = nonce(), Told(), Told()
    text, key = f"{word} [[sim:{TYPING}]]", {"Idempotency-Key": word}
    async with proxy(pair) as url, async_client(url) as ai:
        reading = asyncio.create_task(read(ai, broken, text, extra_headers=key))
        await wait_until(lambda: len(broken.content) > 5)
        pair.replicas[0].kill()
        with pytest.raises(Exception, match=r".+") as caught:  # the SDK lets its HTTP library's error through
            await reading
        assert not isinstance(caught.value, AssertionError)
        await read(ai, again, text, extra_headers=key)
    assert again.chat_id == broken.chat_id
    chat = await result(clients[1], again.chat_id)
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert again.content == chat["content"]
    assert again.content.startswith(broken.content)
    assert again.finish == ["stop"]


async def test_a_client_of_an_owner_that_was_taken_for_dead_gets_the_rest(
    pair: Cluster, clients: list[Client]
) -> None:
    """The other replica goes on with a snapshot: what agrees with it is not sent a second time."""
    word, told = nonce(), Told()
    async with async_client(pair.urls[0]) as ai:
        reading = asyncio.create_task(
            read(ai, told, f"{word} [[sim:{TYPING}]]", stream_options={"include_usage": True})
        )
        # Coze's ids are in Redis: only then can the other replica know of the chat at Coze.
        await wait_until(lambda: told.content and run_field(pair, told.chat_id, "coze_chat_id"))
        pair.replicas[0].pause()
        await asyncio.sleep(0)
        before = told.content
        chat_id = told.chat_id
        chat = await clients[1].ended(chat_id, LEASE_SECONDS + 10)
        pair.replicas[0].resume()
        await reading
    await check_completed(chat, pair.simulator, word, recovered=True)
    assert told.content == chat["content"] != before
    assert told.finish == ["stop"]
    assert told.chunks[-1].usage is not None


async def test_many_equal_calls_with_one_key_on_two_replicas_are_one_chat(pair: Cluster) -> None:
    word, before = nonce(), keys(pair.redis, "*:session:*")

    async def call(url: str) -> str:
        async with async_client(url) as ai:
            done = await ai.chat.completions.create(
                model=MODEL, messages=[said(word)], extra_headers={"Idempotency-Key": word}
            )
            return done.id

    assert len(set(await asyncio.gather(*(call(url) for url in pair.urls * 10)))) == 1
    assert len(pair.simulator.requests(path="/v3/chat", contains=word)) == 1
    assert len(keys(pair.redis, "*:session:*")) == len(before) + 1


@pytest.mark.full
async def test_a_draining_replica_ends_streams_with_an_error_that_says_so(pair: Cluster) -> None:
    word, told = nonce(), Told()
    async with async_client(pair.urls[0]) as ai:
        reading = asyncio.create_task(read(ai, told, f"{word} [[sim:deltas=100;gap=0.05]]"))
        await wait_until(lambda: told.content)
        pair.replicas[0].terminate()
        with pytest.raises(openai.APIError) as caught:
            await reading
    assert caught.value.code == "shutting_down"
    pair.replicas[0].wait()
    # Nobody hung up, so the chat goes on.
    async with async_client(pair.urls[1]) as ai:
        assert list(await ai.models.list())
    assert not pair.simulator.requests(path="/v3/chat/cancel")
