"""The auth service is off, hangs or talks nonsense: 503 in time, never a pass, never a 401."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest

from app.auth.options import build_auth_client
from app.auth.verifier import HtyVerifier
from app.exceptions import AuthInvalid, AuthUnavailable
from coze_simulator.auth_server import RunningAuth, running_auth
from tests.coze.support import raw_server, send, sending
from tests.support import free_port

from .helpers import HOST, YES, Asked, Clock, calling, make_options, pretending, tls, token_for, verifying

TIMEOUT = 3.0
"""Seconds: two tests wait that long, the others have to get their answer within it."""
FOR_EVER = 20.0
"""Seconds. What hangs here hangs until it is given up, so this only bounds a test that fails."""
YES_BYTES = json.dumps(YES).encode()
NOT_AN_ANSWER: dict[str, httpx.Response] = {
    "500": httpx.Response(500, json=YES),
    "502 HTML": httpx.Response(502, text="<html>Bad Gateway</html>"),
    "503": httpx.Response(503, json={"r": False}),
    "403": httpx.Response(403, json={"r": False}),
    "404": httpx.Response(404, json=YES),
    "429": httpx.Response(429, json=YES),
    "201": httpx.Response(201, json=YES),
    "204": httpx.Response(204),
    "301": httpx.Response(301, headers={"Location": "https://evil.io/"}),
    "302": httpx.Response(302, headers={"Location": "/login"}, json=YES),
    "308": httpx.Response(308, headers={"Location": "https://admin.huiwings.cn/"}),
    "HTML": httpx.Response(200, text="<html>true</html>"),
    "nothing": httpx.Response(200),
    "{}": httpx.Response(200, text="{}"),
    "r a text": httpx.Response(200, text='{"r":"true"}'),
    "r a number": httpx.Response(200, text='{"r":1}'),
    "r null": httpx.Response(200, text='{"r":null}'),
    "r an object": httpx.Response(200, text='{"r":{"r":true}}'),
    "R": httpx.Response(200, text='{"R":true}'),
    "r deeper": httpx.Response(200, text='{"d":{"r":true}}'),
    "true": httpx.Response(200, text="true"),
    "a list": httpx.Response(200, text='[{"r":true}]'),
    "a text": httpx.Response(200, text='"{\\"r\\":true}"'),
    "cut": httpx.Response(200, text='{"r":true'),
    "two documents": httpx.Response(200, text='{"r":true}{"r":true}'),
    "Python": httpx.Response(200, text="{'r': True}"),
    "no UTF-8": httpx.Response(200, content=b'{"r":true,"e":"\xff"}'),
    "nested too deeply": httpx.Response(200, content=b'{"r":true,"d":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "too long": httpx.Response(200, content=YES_BYTES + b" " * 70_000),
    "compressed": httpx.Response(200, content=gzip.compress(YES_BYTES), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", NOT_AN_ANSWER)
async def test_what_is_neither_yes_nor_no_is_no_answer_and_is_not_kept(name: str) -> None:
    asked = Asked(lambda _: NOT_AN_ANSWER[name])
    token = token_for()
    async with pretending(asked) as verifier:
        with pytest.raises(AuthUnavailable):
            await verifier.identify([token], [HOST])
        assert asked.urls == ["https://admin.moicen.com/api/v1/uc/verify_jwt_token"]
        asked.handler = None
        assert (await verifier.identify([token], [HOST])).hty_id == "u-1"


@pytest.mark.parametrize("mode", ["off", "hang", "500", "html", "empty", "string", "redirect"])
async def test_the_caller_gets_503_in_time_whatever_ails_the_auth_service(
    auth: RunningAuth, clock: Clock, mode: str
) -> None:
    token = auth.app.issue("u-1")
    auth.app.mode = mode
    async with (
        verifying(clock, verify_url=auth.verify_url, timeout=TIMEOUT) as verifier,
        calling(verifier) as client,
    ):
        headers = {"HtySudoerToken": token, "HtyHost": HOST}
        async with asyncio.timeout(FOR_EVER):
            answer = await client.get("/who", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "AUTH_UNAVAILABLE")
        assert answer.json()["error"]["retryable"] is True
        assert int(answer.headers["Retry-After"]) > 0
        assert {record["path"] for record in auth.app.records} == {"/api/v1/uc/verify_jwt_token"}

        auth.app.mode = "ok"
        assert (await client.get("/who", headers=headers)).json()["hty_id"] == "u-1"


async def test_no_auth_service_at_all_is_503(clock: Clock) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    async with verifying(clock, verify_url=url, timeout=TIMEOUT) as verifier:
        async with asyncio.timeout(FOR_EVER):
            with pytest.raises(AuthUnavailable):
                await verifier.identify([token_for()], [HOST])


async def test_an_unknown_host_is_503(clock: Clock) -> None:
    async with verifying(clock, roots=("moicen.invalid",), timeout=5) as verifier:
        with pytest.raises(AuthUnavailable):
            await verifier.identify([token_for()], ["moicen.invalid"])


async def test_cached_identities_go_on_until_their_time_is_up(clock: Clock) -> None:
    with running_auth() as auth:
        token = auth.app.issue("u-1")
        options = make_options(verify_url=auth.verify_url, timeout=TIMEOUT, cache_ttl=60)
        async with build_auth_client(options, ssl_context=tls()) as http:
            verifier = HtyVerifier(http, options, clock, ticks=clock)
            await verifier.identify([token], [HOST])
            auth.app.mode = "off"
            clock.advance(59)
            assert (await verifier.identify([token], [HOST])).hty_id == "u-1"
            with pytest.raises(AuthUnavailable):
                await verifier.identify([auth.app.issue("u-2")], [HOST])
            clock.advance(2)
            with pytest.raises(AuthUnavailable):
                await verifier.identify([token], [HOST])
            auth.app.mode = "ok"
            assert (await verifier.identify([token], [HOST])).hty_id == "u-1"


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 500),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
    "chunks of a byte": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 500),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 500),
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", b" " * 4096),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_answer_without_end_is_given_up_after_a_bounded_part_of_it(clock: Clock, name: str) -> None:
    begin, piece = ENDLESS[name]
    sent = 0

    async def answer(writer: asyncio.StreamWriter, _: bytes) -> None:
        nonlocal sent
        await send(writer, begin)
        while True:
            await send(writer, piece)
            sent += len(piece)

    async with (
        raw_server(answer) as server,
        verifying(clock, verify_url=f"{server.base}/verify", timeout=FOR_EVER) as verifier,
    ):
        async with asyncio.timeout(FOR_EVER / 2):
            with pytest.raises(AuthUnavailable):
                await verifier.identify([token_for()], [HOST])
    assert sent < 16 * 1024 * 1024, "the system's buffers may hold some"


# -- connections that break -------------------------------------------------------------------------------


def _ok(body: bytes = YES_BYTES) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_connection_that_breaks_is_tried_once_more(clock: Clock) -> None:
    async def answer(writer: asyncio.StreamWriter, _: bytes) -> None:
        if server.connections > 1:
            await send(writer, _ok())

    async with (
        raw_server(answer) as server,
        verifying(clock, verify_url=server.base, timeout=TIMEOUT) as verifier,
    ):
        assert (await verifier.identify([token_for()], [HOST])).hty_id == "u-1"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "behind", [b"", _ok(), b"x", _ok() * 100], ids=["nothing", "a yes", "a byte", "many"]
)
@pytest.mark.parametrize("later", [False, True], ids=["with it", "a little later"])
async def test_what_comes_behind_an_answer_is_no_answer_to_the_next_question(
    clock: Clock, behind: bytes, later: bool
) -> None:
    """Else it would let in whoever asks next."""
    sent = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, _: bytes) -> bool:
        last = server.requests[1:] != []
        no = _ok(b'{"r":false}')
        await send(writer, *([no] if last else [no, behind] if later else [no + behind]))
        sent.set()
        return True

    async with (
        raw_server(answer, watch=False) as server,
        verifying(clock, verify_url=server.base, timeout=TIMEOUT) as verifier,
    ):
        for number in range(2):
            with pytest.raises(AuthInvalid):
                await verifier.identify([token_for(f"u-{number}")], [HOST])
            await sent.wait()
        assert len(server.requests) == 2
        assert server.connections == (2 if behind else 1)


async def test_a_connection_that_keeps_breaking_is_tried_twice_and_no_more(clock: Clock) -> None:
    async with (
        raw_server(sending()) as server,
        verifying(clock, verify_url=server.base, timeout=TIMEOUT) as verifier,
    ):
        with pytest.raises(AuthUnavailable):
            await verifier.identify([token_for()], [HOST])
    assert len(server.requests) == 2


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_a_deadline_that_passed_is_not_tried_again(error: type[httpx.TimeoutException]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error("x")

    asked = Asked(fail)
    async with pretending(asked) as verifier:
        with pytest.raises(AuthUnavailable):
            await verifier.identify([token_for()], [HOST])
    assert len(asked.requests) == 1


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", YES_BYTES),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\n" + YES_BYTES[:5] + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"),
        (b"SSH-2.0-OpenSSH_9.6\r\n",),
        (b"\x16\x03\x01\x00\x00",),
        (b"HTTP/1.1 200",),
    ],
    ids=["short", "unfinished chunk", "bad chunk", "SSH", "TLS", "cut in the status"],
)
async def test_half_an_answer_is_none(parts: tuple[bytes, ...], clock: Clock) -> None:
    async with (
        raw_server(sending(*parts)) as server,
        verifying(clock, verify_url=server.base, timeout=TIMEOUT) as verifier,
    ):
        with pytest.raises(AuthUnavailable):
            await verifier.identify([token_for()], [HOST])


async def test_an_answer_that_drips_is_given_up_in_time(clock: Clock) -> None:
    """Each byte comes within a read timeout; the deadline is for the whole."""

    async def drip(writer: asyncio.StreamWriter, _: bytes) -> None:
        await send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await send(writer, b" ")
            await asyncio.sleep(0.01)

    async with (
        raw_server(drip) as server,
        verifying(clock, verify_url=server.base, timeout=TIMEOUT) as verifier,
    ):
        async with asyncio.timeout(FOR_EVER):
            with pytest.raises(AuthUnavailable):
                await verifier.identify([token_for()], [HOST])
        async with asyncio.timeout(FOR_EVER):
            await server.hung_up.wait()


async def test_a_redirect_is_not_followed_with_a_token_in_hand(auth: RunningAuth, clock: Clock) -> None:
    for status in (b"301", b"302", b"303", b"307", b"308"):
        location = b"Location: " + auth.verify_url.encode() + b"\r\n"
        reply = b"HTTP/1.1 " + status + b" Moved\r\n" + location + b"Content-Length: 0\r\n\r\n"
        async with (
            raw_server(sending(reply)) as server,
            verifying(clock, verify_url=server.base, timeout=TIMEOUT) as verifier,
        ):
            with pytest.raises(AuthUnavailable):
                await verifier.identify([auth.app.issue("u-1")], [HOST])
    assert list(auth.app.records) == []
