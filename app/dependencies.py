"""What routes may ask for: the resources of this process, the caller's identity, the request's body."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.auth import ApiKeys, Verifier
from app.config import Settings
from app.exceptions import AuthMissing, BodyTooLarge, UnsupportedMediaType, ValidationFailed
from app.metrics import Metrics
from app.models import Cursor, Identity
from app.redis_client import RedisGate
from app.sse import OpenStreams
from app.tasks.chats import ChatService
from app.tasks.conversations import ConversationService
from app.tasks.files import FileService
from app.tasks.sessions import SessionService
from app.tasks.shutdown import Shutdown
from app.tasks.usage import UsageService
from app.tasks.users import UserService
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
    sessions: SessionService
    chats: ChatService
    shutdown: Shutdown
    users: UserService
    files: FileService
    usage: UsageService
    conversations: ConversationService
    streams: OpenStreams
    verifier: Verifier
    started_ms: int
    metrics: Metrics
    tracing: Tracing
    api_keys: ApiKeys
    bots: Mapping[str, str]
    """Bot ids by the model name of OpenAI's clients."""

    @property
    def uptime(self) -> int:
        """Seconds since start."""
        return (now_ms() - self.started_ms) // 1000


def resources_of(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def get_resources(request: Request) -> Resources:
    """Like all that needs no waiting, ``async`` nevertheless: FastAPI sends plain functions to a thread. And
    what a dependency depends on is solved anew for each that asks, so most take the request alone."""
    return resources_of(request)


ResourcesDep = Annotated[Resources, Depends(get_resources)]


async def get_chats(request: Request) -> ChatService:
    return resources_of(request).chats


ChatsDep = Annotated[ChatService, Depends(get_chats)]


async def get_sessions(request: Request) -> SessionService:
    return resources_of(request).sessions


SessionsDep = Annotated[SessionService, Depends(get_sessions)]


async def get_users(request: Request) -> UserService:
    return resources_of(request).users


UsersDep = Annotated[UserService, Depends(get_users)]


async def get_files(request: Request) -> FileService:
    return resources_of(request).files


FilesDep = Annotated[FileService, Depends(get_files)]


async def get_usage(request: Request) -> UsageService:
    return resources_of(request).usage


UsageDep = Annotated[UsageService, Depends(get_usage)]


async def get_conversations(request: Request) -> ConversationService:
    return resources_of(request).conversations


ConversationsDep = Annotated[ConversationService, Depends(get_conversations)]


async def get_identity(request: Request) -> Identity:
    """Reads all lines of the two headers; ``openapi`` documents them."""
    tokens, hosts = [], []
    for name, value in request.scope["headers"]:  # once, not once for each name
        if name == b"htysudoertoken":
            tokens.append(value.decode("latin-1"))
        elif name == b"htyhost":
            hosts.append(value.decode("latin-1"))
    identity = await resources_of(request).verifier.identify(tokens, hosts)
    request.state.caller.update(root=identity.root, user=identity.hty_id)  # for the log
    return identity


IdentityDep = Annotated[Identity, Depends(get_identity)]


def _bearers(values: list[str]) -> list[str]:
    """Other schemes are a proxy's affair."""
    found = [value.strip(" \t").partition(" ") for value in values]
    return [token.strip(" \t") for scheme, _, token in found if scheme.lower() == "bearer"]


async def get_caller(
    request: Request,
    resources: ResourcesDep,
    _bearer: Annotated[
        str | None, Header(alias="Authorization", description="`Bearer` and an HTY token or an API key")
    ] = None,
    _host: Annotated[
        str | None, Header(alias="HtyHost", description="Host of the calling app; not with an API key")
    ] = None,
) -> Identity:
    """As ``get_identity``, and by ``Authorization: Bearer``: an HTY token, or one of COZE_OPENAI_API_KEYS.
    Two tokens are one too many."""
    headers = request.headers
    bearers = _bearers(headers.getlist("Authorization"))
    tokens = [*bearers, *headers.getlist("HtySudoerToken")]
    identity = resources.api_keys.identify(bearers[0]) if len(tokens) == len(bearers) == 1 else None
    if identity is None:
        try:
            identity = await resources.verifier.identify(tokens, headers.getlist("HtyHost"))
        except AuthMissing:
            raise AuthMissing(
                "Send `Authorization: Bearer <API key>`, or an HTY token there and its host in HtyHost"
            ) from None
    request.state.caller.update(root=identity.root, user=identity.hty_id)  # for the log
    return identity


CallerDep = Annotated[Identity, Depends(get_caller)]


def request_id_of(request: Request) -> str:
    request_id: str = request.scope["state"]["request_id"]
    return request_id


async def get_request_id(request: Request) -> str:
    return request_id_of(request)


RequestIdDep = Annotated[str, Depends(get_request_id)]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call that is not streamed waits, and the ``Preference-Applied`` header it earned."""

    seconds: float
    applied: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Preference-Applied": self.applied} if self.applied else {}


async def get_patience(
    request: Request,
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
    return Patience(resources_of(request).settings.timeout)


PatienceDep = Annotated[Patience, Depends(get_patience)]


async def get_cursor(
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


async def get_idempotency_key(
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


async def ends_soon(chunks: AsyncIterator[bytes]) -> bool:
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


def json_body(
    model: type[_M],
    caller: Callable[..., Coroutine[Any, Any, Identity]] = get_identity,
    limit_of: Callable[[Settings], int] = lambda settings: settings.max_body_bytes,
) -> Callable[..., Coroutine[Any, Any, _M]]:
    """A dependency that reads and validates the body after the caller is known, bounded while reading.

    Raises: UnsupportedMediaType, BodyTooLarge, RequestValidationError (400).
    """

    async def read(request: Request, _: Annotated[Identity, Depends(caller)]) -> _M:
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise UnsupportedMediaType
        limit = limit_of(resources_of(request).settings)
        if int(request.headers.get("content-length") or 0) > limit + _LINGER_BYTES:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes", headers=_CLOSE)
        body, chunks = bytearray(), request.stream()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in chunks:
                    body += chunk
                    if len(body) > limit:
                        body.clear()
                        headers = {} if await ends_soon(chunks) else _CLOSE
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
