"""Files that a chat's parameters name, at Coze's door: whose they are is looked at as in messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import SimControl, mask

from .support import CozeCaller, Json, asking
from .test_routes import looking_at, upload


def shortcut(**fields: Any) -> Json:
    return {"shortcut_command": {"command_id": "1", **fields}}


PLACES: dict[str, Callable[[Any], Json]] = {
    "parameters": lambda value: {"parameters": {"picture": value}},
    "variables": lambda value: {"custom_variables": {"picture": value}},
    "a shortcut": lambda value: shortcut(parameters={"picture": value}),
    "a shortcut, in another spelling": lambda value: shortcut(parameterſ={"picture": value}),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "a text": lambda file_id: json.dumps({"file_id": file_id}),
    "a text behind blanks": lambda file_id: " \n\ufeff" + json.dumps({"type": "file", "FILE_ID": file_id}),
    "a text with more behind it": lambda file_id: json.dumps({"file_id": file_id}) + " }",
    "an escaped name": lambda file_id: json.dumps({"file_id": file_id}).replace("_", "\\u005f"),
    "a list in a text": lambda file_id: json.dumps([1, {"file_id": file_id}]),
    "texts in a text": lambda file_id: json.dumps([json.dumps({"file_id": file_id})]),
    "a number of many digits beside it": lambda file_id: f'{{"file_id":"{file_id}","n":{"1" * 5000}}}',
    "null behind it": lambda file_id: f'{{"file_id":"{file_id}","file_id":null}}',
    "a list": lambda file_id: [json.dumps({"file_id": file_id})],
    "an object": lambda file_id: {"file_id": file_id},
    "an object that is far inside": lambda file_id: {"a": [{"b": {"File_Id": file_id}}]},
}


@pytest.mark.parametrize("place", PLACES)
async def test_parameters_name_no_file_of_somebody_else(
    app: CozeCaller, other: CozeCaller, simulator: SimControl, place: str
) -> None:
    file_id = str((await upload(other))["id"])
    for way in WAYS.values():
        told = []
        for named in (file_id, "7380000000000000001"):
            answer = await app.call("POST", "/v3/chat", json=asking("x", **PLACES[place](way(named))))
            told.append(mask(answer.text))
            assert answer.json()["code"] == 4000
        assert told[0] == told[1]
        message = asking("x", additional_messages=[looking_at(file_id)])
        assert mask((await app.call("POST", "/v3/chat", json=message)).text) == told[0]
    assert simulator.requests(path="/v3/chat") == []


@pytest.mark.parametrize("place", PLACES)
async def test_parameters_name_files_of_the_callers_own(app: CozeCaller, place: str) -> None:
    file_id = str((await upload(app))["id"])
    for way in WAYS.values():
        value = way(file_id)
        if isinstance(value, str) or place == "parameters":  # in the others Coze takes texts alone
            assert b"conversation.chat.completed" in await app.chat("x", **PLACES[place](value))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "text",
    [
        "what is a file_id?",
        "{file_id} goes here",
        '{"file_id": ',
        '"file_id"',
        '["file_id"]',
        '{"file_id":""}',
    ],
)
async def test_a_text_that_only_speaks_of_file_ids_is_plain_text(
    app: CozeCaller, place: str, text: str
) -> None:
    assert b"conversation.chat.completed" in await app.chat("x", **PLACES[place](text))


async def test_what_a_parameter_is_called_names_no_file(app: CozeCaller) -> None:
    assert b"conversation.chat.completed" in await app.chat("x", parameters={"file_id": "report-7"})


@pytest.mark.parametrize(
    "name", ["Parameters", "parameter\u017f", "custom_variable\u017f", "customvariables"]
)
async def test_parameters_are_taken_in_their_own_spelling_alone(app: CozeCaller, name: str) -> None:
    assert await app.code("POST", "/v3/chat", json=asking("x", **{name: {}})) == 4000


async def test_a_hundred_files_are_those_of_messages_and_parameters_together(
    app: CozeCaller, simulator: SimControl
) -> None:
    file_id = str((await upload(app))["id"])
    values = [{"file_id": file_id}] * 100
    body = asking("x", additional_messages=[looking_at(file_id)], parameters={"pictures": values})
    answer = (await app.call("POST", "/v3/chat", json=body)).json()
    assert (answer["code"], "at most 100 files" in answer["msg"]) == (4000, True)
    assert simulator.requests(path="/v3/chat") == []


async def test_a_null_behind_an_id_does_not_hide_it_in_a_message(
    app: CozeCaller, other: CozeCaller, simulator: SimControl
) -> None:
    """Go's JSON decoder leaves the id."""
    file_id = (await upload(other))["id"]
    content = f'[{{"type":"image","file_id":"{file_id}","file_id":null}}]'
    message = {"role": "user", "content": content, "content_type": "object_string"}
    assert await app.code("POST", "/v3/chat", json=asking("x", additional_messages=[message])) == 4000
    assert simulator.requests(path="/v3/chat") == []


async def test_an_id_that_is_no_unicode_is_nobodys(app: CozeCaller) -> None:
    for more in (
        {"additional_messages": [looking_at("\\ud800")]},
        {"parameters": {"picture": '{"file_id":"\\ud800"}'}},
    ):
        assert await app.code("POST", "/v3/chat", json=asking("x", **more)) == 4000
