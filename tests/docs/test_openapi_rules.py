"""The rules that docs/openapi.json keeps, so that generators make clients of it that work."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from fastapi import APIRouter, Header
from pydantic import BaseModel

from app.http.dependencies import ContextDep
from app.http.openapi import JsonBody, errors, event_stream
from app.main import create_app

JsonObject = dict[str, Any]
NULL = {"type": "null"}
BY_TEXT = re.compile(r"^(id|event|data|retry|):? ?.*$")


def nodes(value: Any, where: str = "") -> Iterator[tuple[str, JsonObject]]:
    """Every object of a part of the document, with its place."""
    if isinstance(value, dict):
        yield where, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if name not in ("example", "examples"):
            yield from nodes(item, f"{where}/{name}")


def operations(document: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def schemas(document: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Every schema: components, and those of parameters, bodies, responses and headers."""
    yield from nodes(document["components"]["schemas"], "schemas")
    for place, node in nodes([document["paths"], document["components"]["headers"]]):
        if isinstance(schema := node.get("schema"), dict):
            yield from nodes(schema, place)


def properties(document: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    for place, schema in schemas(document):
        for name, inner in schema.get("properties", {}).items():
            yield f"{place}/{name}", inner


def types_of(schema: JsonObject) -> set[str]:
    """What it may be; a reference is a type of its own."""
    if "$ref" in schema:
        return {schema["$ref"]}
    if "anyOf" in schema:
        return {kind for choice in schema["anyOf"] for kind in types_of(choice)}
    kinds = schema.get("type", [])
    return {kinds} if isinstance(kinds, str) else set(kinds)


# -- the rules, each: what breaks it ----------------------------------------------------------------------


def operation_ids(document: JsonObject) -> Iterator[str]:
    ids = Counter(operation["operationId"] for _, operation in operations(document))
    yield from (f"{name} is there {count} times" for name, count in ids.items() if count > 1)
    yield from (f"{name} is not readable" for name in ids if not re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name))


def words(document: JsonObject) -> Iterator[str]:
    """Whatever a reader or a generated client shows has a description."""
    components = document["components"]
    described: list[tuple[str, JsonObject]] = [
        *properties(document),
        *components["schemas"].items(),
        *components["headers"].items(),
        *components["securitySchemes"].items(),
        *((tag["name"], tag) for tag in document["tags"]),
        *((server["url"], server) for server in document["servers"]),
    ]
    for place, operation in operations(document):
        described.append((place, operation))
        described += [(f"{place}: {each['name']}", each) for each in operation.get("parameters", ())]
        described += [(f"{place}: {status}", each) for status, each in operation["responses"].items()]
        described += [(f"{place}: body", operation["requestBody"])] if "requestBody" in operation else []
        if not operation.get("summary"):
            yield f"{place} has no summary"
    for place, node in described:
        target = components["schemas"].get(node.get("$ref", "").rsplit("/", 1)[-1], {})
        text = node.get("description") or target.get("description", "")
        text = re.sub(r"By default `.*`\.$", "", text).strip()
        if not text or text in ("Successful Response", "Validation Error"):
            yield f"{place} is not described"


def nulls(document: JsonObject) -> Iterator[str]:
    """Null stands beside what it stands for, and a parameter is never null."""
    for place, schema in schemas(document):
        if types_of(schema) == {"null"} and not re.search(r"/anyOf/\d+$", place):
            yield f"{place} can be nothing but null"
    for place, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if "null" in types_of(parameter["schema"]):
                yield f"{place}: the parameter {parameter['name']} may be null"


def surprises(document: JsonObject) -> Iterator[str]:
    """What one or another generator takes for something else."""
    for place, schema in schemas(document):
        if isinstance(schema.get("const"), bool) or any(isinstance(e, bool) for e in schema.get("enum", ())):
            yield f"{place} is one boolean"
        if isinstance(schema.get("title"), str):  # one of its properties may be called so
            yield f"{place} has a title"
        for name in ("additionalProperties", "items"):
            if isinstance(inner := schema.get(name), dict) and len(types_of(inner) - {"null"}) > 1:
                yield f"{place}: {name} are of several types"
    for place, inner in properties(document):
        if "default" in inner:
            yield f"{place} has a default: clients would have to send it"
    for name in document["components"]["schemas"]:
        if not re.fullmatch(r"[A-Za-z0-9]+", name):
            yield f"{name} is no name of a type"


def ways_in(document: JsonObject) -> Iterator[str]:
    schemes = document["components"]["securitySchemes"]
    for place, operation in operations(document):
        if "security" not in operation:
            yield f"{place} does not say who gets in"
        used = {name for way in operation.get("security", ()) for name in way}
        yield from (f"{place}: {name} is no scheme" for name in used - schemes.keys())
        if bool(used) != ("401" in operation["responses"]):
            yield f"{place} needs a caller and has no 401, or the other way round"


def streams(document: JsonObject) -> Iterator[str]:
    for place, operation in operations(document):
        for response in operation["responses"].values():
            for kind, content in response.get("content", {}).items():
                if kind != "text/event-stream":
                    continue
                if content["schema"]["type"] != "string":
                    yield f"{place}: a stream is a text"
                lines = content.get("example", "").split("\n")
                if not any(line.startswith("data:") for line in lines) or lines[-2:] != ["", ""]:
                    yield f"{place}: the stream's example is none"
                yield from (f"{place}: {line!r} is no event" for line in lines if not BY_TEXT.match(line))


def failures(document: JsonObject) -> Iterator[str]:
    for place, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            content = response["content"]["application/json"]
            for example in content["examples"].values():
                name = example["$ref"].rsplit("/", 1)[1]
                value = document["components"]["examples"][name]["value"]
                yield from (
                    f"{place}: {status}: {fault}" for fault in faults(content["schema"], value, document)
                )


def examples(document: JsonObject) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            yield from (f"{name}: {fault}" for fault in faults(schema, example, document))


def faults(schema: JsonObject, value: Any, document: JsonObject) -> Iterator[str]:
    whole = {**schema, "components": document["components"]}
    yield from (error.message for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value))


RULES = [operation_ids, words, nulls, surprises, ways_in, streams, failures, examples]


@pytest.fixture(scope="module")
def document() -> JsonObject:
    return create_app().openapi()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_document_keeps_the_rule(rule: Any, document: JsonObject) -> None:
    assert list(rule(document)) == []


def test_there_are_servers_and_the_routes_have_readable_names(document: JsonObject) -> None:
    assert [server["url"] for server in document["servers"]] == ["/", "http://127.0.0.1:6000"]
    ids = {operation["operationId"] for _, operation in operations(document)}
    assert {"createSession", "sendMessage", "getResult", "getEvents", "openaiListModels"} <= ids


# -- by construction --------------------------------------------------------------------------------------


class Inner(BaseModel):
    """Something in an answer."""

    nothing: None = None
    yes: Literal[True] = True
    perhaps: str | None = None


class Carefree(BaseModel):
    """A body and an answer."""

    model_config = {"use_attribute_docstrings": True}

    kind: Literal["a", "b"] = "a"
    """Which one."""
    anything: Inner | None = None
    """Whatever it is."""


router = APIRouter(tags=["carefree"])


@router.post(
    "/carefree/{session_id}",
    summary="A route",
    response_model=Carefree,
    responses=event_stream("Events", "data: {}\n\n") | errors(),
)
async def carefree_route(
    session_id: str, context: ContextDep, header: Annotated[str | None, Header(description="One")] = None
) -> Carefree:
    raise NotImplementedError


@router.put("/carefree", summary="A body", response_model=Carefree, openapi_extra=JsonBody(Inner))
async def carefree_body() -> Carefree:
    raise NotImplementedError


def test_a_route_whose_author_thinks_of_none_of_this_keeps_the_rules_by_construction() -> None:
    app = create_app()
    app.router.routes.extend(router.routes)
    made = app.openapi()
    lacking = {f"schemas/Inner/{name} is not described" for name in ("nothing", "yes", "perhaps")}
    assert {fault for rule in RULES for fault in rule(made)} == lacking, "words alone are the author's"
    [parameter] = [
        p for p in made["paths"]["/carefree/{session_id}"]["post"]["parameters"] if p["in"] == "header"
    ]
    assert parameter["schema"] == {"type": "string"}
    inner = made["components"]["schemas"]["Inner"]["properties"]
    assert inner["nothing"]["type"] == ["object", "null"]
    assert inner["yes"] == {"type": "boolean", "description": "By default `true`."}


def test_what_is_by_default_is_told_to_those_who_may_leave_it_out(document: JsonObject) -> None:
    message = document["components"]["schemas"]["SendMessage"]
    assert message["required"] == ["message"]
    assert message["properties"]["on_busy"]["description"].endswith('By default `"reject"`.')
    assert "By default" not in json.dumps(document["components"]["schemas"]["Chat"])


def test_the_values_of_a_choice_differ_in_more_than_case() -> None:
    """Generators make names in capitals of them."""
    for place, schema in schemas(create_app().openapi()):
        values = [str(value).upper() for value in schema.get("enum", ())]
        assert len(values) == len(set(values)), place
