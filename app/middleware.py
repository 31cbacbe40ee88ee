"""Pure ASGI middleware: safe for streams, and nothing is wrapped per chunk but the header of the start."""

import re
import time
from typing import Final

from loguru import logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.utils import random_token

_SANE: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives each request its id (the caller's if sane, else ours), bound to its log lines and sent back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = sent.decode() if _SANE.fullmatch(sent) else f"req_{random_token()}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with logger.contextualize(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                elapsed = (time.perf_counter() - started) * 1000
                logger.info("{} {} {} {:.1f} ms", scope["method"], scope["path"], status, elapsed)
