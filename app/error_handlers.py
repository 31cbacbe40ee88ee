"""Exception -> answer. One function renders; the handlers only translate what frameworks raise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.exceptions import (
    BodyTooLarge,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models import ErrorEnvelope
from app.utils import iso

_BY_STATUS: dict[int, type[ServiceError]] = {
    404: RouteNotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How failures are told to the clients of some paths.

    Args:
        name: of its examples in the published OpenAPI.
        prefix: of the paths, without a slash at its end.
        model: of the body, for the published OpenAPI.
        body: makes the body of an error, the request's id and the moment (ISO 8601).
        headers: makes the headers that go along, beside those that every failure has.
    """

    name: str
    prefix: str
    model: type[BaseModel]
    body: Callable[[ServiceError, str, str], dict[str, Any]]
    headers: Callable[[ServiceError], dict[str, str]] = lambda _: {}

    def is_for(self, path: str) -> bool:
        return path == self.prefix or path.startswith(self.prefix + "/")


def error_body(error: ServiceError, request_id: str, moment: str = "") -> dict[str, Any]:
    """The ``error`` object of the envelope. ``moment``: ISO 8601, by default now."""
    return {
        "code": error.code,
        "message": error.message,
        "timestamp": moment or iso(),
        "request_id": request_id,
        "retryable": error.retryable,
        "details": error.details,
    }


def _envelope(error: ServiceError, request_id: str, moment: str) -> dict[str, Any]:
    body = error_body(error, request_id, moment)
    return {"success": False, "timestamp": moment, "data": None, "error": body}


ENVELOPE: Final = ErrorShape("coze", "", ErrorEnvelope, _envelope)
"""Ours, for all paths that nobody else's clients ask."""


def error_response(error: ServiceError, scope: Scope) -> Response:
    """The answer to the request of ``scope``, in the shape that its path asks for."""
    path, request_id = scope["path"], scope.get("state", {}).get("request_id", "")
    shapes: Sequence[ErrorShape] = scope["app"].state.error_shapes
    shape = next((shape for shape in shapes if shape.is_for(path)), ENVELOPE)
    headers = error.headers | shape.headers(error)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if logid := error.details.get("logid"):
        headers["X-Coze-Logid"] = str(logid)
    body = orjson.dumps(shape.body(error, request_id, iso()))
    return Response(body, status_code=error.status, headers=headers, media_type="application/json")


def validation_error(faults: Sequence[Any]) -> ServiceError:
    """Without the input: it may be long, and may be a secret."""
    fields = [
        {
            "field": ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0]),
            "message": fault["msg"],
        }
        for fault in faults[:20]
    ]
    if any(fault["type"] == "json_invalid" for fault in faults):
        return ValidationFailed(
            "The body is not valid JSON", details={"fields": [{"field": "body", "message": "not valid JSON"}]}
        )
    return ValidationFailed(details={"fields": fields})


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
        known = _BY_STATUS.get(error.status_code)
        translated = known() if known else ValidationFailed(str(error.detail))
        translated.headers |= dict(error.headers or {})
        return error_response(translated, request.scope)
