"""Pure ASGI middleware: safe for streams, and nothing is wrapped but the start of an answer."""

import re
import time
from typing import Any, Final

from loguru import logger
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import error_response
from app.exceptions import ValidationFailed
from app.utils import random_token

_SANE: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_MAX_HEADER_BYTES: Final = 128 * 1024
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_API_HEADERS: Final = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
_ALLOWED_HEADERS: Final = [
    "HtySudoerToken",
    "HtyHost",
    "Last-Event-ID",
    "Idempotency-Key",
    "Prefer",
    "Content-Type",
]
_EXPOSED_HEADERS: Final = [
    "X-Coze-Chat-Id",
    "X-Request-Id",
    "X-Coze-Logid",
    "Location",
    "Retry-After",
    "Preference-Applied",
]


class RequestContext:
    """Outermost: each request's id (the caller's if sane, else ours) bound to its log lines and sent back,
    one access line, the security headers, and a bound on the size of the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size, sent = 0, b""
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"x-request-id":
                sent = value
        request_id = sent.decode() if _SANE.fullmatch(sent) else f"req_{random_token()}"
        scope.setdefault("state", {})["request_id"] = request_id
        extra = [(b"x-request-id", request_id.encode()), *_SECURITY_HEADERS]
        if scope["path"].startswith("/coze"):
            extra += _API_HEADERS
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in extra if h[0] not in present)]
            await send(message)

        with logger.contextualize(request_id=request_id):
            try:
                if size > _MAX_HEADER_BYTES:
                    refusal = error_response(ValidationFailed("The headers are too large"), request_id)
                    await refusal(scope, receive, send_with_headers)
                else:
                    await self._app(scope, receive, send_with_headers)
            finally:
                elapsed = (time.perf_counter() - started) * 1000
                logger.info("{} {} {} {:.1f} ms", scope["method"], scope["path"], status, elapsed)


class Cors:
    """CORS as the settings have it, which are only known once the lifespan has begun.

    Without CORS_ALLOW_ORIGINS there is none. Credentials are never allowed: callers authenticate by
    headers of their own, which a foreign page does not have.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._cors: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not any(name == b"origin" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        await self._for(self._origins(scope["app"]))(scope, receive, send)

    @staticmethod
    def _origins(app: Any) -> str:
        resources = getattr(app.state, "resources", None)
        return str(resources.settings.cors_allow_origins) if resources is not None else ""

    def _for(self, setting: str) -> ASGIApp:
        origins = [origin.strip() for origin in setting.split(",") if origin.strip()]
        if not origins:
            return self._app
        if setting not in self._cors:
            self._cors[setting] = CORSMiddleware(
                self._app,
                allow_origins=origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=_ALLOWED_HEADERS,
                expose_headers=_EXPOSED_HEADERS,
                allow_credentials=False,
                max_age=600,
            )
        return self._cors[setting]
