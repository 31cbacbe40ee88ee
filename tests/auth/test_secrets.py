"""No token and no secret in logs, error bodies, reprs, or in what is kept."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from loguru import logger
from pydantic import SecretStr

from app.exceptions import ServiceError
from coze_simulator.auth_server import RunningAuth
from coze_simulator.auth_tokens import claims_of, sign

from .helpers import HOST, Asked, Clock, calling, make_options, pretending, verifying

KEY = "hunter2-hunter2-hunter2-hunter2-hunter2"


def traces_of(token: str) -> list[str]:
    """The parts that are a caller's own, whole and cut: the header is the same for everybody."""
    _, payload, signature = token.split(".")
    return [payload[10:26], payload[-16:], signature[:10], signature[-10:]]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Everything that anybody logs, at the lowest level, tracebacks included; loguru's and the libraries'."""
    lines: list[str] = []
    caplog.set_level(logging.DEBUG)
    sink = logger.add(lines.append, level="TRACE", format="{message} {extra}\n{exception}", backtrace=True)
    yield lines
    logger.remove(sink)
    lines.extend(record.getMessage() + str(record.exc_text) for record in caplog.records)


@pytest.mark.parametrize("mode", ["ok", "off", "hang", "500", "html", "empty", "string", "redirect", "no"])
async def test_no_token_in_logs_and_bodies_whatever_happens(
    auth: RunningAuth, clock: Clock, mode: str, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    auth.app.mode = mode
    tokens = [
        auth.app.issue("u-1", ["ADMIN"]),
        auth.app.issue("u-1", expires_in=-5),
        sign(claims_of("x"), KEY),
    ]
    said: list[str] = []
    async with (
        verifying(clock, verify_url=auth.verify_url, timeout=0.3) as verifier,
        calling(verifier) as client,
    ):
        for token in tokens:
            for lines in (
                [("HtySudoerToken", token), ("HtyHost", HOST)],
                [("HtySudoerToken", token), ("HtyHost", "evil.io")],
                [("HtySudoerToken", token), ("HtySudoerToken", token), ("HtyHost", HOST)],
                [("HtySudoerToken", f"Bearer {token}"), ("HtyHost", HOST)],
            ):
                answer = await client.get("/who", headers=lines)
                said += [answer.text, str(answer.headers)]
    said += logged + [record.getMessage() + str(record.args) for record in caplog.records]
    said += [str(list(auth.app.records))]
    assert any("/who" in line for line in said)
    for token in tokens:
        for trace in traces_of(token):
            assert not [line for line in said if trace in line]


async def test_what_the_http_library_quotes_is_not_repeated(logged: list[str]) -> None:
    token = sign(claims_of("u-1"), KEY)

    def quote(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {request.headers['authorization']!r}")

    async with pretending(Asked(quote)) as verifier, calling(verifier) as client:
        answer = await client.get("/who", headers={"HtySudoerToken": token, "HtyHost": HOST})
    assert answer.status_code == 503
    assert any("LocalProtocolError" in line for line in logged)
    assert not [line for line in [answer.text, *logged] for trace in traces_of(token) if trace in line]


async def test_the_key_is_in_no_log_and_no_repr(logged: list[str]) -> None:
    options = make_options(jwt_key=SecretStr(KEY))
    async with pretending(Asked(), jwt_key=SecretStr(KEY)) as verifier, calling(verifier) as client:
        for token in sign(claims_of("u-1"), KEY), sign(claims_of("u-1"), "other"):
            answer = await client.get("/who", headers={"HtySudoerToken": token, "HtyHost": HOST})
            logged.append(answer.text)
        logged += [repr(options), repr(verifier), repr(verifier._local)]
    assert not [line for line in logged if "hunter2" in line]


async def test_no_token_is_kept(auth: RunningAuth, clock: Clock) -> None:
    """Neither of those that got in nor of those that did not: not in the cache, nor in what hangs on it."""
    tokens = [auth.app.issue("u-1"), sign(claims_of("u-2"), KEY)]
    async with verifying(clock, verify_url=auth.verify_url) as verifier:
        for token in tokens:
            with suppress(ServiceError):
                await verifier.identify([token], [HOST])
        kept, seen = [verifier._cache, verifier._flights], set[int]()
        while kept:
            thing = kept.pop()
            if id(thing) in seen or isinstance(thing, type):
                continue
            seen.add(id(thing))
            if isinstance(thing, dict | list | tuple | set) or type(thing).__module__.startswith("app."):
                kept += gc.get_referents(thing)
            assert not any(part in str(thing) for token in tokens for part in token.split(".")[1:])
        assert len(verifier._cache) == 2
