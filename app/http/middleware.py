"""Pure ASGI middleware: safe for streams; a piece of a body costs a few additions."""

import asyncio
import re
import time
from collections.abc import Awaitable
from typing import Any, Final

from loguru import logger
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import error_response
from app.exceptions import HeadersTooLarge, InternalError, ServiceError, TargetTooLong, ValidationFailed
from app.http.connections import MOST_HEAD_BYTES, MOST_PARAMETERS, MOST_TARGET_BYTES
from app.http.protocol import REFUSAL
from app.observing.metrics import begin_timings
from app.observing.tracing import Span, Tracing
from app.utils import random_token

STRAIGHT_BYTES: Final = "straight_bytes"
"""Key of a request's state: how many bytes went to the connection past the middleware (``Pieces``)."""
CLIENT_GONE: Final = "client_gone"
"""The same: whether a stream has ended since its client had left."""
_SANE: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})
_QUIET: Final = frozenset({"/coze/health", "/coze/health/live", "/coze/health/ready", "/coze/metrics"})
"""Routes that machines ask all day."""
_MAX_SHOWN: Final = 200
_CLIENT_GONE: Final = 499
"""Status, in logs and metrics, of a request that ended before it had an answer."""
_OFF: Final = Tracing()
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_API_HEADERS: Final = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
_EXPOSED_HEADERS: Final = [
    "X-Coze-Chat-Id",
    "X-Request-Id",
    "X-Coze-Logid",
    "X-Tt-Logid",
    "Location",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Preference-Applied",
    "WWW-Authenticate",
    "Allow",
]


class _Watched:
    """One request as it goes on: what its log lines, its metrics and its span are made of."""

    __slots__ = (
        *("answer", "bytes", "complete", "first_byte_after", "gone", "headers_after", "request_id"),
        *("scope", "started", "state", "status", "streamed", "timings"),
    )

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.timings = begin_timings()
        self.started = time.perf_counter()
        self.status = 0
        self.headers_after = 0.0
        self.first_byte_after: float | None = None
        self.bytes = 0
        self.complete = False
        self.gone = False
        self.streamed = False
        self.answer: dict[str, str] = {}
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = request_id
        self.state["caller"] = {}

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @property
    def route(self) -> str | None:
        """The template; None where no route matched."""
        path: str | None = getattr(self.scope.get("route"), "path", None)
        return path and path.replace(":path}", "}")

    def fields(self) -> dict[str, Any]:
        """What every log line of this request carries, as far as it is known."""
        params = self.scope.get("path_params") or {}
        known = {name: params[name] for name in ("session_id", "chat_id", "user_id") if name in params}
        return {"request_id": self.request_id, **known, **self.state["caller"], **self.answer}

    def begin(self, message: Message, extra: list[tuple[bytes, bytes]]) -> None:
        """The headers are about to leave: adds ours."""
        self.status = message["status"]
        self.state["begun"] = True
        self.headers_after = self.elapsed()
        present = dict(message["headers"])
        for header, name in ((b"x-coze-chat-id", "chat_id"), (b"x-coze-logid", "logid")):
            if value := present.get(header):
                self.answer[name] = value.decode("latin-1")
        self.streamed = present.get(b"content-type", b"").startswith(b"text/event-stream")
        timing = (
            f"total;dur={self.headers_after * 1000:.1f}, upstream;dur={self.timings.upstream * 1000:.1f}, "
            f"store;dur={self.timings.store * 1000:.1f}"
        )
        ours = [*extra, (b"server-timing", timing.encode())]
        message["headers"] = [*message["headers"], *(h for h in ours if h[0] not in present)]

    def body(self, message: Message) -> None:
        size = len(message.get("body", b""))
        if size and self.first_byte_after is None:
            self.first_byte_after = self.elapsed()
        self.bytes += size
        self.complete = not message.get("more_body", False)

    def disconnected(self) -> None:
        self.gone = self.gone or not self.complete

    def finish(self, span: Span) -> None:
        """The access line, the counters, the span's end."""
        method, route, elapsed = self.scope["method"], self.route, self.elapsed()
        status = self.status or _CLIENT_GONE
        logger.bind(
            method=method,
            route=route,
            path=self.scope["path"][:_MAX_SHOWN],
            status=status,
            duration_ms=round(elapsed * 1000, 1),
            first_byte_ms=_ms(self.first_byte_after) if self.streamed else None,
            upstream_ms=_ms(self.timings.upstream),
            store_ms=_ms(self.timings.store),
            bytes=self.bytes + self.state.get(STRAIGHT_BYTES, 0),
            client_gone=self.gone or (self.state.get(CLIENT_GONE) and not self.complete) or None,
        ).log(
            "DEBUG" if route in _QUIET else "INFO",
            "{} {} {} {:.1f} ms",
            method,
            route or self.scope["path"][:_MAX_SHOWN],
            status,
            elapsed * 1000,
        )
        if route is not None:
            span.rename(f"{method} {route}")
            if metrics := part_of(self.scope, "metrics"):
                metrics.request(method, route, status, self.headers_after or elapsed)
        span.set({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        span.set({f"coze.{name}": self.answer.get(name) for name in ("chat_id", "logid")})
        span.set({"coze.request_id": self.request_id})
        if status >= 500:
            span.fail(str(status))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def part_of(scope: Scope, name: str) -> Any:
    """A part of the app's resources; None before the lifespan has begun."""
    resources = getattr(scope["app"].state, "resources", None)
    return getattr(resources, name, None)


class HttpMiddleware:
    """Around the app for what is HTTP: a subclass says in ``serve`` what it does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """No coroutine of its own: an open stream keeps one for each layer that there is."""
        handler = self.serve if scope["type"] == "http" else self._app
        return handler(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


def _refusal_of(scope: Scope, size: int, hosts: int) -> ServiceError | None:
    """``size``: bytes of address and headers. ``hosts``: Host headers."""
    if size > MOST_HEAD_BYTES:
        return HeadersTooLarge(f"The headers are too large: {size} bytes, at most {MOST_HEAD_BYTES}")
    query: bytes = scope["query_string"]
    if len(scope["raw_path"]) + len(query) > MOST_TARGET_BYTES:
        return TargetTooLong(f"The request's address is too long: at most {MOST_TARGET_BYTES} bytes")
    if query.count(b"&") >= MOST_PARAMETERS:
        return TargetTooLong(f"The request's address has too many parameters: at most {MOST_PARAMETERS}")
    if hosts != 1 and scope["http_version"] == "1.1":  # RFC 9112, 3.2: who decides by it may differ
        text = f"The request is not valid HTTP/1.1: it has {hosts or 'no'} Host headers, not one"
        return ValidationFailed(text)
    return None


class RequestMiddleware(HttpMiddleware):
    """Outermost: each request's id (the caller's if sane, else ours) bound to its log lines and sent back,
    one access line, metrics and a span, the security headers, and a bound on the size of the headers."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, sent, hosts = len(scope["raw_path"]) + len(scope["query_string"]), b"", 0
        carrier: dict[str, str] = {}
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"x-request-id":
                sent = value
            elif name == b"host":
                hosts += 1
            elif name in _TRACE_HEADERS:
                carrier[name.decode()] = value.decode("latin-1")
        request_id = sent.decode() if _SANE.fullmatch(sent) else f"req_{random_token()}"
        watched = _Watched(scope, request_id)
        extra = [(b"x-request-id", request_id.encode()), *_SECURITY_HEADERS]
        if scope["path"].startswith("/coze"):
            extra += _API_HEADERS

        async def receive_watched() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                watched.disconnected()
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                watched.begin(message, extra)
            else:
                watched.body(message)
            await send(message)

        tracing: Tracing = part_of(scope, "tracing") or _OFF
        span = tracing.span(scope["method"], kind="server", carrier=carrier)
        with logger.contextualize(fields=watched.fields), span:
            watched.answer["trace_id"] = span.trace_id
            if (refusal := _refusal_of(scope, size, hosts)) is not None:
                refusal.headers["Connection"] = "close"
                watched.state.setdefault(REFUSAL, refusal)
            try:
                await self._app(scope, receive_watched, send_with_headers)
            except ClientDisconnect:
                watched.gone = True
            finally:
                watched.finish(span)


class Refusals(HttpMiddleware):
    """Innermost, so that its answers get all that the others add: the answer to what was refused on the way
    in, and to what nobody expected."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (refusal := scope["state"].pop(REFUSAL, None)) is not None:
            await error_response(refusal, scope)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            raise
        except asyncio.CancelledError:
            # The server ends, and has waited for what is under way: a file that Coze does not take, say.
            if scope["state"].get("begun"):
                raise
            logger.warning(
                "request given up, the process ends: {}", getattr(scope.get("route"), "path", None)
            )
            given_up = InternalError("The process that worked on this has ended; it may have been done")
            await error_response(given_up, scope)(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # the last resort of a request; logged once, here
            logger.opt(exception=error).error("request broke: {}", getattr(scope.get("route"), "path", None))
            if not scope["state"].get("begun"):  # what has begun can only be broken off
                await error_response(InternalError(), scope)(scope, receive, send)


class Cors(HttpMiddleware):
    """CORS as the settings have it, which are only known once the lifespan has begun.

    Without CORS_ALLOW_ORIGINS there is none. Credentials are never allowed: callers authenticate by
    headers of their own, which a foreign page does not have.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self._cors: dict[str, ASGIApp] = {}

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not any(name == b"origin" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        settings = part_of(scope, "settings")
        await self._for(settings.cors_allow_origins if settings is not None else "")(scope, receive, send)

    def _for(self, setting: str) -> ASGIApp:
        origins = [origin.strip() for origin in setting.split(",") if origin.strip()]
        if not origins:
            return self._app
        if setting not in self._cors:
            self._cors[setting] = CORSMiddleware(
                self._app,
                allow_origins=origins,
                allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                # Whatever is asked for: SDKs and proxies add headers of their own, and without credentials
                # that gives nothing away.
                allow_headers=["*"],
                expose_headers=_EXPOSED_HEADERS,
                allow_credentials=False,
                # Chrome asks for it where a public page calls a service inside of a company. Which pages may
                # call is said by their origins.
                allow_private_network=True,
                max_age=600,
            )
        return self._cors[setting]
