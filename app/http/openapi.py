"""The published OpenAPI: what routes tell FastAPI about their errors and bodies, and what FastAPI cannot say.

Errors that many routes have are named groups in ``app.exceptions``. What every route has is added by
``errors``.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from app.error_handlers import ENVELOPE, ErrorShape
from app.exceptions import ERROR_CLASSES, EVERYWHERE, ServiceError
from app.http.dependencies import HOST_HEADER, TOKEN_HEADER
from app.models import Chat, SuccessEnvelope

_SCHEMAS: Final = "#/components/schemas/"
_EXAMPLES: Final = "#/components/examples/"
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

Responses = dict[int | str, dict[str, Any]]

# -- what routes say --------------------------------------------------------------------------------------


def errors(*classes: type[ServiceError], shape: ErrorShape = ENVELOPE) -> Responses:
    """``responses=`` of a route that needs a caller: its own failures and those that every route has."""
    return only_errors(*classes, *EVERYWHERE, shape=shape)


def only_errors(*classes: type[ServiceError], shape: ErrorShape = ENVELOPE) -> Responses:
    """One response for each status, with an example for each error code."""
    responses: Responses = {}
    for cls in classes:
        response = responses.setdefault(
            shape.status(cls()),
            {"model": shape.model, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        examples = response["content"]["application/json"]["examples"]
        examples[cls.code] = {"$ref": f"{_EXAMPLES}{shape.name}.{cls.code}"}
        response["description"] = ", ".join(examples)
        if shape.retry_after(cls()) is not None:
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return responses


def event_stream() -> Responses:
    """``responses=`` of a route that answers with server-sent events."""
    return {200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": _EVENT}}}}


AT_THE_END: Final[Responses] = {
    204: {"description": "Nothing came behind the id of `done`: there is nothing more to read"}
}


def chat_answers() -> Responses:
    """``responses=`` of a route that starts a chat: whole, still at work, or a stream."""
    return {
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
        202: {"model": SuccessEnvelope[Chat], "description": "Still at work; see Location"},
    }


class JsonBody(dict[str, Any]):
    """``openapi_extra=`` of a route that reads its body with ``RequestContext.json``."""

    def __init__(self, model: type[BaseModel]) -> None:
        content = {"application/json": {"schema": {"$ref": _SCHEMAS + model.__name__}}}
        super().__init__(requestBody={"required": True, "content": content})
        self.model = model


# -- the document -----------------------------------------------------------------------------------------


def add_openapi(app: FastAPI, shapes: Sequence[ErrorShape] = ()) -> None:
    """``app.openapi()`` makes the document when it is first asked for. ``shapes``: beside our own."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            routes = _published(app.routes)
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=routes,
            )
            components = document["components"]
            components["schemas"] |= _bodies(app.routes)
            components["examples"] = _examples((ENVELOPE, *shapes))
            _drop_fastapis_422(document)
            _say_who_gets_in(document)
            _add_links(document["paths"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way


def _published(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """Without HEAD, which every GET has: it would say all a second time, under the same operation ids."""
    published = [copy.copy(route) for route in routes]
    for route in published:
        if isinstance(route, APIRoute):
            route.methods = set(route.methods or ()) - {"HEAD"}
    return published


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _bodies(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The models of bodies that we read ourselves, as FastAPI does not know them."""
    extras = [getattr(route, "openapi_extra", None) for route in routes]
    models: list[tuple[type[BaseModel], Any]] = [
        (extra.model, "validation") for extra in extras if isinstance(extra, JsonBody)
    ]
    _, schemas = models_json_schema(models, ref_template=_SCHEMAS + "{model}")
    defined: dict[str, Any] = schemas["$defs"]
    return defined


def _examples(shapes: Iterable[ErrorShape]) -> dict[str, Any]:
    """Put in here and referred to, as FastAPI takes nulls out of all that it is given."""
    request_id, moment = "req_b2t6k3xw5c7dq4n2z5ya", "2026-11-22T18:40:33.115908+00:00"
    return {
        f"{shape.name}.{code}": {"value": shape.body(error(), request_id, moment)}
        for shape in shapes
        for code, error in ERROR_CLASSES.items()
    }


def _drop_fastapis_422(document: dict[str, Any]) -> None:
    """It is never sent: a request that is not valid is a 400."""
    for operation in _operations(document):
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _say_who_gets_in(document: dict[str, Any]) -> None:
    """FastAPI can say that either of two schemes will do, not that both are needed; and each scheme would be
    a dependency more for each request."""
    host = {"type": "apiKey", "in": "header", "name": HOST_HEADER, "description": "Host of the calling app"}
    text = (
        "An API key of COZE_API_KEYS; for OpenAI's clients one of COZE_OPENAI_API_KEYS or an HTY token, too"
    )
    schemes = document["components"]["securitySchemes"]
    schemes |= {HOST_HEADER: host, "Bearer": {"type": "http", "scheme": "bearer", "description": text}}
    for operation in _operations(document):
        for requirement in operation.get("security", ()):
            if TOKEN_HEADER in requirement:
                requirement[HOST_HEADER] = []
        if "security" in operation:
            operation["security"].append({"Bearer": []})


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
