"""Answers in a form: JSON, JSON by a schema, demanded tools. What the bot says is looked at."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from app.doors.openai.forms import Form, Shaped
from app.exceptions import ValidationFailed
from tests.support import RunningApp, SimControl

from .support import MODEL, Told, chat_id_of, form_made, said
from .test_answers import asked, raw
from .test_what_clients_send import body_of


class Place(BaseModel):
    name: str
    people: int


SCHEMA = Place.model_json_schema()
STRICT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
LOOSE = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
OBJECT = {"type": "json_object"}
GOOD = '{"name": "Wuhan", "people": 13000000}'
WRONG = '{"name": "Wuhan", "people": "many"}'
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
CALL_WEATHER: Any = {"type": "function", "function": {"name": "weather"}}
CITY = '{"city": "Wuhan"}'


def form(**body: Any) -> Form:
    found = form_made(body_of([said("x")], **body))
    assert found is not None
    return found


def refused(**body: Any) -> dict[str, Any]:
    with pytest.raises(ValidationFailed) as caught:
        form_made(body_of([said("x")], **body))
    fault: dict[str, Any] = caught.value.details["fields"][0]
    return fault


# -- reading what the bot wrote ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f"```JSON\n{GOOD}```",
        f"Here it is:\n```json\n{GOOD}\n```\nAnything else?",
        f"Sure! {GOOD}",
        f"{GOOD} I hope this helps.",
        f"```python\nprint(1)\n```\nand\n```json\n{GOOD}\n```",
    ],
)
@pytest.mark.parametrize(
    "asked_for", [STRICT, LOOSE, OBJECT, "json_object"], ids=["strict", "loose", "object", "word"]
)
def test_fences_and_words_around_json_are_taken_off_and_the_json_is_left_as_it_is(
    text: str, asked_for: Any
) -> None:
    assert form(response_format=asked_for).read(text) == Shaped(content=GOOD)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRONG, 'people: "many" is not of type "integer"'),
        ("{}", '"name" is a required property'),
        ("I cannot do that.", "no JSON"),
        ("", "no JSON"),
        ("{" * 5000, "no JSON"),
        ('{"name": "a", "people": NaN}', "no JSON"),
        ("[1]", "is not of type"),
    ],
)
def test_what_does_not_fit_is_refused_if_strict_and_else_told_as_it_is(text: str, reason: str) -> None:
    strict = form(response_format=STRICT).read(text)
    assert (strict.content, strict.call) == (None, None)
    assert reason in (strict.refusal or "")
    assert form(response_format=LOOSE).read(text) == Shaped(content=text)


def test_a_json_object_is_an_object() -> None:
    assert form(response_format=OBJECT).read("so: {} or") == Shaped(content="{}")
    assert form(response_format=OBJECT).read("[1]") == Shaped(content="[1]")
    assert form_made(body_of([said("x")], response_format={"type": "text"})) is None
    assert form_made(body_of([said("x")], response_format="text")) is None


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "is not valid"),
        ({"$ref": "http://127.0.0.1:1/x"}, "within the schema alone"),
        ({"$ref": "file:///etc/hostname"}, "within the schema alone"),
        ({"$ref": "#/nope"}, "leads nowhere"),
        ({"$schema": "http://127.0.0.1:1/x"}, "meta-schema"),
        ({"properties": 5}, "is not of type"),
        ({"patternProperties": {"(": {}}}, "regex"),
        ([], "is not of type"),
        (5, "is not of type"),
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused_before_the_bot_is_asked(schema: Any, reason: str) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fault = refused(response_format=wrong)
    assert fault["field"] == "response_format.json_schema.schema"
    assert reason in fault["message"]


def test_a_schema_that_would_keep_a_checker_busy_for_ever_does_not() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "anyOf": [{"required": ["b"]}, True]}
    loop = {"type": "json_schema", "json_schema": {"schema": {"anyOf": [{"$ref": "#"}]}, "strict": True}}
    evil = {"type": "string", "pattern": "^(a|a)*(a+)+$"}
    for schema, text in ((endless, '{"a":' * 900 + "{}" + "}" * 900), (evil, json.dumps("a" * 5000 + "!"))):
        asked_for = {"type": "json_schema", "json_schema": {"schema": schema, "strict": True}}
        found = form(response_format=asked_for).read(text)
        assert (found.content or found.refusal or "")[:2]
    assert form(response_format=loop).read("1").call is None
    deep: dict[str, Any] = {}
    for _ in range(80):
        deep = {"properties": {"a": deep}}
    assert form(response_format={"type": "json_schema", "json_schema": {"schema": deep}})


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "loose"])
def test_an_answer_that_is_too_long_for_its_schema_is_not_checked(strict: bool) -> None:
    """301 bytes of ``[{},{}...]`` held the process for 1.7 s."""
    alternatives = [{"type": "object", "required": [f"x{n}"]} for n in range(1_700)]
    schema = {"type": "array", "items": {"oneOf": alternatives}}
    found = form(response_format={"type": "json_schema", "json_schema": {"schema": schema, "strict": strict}})
    for value in ({}, {"x1": 1}):
        text = json.dumps([value] * 100)
        told = found.read(text)
        assert (told.content, told.call) == (None if strict else text, None)
        assert ("too long to be checked" in (told.refusal or "")) is strict
    short = '[{"x1": 1}]'
    assert found.read(short) == Shaped(content=short)


def test_that_an_answer_does_not_fit_is_told_also_where_the_reason_would_take_long() -> None:
    schema = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}]}
    found = form(response_format={"type": "json_schema", "json_schema": {"schema": schema, "strict": True}})
    assert "is not valid against the schema" in (found.read("[" * 200 + "1" + "]" * 200).refusal or "")
    assert "not valid under any of" in (found.read("[1]").refusal or "")
    fits = "[" * 200 + "null" + "]" * 200
    assert found.read(fits) == Shaped(content=fits)


def test_an_answer_of_brackets_that_nothing_closes_is_looked_at_once() -> None:
    for text in ("{" * 1_000_000, "[{" * 500_000, "}" + "{" * 1_000_000):
        assert form(response_format=OBJECT).read(text) == Shaped(content=text)


def test_schemas_are_too_long_before_they_are_looked_at() -> None:
    schema = {"description": "x" * 100_000, "type": "no type of JSON Schema"}
    asked_for = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert refused(response_format=asked_for)["field"] == "response_format"
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert refused(tools=[tool], tool_choice="required")["field"] == "tools"


def test_schemas_that_are_longer_than_a_message_of_coze_are_too_long() -> None:
    schema = {"type": "object", "description": "x" * 100_000}
    asked_for = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert refused(response_format=asked_for)["field"] == "response_format"


# -- demanded tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [WEATHER, CLOCK], "tool_choice": CALL_WEATHER},
        {"tools": [WEATHER], "tool_choice": "required"},
        {"tools": [WEATHER], "tool_choice": "any"},
        {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "function", "name": "weather"}},
        {
            "tools": [WEATHER, CLOCK],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [CALL_WEATHER]},
            },
        },
        {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}},
    ],
)
def test_a_demanded_function_is_called_with_what_the_bot_wrote(body: dict[str, Any]) -> None:
    found = form(**body)
    assert "`weather`" in found.instruction
    assert "Tells the weather." in found.instruction
    assert '"city"' in found.instruction
    for text in (
        CITY,
        f"```json\n{CITY}\n```",
    ):
        assert found.read(text) == Shaped(call={"name": "weather", "arguments": CITY})
    for text in (
        '{"name": "weather", "arguments": {"city": "Wuhan"}}',
        '{"name": "weather", "arguments": "{\\"city\\": \\"Wuhan\\"}"}',
    ):
        call = found.read(text).call
        assert call is not None
        assert (call["name"], json.loads(call["arguments"])) == ("weather", json.loads(CITY))
    assert found.read("It rains.") == Shaped(content="It rains.")


def test_of_several_the_bot_chooses_one_and_its_arguments_have_to_fit() -> None:
    found = form(tools=[WEATHER, CLOCK], tool_choice="required")
    call = {"name": "weather", "arguments": {"city": "Wuhan"}}
    assert found.read(json.dumps(call)).call == {"name": "weather", "arguments": '{"city":"Wuhan"}'}
    for wrong in (
        {"name": "nobody", "arguments": {}},
        {"name": "weather", "arguments": {}},
        {"name": ["weather"], "arguments": {}},
        {"name": "weather"},
        [],
    ):
        assert found.read(json.dumps(wrong)).call is None


def test_what_is_not_demanded_is_not_asked_for() -> None:
    for body in (
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "tool_choice": "auto"},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"tools": "nonsense", "tool_choice": {"type": "auto"}},
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        },
        {"functions": [WEATHER["function"]], "function_call": "auto"},
    ):
        found = body_of([said("x")], **body)
        assert form_made(found) is None
        assert (found.tools, found.functions, found.function_call) == (None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": "required"},
        {"tool_choice": CALL_WEATHER},
        {"tools": [CLOCK], "tool_choice": CALL_WEATHER},
        {"tools": [{"type": "custom", "custom": {"name": "weather"}}], "tool_choice": "required"},
        {"tools": [{"type": "function", "function": {"name": " "}}], "tool_choice": "required"},
        {"tools": [None], "tool_choice": "required"},
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}],
            "tool_choice": "required",
        },
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}],
            "tool_choice": "required",
        },
        {"functions": [], "function_call": {"name": "weather"}},
    ],
)
def test_a_demand_that_cannot_be_met_is_refused(body: dict[str, Any]) -> None:
    assert refused(**body)["field"].split(".")[0] in ("tools", "tool_choice")


# -- with the SDK -----------------------------------------------------------------------------------------


def says(simulator: SimControl, text: str) -> None:
    simulator.knob(match="otter", text=text)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_parse_gives_the_model_and_the_bot_was_told_the_schema(
    streamed: bool, ai: OpenAI, simulator: SimControl
) -> None:
    says(simulator, f"```json\n{GOOD}\n```")
    messages: list[Any] = [said("Be brief.", "system"), said("otter")]
    if streamed:
        with ai.chat.completions.stream(model=MODEL, messages=messages, response_format=Place) as stream:
            stream.until_done()
            message: Any = stream.get_final_completion().choices[0].message
    else:
        message = (
            ai.chat.completions.parse(model=MODEL, messages=messages, response_format=Place)
            .choices[0]
            .message
        )
    assert message.parsed == Place(name="Wuhan", people=13000000)
    assert message.content == GOOD
    assert message.reasoning_content
    first, instruction, question = asked(simulator, "otter")["messages"][:3]
    assert (first.content, question.content) == ("Be brief.", "otter")
    assert '"people"' in instruction.content
    assert instruction.role == "user"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_that_does_not_fit_a_strict_schema_is_a_refusal_and_no_error(
    streamed: bool, ai: OpenAI, simulator: SimControl
) -> None:
    """An error's status would make clients repeat a call that was paid for."""
    says(simulator, WRONG)
    if streamed:
        with ai.chat.completions.stream(
            model=MODEL, messages=[said("otter")], response_format=Place
        ) as stream:
            stream.until_done()
            message: Any = stream.get_final_completion().choices[0].message
    else:
        done = ai.chat.completions.parse(model=MODEL, messages=[said("otter")], response_format=Place)
        assert done.choices[0].finish_reason == "stop"
        message = done.choices[0].message
    assert (message.parsed, message.content or None) == (None, None)
    assert "people" in message.refusal
    assert len(simulator.requests(path="/v3/chat", contains="otter")) == 1


async def test_text_is_held_back_until_it_is_whole_and_thoughts_are_not(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    simulator.knob(match="otter", text=f"Well: {GOOD}", gap=0.02)
    told = Told()
    stream = await async_ai.chat.completions.create(
        model=MODEL,
        messages=[said("otter")],
        response_format=OBJECT,
        stream=True,  # type: ignore[arg-type]
    )
    async for chunk in stream:
        told.take(chunk)
    assert [delta.content for delta in told.deltas if delta.content] == [GOOD]
    assert len([delta for delta in told.deltas if getattr(delta, "reasoning_content", None)]) > 1
    assert told.finish == ["stop"]


async def test_while_text_is_held_back_there_are_signs_of_life(open_door: Any, simulator: SimControl) -> None:
    service = open_door(SSE_HEARTBEAT_SECONDS="0.1")
    simulator.knob(match="otter", text=GOOD, reasoning=False, stall="1:1")
    answer = await raw(service, "otter", response_format=OBJECT)
    deltas = [json.loads(block[6:])["choices"][0]["delta"] for block in answer.text.split("\n\n")[:-2]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas.count({}) > 3
    assert [delta["content"] for delta in deltas[1:] if delta] == [GOOD]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_demanded_call_is_ours_and_its_output_begins_a_new_chat(
    streamed: bool, ai: OpenAI, simulator: SimControl
) -> None:
    says(simulator, CITY)
    messages: list[Any] = [said("otter weather?")]
    options: Any = {"tools": [WEATHER, CLOCK], "tool_choice": CALL_WEATHER}
    if streamed:
        told = Told.of(ai.chat.completions.create(model=MODEL, messages=messages, stream=True, **options))
        assert (told.content, told.finish) == ("", ["tool_calls"])
        [call] = [call for delta in told.deltas for call in delta.tool_calls or []]
        chat_id = told.chat_id
    else:
        done = ai.chat.completions.create(model=MODEL, messages=messages, **options)
        [choice] = done.choices
        assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
        [call] = choice.message.tool_calls or []
        chat_id = chat_id_of(done.id)
    assert (call.function.name, call.function.arguments) == ("weather", CITY)
    messages.append({"role": "assistant", "tool_calls": [call.model_dump(exclude={"index"})]})
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "21 degrees, badger"})
    answer = ai.chat.completions.create(model=MODEL, messages=messages, tools=options["tools"])
    assert chat_id_of(answer.id) != chat_id
    assert answer.choices[0].finish_reason == "stop"
    sent = asked(simulator, "badger")["messages"]
    assert [message.content for message in sent[:2]] == [
        "otter weather?",
        "The function `weather` returned:\n21 degrees, badger",
    ]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_older_way_to_demand_a_function_is_answered_in_the_older_way(
    streamed: bool, ai: OpenAI, simulator: SimControl
) -> None:
    says(simulator, CITY)
    options: Any = {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}}
    messages: list[Any] = [said("otter")]
    if streamed:
        told = Told.of(ai.chat.completions.create(model=MODEL, messages=messages, stream=True, **options))
        [call] = [delta.function_call for delta in told.deltas if delta.function_call]
        reason = told.finish[0]
    else:
        [choice] = ai.chat.completions.create(model=MODEL, messages=messages, **options).choices
        call, reason = choice.message.function_call, choice.finish_reason
    assert (call.name, call.arguments, reason) == ("weather", CITY, "function_call")
    messages.append({"role": "assistant", "content": None, "function_call": call.model_dump()})
    messages.append({"role": "function", "name": "weather", "content": "21 degrees, badger"})
    assert ai.chat.completions.create(model=MODEL, messages=messages).choices[0].finish_reason == "stop"
    assert asked(simulator, "badger")["messages"][1].content == (
        "The function `weather` returned:\n21 degrees, badger"
    )


def test_a_bot_s_own_tools_are_called_whatever_form_was_asked_for(ai: OpenAI) -> None:
    messages: list[Any] = [said("[[sim:requires_action=function]] otter")]
    first = ai.chat.completions.create(model=MODEL, messages=messages, response_format=STRICT)  # type: ignore[call-overload]
    [call] = first.choices[0].message.tool_calls
    messages.append({"role": "assistant", "tool_calls": [call.model_dump()]})
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "21"})
    last = ai.chat.completions.create(model=MODEL, messages=messages, response_format=STRICT)  # type: ignore[call-overload]
    assert last.choices[0].message.refusal


def test_the_same_call_with_its_key_has_the_same_form_and_another_form_is_another_call(
    ai: OpenAI, simulator: SimControl
) -> None:
    says(simulator, GOOD)
    key: Any = {"model": MODEL, "messages": [said("otter")], "extra_headers": {"Idempotency-Key": "form"}}
    first = ai.chat.completions.create(response_format=STRICT, **key)
    assert ai.chat.completions.create(response_format=STRICT, **key) == first
    with pytest.raises(openai.UnprocessableEntityError):
        ai.chat.completions.create(response_format=OBJECT, **key)
    tools: Any = {**key, "extra_headers": {"Idempotency-Key": "tools"}, "tools": [WEATHER]}
    offered = ai.chat.completions.create(**tools)
    assert ai.chat.completions.create(**{**tools, "tools": [CLOCK]}).id == offered.id
    with pytest.raises(openai.UnprocessableEntityError):
        ai.chat.completions.create(**tools, tool_choice="required")


def test_the_form_takes_a_place_in_a_long_history(ai: OpenAI, simulator: SimControl) -> None:
    says(simulator, GOOD)
    history = [said(f"m{n}", "user" if n % 2 == 0 else "assistant") for n in range(240)]
    messages: Any = [said("rules", "system"), *history, said("otter")]
    ai.chat.completions.create(model=MODEL, messages=messages, response_format=OBJECT)  # type: ignore[call-overload]
    texts = [message.content for message in asked(simulator, "otter")["messages"]]
    assert texts[: len(texts) - 1][0] == "rules"
    place = texts.index("otter")
    assert place == 99
    assert texts[1:98] == [f"m{n}" for n in range(143, 240)]
    assert "JSON object" in texts[98]


async def test_in_a_session_the_form_goes_along_with_the_message(
    async_ai: AsyncOpenAI, door: RunningApp, simulator: SimControl
) -> None:
    from tests.support import open_client

    says(simulator, GOOD)
    async with open_client(door.base_url) as client:
        session_id = await client.open_session("u-1")
        done = await async_ai.with_options(api_key="anything").chat.completions.parse(
            model=MODEL,
            messages=[said("otter")],
            response_format=Place,
            extra_body={"metadata": {"session_id": session_id}},
        )
        assert done.choices[0].message.parsed == Place(name="Wuhan", people=13000000)
        newest = (await client.session(session_id))["chat_history"][0]
        assert newest["user_message"]["content"] == "otter"
