"""What routes are given of a request: who calls, its JSON body, and what a few headers say. A body is bounded
in size and time, and read only when the caller is known.

FastAPI runs plain functions in threads, so all here are ``async``. What a dependency depends on is solved
anew for each that asks, so they take the request alone. A context is its own security scheme: one beside it
would be one more dependency for each request.
"""

import asyncio
import codecs
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ValidationError

from app.auth.api_keys import Door
from app.exceptions import (
    AuthForbidden,
    AuthInvalid,
    AuthMissing,
    BodyTooLarge,
    Overloaded,
    RateLimited,
    UnsupportedMediaType,
    ValidationFailed,
    wrong_field,
)
from app.factory import Resources
from app.http.turns import Headers
from app.models import Cursor, Identity
from app.tasks.places import Place, Places
from app.utils.big_bodies import SMALL_BYTES, when_gone
from app.utils.json_shape import VALUE_BYTES, holds_more_than, marks, size_of, values_in

_M = TypeVar("_M", bound=BaseModel)
_WAIT: Final = re.compile(r"\bwait\s*=\s*([0-9]{1,6})\b")
_RESPOND_ASYNC: Final = re.compile(r"\brespond-async\b")
_MAX_PREFERRED_WAIT: Final = 600
MOST_VALUES: Final = 10_000
"""Arrays, objects and values of them in a body, where its model says no other number (``MOST_VALUES``)."""
_MOST_FAULTS: Final = 100
"""That are looked at; 20 of them are named."""
_FEW: Final = 250
"""So many values take a millisecond or two, until it is known whether anything is paid; bodies with more, and
large ones, take turns."""
_FEW_IN_TEXTS: Final = 2000
"""What stands in texts, commas of plain words among it, is mostly not read."""
_BODY_SECONDS: Final = 30.0
_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 2.0
_MAX_SHOWN: Final = 60
_PLAIN: Final = frozenset({"identity", ""})
CLOSE: Final = {"Connection": "close"}
"""With an answer that comes before the end of the body: the rest would be read for nothing."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request: who sends it, and all there is to answer it with."""

    request: Request
    identity: Identity
    resources: Resources

    @property
    def request_id(self) -> str:
        request_id: str = self.request.scope["state"]["request_id"]
        return request_id

    @property
    def is_head(self) -> bool:
        """Only the headers are wanted: nothing is waited for, opened or prolonged."""
        return self.request.method == "HEAD"

    def began(self, chat_id: str) -> None:
        """To be called as soon as a chat was created: whatever becomes of this request, its answer names the
        chat, which goes on without it (`error_handlers.error_response`)."""
        self.request.scope["state"]["chat_id"] = chat_id

    async def json(self, model: type[_M], limit: int | None = None) -> _M:
        """The body as ``model``.

        Args:
            limit: bytes; by default MAX_BODY_BYTES.

        Raises:
            UnsupportedMediaType: it is not called JSON, or is compressed.
            BodyTooLarge: it is longer than ``limit``.
            ValidationFailed: it did not arrive in time, or holds too many values.
            RequestValidationError: it does not fit ``model``, or is no JSON.
            Overloaded: the bodies that are there take all the room that there is for them, or for the
                caller's.
        """
        request = self.request
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            given = f"`{kind[:_MAX_SHOWN]}`" if kind else "no Content-Type"
            raise UnsupportedMediaType(f"{UnsupportedMediaType.default_message}; this came with {given}")
        refuse_encoded(request)
        with room_for(self.resources.bodies, self.identity.owner) as place:
            data = await _read(request, limit or self.resources.settings.max_body_bytes, place)
            if data.startswith(codecs.BOM_UTF8):  # RFC 8259, 8.1: ignored
                del data[: len(codecs.BOM_UTF8)]
            if not _is_quick(data):
                return await self._slow_body(data, model, place)
            body = _parsed(data, model)
            if len(data) + marks(data, _FEW_IN_TEXTS) * VALUE_BYTES > SMALL_BYTES:
                _keep(place, body, _size_with_what_it_becomes(data, body))
            return body

    async def _slow_body(self, data: bytearray, model: type[_M], place: Place) -> _M:
        """What it takes is counted before it is made, and again as it lies in memory then."""
        bodies, owner, brief = self.resources.big_bodies, self.identity.owner, len(data) <= SMALL_BYTES
        async with bodies.turn(owner, brief=brief):
            # Of a short one those inside of texts are counted, too: a thread for that alone takes longer.
            if brief:
                values = marks(data, SMALL_BYTES)
            else:
                values = await asyncio.to_thread(_values_in, data, model)
            place.has(len(data) + values * VALUE_BYTES)
            body, size = await asyncio.to_thread(_parsed_and_measured, data, model)
            _keep(place, body, size)
        bodies.takes_turns(body, owner, brief=brief)
        return body


async def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]
"""For the few routes that anybody may ask."""


class _Caller(SecurityBase):
    """Who calls: by HtySudoerToken and HtyHost, of which all lines are taken, since a header that is sent
    twice is refused; where there is no HtySudoerToken, by ``Authorization: Bearer`` and an API key. Proxies
    put bearers of their own in there, so it never counts beside the former.

    ``door``: for clients of a foreign API, which have no other header, the bearer may be an HTY token, too.
    ``admins_only``: everybody else is refused here, before anything is looked at.
    """

    def __init__(self, door: Door, *, admins_only: bool = False) -> None:
        self._door = door
        self._admins_only = admins_only
        self._is_foreign = door != "all"
        self.model = HTTPBearer()  # FastAPI wants one; ``http.document`` has the right ones
        self.scheme_name = door

    async def __call__(self, request: Request) -> RequestContext:
        tokens, hosts, bearers = _credentials(request.scope["headers"])
        resources: Resources = request.app.state.resources
        if bearers:
            identity = await self._by_bearer(resources, bearers, hosts)
        else:
            identity = await self._by_token(resources, tokens, hosts)
        request.state.caller.update(root=identity.root, user=identity.hty_id)  # for the log
        if self._admins_only and not identity.admin:
            raise AuthForbidden
        return RequestContext(request, identity, resources)

    async def _by_bearer(self, resources: Resources, bearers: list[str], hosts: list[str]) -> Identity:
        if len(bearers) == 1 and (known := resources.api_keys.identify(bearers[0], self._door)) is not None:
            return known
        try:
            return await resources.verifier.identify(bearers if self._is_foreign else [], hosts)
        except AuthMissing:
            if self._is_foreign or resources.api_keys.any:
                raise AuthInvalid(_NO_KEY) from None
            raise

    async def _by_token(self, resources: Resources, tokens: list[str], hosts: list[str]) -> Identity:
        try:
            return await resources.verifier.identify(tokens, hosts)
        except AuthMissing:
            if self._is_foreign and not tokens:
                raise AuthMissing(_SEND_A_KEY) from None
            raise


_NO_KEY: Final = "The bearer token is no API key for this route; HTY tokens need their host in HtyHost"
_SEND_A_KEY: Final = "Send `Authorization: Bearer <API key>`, or an HTY token there and its host in HtyHost"

ContextDep = Annotated[RequestContext, Depends(_Caller("all"))]
AdminContextDep = Annotated[RequestContext, Depends(_Caller("all", admins_only=True))]
"""For admins, who see what is their own root's. An API key is nobody's admin."""
OpenAIContextDep = Annotated[RequestContext, Depends(_Caller("openai"))]
"""For OpenAI's clients."""
CozeContextDep = Annotated[RequestContext, Depends(_Caller("coze"))]
"""For Coze's own clients."""


def known_caller(resources: Resources, headers: Headers) -> str | None:
    """The owner whose credentials these are, by what is known without asking anybody. Good for a place in a
    line and nothing else: whether they count is found out when it is the request's turn."""
    tokens, hosts, bearers = _credentials(headers)
    known = None
    if len(bearers) == 1:
        known = resources.api_keys.identify(bearers[0], "openai")
    known = known or resources.verifier.knew(tokens or bearers, hosts)
    return None if known is None else known.owner


def _credentials(headers: Headers) -> tuple[list[str], list[str], list[str]]:
    """All values of HtySudoerToken and of HtyHost; and bearers, where there is no HtySudoerToken."""
    tokens, hosts, authorizations = [], [], []
    for name, value in headers:  # once, not once for each name
        if name == b"htysudoertoken":
            tokens.append(value.decode("latin-1"))
        elif name == b"htyhost":
            hosts.append(value.decode("latin-1"))
        elif name == b"authorization":
            authorizations.append(value.decode("latin-1"))
    return tokens, hosts, _bearers(authorizations) if authorizations and not tokens else []


def _bearers(values: list[str]) -> list[str]:
    """Other schemes are a proxy's affair."""
    found = [value.strip(" \t").partition(" ") for value in values]
    return [token.strip(" \t") for scheme, _, token in found if scheme.lower() == "bearer"]


# -- bodies -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def room_for(room: Places, owner: str) -> Iterator[Place]:
    """For a body, from its first byte on; it keeps a connection and memory for as long as it arrives. Raises
    ``Overloaded``, inside of the block, too."""
    try:
        with room.taken(owner) as place:
            yield place
    except (Overloaded, RateLimited) as error:
        text, details = f"Too many bodies at once: {error.message}", error.details
        raise Overloaded(text, details=details, retry_after=error.retry_after, headers=CLOSE) from None


async def _read(request: Request, limit: int, place: Place) -> bytearray:
    too_large = BodyTooLarge(f"The request body is larger than {limit} bytes", headers=CLOSE)
    if int(request.headers.get("content-length") or 0) > limit + _LINGER_BYTES:
        raise too_large
    body, chunks = bytearray(), request.stream()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    body.clear()
                    if await ends_soon(chunks):
                        too_large.headers = {}
                    raise too_large
                place.has(len(body))
    except TimeoutError:
        text = f"The body did not arrive within {_BODY_SECONDS:g} s"
        raise ValidationFailed(text, headers=CLOSE) from None
    return body


def _keep(place: Place, body: BaseModel, size: int) -> None:
    """``place`` has so many bytes for as long as there is ``body``."""
    place.has(size)
    when_gone(body, place.keep())


def _size_with_what_it_becomes(data: bytearray, body: BaseModel) -> int:
    """Texts may take four bytes for a letter. Files that are in them are made bytes, which takes as much as
    they did on their way; and of other values messages are made."""
    texts, others = size_of(body)
    return texts + len(data) + 2 * others


def _values_in(data: bytearray, model: type[BaseModel]) -> int:
    """Raises ``ValidationFailed`` where they are too many."""
    most: int = getattr(model, "MOST_VALUES", MOST_VALUES)
    found = marks(data, _FEW)
    if found > _FEW and (found := values_in(data, most)) > most:
        raise wrong_field("body", f"holds more than {most} values")
    return found


def _is_quick(data: bytearray) -> bool:
    """To read, and to work on afterwards."""
    if len(data) > SMALL_BYTES:
        return False
    found = marks(data, _FEW_IN_TEXTS)
    return found <= _FEW or (found <= _FEW_IN_TEXTS and not holds_more_than(data, _FEW))


def _parsed_and_measured(data: bytearray, model: type[_M]) -> tuple[_M, int]:
    _values_in(data, model)
    body = _parsed(data, model)
    return body, _size_with_what_it_becomes(data, body)


def _parsed(data: bytearray, model: type[_M]) -> _M:
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        if (fault := _undecodable(data)) is not None:
            raise wrong_field("body", fault) from None
        if exc.error_count() > _MOST_FAULTS:  # to build them all would take longer than to find them
            text = f"has {exc.error_count()} faults, which are too many to name"
            raise wrong_field("body", text) from None
        faults = exc.errors(include_input=False, include_url=False)
        raise RequestValidationError([{**f, "loc": ("body", *f["loc"])} for f in faults]) from None


def refuse_encoded(request: Request) -> None:
    """Raises ``UnsupportedMediaType`` for a body that is compressed, by whichever header says so."""
    for name, plain in (("content-encoding", _PLAIN), ("transfer-encoding", _PLAIN | {"chunked"})):
        for value in request.headers.getlist(name):
            if coded := {each.strip().lower() for each in value.split(",")} - plain:
                text = f"{name.title()} {min(coded)[:_MAX_SHOWN]} is not taken; send the body as it is"
                raise UnsupportedMediaType(text, headers={"Accept-Encoding": "identity"} | CLOSE)


def _undecodable(body: bytearray) -> str | None:
    """Why these bytes are no UTF-8 text; None where they are."""
    if not body:
        return "is empty"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 0 in body[:2]:
        return "is UTF-16 or UTF-32 (by its byte order mark or its zeros); send UTF-8"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}; send UTF-8"
    return None


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


# -- headers ----------------------------------------------------------------------------------------------

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Of the caller's own making: the same call under one key within 24 hours is one call",
    ),
]


class Patience(NamedTuple):
    """How many seconds a call that is not streamed waits, and the headers that tell so."""

    seconds: float
    headers: dict[str, str]


async def get_patience(
    request: Request,
    prefer: Annotated[
        str | None, Header(alias="Prefer", description="RFC 7240: `wait=N` (seconds) or `respond-async`")
    ] = None,
) -> Patience:
    """RFC 7240. What is not understood is ignored, as the RFC asks."""
    wait = _WAIT.search(prefer or "")
    if wait is not None and int(wait[1]) <= _MAX_PREFERRED_WAIT:
        return Patience(float(wait[1]), {"Preference-Applied": f"wait={int(wait[1])}"})
    if _RESPOND_ASYNC.search(prefer or ""):
        return Patience(0.0, {"Preference-Applied": "respond-async"})
    resources: Resources = request.app.state.resources
    return Patience(resources.settings.timeout, {})


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
        raise wrong_field("Last-Event-ID", "has the form <epoch>-<frame>")
    return cursor


CursorDep = Annotated[Cursor, Depends(get_cursor)]
