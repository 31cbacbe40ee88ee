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
from app.openai_errors import is_openai_path, openai_error, retry_header
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


def error_response(error: ServiceError, request_id: str, path: str = "") -> Response:
    """The envelope; for a ``path`` of the OpenAI routes, OpenAI's shape."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if logid := error.details.get("logid"):
        headers["X-Coze-Logid"] = str(logid)
    if is_openai_path(path):
        body = openai_error(error)
        headers["X-Should-Retry"] = retry_header(error)
    else:
        envelope = error_body(error, request_id)
        body = {"success": False, "timestamp": envelope["timestamp"], "data": None, "error": envelope}
    return Response(
        orjson.dumps(body),
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


def _answer(error: ServiceError, request: Request) -> Response:
    return error_response(error, request_id_of(request), request.scope["path"])


def add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def _expected(request: Request, error: ServiceError) -> Response:
        return _answer(error, request)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(validation_error(error.errors()), request)

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        known = _BY_STATUS.get(error.status_code)
        translated = known() if known else ValidationFailed(str(error.detail))
        translated.headers |= dict(error.headers or {})
        return _answer(translated, request)
