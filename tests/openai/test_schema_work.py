"""Schemas that would take long to be made into checks, all of a request together, and those of clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from app.doors.openai import schema_work
from app.doors.openai.forms import Form, Shaped, form_of
from app.doors.openai.schema_work import Work
from app.exceptions import ValidationFailed
from tests.support import SimControl

from .support import MODEL, form_made, said
from .test_what_clients_send import body_of

MOST_SECONDS = 0.2
"""The bound is some 20 ms on a quiet machine; without one each of these takes half a second or more."""


def tools(*schemas: Any) -> dict[str, Any]:
    functions = [{"name": f"f{n}", "parameters": schema} for n, schema in enumerate(schemas)]
    listed = [{"type": "function", "function": function} for function in functions]
    return {"tools": listed, "tool_choice": "required"}


def expressions(*given: str) -> dict[str, Any]:
    return {"patternProperties": dict.fromkeys(given, True)}


def nested(levels: int, number: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"title": str(number)}
    for _ in range(levels):
        inner = {"items": inner}
    return inner


COSTLY: dict[str, list[Any]] = {
    "a short expression in each of many": [expressions(r"\S" * 40 + str(n)) for n in range(130)],
    "classes that are negated": [expressions(r"\PL" * 65 + str(n)) for n in range(30)],
    "classes in any case": [expressions("(?i)" + "[!-\U0010fffe]" * 30 + str(n)) for n in range(5)],
    "classes in classes in any case": [expressions("(?si)" + r"[\S|]" * 30 + str(n)) for n in range(5)],
    "many that are nested": [nested(190, n) for n in range(45)],
    "many references": [
        {
            "title": str(n),
            "properties": {f"p{i}": {"$ref": "#/$defs/d"} for i in range(45)},
            "$defs": {"d": {"properties": {f"q{i}": {} for i in range(30)}}},
        }
        for n in range(40)
    ],
}


@pytest.mark.parametrize("schemas", COSTLY.values(), ids=list(COSTLY))
def test_the_schemas_of_all_functions_of_a_request_are_refused_before_they_take_long(
    schemas: list[Any],
) -> None:
    body = body_of([said("x")], **tools(*json.loads(json.dumps(schemas))))
    began = time.thread_time()
    with pytest.raises(ValidationFailed) as refused:
        form_made(body)
    assert time.thread_time() - began < MOST_SECONDS
    fault: dict[str, Any] = refused.value.details["fields"][0]
    assert fault["field"] == "tools"
    assert "together have too many parts, or expressions" in fault["message"]


def test_one_expression_that_takes_long_to_be_compiled_is_refused() -> None:
    for expression in (r"\S" * 98, r"\PL" * 65, r"\S*" * 66, "(?i)" + "[a-\U0010fffe]" * 35):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": expressions(expression)}}
        with pytest.raises(ValidationFailed):
            form_made(body_of([said("x")], response_format=form))


FIELDS = {"type": "string", "description": "what it is", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
USUAL: dict[str, list[Any]] = {
    "a hundred with ten fields": [
        {"properties": {f"a{n}_{i}": FIELDS for i in range(10)}} for n in range(99)
    ],
    "many with nothing": [{"title": str(n)} for n in range(500)],
    "forty with an expression": [expressions(f"^[a-z_]+{n}$", r"^\d+$") for n in range(40)],
    "forty with any text": [expressions(rf"^x{n}_\S+$") for n in range(40)],
    "names by date": [expressions(r"^\d\d\d\d-\d\d-\d\d$", "^x-", "^.*$")],
    "mail": [expressions(r"^[\w.+-]+@[\w-]+\.[\w.-]+$")],
    "uuid": [expressions("^" + "-".join("[0-9a-fA-F]" * n for n in (2, 2, 2, 2, 4)) + "$")],
    "in any case": [expressions("(?i)^[a-z]+$")],
    "many fields": [{"properties": {f"a{n}": {"type": "string"} for n in range(1_900)}}],
}


@pytest.mark.parametrize("schemas", USUAL.values(), ids=list(USUAL))
def test_the_schemas_of_real_clients_may_be_used(schemas: list[Any]) -> None:
    assert form_made(body_of([said("x")], **tools(*json.loads(json.dumps(schemas))))) is not None


def test_equal_schemas_of_a_request_are_made_into_one_check() -> None:
    schema = expressions(r"^[\w.+-]+@[\w-]+\.[\w.-]+$")
    form = form_made(body_of([said("x")], **tools(*[schema] * 100)))
    assert form is not None
    assert len({id(check.made()) for check in form.checks.values()}) == 1


def test_no_check_is_made_again_that_an_answer_does_not_need() -> None:
    body = body_of([said("x")], **tools(*[expressions(f"^a{n}$") for n in range(30)]))
    work = Work()
    form = form_of(body, work)
    assert form is not None
    assert form.read("no call") == Shaped(refusal=None, content="no call")
    assert len(work.made) == 0
    called = form.read('{"name": "f7", "arguments": {"a": 1}}').call
    assert called == {"name": "f7", "arguments": '{"a":1}'}
    assert len(work.made) == 1


def test_answers_that_are_checked_for_one_request_share_what_it_may_take() -> None:
    schema = {"type": "array", "items": {"oneOf": [{"required": [f"x{n}"]} for n in range(900)]}}
    asked_for = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    body, work = body_of([said("x")], response_format=asked_for), Work()

    def form() -> Form:
        found = form_of(body, work)
        assert found is not None
        return found

    answer = json.dumps([{"x1": 1}] * 20)
    told = [form().read(answer) for _ in range(30)]
    assert told[0] == Shaped(content=answer)
    assert "too long to be checked" in (told[-1].refusal or "")
    assert work.is_over


def response_in_form(ai: OpenAI, number: int) -> Any:
    schema = {"type": "object", **expressions(rf"^[\w.+-]+@x{number}$")}
    form: Any = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    return ai.responses.create(model=MODEL, input="otter", text={"format": form})


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda work: monkeypatch.setattr(schema_work, "MOST_WORK", work)


def test_responses_that_are_referred_to_share_what_a_request_may_take(
    ai: OpenAI, simulator: SimControl, narrow: Callable[[int], None]
) -> None:
    simulator.knob(match="otter", text="{}")
    made = [response_in_form(ai, number) for number in range(3)]
    items: Any = [{"type": "item_reference", "id": each.output[-1].id} for each in made]
    question: Any = {"role": "user", "content": "x"}
    narrow(500)
    assert ai.responses.retrieve(made[0].id).output_text == "{}"
    assert ai.responses.create(model=MODEL, input=[*items[:1] * 5, question]).output_text
    with pytest.raises(openai.BadRequestError, match="take too long to check") as refused:
        ai.responses.create(model=MODEL, input=[*items, question])
    assert str(refused.value.param).startswith("input.")


def test_what_an_earlier_version_took_is_told_and_not_checked(
    ai: OpenAI, simulator: SimControl, narrow: Callable[[int], None]
) -> None:
    simulator.knob(match="otter", text="{}")
    made = response_in_form(ai, 0)
    narrow(10)
    part: Any = ai.responses.retrieve(made.id).output[-1]
    assert "too long to be checked" in part.content[0].refusal
