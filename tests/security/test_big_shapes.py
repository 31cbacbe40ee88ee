"""Whatever has a bound is sent ten times as large: each place of each published body, query and header."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.http.connections import MOST_HEAD_BYTES, MOST_HEADERS
from app.http.dependencies import MOST_VALUES
from app.main import create_app
from coze_simulator.auth_server import RunningAuth
from tests.support import RunningApp

from .helpers import ALICE, calling

TIMES = 10
DOCUMENT = create_app().openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
_REFUSED = {400, 404, 409, 413, 414, 415, 431}
"""404, 409, 415: what the body is about was looked for first, or its type."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``body``: JSON, whose one place ``where`` is larger than may be."""

    method: str
    path: str
    where: str
    body: Any = None
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.where}"


def resolved(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema itself, or what it is one of, without null."""
    if "$ref" in schema:
        yield from resolved(SCHEMAS[schema["$ref"].rsplit("/", 1)[1]])
    elif "anyOf" in schema or "oneOf" in schema or "allOf" in schema:
        for key in ("anyOf", "oneOf", "allOf"):
            for each in schema.get(key, ()):
                yield from resolved(each)
    elif schema.get("type") != "null":
        yield schema


def small(schema: dict[str, Any], depth: int = 0) -> Any:
    """Something that fits, as small as can be."""
    kind = next(resolved(schema), {})
    if "const" in kind or "enum" in kind:
        return kind.get("const", kind.get("enum", [None])[0])
    match kind.get("type"):
        case "string":
            return "1" * max(1, kind.get("minLength", 1))
        case "integer" | "number":
            return kind.get("minimum", 1)
        case "boolean":
            return False
        case "array":
            return [small(kind.get("items", {}), depth + 1)] if depth < 8 else []
        case "object":
            named = kind.get("properties", {})
            return {name: small(named[name], depth + 1) for name in kind.get("required", ())}
    return "x"


def larger(schema: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Where something has a bound, and the whole with that ten times as large."""
    for kind in resolved(schema):
        if most := kind.get("maxLength"):
            yield f"of {most} characters", "1" * (TIMES * most)
        if most := kind.get("maxItems"):
            yield f"of {most} items", [small(kind.get("items", {}))] * (TIMES * most)
        if most := kind.get("maxProperties"):
            value = small(kind.get("additionalProperties") or {})
            yield f"of {most} names", {f"n{number}": value for number in range(TIMES * most)}
        if depth > 5:
            continue
        if isinstance(kind.get("items"), dict):
            for where, value in larger(kind["items"], depth + 1):
                yield f"[]{where}", [value]
        if isinstance(kind.get("additionalProperties"), dict):
            for where, value in larger(kind["additionalProperties"], depth + 1):
                yield f"{{}}{where}", {"a": value}
        for name, inner in kind.get("properties", {}).items():
            for where, value in larger(inner, depth + 1):
                yield f".{name}{where}", {**small(kind), name: value}


def shapes() -> list[Shape]:
    found = []
    for path, methods in DOCUMENT["paths"].items():
        for method, described in methods.items():
            content = described.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            for where, body in larger(schema) if schema else ():
                found.append(Shape(method.upper(), path, where, body))
            for parameter in described.get("parameters", ()):
                for where, value in larger(parameter["schema"]):
                    if parameter["in"] == "query" and isinstance(value, str):
                        query = ((parameter["name"], value),)
                        found.append(Shape(method.upper(), path, f"?{parameter['name']}{where}", query=query))
    return found


SHAPES = shapes()


def test_there_are_shapes_of_all_kinds() -> None:
    kinds = {shape.where.rsplit(" ", 1)[1] for shape in SHAPES}
    assert kinds == {"characters", "items", "names"}
    assert len(SHAPES) > 50


async def test_what_is_ten_times_as_large_as_may_be_is_refused(
    secured: RunningApp, auth: RunningAuth
) -> None:
    odd = []
    async with calling(secured, auth, ALICE) as [alice]:
        session_id = await alice.open_session()
        for shape in SHAPES:
            path = shape.path.replace("{session_id}", session_id).replace("{", "").replace("}", "")
            answer = await alice.http.request(
                shape.method, path, json=shape.body, params=dict(shape.query) or None
            )
            refused = answer.status_code in _REFUSED
            if shape.path.startswith("/coze/api/"):  # Coze's own API refuses by a code
                refused = refused or answer.json()["code"] != 0
            if not refused or len(answer.content) > 20_000:
                odd.append((str(shape), answer.status_code, len(answer.content)))
    assert odd == []


def _nested(depth: int) -> bytes:
    return b'{"message":"x","parameters":{"a":' + b"[" * depth + b"]" * depth + b"}}"


WHOLE: dict[str, tuple[dict[str, Any], set[int]]] = {
    "body": ({"content": b'{"user_id":"' + b"a" * (TIMES * 1024 * 1024) + b'"}'}, {413}),
    "values": ({"content": json.dumps({"user_id": "u", "x": [0] * (TIMES * MOST_VALUES)})}, {400}),
    "depth": ({"content": _nested(TIMES * 64)}, {400}),
    "names": ({"content": json.dumps({f"n{n}": 1 for n in range(TIMES * 1000)})}, {400}),
    "header": ({"headers": {"X-Long": "a" * (TIMES * MOST_HEAD_BYTES)}}, {431}),
    "headers": ({"headers": {f"X-{n}": "a" for n in range(TIMES * MOST_HEADERS)}}, {431}),
    "key": ({"headers": {"Idempotency-Key": "a" * 2550}, "json": {"user_id": "u"}}, {400}),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_request_that_is_ten_times_as_large_as_may_be_is_refused(
    secured: RunningApp, auth: RunningAuth, name: str
) -> None:
    options, statuses = WHOLE[name]
    async with calling(secured, auth, ALICE) as [alice]:
        options = dict(options)
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        try:
            answer = await alice.http.request("POST", "/coze/sessions", headers=headers, **options)
        except (httpx.WriteError, httpx.ReadError):  # closed while it was still being sent
            assert name in ("header", "headers", "body")
        else:
            assert answer.status_code in statuses, answer.text[:300]
            assert len(answer.content) < 20_000
        assert (await alice.get("/coze/users/u/sessions")).status_code == 200
