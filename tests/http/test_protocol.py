"""On the wire: Upgrade, HTTP/1.0, what is no HTTP. By sockets, since clients never send such things."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.support import Client, RunningApp

BODY = b'{"user_id":"u"}'
POST = b"POST /coze/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"5\r\n" + BODY[:5] + b"\r\na\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"


def exchange(service: RunningApp, *pieces: bytes, half_close: bool = False) -> bytes:
    """All that comes until the server closes. ``half_close``: behind the pieces nothing more is sent."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            raw.sendall(piece)
        if half_close:
            raw.shutdown(socket.SHUT_WR)
        found = b""
        while more := raw.recv(65536):
            found += more
        return found


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, body


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQB\r\n",
    "tls": b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    "two": b"Connection: keep-alive, upgrade\r\nUpgrade: foo/2, h2c\r\n",
    "lower case": b"connection: upgrade\r\nupgrade: H2C\r\n",
}


@pytest.mark.parametrize("name", UPGRADES)
@pytest.mark.parametrize("framing", ["length", "chunked", "in pieces", "byte by byte"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    service: RunningApp, name: str, framing: str
) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(BODY)
    last = b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    if framing == "chunked":
        sent = [POST + UPGRADES[name] + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED + last]
    elif framing == "length":
        sent = [POST + UPGRADES[name] + length + BODY + last]
    elif framing == "in pieces":
        sent = [POST, UPGRADES[name], length, BODY[:4], BODY[4:], last]
    else:
        sent = [bytes([each]) for each in POST + UPGRADES[name] + length + BODY] + [last]
    answer = exchange(service, *sent)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"HTTP/1.1 ") == 2, answer
    assert b'"status":"alive"' in answer


def test_a_get_that_asks_for_another_protocol_is_answered_too(service: RunningApp) -> None:
    head = b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\n" + UPGRADES["h2c"] + b"\r\n"
    close = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert exchange(service, head + close).count(b"HTTP/1.1 200 OK") == 2


async def test_http_1_0_gets_streams_and_answers_without_chunks(service: RunningApp, client: Client) -> None:
    session_id = await client.open_session()
    for stream, begin in ((b"true", b"retry:"), (b"false", b'{"success":true')):
        body = b'{"message":"hi","stream":%s}' % stream
        head = (
            b"POST /coze/sessions/%s/messages HTTP/1.0\r\nContent-Type: application/json\r\n"
            b"Connection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        )
        answer = exchange(service, head % (session_id.encode(), len(body)) + body)
        status, headers, got = parts(answer)
        assert (status, answer.count(b"HTTP/1.1 ")) == (200, 1)
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        assert got.startswith(begin)
        assert got.rstrip().endswith(b'data: "[DONE]"' if stream == b"true" else b"}")


NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS to a plain port\r\n\r\n",
    "no such method": b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET / HTP/1.1\r\nHost: x\r\n\r\n",
    "version 3": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: x\x00y\r\n\r\n",
    "a length that is none": b"POST /coze/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "connect": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a host twice": b"GET / HTTP/1.1\r\nhost: x\r\nAccept: */*\r\nHOST: x\r\n\r\n",
    "a target that is none": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_no_http_is_answered_once_in_the_envelope(service: RunningApp, name: str) -> None:
    status, headers, body = parts(exchange(service, NOT_HTTP[name]))
    assert status == 400
    assert headers["connection"] == "close"
    error = json.loads(body)["error"]
    assert error["code"] == "COZE_VALIDATION_ERROR"
    assert error["request_id"] == headers["x-request-id"]
    assert error["message"].startswith("The request is not valid HTTP/1.1: ")


def test_a_refusal_keeps_the_id_and_the_shape_that_were_asked_for(service: RunningApp) -> None:
    head = b"GET /coze/openai/v1/models HTTP/1.1\r\nX-Request-Id: mine-1\r\nAccept: */*\r\nHost : x\r\n\r\n"
    _, headers, body = parts(exchange(service, head))
    assert headers["x-request-id"] == "mine-1"
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_garbage_behind_a_request_takes_nothing_from_its_answer(service: RunningApp) -> None:
    answer = exchange(service, b"GET /coze/health/live HTTP/1.1\r\nHost: x\r\n\r\nGARBAGE\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"status":"alive"' in answer


def request(path: str, body: bytes | None = None, version: str = "1.1") -> bytes:
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/{version}\r\nHost: x\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + (body or b"")


SAY = '{"message":"%s","stream":%s}'
ASK = '{"model":"coze","stream":%s,"messages":[{"role":"user","content":"%s"}]}'
SLOW = "[[sim:deltas=20;gap=0.1]] hi"
"""Long enough for the client to be asked twice whether it is still there."""


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_who_sends_nothing_more_still_gets_the_answer(
    service: RunningApp, client: Client, version: str
) -> None:
    session_id = await client.open_session()
    say, door = f"/coze/sessions/{session_id}/messages", "/coze/openai/v1/chat/completions"
    for path, body, end in (
        ("/coze/health/live", None, b"}"),
        ("/coze/sessions", '{"user_id":"u"}', b"}"),
        ("/coze/nothing", None, b"}"),
        (say, SAY % ("hi", "false"), b"}"),
        (say, SAY % ("hi", "true"), b'"[DONE]"'),
        (say, SAY % (SLOW, "true"), b'"[DONE]"'),
        (door, ASK % ("false", "hi"), b"}"),
        (door, ASK % ("true", "hi"), b"[DONE]"),
    ):
        sent = request(path, body and body.encode(), version)
        answer = await asyncio.to_thread(exchange, service, sent, half_close=True)
        assert answer.startswith(b"HTTP/1.1 404" if path == "/coze/nothing" else b"HTTP/1.1 200"), answer
        assert answer.removesuffix(b"\r\n0\r\n\r\n").rstrip().endswith(end), answer


async def test_who_sends_nothing_more_and_waits_long_is_asked_whether_it_is_there(
    service: RunningApp, client: Client
) -> None:
    session_id = await client.open_session()
    for path, body in (
        (f"/coze/sessions/{session_id}/messages", SAY % (SLOW, "false")),
        ("/coze/openai/v1/chat/completions", ASK % ("false", SLOW)),
    ):
        sent = request(path, body.encode())
        answer = await asyncio.to_thread(exchange, service, sent, half_close=True)
        asked, _, rest = answer.rpartition(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert parts(rest)[0] == 200


def test_of_several_requests_before_the_end_each_is_answered(service: RunningApp) -> None:
    sent = request("/coze/health/live") + request("/coze/sessions", BODY) + request("/")
    answer = exchange(service, sent, half_close=True)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize("sent", [b"", b"GET / HT", POST + b"Content-Length: 15\r\n\r\n" + BODY[:5]])
def test_half_a_request_at_the_end_is_given_up(service: RunningApp, sent: bytes) -> None:
    assert exchange(service, sent, half_close=True) == b""
