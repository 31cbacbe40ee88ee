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
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

from app.auth.api_keys import Door
from app.exceptions import AuthForbidden, AuthInvalid, AuthMissing, wrong_field
from app.factory import Resources
from app.http.json_body import read_json
from app.models import Cursor, Identity

_M = TypeVar("_M", bound=BaseModel)
_WAIT: Final = re.compile(r"\bwait\s*=\s*([0-9]{1,6})\b")
_RESPOND_ASYNC: Final = re.compile(r"\brespond-async\b")
_MAX_PREFERRED_WAIT: Final = 600
TOKEN_HEADER: Final = "HtySudoerToken"  # noqa: S105  # the header's name
HOST_HEADER: Final = "HtyHost"
_BEARER: Final = "Bearer"
SECURITY_SCHEMES: Final[dict[str, dict[str, str]]] = {
    TOKEN_HEADER: {
        "type": "apiKey",
        "in": "header",
        "name": TOKEN_HEADER,
        "description": "The caller's JWT; HtyHost goes with it",
    },
    HOST_HEADER: {
        "type": "apiKey",
        "in": "header",
        "name": HOST_HEADER,
        "description": "Host name of the calling app",
    },
    _BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: of COZE_API_KEYS, or on routes for OpenAI's clients of "
        "COZE_OPENAI_API_KEYS. With HtyHost beside it, where a route says so: the caller's JWT",
    },
}
"""For the published OpenAPI; without ENABLE_AUTH=false, which needs none of them."""


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
        self.model = HTTPBearer()  # FastAPI wants one; ``ways_in`` has the right ones
        self.scheme_name = door

    async def __call__(self, request: Request) -> RequestContext:
        tokens, hosts, authorizations = [], [], []
        for name, value in request.scope["headers"]:  # once, not once for each name
            if name == b"htysudoertoken":
                tokens.append(value.decode("latin-1"))
            elif name == b"htyhost":
                hosts.append(value.decode("latin-1"))
            elif name == b"authorization":
                authorizations.append(value.decode("latin-1"))
        resources: Resources = request.app.state.resources
        bearers = _bearers(authorizations) if authorizations and not tokens else []
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


def _bearers(values: list[str]) -> list[str]:
    """Other schemes are a proxy's affair."""
    found = [value.strip(" \t").partition(" ") for value in values]
    return [token.strip(" \t") for scheme, _, token in found if scheme.lower() == "bearer"]


def ways_in(door: str, *, by_keys_too: bool) -> list[dict[str, list[str]]]:
    """What opens a door, for the published OpenAPI: all headers of one of these.

    Args:
        door: the ``scheme_name`` of a caller's dependency.
        by_keys_too: False for routes of administrators, which a caller with an API key never is.
    """
    ways: list[dict[str, list[str]]] = [{TOKEN_HEADER: [], HOST_HEADER: []}]
    if by_keys_too:
        ways.append({_BEARER: []})
    if door == "openai":
        ways.append({_BEARER: [], HOST_HEADER: []})
    return ways


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
