"""A stand-in for the organisation's auth service: issues tokens, verifies them, and fails on demand.

What it does not know of the real one: whether a token is good for one root only (tokens name no root, so
here each is good for all), and what a missing HtyHost does (here nothing; the log shows what was sent).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from coze_simulator.auth_tokens import EXPIRES_IN, claims_of, is_valid, sign
from coze_simulator.options import VERSION
from coze_simulator.responses import TRANSPORT_KEY

VERIFY_PATH = "/api/v1/uc/verify_jwt_token"
DEFAULT_ROOT = "localhost"
MODES = ("ok", "off", "hang", "500", "html", "empty", "string", "redirect", "no")
_MAX_RECORDS = 10_000
_MAX_EXPIRES_IN = 10 * EXPIRES_IN


class AuthStandIn(Starlette):
    """``key`` signs the tokens (a random one by default); ``mode`` may be set at any time, from any thread.

    Modes: ``ok``; ``no`` refuses every token; ``off`` closes the connection without an answer; ``hang``
    never answers; ``500``, ``html`` (200), ``empty`` (``{}``), ``string`` (``{"r":"true"}``) and
    ``redirect`` (307 to a path of this server) are answers that are none. ``modes``: of verifications with
    that HtyHost alone.
    """

    def __init__(self, key: str | None = None) -> None:
        self.key = key or secrets.token_urlsafe(48)
        self.mode = "ok"
        self.modes: dict[str, str] = {}
        self.records: deque[dict[str, Any]] = deque(maxlen=_MAX_RECORDS)
        self._revoked: set[str] = set()
        super().__init__(
            routes=[
                Route(VERIFY_PATH, self._verify, methods=["POST"]),
                Route("/_sim/health", self._health, methods=["GET"]),
                Route("/_sim/tokens", self._print_token, methods=["GET"]),
                Route("/_sim/tokens", self._issue_token, methods=["POST"]),
                Route("/_sim/revoke", self._revoke, methods=["POST"]),
                Route("/_sim/mode", self._mode, methods=["GET", "POST"]),
                Route("/_sim/log", self._log, methods=["GET", "DELETE"]),
            ],
            exception_handlers={404: self._unknown, 405: self._unknown},
        )
        self.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Notes the connection's transport before any middleware wraps ``send``: ``off`` closes it."""
        if scope["type"] == "http":
            scope[TRANSPORT_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)

    # -- for code in this process ----------------------------------------------------------------------

    def issue(
        self,
        hty_id: str | None,
        roles: Sequence[str] | None = None,
        *,
        expires_in: float = EXPIRES_IN,
        algorithm: str = "HS256",
    ) -> str:
        """A token that verifies. Raises ValueError for an unknown algorithm."""
        return sign(claims_of(hty_id, roles, expires_in=expires_in), self.key, algorithm=algorithm)

    def revoke(self, token: str) -> None:
        """From now on the answer to ``token`` is no."""
        self._revoked.add(_digest(token))

    @property
    def calls(self) -> int:
        """How often the verification has been asked since the log was last emptied."""
        return sum(record["path"] == VERIFY_PATH for record in self.records)

    def reset(self) -> None:
        """As new, but for the key."""
        self.mode = "ok"
        self.modes.clear()
        self.records.clear()
        self._revoked.clear()

    # -- the auth service ------------------------------------------------------------------------------

    async def _verify(self, request: Request) -> Response:
        """POST /api/v1/uc/verify_jwt_token."""
        self._record(request)
        mode = self.modes.get(request.headers.get("htyhost", ""), self.mode)
        if mode != "ok":
            return await self._fail(mode, request)
        token = request.headers.get("authorization", "")
        if not token.isascii() or not token:
            return _no("the Authorization header is missing or cannot be read", status=401)
        if not is_valid(token, self.key):
            return _no("the token is not valid")
        if _digest(token) in self._revoked:
            return _no("the token has been revoked")
        return JSONResponse({"r": True, "d": None, "e": None, "hty_err": None})

    async def _fail(self, mode: str, request: Request) -> Response:
        match mode:
            case "no":
                return _no("the stand-in was told to refuse")
            case "500":
                return PlainTextResponse("Internal Server Error", status_code=500)
            case "html":
                return HTMLResponse("<html><body>Welcome to nginx!</body></html>")
            case "empty":
                return JSONResponse({})
            case "string":
                return JSONResponse({"r": "true"})
            case "redirect":
                return RedirectResponse("/elsewhere", status_code=307)
        if mode == "off":
            transport: asyncio.Transport | None = request.scope.get(TRANSPORT_KEY)
            if transport is not None:
                transport.abort()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response(status_code=503)  # nobody is left to read it

    # -- control ---------------------------------------------------------------------------------------

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"service": "auth-stand-in", "version": VERSION, "mode": self.mode})

    async def _print_token(self, request: Request) -> Response:
        """GET /_sim/tokens?hty_id=..&roles=A,B&expires_in=..: the bare token, for ``$(curl -s ...)``."""
        query: dict[str, Any] = dict(request.query_params)
        if "roles" in query:
            query["roles"] = [role for role in query["roles"].split(",") if role]
        try:
            if "expires_in" in query:
                query["expires_in"] = float(query["expires_in"])
            token = self._issue(query)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        return PlainTextResponse(f"{token}\n")

    async def _issue_token(self, request: Request) -> Response:
        """POST {"hty_id", "roles", "root", "expires_in", "algorithm"}, all optional: the token, and the two
        headers as a caller from ``root`` sends them."""
        try:
            body = await _body(request)
            token = self._issue(body)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        host = str(body.get("root") or DEFAULT_ROOT)
        return JSONResponse({"token": token, "headers": {"HtySudoerToken": token, "HtyHost": host}})

    def _issue(self, wanted: dict[str, Any]) -> str:
        """Raises ValueError."""
        hty_id, roles = wanted.get("hty_id"), wanted.get("roles")
        expires_in = wanted.get("expires_in", EXPIRES_IN)
        if hty_id is not None and not isinstance(hty_id, str):
            raise ValueError("hty_id must be a string or null")
        if roles is not None and not (isinstance(roles, list) and all(isinstance(r, str) for r in roles)):
            raise ValueError("roles must be a list of role keys or null")
        # NaN is on neither side of a bound.
        if not isinstance(expires_in, int | float) or not abs(expires_in) <= _MAX_EXPIRES_IN:
            raise ValueError(f"expires_in must be a number of seconds, at most {_MAX_EXPIRES_IN}")
        return self.issue(
            hty_id, roles, expires_in=expires_in, algorithm=str(wanted.get("algorithm", "HS256"))
        )

    async def _revoke(self, request: Request) -> Response:
        """POST {"token": ...}."""
        try:
            token = (await _body(request)).get("token")
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        if not isinstance(token, str):
            return JSONResponse({"error": "token is needed"}, status_code=400)
        self.revoke(token)
        return JSONResponse({"revoked": True})

    async def _mode(self, request: Request) -> Response:
        """POST {"mode": ...} for all verifications from now on."""
        if request.method == "POST":
            try:
                mode = (await _body(request)).get("mode")
            except ValueError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
            if mode not in MODES:
                return JSONResponse({"error": "mode must be one of " + ", ".join(MODES)}, status_code=400)
            self.mode = mode
        return JSONResponse({"mode": self.mode})

    async def _log(self, request: Request) -> Response:
        """GET lists what was asked, oldest first, with ``calls`` of the verification; DELETE forgets it."""
        if request.method == "DELETE":
            self.records.clear()
        return JSONResponse({"calls": self.calls, "requests": list(self.records)})

    async def _unknown(self, request: Request, error: Exception) -> Response:
        """Recorded too: a redirect that was followed shows here."""
        if not isinstance(error, HTTPException):  # registered for 404 and 405 only
            raise error
        self._record(request)
        return JSONResponse({"error": "no such path"}, status_code=error.status_code)

    def _record(self, request: Request) -> None:
        authorization = request.headers.get("authorization")
        self.records.append(
            {
                "time": time.time(),
                "method": request.method,
                "path": request.url.path,
                "host": request.headers.get("host"),
                "hty_host": request.headers.get("htyhost"),
                # Not the token: a log may be shown to anybody.
                "authorization_sha256": None if authorization is None else _digest(authorization),
                "mode": self.mode,
            }
        )


def _no(reason: str, *, status: int = 200) -> Response:
    error = {"code": "AuthenticationFailed", "reason": reason}
    return JSONResponse({"r": False, "d": None, "e": reason, "hty_err": error}, status_code=status)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of the body. Raises ValueError."""
    body = json.loads(await request.body() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("a JSON object is needed")  # noqa: TRY004 - one error for a bad body
    return body
