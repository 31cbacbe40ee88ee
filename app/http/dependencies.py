"""What routes ask for: ``ContextDep``, and what a few headers say.

FastAPI runs plain functions in threads, so all here are ``async``. What a dependency depends on is solved
anew for each that asks, so they take the request alone. A context is its own security scheme: one beside it
would be one more dependency for each request.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

from app.exceptions import AuthMissing, ValidationFailed
from app.factory import Resources
from app.http.json_body import read_json
from app.models import Cursor, Identity

_M = TypeVar("_M", bound=BaseModel)
_WAIT: Final = re.compile(r"\bwait\s*=\s*([0-9]{1,6})\b")
_RESPOND_ASYNC: Final = re.compile(r"\brespond-async\b")
_MAX_PREFERRED_WAIT: Final = 600
TOKEN_HEADER: Final = "HtySudoerToken"  # noqa: S105  # the header's name
HOST_HEADER: Final = "HtyHost"
_TOKEN_SCHEME: Final = APIKeyHeader(
    name=TOKEN_HEADER,
    scheme_name=TOKEN_HEADER,
    description="The caller's JWT; HtyHost goes with it",
    auto_error=False,
)


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

    async def json(self, model: type[_M], limit: int | None = None) -> _M:
        """The body; see ``read_json``.

        Args:
            limit: bytes; by default MAX_BODY_BYTES.
        """
        resources = self.resources
        most = limit or resources.settings.max_body_bytes
        return await read_json(self.request, model, most, resources.big_bodies)


async def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]
"""For the few routes that anybody may ask."""


async def _identified(request: Request, tokens: list[str], hosts: list[str]) -> RequestContext:
    resources: Resources = request.app.state.resources
    return _context(request, resources, await resources.verifier.identify(tokens, hosts))


def _context(request: Request, resources: Resources, identity: Identity) -> RequestContext:
    request.state.caller.update(root=identity.root, user=identity.hty_id)  # for the log
    return RequestContext(request, identity, resources)


class _HtyCaller(SecurityBase):
    """HtySudoerToken and HtyHost: all lines of both, since a header that is sent twice is refused."""

    def __init__(self) -> None:
        self.model = _TOKEN_SCHEME.model
        self.scheme_name = _TOKEN_SCHEME.scheme_name

    async def __call__(self, request: Request) -> RequestContext:
        tokens, hosts = [], []
        for name, value in request.scope["headers"]:  # once, not once for each name
            if name == b"htysudoertoken":
                tokens.append(value.decode("latin-1"))
            elif name == b"htyhost":
                hosts.append(value.decode("latin-1"))
        return await _identified(request, tokens, hosts)


ContextDep = Annotated[RequestContext, Depends(_HtyCaller())]


class _BearerOrHtyCaller(SecurityBase):
    """As above, and by ``Authorization: Bearer``: an HTY token, or one of COZE_OPENAI_API_KEYS. Two tokens
    are one too many."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="One of COZE_OPENAI_API_KEYS; or an HTY token, with HtyHost")
        self.scheme_name = "Bearer"

    async def __call__(
        self, request: Request, _published: Annotated[str | None, Depends(_TOKEN_SCHEME)] = None
    ) -> RequestContext:
        headers = request.headers
        bearers = _bearers(headers.getlist("Authorization"))
        tokens = [*bearers, *headers.getlist(TOKEN_HEADER)]
        if len(tokens) == len(bearers) == 1:
            resources: Resources = request.app.state.resources
            if (identity := resources.api_keys.identify(bearers[0])) is not None:
                return _context(request, resources, identity)
        try:
            return await _identified(request, tokens, headers.getlist(HOST_HEADER))
        except AuthMissing:
            raise AuthMissing(
                "Send `Authorization: Bearer <API key>`, or an HTY token there and its host in HtyHost"
            ) from None


BearerContextDep = Annotated[RequestContext, Depends(_BearerOrHtyCaller())]


def _bearers(values: list[str]) -> list[str]:
    """Other schemes are a proxy's affair."""
    found = [value.strip(" \t").partition(" ") for value in values]
    return [token.strip(" \t") for scheme, _, token in found if scheme.lower() == "bearer"]


# -- headers ----------------------------------------------------------------------------------------------

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same call within 24 h is one call",
    ),
]


class Patience(NamedTuple):
    """How many seconds a call that is not streamed waits, and the headers that tell so."""

    seconds: float
    headers: dict[str, str]


async def get_patience(
    request: Request,
    prefer: Annotated[
        str | None, Header(description="RFC 7240: `wait=N` (seconds) or `respond-async`")
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
        fault = {"field": "Last-Event-ID", "message": "has the form <epoch>-<frame>"}
        raise ValidationFailed(details={"fields": [fault]})
    return cursor


CursorDep = Annotated[Cursor, Depends(get_cursor)]
