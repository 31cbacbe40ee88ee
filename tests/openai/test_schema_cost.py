"""Schemas of callers that would hold the process, and those that look alike and may be used."""

from __future__ import annotations

from typing import Any

import pytest

from app.doors.openai.schema_cost import MOST_NODES, refuse_if_costly, without_patterns


def doubling(levels: int) -> dict[str, Any]:
    twice = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**twice, f"a{levels}": {"type": "object"}}}


def chain(length: int) -> dict[str, Any]:
    steps = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{length}": {}}}


NODE = {"type": "object", "properties": {"next": {"$ref": "#"}}}
COSTLY: dict[str, Any] = {
    "each level twice": doubling(22),
    "each level twice, just too often": doubling(11),
    "a long chain": chain(3_000),
    "three ways back at one place": {"anyOf": [{"items": {"$ref": "#"}}] * 3},
    "two ways back, one in a reference": {"$ref": "#/$defs/n", "allOf": [NODE], "$defs": {"n": NODE}},
    "not and if": {"not": {"items": {"$ref": "#"}}, "if": {"items": {"$ref": "#"}}},
    "a schema beside another": {"dependentSchemas": {"a": NODE, "b": NODE}},
    "a dynamic reference": {"$dynamicRef": "#x"},
    "another document": {"$ref": "https://example.com/schema"},
    "an id within": {"$defs": {"a": {"$id": "urn:b", "$ref": "#/x", "x": {}}}},
    "an anchor": {"$ref": "#there"},
    "a reference that leads nowhere": {"$ref": "#/$defs/none"},
    "a reference into a list that is too short": {"$ref": "#/anyOf/7", "anyOf": [{}]},
    "many properties": {"properties": {f"p{n}": {"type": "string"} for n in range(MOST_NODES)}},
    "counted expressions": {"patternProperties": {"w{60}N": {}}},
    "many expressions": {"patternProperties": {f"^a{n}": {} for n in range(40)}},
    "long expressions": {"patternProperties": {"a" * 300: {}}},
}
USUAL: dict[str, Any] = {
    "a list": NODE,
    "a tree": {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
    "an optional child": {"properties": {"child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
    "one definition used often": {
        "properties": {f"p{n}": {"$ref": "#/$defs/d"} for n in range(300)},
        "$defs": {"d": {"type": "object", "properties": {"x": {}}}},
    },
    "a property that is called $ref": {"properties": {"$ref": {"type": "string"}}},
    "a name with a slash": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {}}},
    "true": True,
}


@pytest.mark.parametrize("schema", COSTLY.values(), ids=list(COSTLY))
def test_a_costly_schema_is_refused_before_it_is_used(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"refer|nowhere|parts|lead back|followed|expressions"):
        refuse_if_costly(schema)


@pytest.mark.parametrize("schema", USUAL.values(), ids=list(USUAL))
def test_a_usual_schema_may_be_used(schema: Any) -> None:
    refuse_if_costly(schema)


def test_expressions_are_left_out_and_a_property_of_that_name_is_not() -> None:
    schema = {"properties": {"pattern": {"type": "string", "pattern": "^a"}}, "allOf": [{"pattern": "x"}]}
    assert without_patterns(schema) == {"properties": {"pattern": {"type": "string"}}, "allOf": [{}]}
