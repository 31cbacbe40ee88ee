"""What routes may ask for: the resources of this process, the caller's identity, the request's body."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.auth import Verifier
from app.config import Settings
from app.exceptions import BodyTooLarge, UnsupportedMediaType, ValidationFailed
from app.metrics import Metrics
from app.models import Cursor, Identity
from app.redis_client import RedisGate
from app.sse import OpenStreams
from app.tasks import TaskService, UserService
from app.tracing import Tracing
from app.utils import now_ms

_WAIT: Final = re.compile(r"\bwait\s*=\s*([0-9]{1,6})\b")
_RESPOND_ASYNC: Final = re.compile(r"\brespond-async\b")
MAX_PREFERRED_WAIT: Final = 600
_BODY_SECONDS: Final = 30.0
_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 2.0
_CLOSE: Final = {"Connection": "close"}
"""With an answer that comes before the end of the body: the rest would be read for nothing."""


@dataclass(frozen=True, slots=True)
class Resources:
    """All that lives as long as the process. Opened by the lifespan, closed in reverse order."""

    settings: Settings
    redis: RedisGate
    tasks: TaskService
    users: UserService
    streams: OpenStreams
    verifier: Verifier
    started_ms: int
    metrics: Metrics
    tracing: Tracing

    @property
    def uptime(self) -> int:
        """Seconds since start."""
        return (now_ms() - self.started_ms) // 1000


def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


def get_tasks(resources: ResourcesDep) -> TaskService:
    return resources.tasks


TasksDep = Annotated[TaskService, Depends(get_tasks)]


def get_users(resources: ResourcesDep) -> UserService:
    return resources.users


UsersDep = Annotated[UserService, Depends(get_users)]


async def get_identity(
    request: Request,
    resources: ResourcesDep,
    _token: Annotated[str | None, Header(alias="HtySudoerToken", description="The caller's JWT")] = None,
    _host: Annotated[str | None, Header(alias="HtyHost", description="Host of the calling app")] = None,
) -> Identity:
    """All header lines are looked at: the declared parameters, for the documentation, hold one of each."""
    headers = request.headers
    identity = await resources.verifier.identify(
        headers.getlist("HtySudoerToken"), headers.getlist("HtyHost")
    )
    request.state.caller.update(root=identity.root, user=identity.hty_id)  # for the log
    return identity


IdentityDep = Annotated[Identity, Depends(get_identity)]


def get_request_id(request: Request) -> str:
    request_id: str = request.scope["state"]["request_id"]
    return request_id


RequestIdDep = Annotated[str, Depends(get_request_id)]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call that is not streamed waits, and the ``Preference-Applied`` header it earned."""

    seconds: float
    applied: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Preference-Applied": self.applied} if self.applied else {}


def get_patience(
    resources: ResourcesDep,
    prefer: Annotated[
        str | None, Header(description="RFC 7240: `wait=N` (seconds) or `respond-async`")
    ] = None,
) -> Patience:
    """RFC 7240. What is not understood is ignored, as the RFC asks."""
    wait = _WAIT.search(prefer or "")
    if wait is not None and int(wait[1]) <= MAX_PREFERRED_WAIT:
        return Patience(float(wait[1]), f"wait={int(wait[1])}")
    if _RESPOND_ASYNC.search(prefer or ""):
        return Patience(0.0, "respond-async")
    return Patience(resources.settings.timeout)


PatienceDep = Annotated[Patience, Depends(get_patience)]


def get_cursor(
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Id of the last event that arrived")
    ] = None,
    after: Annotated[str | None, Query(description="The same for clients that cannot set the header")] = None,
) -> Cursor:
    """The header counts before the query: a browser sets it by itself when it reconnects."""
    given = last_event_id or after
    if not given:
        return Cursor(0, 0)
    cursor = Cursor.parse(given)
    if cursor is None:
        fault = {"field": "Last-Event-ID", "message": "has the form <epoch>-<frame>"}
        raise ValidationFailed(details={"fields": [fault]})
    return cursor


CursorDep = Annotated[Cursor, Depends(get_cursor)]


def get_idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="At most 255 characters; the same call within 24 h is one call",
        ),
    ] = None,
) -> str | None:
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        fault = {"field": "Idempotency-Key", "message": "1 to 255 characters"}
        raise ValidationFailed(details={"fields": [fault]})
    return idempotency_key


IdempotencyKeyDep = Annotated[str | None, Depends(get_idempotency_key)]

_M = TypeVar("_M", bound=BaseModel)


async def _ends_soon(chunks: AsyncIterator[bytes]) -> bool:
    """Reads on for a bounded while: who is still sending when the connection closes never sees the answer."""
    left = _LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return False
            return True
    return False


def json_body(model: type[_M]) -> Callable[..., Coroutine[Any, Any, _M]]:
    """A dependency that reads and validates the body after the caller is known, bounded while reading.

    Raises: UnsupportedMediaType, BodyTooLarge, RequestValidationError (400).
    """

    async def read(request: Request, resources: ResourcesDep, _: IdentityDep) -> _M:
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise UnsupportedMediaType
        limit = resources.settings.max_body_bytes
        if int(request.headers.get("content-length") or 0) > limit + _LINGER_BYTES:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes", headers=_CLOSE)
        body, chunks = bytearray(), request.stream()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in chunks:
                    body += chunk
                    if len(body) > limit:
                        body.clear()
                        headers = {} if await _ends_soon(chunks) else _CLOSE
                        raise BodyTooLarge(f"The request body is larger than {limit} bytes", headers=headers)
        except TimeoutError:
            text = f"The body did not arrive within {_BODY_SECONDS:g} s"
            raise ValidationFailed(text, headers=_CLOSE) from None
        try:
            return model.model_validate_json(bytes(body))
        except ValidationError as exc:
            faults = exc.errors(include_input=False, include_url=False, include_context=False)
            raise RequestValidationError([{**f, "loc": ("body", *f["loc"])} for f in faults]) from None

    return read
