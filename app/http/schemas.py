"""JSON Schemas of pydantic and FastAPI, put into the form that generators of clients understand.

What they stumble at, each with what is done about it for the whole document:

- a type that is null and nothing else: generators have no type for it;
- ``const`` or ``enum`` with a boolean: taken for a text, to which no answer is equal;
- ``default`` of a property: a field that may be left out is then one that has to be there;
- a parameter that may be null: a header or a query cannot be;
- titles, which only repeat names: they become names of types;
- components without a content, and names such as ``SuccessEnvelope_Chat_``;
- examples that lack a field: FastAPI takes the nulls out of them.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from app.http.openapi import EVENTS, SCHEMAS

_NULL: Final = {"type": "null"}


def put_right(document: dict[str, Any]) -> None:
    """Changes the document in place."""
    _name_after_classes(document)
    schemas = document["components"]["schemas"]
    in_requests = _reached_by_requests(document)
    for name, schema in schemas.items():
        _put_right(schema, tells_defaults=name in in_requests)
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for parameter in operation.get("parameters", ()):
            _put_parameter_right(parameter)
        for response in operation["responses"].values():
            _put_stream_right(response.get("content", {}))


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in the document, from the outside in."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)


def _name_after_classes(document: dict[str, Any]) -> None:
    """pydantic writes the name of a generic class with its brackets; its title is the class' own name.

    A component that says nothing is anything: it is written where it is referred to.
    """
    schemas = document["components"]["schemas"]
    names = {SCHEMAS + name: SCHEMAS + schema.get("title", name) for name, schema in schemas.items()}
    anything = {SCHEMAS + name for name, schema in schemas.items() if not schema}
    for node in _nodes(document):
        if isinstance(reference := node.get("$ref"), str) and reference in names:
            if reference in anything:
                del node["$ref"]
            else:
                node["$ref"] = names[reference]
    document["components"]["schemas"] = {
        names[SCHEMAS + name].removeprefix(SCHEMAS): schema for name, schema in schemas.items() if schema
    }


def _reached_by_requests(document: dict[str, Any]) -> set[str]:
    """The names of the schemas that bodies of requests are made of."""
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    todo: list[Any] = [
        operation["requestBody"]
        for path in document["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    while todo:
        for node in _nodes(todo.pop()):
            name = str(node.get("$ref", "")).removeprefix(SCHEMAS)
            if name in schemas and name not in found:
                found.add(name)
                todo.append(schemas[name])
    return found


def _put_right(schema: dict[str, Any], *, tells_defaults: bool) -> None:
    """``tells_defaults``: what it is by default is of interest to whoever may leave it out."""
    schema.pop("title", None)
    for example in schema.get("examples", ()):
        example.update({name: None for name in schema.get("required", ()) if name not in example})
    for properties in [node["properties"] for node in _nodes(schema) if "properties" in node]:
        for inner in properties.values():
            inner.pop("title", None)
            default = inner.pop("default", None)
            if tells_defaults and default is not None:
                told = f"By default `{json.dumps(default, ensure_ascii=False)}`."
                inner["description"] = f"{inner.get('description', '')} {told}".strip()
            if inner.get("type") == "null":
                inner["type"] = ["object", "null"]
            if isinstance(inner.get("const"), bool):
                del inner["const"]


def _put_parameter_right(parameter: dict[str, Any]) -> None:
    schema = parameter["schema"]
    schema.pop("title", None)
    schema.pop("description", None)  # the parameter's own
    choices = [choice for choice in schema.pop("anyOf", ()) if choice != _NULL]
    if len(choices) == 1:
        schema.update(choices[0])
    elif choices:
        schema["anyOf"] = choices


def _put_stream_right(content: dict[str, Any]) -> None:
    """A stream is a text to who reads it with a generated client, whatever its events are."""
    if stream := content.get(EVENTS):
        described = stream.get("schema", {}).get("description", "Server-sent events")
        stream["schema"] = {"type": "string", "description": described}
