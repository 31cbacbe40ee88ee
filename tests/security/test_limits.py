"""Bounds on how much, how often and how long; each refusal says which and until when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from coze_simulator.auth_server import RunningAuth
from tests.support import RedisServer, RunningApp, SimControl, data_of, error_of, open_client

from .helpers import ADMIN, ALICE, ALICE_ELSEWHERE, BOB, UNKNOWN, calling, contents

Start = Callable[..., RunningApp]


def assert_limited(response: httpx.Response, limit: int) -> None:
    assert (response.status_code, error_of(response)["code"]) == (429, "RATE_LIMITED")
    assert error_of(response)["retryable"] is True
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["ratelimit-limit"] == str(limit)
    assert response.headers["ratelimit-remaining"] == "0"
    assert response.headers["ratelimit-reset"] == response.headers["retry-after"]


async def test_messages_of_one_user_share_one_bucket_over_all_sessions_and_replicas(
    start_secured: Start, auth: RunningAuth, redis: RedisServer
) -> None:
    one, two = (start_secured(RATE_LIMIT_MESSAGES_PER_MINUTE="4") for _ in range(2))
    async with AsyncExitStack() as stack:
        [alice, bob] = await stack.enter_async_context(calling(one, auth, ALICE, BOB))
        [alice_at_two] = await stack.enter_async_context(calling(two, auth, ALICE))
        first, second = await alice.open_session("u"), await alice_at_two.open_session("u")
        for client, session_id in (
            (alice, first),
            (alice_at_two, second),
            (alice, second),
            (alice_at_two, first),
        ):
            assert (await client.send(session_id, "hello")).status_code == 200
        before = contents(redis)
        for client in (alice, alice_at_two):
            assert_limited(await client.send(first, "hello"), 4)
            assert_limited(await client.send(second, "hello", stream=True), 4)
        assert contents(redis) == before, "a refused message left something"
        assert (await alice.send(await alice.open_session("another"), "hello")).status_code == 200
        assert (await bob.send(await bob.open_session("u"), "hello")).status_code == 200
        with redis.client() as store:  # as if fifteen seconds had passed: one token of four a minute
            for key in store.scan_iter("*rate:messages:*"):
                store.hincrby(key, "at", -15_000)
        assert (await alice_at_two.send(first, "hello")).status_code == 200
        assert_limited(await alice.send(first, "hello"), 4)


async def test_sessions_of_one_user_have_a_bucket_of_their_own(
    start_secured: Start, auth: RunningAuth, redis: RedisServer
) -> None:
    service = start_secured(RATE_LIMIT_SESSIONS_PER_MINUTE="2")
    async with calling(service, auth, ALICE, ALICE_ELSEWHERE) as [alice, elsewhere]:
        session_id = await alice.open_session("u")
        await alice.open_session("u")
        assert_limited(await alice.post("/coze/sessions", json={"user_id": "u"}), 2)
        assert (await alice.send(session_id, "hello")).status_code == 200
        await alice.open_session("v")
        await elsewhere.open_session("u")


async def test_zero_switches_a_limit_off(start_secured: Start, auth: RunningAuth, redis: RedisServer) -> None:
    service = start_secured(RATE_LIMIT_MESSAGES_PER_MINUTE="0", RATE_LIMIT_SESSIONS_PER_MINUTE="0")
    async with calling(service, auth, ALICE) as [alice]:
        for _ in range(5):
            assert (await alice.send(await alice.open_session(), "hello")).status_code == 200
    assert redis.key_names("*rate:*") == []


async def test_a_stranger_uses_up_nobodys_tokens(
    start_secured: Start, auth: RunningAuth, redis: RedisServer
) -> None:
    service = start_secured(RATE_LIMIT_MESSAGES_PER_MINUTE="2")
    async with calling(service, auth, ALICE, BOB) as [alice, bob]:
        session_id = await alice.open_session()
        for _ in range(10):
            assert (await bob.send(session_id, "hello")).status_code == 404
        assert (await alice.send(session_id, "hello")).status_code == 200
        assert (await alice.send(session_id, "hello")).status_code == 200
        assert (await bob.send(session_id, "hello")).status_code == 404
        assert_limited(await alice.send(session_id, "hello"), 2)


async def test_a_process_that_runs_as_many_chats_as_it_may_is_overloaded(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(MAX_CONCURRENT_CHATS="2", COZE_OWNER_SHARE="1", COZE_ROOT_SHARE="1")
    async with calling(service, auth, ALICE) as [alice]:
        running = [await alice.start(await alice.open_session(), "[[sim:delay=60]]") for _ in range(2)]
        session_id = await alice.open_session()
        for stream in (False, True):
            refused = await alice.send(session_id, "hello", stream=stream)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "OVERLOADED")
            assert int(refused.headers["retry-after"]) >= 1
        await alice.post(f"/coze/chats/{running[0]}/cancel")
        assert (await alice.send(session_id, "hello")).status_code == 200
        await alice.post(f"/coze/chats/{running[1]}/cancel")


async def test_a_caller_has_as_many_streams_open_as_it_may_and_others_their_own(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(MAX_OPEN_STREAMS_PER_CALLER="2")
    async with calling(service, auth, ALICE, BOB) as [alice, bob], AsyncExitStack() as stack:
        chat_id = await alice.start(await alice.open_session(), "[[sim:delay=60]]")
        path = f"/coze/chats/{chat_id}/events"
        readers = []
        for _ in range(2):
            readers.append(await stack.enter_async_context(alice.streaming("GET", path)))
            await readers[-1].until("chat")
        for refused in (
            await alice.get(path),
            await alice.send(await alice.open_session(), "x", stream=True),
        ):
            assert (refused.status_code, error_of(refused)["code"]) == (429, "RATE_LIMITED")
            assert int(refused.headers["retry-after"]) >= 1
        async with bob.streaming(
            "POST",
            f"/coze/sessions/{await bob.open_session()}/messages",
            json={"message": "x", "stream": True},
        ) as reader:
            await reader.until("done")
        await alice.post(f"/coze/chats/{chat_id}/cancel")
        for reader in readers:
            await reader.until("done")
        await stack.aclose()

        async def free_again() -> bool:
            return (await alice.get(path)).status_code == 200

        assert await free_again()


# -- bodies ------------------------------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_long_is_refused_unread(
    secured: RunningApp, auth: RunningAuth
) -> None:
    headers = ALICE.headers(auth)
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.port)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = ["POST /coze/sessions HTTP/1.1", "Host: x", *lines, "Content-Type: application/json"]
    writer.write("\r\n".join([*head, f"Content-Length: {1 << 40}", "", ""]).encode())
    assert (await asyncio.wait_for(reader.readline(), 20)).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def send_slowly(
    service: RunningApp, auth: RunningAuth, chunks: AsyncIterator[bytes]
) -> tuple[bytes, int, Any]:
    """POSTs chunks until an answer begins; returns its head, how many bytes had been sent, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    lines = [f"{name}: {value}" for name, value in ALICE.headers(auth).items()]
    head = ["POST /coze/sessions HTTP/1.1", "Host: x", *lines, "Content-Type: application/json"]
    writer.write("\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode())
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    sent = 0
    with contextlib.suppress(ConnectionError):
        async for chunk in chunks:
            if answer.done():
                break
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
            sent += len(chunk)
    answered = await asyncio.wait_for(answer, 20)
    body = b"null"
    with contextlib.suppress(ConnectionError):  # what was sent and not read resets the connection
        body = await asyncio.wait_for(reader.read(), 20)
    with contextlib.suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()
    return answered, sent, json.loads(body)


async def test_a_chunked_body_is_refused_while_it_is_being_read(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async def unfinished() -> AsyncIterator[bytes]:
        """A little more than the limit, and no end. Much more, and the reset of the connection, which is
        closed with bytes unread, could overtake the answer."""
        yield b'{"user_id": "'
        for _ in range(16):
            yield b"a" * 65_536

    head, _, body = await send_slowly(secured, auth, unfinished())
    assert head.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in head.lower(), "the rest would be read for nothing"
    assert body is None or body["error"]["code"] == "BODY_TOO_LARGE"


async def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not(
    start_secured: Start, auth: RunningAuth
) -> None:
    service = start_secured(MAX_BODY_BYTES="2048")
    async with calling(service, auth, ALICE) as [alice]:
        for size, status in ((2048, 200), (2049, 413)):
            body = json.dumps({"user_id": "u", "note": ""})
            body = body[:-2] + "x" * (size - len(body)) + body[-2:]

            async def chunks(text: str = body) -> AsyncIterator[bytes]:
                for n in range(0, len(text), 100):
                    yield text[n : n + 100].encode()

            for content in (body.encode(), chunks()):
                response = await alice.post(
                    "/coze/sessions", content=content, headers={"Content-Type": "application/json"}
                )
                assert response.status_code == status, response.text


async def test_a_body_that_trickles_in_is_given_up(
    secured: RunningApp, auth: RunningAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http.dependencies._BODY_SECONDS", 0.3)

    async def trickle() -> AsyncIterator[bytes]:
        yield b'{"user_id":'
        for _ in range(2000):
            await asyncio.sleep(0.03)
            yield b" "

    head, sent, body = await send_slowly(secured, auth, trickle())
    assert head.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in head.lower()
    assert sent < 2000, "the answer came before the body was complete"
    assert body["error"]["code"] == "COZE_VALIDATION_ERROR"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth", [65, 150, 255, 1000, 400_000])
async def test_what_is_nested_too_deep_is_a_400(secured: RunningApp, auth: RunningAuth, depth: int) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        raw = '{"message": "hi", "parameters": {"a": ' + nested(depth) + "}}"
        for path in ("/coze/sessions", f"/coze/sessions/{session_id}/messages"):
            body = raw if "messages" in path else '{"user_id": ' + nested(depth) + "}"
            response = await alice.post(path, content=body, headers={"Content-Type": "application/json"})
            assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")


@pytest.mark.parametrize(
    "number", ["1" + "0" * 30, "-9223372036854775809", "1e999", "-1e999", "NaN", "Infinity"]
)
async def test_numbers_that_not_every_reader_of_json_takes_are_refused_before_a_chat_is_made(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, number: str
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        body = '{"message": "hi", "parameters": {"a": [' + number + "]}}"
        response = await alice.post(
            f"/coze/sessions/{session_id}/messages",
            content=body,
            headers={"Content-Type": "application/json", "Idempotency-Key": "k"},
        )
        assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")
        assert (await alice.session(session_id))["chat_count"] == 0


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("session", {"additional_messages": [{"role": "user", "content": "x"}] * 100}),
        ("session", {"meta_data": {str(n): "x" for n in range(16)}}),
        ("session", {"meta_data": {"k" * 65: "x"}}),
        ("session", {"meta_data": {"k": "x" * 513}}),
        ("session", {"user_id": "u" * 129}),
        ("session", {"additional_messages": [{"role": "user", "content": "x" * 100_001}]}),
        ("message", {"additional_messages": [{"role": "user", "content": "x"}] * 100}),
        ("message", {"custom_variables": {str(n): "x" for n in range(101)}}),
        ("message", {"parameters": {str(n): n for n in range(101)}}),
        ("message", {"message": "x" * 4001}),
        ("tools", {"tool_outputs": [{"tool_call_id": "x", "output": "x"}] * 101}),
        ("tools", {"tool_outputs": [{"tool_call_id": "x", "output": "x" * 500_001}]}),
    ],
)
async def test_every_list_and_every_text_has_a_greatest_length(
    secured: RunningApp, auth: RunningAuth, route: str, body: dict[str, Any]
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        path = {
            "session": "/coze/sessions",
            "message": f"/coze/sessions/{session_id}/messages",
            "tools": f"/coze/chats/{UNKNOWN['chat_id']}/tool_outputs",
        }[route]
        response = await alice.post(path, json={"user_id": "u", "message": "x", **body})
        assert (response.status_code, error_of(response)["code"]) == (400, "COZE_VALIDATION_ERROR")


async def test_an_error_names_twenty_fields_at_most_and_repeats_nothing_of_the_body(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        messages = [{"role": "kept-to-oneself" * 10}] * 99
        response = await alice.post("/coze/sessions", json={"user_id": "u", "additional_messages": messages})
        assert response.status_code == 400
        assert len(error_of(response)["details"]["fields"]) <= 20
        assert "kept-to-oneself" not in response.text
        assert len(response.content) < 8192


# -- headers, addresses and methods ------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True], ids=["one long", "many"])
async def test_headers_of_more_than_128_kib_are_refused(
    secured: RunningApp, auth: RunningAuth, many: bool
) -> None:
    size = 130 * 1024
    filler = [("X-Filler", "a" * 1000)] * (size // 1000) if many else [("X-Filler", "a" * size)]
    async with calling(secured, auth, ALICE) as [alice]:
        try:
            response = await alice.http.get("/coze/health", headers=filler)
        except httpx.TransportError:
            pass  # the parser in front of us may have a bound of its own
        else:
            assert response.status_code in (400, 431)
        assert (await alice.get("/coze/health")).status_code == 200


async def test_an_address_without_end_is_refused_and_the_service_goes_on(secured: RunningApp) -> None:
    with socket.create_connection(("127.0.0.1", secured.port), timeout=20) as raw:
        raw.sendall(b"GET /coze/chats/" + b"a" * 200_000 + b"/result HTTP/1.1\r\nHost: x\r\n\r\n")
        status = raw.recv(100).split(b" ")
        assert status == [b""] or status[1] in (b"400", b"401", b"404", b"414")
    async with open_client(secured.base_url) as client:
        assert (await client.get("/coze/health")).status_code == 200


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "OPTIONS", "PROPFIND", "HEAD"])
async def test_methods_that_no_route_has_are_405_in_the_envelope(
    secured: RunningApp, auth: RunningAuth, method: str
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        response = await alice.http.request(method, "/coze/sessions")
        assert response.status_code == 405
        assert "allow" in response.headers
        if method != "HEAD":
            assert error_of(response)["code"] == "METHOD_NOT_ALLOWED"


async def test_waiting_has_an_end_that_the_caller_cannot_move_past(
    secured: RunningApp, auth: RunningAuth
) -> None:
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        chat_id = data_of(await alice.send(session_id, "hello"))["chat_id"]
        for wait in ("61", "1e9", "inf", "nan", "-1", "x"):
            response = await alice.get(f"/coze/chats/{chat_id}/result", params={"wait": wait})
            assert response.status_code == 400, wait
        answer = await alice.send(session_id, "hello", headers={"Prefer": "wait=601"})
        assert answer.status_code == 200
        assert "preference-applied" not in answer.headers


async def test_cleaning_up_does_a_bounded_amount_of_work_and_counting_scans_nothing(
    secured: RunningApp, redis: RedisServer, auth: RunningAuth, simulator: SimControl
) -> None:
    async with calling(secured, auth, ALICE, ADMIN) as [alice, admin]:
        await alice.open_session()
        with redis.client() as store:
            gone = {f"coze_session_{n:013d}_{'a' * 21}": 1 for n in range(1000)}
            store.zadd("coze:{index}:sessions", gone)
            store.config_resetstat()
        answers = []
        for _ in range(10):
            answers.append(data_of(await admin.post("/coze/admin/cleanup")))
            if not answers[-1]["more"]:
                break
        removed = [a["expired_sessions"] + a["orphaned_sessions"] for a in answers]
        assert sum(removed) == 1000
        assert max(removed) <= 400
        assert not answers[-1]["more"]
        assert data_of(await admin.get("/coze/admin/stats"))["sessions"] == 1
        with redis.client() as store:
            used = set(store.info("commandstats"))
        assert not used & {"cmdstat_keys", "cmdstat_scan"}
