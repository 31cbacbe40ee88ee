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
    ValidationFailed,
)
from app.models import Chat, CreateSession, ErrorEnvelope, SendMessage, SubmitToolOutputs, SuccessEnvelope
from app.openai_bodies import ChatCompletionRequest, OpenAIError
from app.openai_errors import openai_error

REF: Final = "#/components/schemas/"
_BODIES: Final[tuple[type[BaseModel], ...]] = (
    CreateSession,
    SendMessage,
    SubmitToolOutputs,
    ChatCompletionRequest,
)
_EVERYWHERE: Final = (
    *(ValidationFailed, AuthMissing, AuthInvalid, AuthUnavailable),  # headers may be too large anywhere
    *(RedisUnavailable, Overloaded, InternalError),
)


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


_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One server-sent event; the stream is a sequence of them",
    "properties": {
        "id": {"type": "string", "description": "<epoch>-<frame>: where to resume"},
        "event": {"type": "string"},
        "data": {"type": "string", "description": "JSON"},
    },
    "required": ["event", "data"],
}
_MAKES: Final = {
    ("/coze/files", "post"): "file_id",
    ("/coze/sessions", "post"): "session_id",
    ("/coze/sessions/{session_id}/messages", "post"): "chat_id",
}
"""Which operation's answer holds which id: the document links it to every operation that takes the id."""


def _add_links(paths: dict[str, Any]) -> None:
    for (producer, method), name in _MAKES.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {name: f"$response.body#/data/task_result/data/{name}"},
            }
            for path, operations in paths.items()
            if f"{{{name}}}" in path
            for operation in operations.values()
        }
        for status, response in paths[producer][method]["responses"].items():
            if status in ("200", "202"):
                response["links"] = links


def event_stream() -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that answers with server-sent events."""
    return {
        200: {
            "description": "Server-sent events",
            "content": {"text/event-stream": {"schema": _EVENT}},
        }
    }


def chat_answers() -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that starts a chat: whole, still at work, or a stream."""
    return {
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
        202: {"model": SuccessEnvelope[Chat], "description": "Still at work; see Location"},
    }


def openai_errors(*classes: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route for OpenAI's clients: the same failures in their shape."""
    responses = errors(*classes)
    every: tuple[type[ServiceError], ...] = (*classes, *_EVERYWHERE)
    for cls in every:
        response = responses[cls.status]
        response["model"] = OpenAIError
        response["content"]["application/json"]["examples"][cls.code] = {"value": openai_error(cls())}
    return responses


def openai_stream() -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that answers whole or with chunks."""
    schema = {
        "type": "string",
        "description": "`data:` lines with chat.completion.chunk objects, then [DONE]",
    }
    return {200: {"content": {"text/event-stream": {"schema": schema}}}}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra=`` of a route whose body is read by ``dependencies.json_body``."""
    schema = {"$ref": REF + model.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _caller_headers() -> list[dict[str, Any]]:
    """The two headers of ``dependencies.get_identity``."""
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "description": text,
                "title": name.capitalize(),
            },
            "description": text,
        }
        for name, text in (
            ("HtySudoerToken", "The caller's JWT"),
            ("HtyHost", "Host of the calling app"),
        )
    ]


def _mend(schema: dict[str, Any]) -> None:
    """Takes out FastAPI's own 422, which we never send, and puts back the nulls that it leaves out of
    examples."""
    schemas = schema.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            responses = operation.get("responses", {})
            if AuthMissing.code in responses.get("401", {}).get("description", ""):
                parameters = operation.setdefault("parameters", [])
                names = {parameter["name"] for parameter in parameters}
                parameters += [header for header in _caller_headers() if header["name"] not in names]
            if str(responses.get("422", {})).find("HTTPValidationError") >= 0:
                del responses["422"]
            for response in responses.values():
                for example in (
                    response.get("content", {}).get("application/json", {}).get("examples", {}).values()
                ):
                    if "success" in example["value"]:
                        example["value"].setdefault("data", None)
                    else:
                        example["value"]["error"].setdefault("param", None)


def add_openapi(app: FastAPI) -> None:
    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, bodies = models_json_schema([(m, "validation") for m in _BODIES], ref_template=REF + "{model}")
            _mend(schema)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(bodies.get("$defs", {}))
            _add_links(schema["paths"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way
