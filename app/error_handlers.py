"""Exception -> answer. One function renders; the handlers only translate what frameworks raise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from app.exceptions import (
    BodyTooLarge,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models.envelope import ErrorEnvelope
from app.models.faults import in_plain_words
from app.utils import iso

_BY_STATUS: dict[int, type[ServiceError]] = {
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}

_ELSEWHERE: Final = (b"x-coze-elsewhere", b"1")
"""A header of our nginx: it will ask another process where this one begins nothing new, whatever the method.
By its own rules it repeats no POST, since it cannot tell that this one has not begun anything."""

_MOST_TOLD: Final = 3
"""Wrong fields that an error's message names; ``details.fields`` has all."""


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How failures are told to the clients of some paths.

    Args:
        name: of its examples in the published OpenAPI.
        prefix: of the paths, without a slash at its end.
        model: of the body, for the published OpenAPI.
        body: makes the body of an error, the request's id and the moment (ISO 8601).
        headers: makes the headers that go along, beside those that every failure has.
        challenge: makes the WWW-Authenticate of a 401.
        status: of the answer.
        retry_after: seconds for Retry-After; None: without one.
        logid_header: under which name Coze's logid goes along, or the request's id where there is none.
        names_routes: whether the 404 of an unknown path names the routes that there are.
    """

    name: str
    prefix: str
    model: type[BaseModel]
    body: Callable[[ServiceError, str, str], dict[str, Any]]
    headers: Callable[[ServiceError], dict[str, str]] = lambda _: {}
    challenge: Callable[[ServiceError], str] = lambda _: 'HtySudoerToken realm="coze-fastapi"'
    status: Callable[[ServiceError], int] = lambda error: error.status
    retry_after: Callable[[ServiceError], int | None] = lambda error: error.retry_after
    logid_header: str = ""
    names_routes: bool = False

    def is_for(self, path: str) -> bool:
        return path == self.prefix or path.startswith(self.prefix + "/")


def bearer_challenge(error: ServiceError) -> str:
    """For clients that authenticate by bearer. RFC 6750, 3: without a token no error is named."""
    realm = 'Bearer realm="coze-fastapi"'
    return realm if error.code == "AUTH_MISSING" else f'{realm}, error="invalid_token"'


def error_body(error: ServiceError, request_id: str, moment: str = "") -> dict[str, Any]:
    """The ``error`` object of the envelope. ``moment``: ISO 8601, by default now."""
    return {
        "code": error.code,
        "message": full_message(error),
        "timestamp": moment or iso(),
        "request_id": request_id,
        "retryable": error.retryable,
        "details": error.details,
    }


def full_message(error: ServiceError) -> str:
    """With the first wrong fields and what is wrong with them: many clients show nothing else."""
    fields = error.details.get("fields") or []
    wrong = "; ".join(f"{fault['field']}: {fault['message']}" for fault in fields[:_MOST_TOLD])
    return f"{error.message} ({wrong})" if wrong else error.message


def _envelope(error: ServiceError, request_id: str, moment: str) -> dict[str, Any]:
    body = error_body(error, request_id, moment)
    return {"success": False, "timestamp": moment, "data": None, "error": body}


ENVELOPE: Final = ErrorShape("coze", "", ErrorEnvelope, _envelope)
"""Ours, for all paths that nobody else's clients ask."""


def error_response(error: ServiceError, scope: Scope) -> Response:
    """The answer to the request of ``scope``, in the shape that its path asks for."""
    state = scope.get("state", {})
    request_id = state.get("request_id", "")
    shape = _shape_of(scope)
    status = shape.status(error)
    headers = error.headers | shape.headers(error)
    if chat_id := state.get("chat_id"):  # it runs, though this request failed: the caller can come back
        headers["X-Coze-Chat-Id"] = chat_id
        error.details = {"chat_id": chat_id, **error.details}
    if status == 401:  # RFC 9110, 11.6.1: says how to authenticate; browsers ask nobody for these two
        headers["WWW-Authenticate"] = shape.challenge(error)
    if shape.logid_header:
        headers[shape.logid_header] = str(error.details.get("logid") or request_id)
    if (seconds := shape.retry_after(error)) is not None:
        headers["Retry-After"] = str(seconds)
    if logid := error.details.get("logid"):
        headers["X-Coze-Logid"] = str(logid)
    has_begun = "X-Coze-Chat-Id" in headers  # sent elsewhere, it would be asked and paid for a second time
    if isinstance(error, ShuttingDown) and not has_begun and _ELSEWHERE in scope.get("headers", ()):
        headers["X-Accel-Redirect"] = "@elsewhere"
    body = orjson.dumps(shape.body(error, request_id, iso()))
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _shape_of(scope: Scope) -> ErrorShape:
    shapes: Sequence[ErrorShape] = scope["app"].state.error_shapes
    return next((shape for shape in shapes if shape.is_for(scope["path"])), ENVELOPE)


def validation_error(faults: Sequence[Any]) -> ServiceError:
    """Without the input: it may be long, and may be a secret."""
    fields = [
        {
            "field": ".".join(str(part) for part in fault["loc"][1:] if part != "") or str(fault["loc"][0]),
            "message": in_plain_words(fault),
        }
        for fault in faults[:20]
    ]
    return ValidationFailed(details={"fields": fields})


def _allowed(request: Request) -> list[str]:
    """All methods that the path takes, by whatever route: the framework names those of one route."""
    found: set[str] = set()
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _unknown_route(request: Request) -> ServiceError:
    """With the routes that there are, where the clients of the path may have meant one of them."""
    shape = _shape_of(request.scope)
    if not shape.names_routes:
        return RouteNotFound()
    found = [
        f"{' and '.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path.replace(':path}', '}')}"
        for route in request.app.router.routes
        if isinstance(route, APIRoute) and shape.is_for(route.path)
    ]
    return RouteNotFound(f"{RouteNotFound.default_message}; there are {', '.join(found)}")


def add_error_handlers(app: FastAPI, shapes: Sequence[ErrorShape] = ()) -> None:
    """``shapes``: of the paths whose clients expect another one than ours."""
    app.state.error_shapes = shapes

    @app.exception_handler(ServiceError)
    async def _expected(request: Request, error: ServiceError) -> Response:
        return error_response(error, request.scope)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return error_response(validation_error(error.errors()), request.scope)

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allowed = ", ".join(_allowed(request))
            text = f"{MethodNotAllowed.default_message}: it takes {allowed}"
            return error_response(MethodNotAllowed(text, headers={"Allow": allowed}), request.scope)
        if error.status_code == 404:
            return error_response(_unknown_route(request), request.scope)
        known = _BY_STATUS.get(error.status_code)
        translated = known() if known else ValidationFailed(str(error.detail))
        translated.headers |= dict(error.headers or {})
        return error_response(translated, request.scope)
