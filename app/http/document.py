"""The published OpenAPI as a whole: FastAPI's, and what FastAPI cannot say or says so that generators fail.

What holds for all routes is done here, once, so that a route only says what is its own. Which generators
the document is made for, and what each of them stumbles at, is in tests/docs.
"""

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from app.error_handlers import ENVELOPE, ErrorShape
from app.exceptions import ERROR_CLASSES
from app.http.openapi import EXAMPLES, SCHEMAS, JsonBody
from app.http.schemas import put_right

_SERVERS: Final = [
    {"url": "/", "description": "Where this document comes from"},
    {"url": "http://127.0.0.1:6000", "description": "A service started by ./run-service.sh test"},
]
_REQUEST_ID: Final = "X-Request-Id"
_HEADERS: Final[dict[str, Any]] = {
    _REQUEST_ID: {
        "schema": {"type": "string"},
        "description": "The request's id: the caller's, where it sent one, else ours",
    }
}
_PARAMETERS: Final = {
    "session_id": "Id of a session",
    "chat_id": "Id of a chat",
    "file_id": "Id of an uploaded file",
    "user_id": "The user, as the caller names him; a slash is sent as %2F",
    "model": "A name in COZE_BOTS",
}
"""Of parameters that say nothing themselves: an id means the same wherever it stands in a path."""

_MAKES: Final = {
    ("/coze/files", "post"): "file_id",
    ("/coze/sessions", "post"): "session_id",
    ("/coze/sessions/{session_id}/messages", "post"): "chat_id",
}
"""Which operation's answer holds which id: the document links it to every operation that takes the id."""

_NO_WORDS: Final = "Successful Response"
"""FastAPI's description of an answer that has none."""

_TOKEN: Final = "HtySudoerToken"  # noqa: S105  # the header's name
_HOST: Final = "HtyHost"
_BEARER: Final = "Bearer"
_SCHEMES: Final[dict[str, dict[str, str]]] = {
    _TOKEN: {
        "type": "apiKey",
        "in": "header",
        "name": _TOKEN,
        "description": "The caller's JWT; HtyHost goes with it",
    },
    _HOST: {
        "type": "apiKey",
        "in": "header",
        "name": _HOST,
        "description": "Host name of the calling app",
    },
    _BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: of COZE_API_KEYS, or on routes for OpenAI's clients of "
        "COZE_OPENAI_API_KEYS. With HtyHost beside it, where a route says so: the caller's JWT",
    },
}
"""Security schemes; ENABLE_AUTH=false needs none of them."""


def add_openapi(app: FastAPI, shapes: Sequence[ErrorShape] = ()) -> None:
    """``app.openapi()`` makes the document when it is first asked for. ``shapes``: beside our own."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, shapes)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI, shapes: Sequence[ErrorShape]) -> dict[str, Any]:
    routes = list(_published(app.routes, shapes))
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=routes,
        tags=_tags(routes),
        servers=_SERVERS,
    )
    _drop_fastapis_422(document)
    components = document["components"]
    _add_bodies(components["schemas"], routes)
    put_right(document)
    components["headers"] = _HEADERS
    components["securitySchemes"] = _SCHEMES
    for operation in _operations(document):
        operation.setdefault("description", f"{operation['summary']}.")
        _say_who_gets_in(operation)
        _describe(operation, components["schemas"])
    _add_links(document["paths"])
    components["examples"] = _examples((ENVELOPE, *shapes), str(document["paths"]))
    return document


# -- routes ----------------------------------------------------------------------------------------------


def _published(routes: Iterable[BaseRoute], shapes: Sequence[ErrorShape]) -> Iterator[BaseRoute]:
    """Without HEAD, which every GET has: it would say all a second time, under the same operation ids."""
    for route in map(copy.copy, routes):
        if isinstance(route, APIRoute):
            route.methods = set(route.methods or ()) - {"HEAD"}
            route.operation_id = route.operation_id or _operation_id(route, shapes)
        yield route


def _operation_id(route: APIRoute, shapes: Sequence[ErrorShape]) -> str:
    """The function's name, ``create_session`` as ``createSession``. Doors speak of the same things as we do,
    so theirs have the door's name in front: ``openaiListModels``."""
    door = next((f"{shape.name}_" for shape in shapes if shape.is_for(route.path)), "")
    first, *others = f"{door}{route.name}".split("_")
    return first + "".join(word.title() for word in others)


def _tags(routes: Iterable[BaseRoute]) -> list[dict[str, str]]:
    """Each tag in the words of the module that has it first."""
    found: dict[str, str] = {}
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            words = inspect.cleandoc(inspect.getmodule(route.endpoint).__doc__ or "")
            for tag in route.tags:
                found.setdefault(str(tag), words.partition("\n\n")[0])
    return [{"name": name, "description": words} for name, words in found.items()]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _drop_fastapis_422(document: dict[str, Any]) -> None:
    """It is never sent: a request that is not valid is a 400."""
    for operation in _operations(document):
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _add_bodies(schemas: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """The models of bodies that we read ourselves, as FastAPI does not know them."""
    extras = [getattr(route, "openapi_extra", None) for route in routes]
    models: list[tuple[type[BaseModel], Any]] = [
        (extra.model, "validation") for extra in extras if isinstance(extra, JsonBody)
    ]
    _, defined = models_json_schema(models, ref_template=SCHEMAS + "{model}")
    for name, schema in defined["$defs"].items():
        for inner in schema.get("properties", {}).values():
            if inner.get("default", "") is None:
                del inner["default"]  # FastAPI has taken them out of its own
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"{name} is not the same in requests and in answers: make it two models")


# -- what each operation says ---------------------------------------------------------------------------


def _say_who_gets_in(operation: dict[str, Any]) -> None:
    """A caller's scheme, as FastAPI writes it, only names the door. Whoever has an API key is no admin."""
    doors = [door for requirement in operation.get("security", ()) for door in requirement]
    by_keys_too = "403" not in operation["responses"]
    operation["security"] = [way for door in doors for way in _ways_in(door, by_keys_too=by_keys_too)]


def _ways_in(door: str, *, by_keys_too: bool) -> list[dict[str, list[str]]]:
    """What opens a door: all headers of one of these. ``by_keys_too``: not for routes of administrators,
    which a caller with an API key never is."""
    ways: list[dict[str, list[str]]] = [{_TOKEN: [], _HOST: []}]
    if by_keys_too:
        ways.append({_BEARER: []})
    if door == "openai":
        ways.append({_BEARER: [], _HOST: []})
    return ways


def _describe(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        if not parameter.get("description") and parameter["name"] in _PARAMETERS:
            parameter["description"] = _PARAMETERS[parameter["name"]]
    body = operation.get("requestBody", {})
    for content in body.get("content", {}).values():
        body.setdefault("description", _words_of(content["schema"], schemas) or operation["summary"])
    for response in operation["responses"].values():
        if response["description"] == _NO_WORDS:
            schema = response.get("content", {}).get("application/json", {}).get("schema", {})
            response["description"] = _words_of(schema, schemas) or operation["summary"]
        response.setdefault("headers", {})[_REQUEST_ID] = {"$ref": f"#/components/headers/{_REQUEST_ID}"}


def _words_of(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What the innermost thing in an envelope is."""
    words = schema.get("description", "")
    while "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix(SCHEMAS)]
        words = schema.get("description", "")
        inner = schema.get("properties", {})
        schema = inner.get("task_result") or inner.get("data") or {}
    return str(words)


def _examples(shapes: Iterable[ErrorShape], used: str) -> dict[str, Any]:
    """Those that ``used`` refers to. Put in here, as FastAPI takes nulls out of all that it is given."""
    request_id, moment = "req_b2t6k3xw5c7dq4n2z5ya", "2026-11-22T18:40:33.115908+00:00"
    return {
        f"{shape.name}.{code}": {"value": shape.body(error(), request_id, moment)}
        for shape in shapes
        for code, error in ERROR_CLASSES.items()
        if f"'{EXAMPLES}{shape.name}.{code}'" in used
    }


def _add_links(paths: dict[str, Any]) -> None:
    for (producer, method), name in _MAKES.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {name: f"$response.body#/data/task_result/data/{name}"},
                "description": f"Takes the `{name}` of this answer",
            }
            for path, operations in paths.items()
            if f"{{{name}}}" in path
            for operation in operations.values()
        }
        for status, response in paths[producer][method]["responses"].items():
            if status in ("200", "202"):
                response["links"] = links
