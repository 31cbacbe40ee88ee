"""Exception -> envelope. One function renders; the handlers only translate what frameworks raise."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.exceptions import (
    BodyTooLarge,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.utils import iso

_BY_STATUS: dict[int, type[ServiceError]] = {
    404: RouteNotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """The ``error`` object of the envelope."""
    return {
        "code": error.code,
        "message": error.message,
        "timestamp": iso(),
        "request_id": request_id,
        "retryable": error.retryable,
        "details": error.details,
    }


def error_response(error: ServiceError, request_id: str) -> Response:
    body = error_body(error, request_id)
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if logid := error.details.get("logid"):
        headers["X-Coze-Logid"] = str(logid)
    return Response(
        orjson.dumps({"success": False, "timestamp": body["timestamp"], "data": None, "error": body}),
        status_code=error.status,
        headers=headers,
        media_type="application/json",
    )


def request_id_of(request: Request) -> str:
    request_id: str = request.scope.get("state", {}).get("request_id", "")
    return request_id


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


def add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def _expected(request: Request, error: ServiceError) -> Response:
        return error_response(error, request_id_of(request))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return error_response(validation_error(error.errors()), request_id_of(request))

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        known = _BY_STATUS.get(error.status_code)
        translated = known() if known else ValidationFailed(str(error.detail))
        translated.headers |= dict(error.headers or {})
        return error_response(translated, request_id_of(request))
