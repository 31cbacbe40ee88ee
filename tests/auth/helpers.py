"""A clock that stands still, a verifier in front of anything, and an app with nothing but a gate."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import cache
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from prometheus_client.parser import text_string_to_metric_families

from app.auth.options import AuthOptions, build_auth_client
from app.auth.verifier import HtyVerifier, Verifier
from app.error_handlers import add_error_handlers
from app.http.middleware import RequestMiddleware
from app.observing.metrics import Metrics
from tests.support import bind_free

ROOTS = ("alchemy-studio.cn", "moicen.com", "huiwings.cn", "localhost")
HOST = "music.moicen.com"
YES = {"r": True, "d": None, "e": None, "hty_err": None}
Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[httpx.Response]]


class Clock:
    """Wall clock and monotonic clock in one; moves when told."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@cache
def tls() -> Any:
    """Loading the list of authorities takes longer than a test."""
    return httpx.create_ssl_context(trust_env=False)


def make_options(**values: Any) -> AuthOptions:
    return AuthOptions(**{"scheme": "https://", "roots": ROOTS, **values})


@asynccontextmanager
async def verifying(
    clock: Clock, *, metrics: Metrics | None = None, **values: Any
) -> AsyncIterator[HtyVerifier]:
    """A verifier over the real client."""
    options = make_options(**values)
    async with build_auth_client(options, ssl_context=tls()) as http:
        verifier = HtyVerifier(http, options, clock, ticks=clock, metrics=metrics)
        yield verifier
        await verifier.aclose()


class Asked:
    """A pretended auth service; remembers what it was asked. Says yes unless ``handler`` knows better."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.handler = handler

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.handler is None:
            return httpx.Response(200, json=YES)
        answer = self.handler(request)
        return answer if isinstance(answer, httpx.Response) else await answer

    @property
    def urls(self) -> list[str]:
        return [str(request.url) for request in self.requests]


@asynccontextmanager
async def pretending(
    asked: Asked, clock: Clock | None = None, *, metrics: Metrics | None = None, **values: Any
) -> AsyncIterator[HtyVerifier]:
    """A verifier whose calls end in ``asked``."""
    clock = clock or Clock()
    async with httpx.AsyncClient(transport=httpx.MockTransport(asked)) as http:
        verifier = HtyVerifier(http, make_options(**values), clock, ticks=clock, metrics=metrics)
        yield verifier
        await verifier.aclose()


def counted(metrics: Metrics, name: str) -> dict[str, int]:
    """Of a counter with one label: how much was counted, by its value."""
    text = metrics.render()[0].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    wanted = [sample for sample in samples if sample.name == name]
    return {value: int(sample.value) for sample in wanted for value in sample.labels.values()}


# -- tokens -----------------------------------------------------------------------------------------------


def encoded(value: Any) -> str:
    """base64url of bytes, of a text, or of anything else's JSON."""
    if not isinstance(value, bytes):
        value = (value if isinstance(value, str) else json.dumps(value)).encode()
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def forged(claims: Any, header: Any = None, signature: bytes = b"s" * 32) -> str:
    """A token of the right form that nobody signed."""
    return f"{encoded(header or {'alg': 'HS256'})}.{encoded(claims)}.{encoded(signature)}"


def sub(**values: Any) -> str:
    return json.dumps({"token_id": "t", "hty_id": "u-1", "roles": None, **values})


def token_for(hty_id: str | None = "u-1", *roles: str, expires_in: float = 3600) -> str:
    """For services that say yes to everything."""
    entries = [{"role_key": role} for role in roles] or None
    now = time.time()
    return forged({"sub": sub(hty_id=hty_id, roles=entries), "exp": now + expires_in, "iat": now})


# -- the gate ---------------------------------------------------------------------------------------------


def gate(verifier: Verifier) -> FastAPI:
    """An app that tells callers who they are."""
    app = FastAPI()

    @app.get("/who")
    async def who(request: Request) -> dict[str, Any]:
        headers = request.headers
        caller = await verifier.identify(headers.getlist("HtySudoerToken"), headers.getlist("HtyHost"))
        return {"root": caller.root, "hty_id": caller.hty_id, "admin": caller.admin}

    app.add_middleware(RequestMiddleware)
    add_error_handlers(app)
    return app


@asynccontextmanager
async def calling(verifier: Verifier) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gate. No network between: header bytes arrive as they are, however impossible."""
    transport = httpx.ASGITransport(app=gate(verifier))
    async with httpx.AsyncClient(transport=transport, base_url="http://gate") as client:
        yield client


class _Server(uvicorn.Server):
    capture_signals = nullcontext  # type: ignore[assignment]  # signals stay pytest's


@asynccontextmanager
async def listening(verifier: Verifier) -> AsyncIterator[int]:
    """The gate behind a real HTTP parser; yields its port."""
    config = uvicorn.Config(gate(verifier), log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = _Server(config)
    with bind_free() as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


async def exchange(port: int, *lines: bytes) -> bytes:
    """Sends a GET /who with these header lines; returns all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"\r\n".join([b"GET /who HTTP/1.1", b"Host: gate", b"Connection: close", *lines, b"", b""])
    try:
        writer.write(head)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
