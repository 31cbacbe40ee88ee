"""The published OpenAPI: every route's errors, examples, and the bodies that our own dependency reads."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.exceptions import (
    AuthInvalid,
    AuthMissing,
    AuthUnavailable,
    InternalError,
    Overloaded,
    RedisUnavailable,
    ServiceError,
)
from app.models import Chat, CreateSession, ErrorEnvelope, SendMessage, SubmitToolOutputs, SuccessEnvelope

REF: Final = "#/components/schemas/"
_BODIES: Final[tuple[type[BaseModel], ...]] = (CreateSession, SendMessage, SubmitToolOutputs)
_EVERYWHERE: Final = (AuthMissing, AuthInvalid, AuthUnavailable, RedisUnavailable, Overloaded, InternalError)


def errors(*classes: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a protected route: its own failures and those that every route has."""
    return plain_errors(*classes, *_EVERYWHERE)


def plain_errors(*classes: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """One response for each status, with an example for each error code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for cls in classes:
        response = responses.setdefault(
            cls.status,
            {"model": ErrorEnvelope, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        examples = response["content"]["application/json"]["examples"]
        examples[cls.code] = {"value": _example(cls)}
        response["description"] = ", ".join(examples)
        if cls.default_retry_after is not None:
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return responses


def _example(cls: type[ServiceError]) -> dict[str, Any]:
    moment = "2026-11-22T18:40:33.115908+00:00"
    return {
        "success": False,
        "timestamp": moment,
        "data": None,
        "error": {
            "code": cls.code,
            "message": cls.default_message,
            "timestamp": moment,
            "request_id": "req_b2t6k3xw5c7dq4n2z5ya",
            "retryable": cls.retryable,
            "details": {},
        },
    }


def event_stream() -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that answers with server-sent events."""
    return {
        200: {
            "description": "Server-sent events",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }


def chat_answers() -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that starts a chat: whole, still at work, or a stream."""
    return {
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        202: {"model": SuccessEnvelope[Chat], "description": "Still at work; see Location"},
    }


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra=`` of a route whose body is read by ``dependencies.json_body``."""
    schema = {"$ref": REF + model.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def add_openapi(app: FastAPI) -> None:
    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, bodies = models_json_schema([(m, "validation") for m in _BODIES], ref_template=REF + "{model}")
            schema.setdefault("components", {}).setdefault("schemas", {}).update(bodies.get("$defs", {}))
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way
