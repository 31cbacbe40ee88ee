"""Schemas of callers that would hold the process, and those that look alike and may be used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.doors.openai.schema_cost import MOST_NODES, cost_of, without_unchecked


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
    "elements and one of them": {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
    "elements, here and beside": {"items": {"$ref": "#"}, "allOf": [{"items": {"$ref": "#"}}]},
    "a member by two expressions": {"patternProperties": {"a": {"$ref": "#"}, "^a": {"$ref": "#"}}},
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
    "members that are known, and others": {
        "properties": {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
        "additionalProperties": {"$ref": "#"},
    },
    "a property that is called $ref": {"properties": {"$ref": {"type": "string"}}},
    "a name with a slash": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {}}},
    "true": True,
}


@pytest.mark.parametrize("schema", COSTLY.values(), ids=list(COSTLY))
def test_a_costly_schema_is_refused_before_it_is_used(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"refer|nowhere|parts|lead back|followed|expressions"):
        cost_of(schema)


@pytest.mark.parametrize("schema", USUAL.values(), ids=list(USUAL))
def test_a_usual_schema_may_be_used(schema: Any) -> None:
    cost_of(schema)


def test_what_is_not_checked_is_left_out_and_properties_and_values_of_that_name_are_not() -> None:
    named = {"pattern": {"type": "string"}, "unevaluatedItems": True}
    schema = {
        "properties": {**named, "a": {"pattern": "^a", "unevaluatedProperties": False}},
        "allOf": [{"pattern": "x"}, {"const": named}],
        "enum": [named],
    }
    assert without_unchecked(schema) == {
        "properties": {**named, "a": {}},
        "allOf": [{}, {"const": named}],
        "enum": [named],
    }


def list_of(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


EMPTY = "[" + "{}," * 99 + "{}]"
MANY_STEPS: dict[str, tuple[Any, str]] = {
    "many alternatives": (list_of({"oneOf": [{"required": [f"x{n}"]} for n in range(1_900)]}), EMPTY),
    "alternatives that are nothing": (list_of({"anyOf": [False] * 9_000}), EMPTY),
    "many constants": (list_of({"anyOf": [{"const": n} for n in range(1_900)]}), EMPTY),
    "many values that are lists": (list_of({"enum": [[n] for n in range(8_000)]}), EMPTY),
    "one long constant": (list_of({"const": list(range(8_000))}), EMPTY),
    "one long text": ({"oneOf": [{"const": n} for n in range(1_900)]}, f'"{"a" * 20_000}"'),
    "many names": (list_of({"required": [f"x{n}" for n in range(8_000)]}), f"[{EMPTY},{EMPTY}]"),
    "expressions of names": (list_of({"patternProperties": {f"(a)*{n}": {} for n in range(8)}}), EMPTY),
    "fractions": (list_of({"allOf": [{"multipleOf": 0.1}] * 30}), EMPTY),
    "equal elements": ({"allOf": [{"uniqueItems": True}] * 1_900}, EMPTY),
    "beside a way back": (
        {"additionalProperties": {"$ref": "#"}, "oneOf": [{"minLength": n} for n in range(1_900)]},
        EMPTY,
    ),
}


@pytest.mark.parametrize(("schema", "answer"), MANY_STEPS.values(), ids=list(MANY_STEPS))
def test_what_each_value_would_be_compared_with_is_counted_with_the_values(schema: Any, answer: str) -> None:
    cost = cost_of(schema)
    assert cost.check_steps("{}") is not None
    assert cost.check_steps(answer) is None


def test_usual_answers_are_short_enough_for_usual_schemas() -> None:
    names = [f"p{n}" for n in range(300)]
    row: dict[str, Any] = {"title": "T", "anyOf": [{"type": "string", "enum": names}, {"type": "null"}]}
    flat = {
        "type": "object",
        "properties": dict.fromkeys(names, row),
        "required": names,
        "additionalProperties": False,
    }
    table = list_of({**flat, "properties": dict.fromkeys(names[:20], row), "required": names[:20]})
    one = dict.fromkeys(names, "some words, and more")
    rows = [dict.fromkeys(names[:20], "some words")] * 100
    for schema, value in ((flat, one), (table, rows), ({"type": "object"}, {"rows": rows * 10})):
        assert cost_of(schema).check_steps(json.dumps(value)) is not None
    assert cost_of(table).reason_steps(rows[:5], json.dumps(rows[:5])) is not None


def test_an_answer_that_is_deep_is_not_looked_at_once_for_each_level_to_tell_what_is_wrong() -> None:
    cost = cost_of({"anyOf": [list_of({"$ref": "#"}), {"type": "null"}]})
    deep = "[" * 200 + "]" * 200
    assert cost.check_steps(deep) is not None
    assert cost.reason_steps(json.loads(deep), deep) is None
