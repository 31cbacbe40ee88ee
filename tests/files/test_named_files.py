"""Files that a message's parameters name: whose they are is looked at before Coze is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.models.named_files import MAX_FILES, MOST_INSIDE, files_named
from tests.support import Client, SimControl, data_of, error_of

from .helpers import PNG, newest_file, uploaded

UNKNOWN = "coze_file_1795372832906_7l4mgyuf3lw2iispuvavf"


def naming(file_id: str) -> list[dict[str, Any]]:
    text = json.dumps({"type": "image", "file_id": file_id})
    return [
        {"parameters": {"picture": text}},
        {"parameters": {"pictures": [text]}},
        {"parameters": {"picture": {"file_id": file_id}}},
        {"custom_variables": {"picture": text}},
    ]


async def test_parameters_name_only_files_of_the_callers_own(client: Client, simulator: SimControl) -> None:
    await uploaded(client)
    session_id = await client.open_session()
    attached = await client.send(session_id, "look", attachments=[{"file_id": UNKNOWN}])
    for unknown in (newest_file(simulator)["id"], UNKNOWN, "7380000000000000001", "x"):
        for body in [*naming(unknown), naming("\ud800")[0]]:
            answer = await client.send(session_id, "look", **body)
            assert (answer.status_code, error_of(answer)["code"]) == (404, "COZE_FILE_NOT_FOUND")
            assert error_of(answer)["message"] == error_of(attached)["message"]
    assert simulator.requests(path="/v3/chat") == []


async def test_parameters_name_a_file_by_our_id_or_by_the_one_that_coze_gave_the_caller(
    client: Client,
) -> None:
    ours = await uploaded(client)
    theirs = (await client.post("/coze/api/v1/files/upload", files={"file": ("a.png", PNG)})).json()
    session_id = await client.open_session()
    for file_id in (ours, theirs["data"]["id"]):
        for body in naming(file_id):
            assert data_of(await client.send(session_id, "look", **body))["status"] == "completed"


async def test_whoever_asks_again_names_no_file_of_somebody_else(
    client: Client, simulator: SimControl
) -> None:
    chat_id = data_of(await client.send(await client.open_session(), "hello"))["chat_id"]
    asked = len(simulator.requests(path="/v3/chat"))
    for body in naming("7380000000000000001"):
        answer = await client.post(f"/coze/chats/{chat_id}/regenerate", json=body)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "COZE_FILE_NOT_FOUND")
    values = [{"file_id": "x"}] * (MAX_FILES + 1)
    answer = await client.post(f"/coze/chats/{chat_id}/regenerate", json={"parameters": {"a": values}})
    assert answer.status_code == 400
    assert len(simulator.requests(path="/v3/chat")) == asked


@pytest.mark.parametrize(
    "item",
    [
        '{"type":"image","file_url":"https://example.org/a.png","FILE_ID":"7380000000000000001"}',
        '{"type":"image","file_url":"https://example.org/a.png","file_id":"7380000000000000001","file_id":null}',
    ],
)
async def test_a_file_in_the_messages_before_is_named_once_and_in_one_spelling(
    client: Client, simulator: SimControl, item: str
) -> None:
    """To Coze each of these is a file of its own id."""
    message = {"role": "user", "content": f"[{item}]", "content_type": "object_string"}
    sent = await client.send(await client.open_session(), "look", additional_messages=[message])
    opened = await client.post("/coze/sessions", json={"user_id": "u", "additional_messages": [message]})
    assert (sent.status_code, opened.status_code) == (400, 400)
    assert simulator.requests(path="/v3/chat") == []


def test_what_is_looked_at_has_bounds() -> None:
    many = "[" + '"file_id",' * MOST_INSIDE + "0]"
    layered: Any = {"file_id": "x"}
    for _ in range(3):
        layered = json.dumps([layered])
    assert files_named([layered]) == ["x"]
    for values in (
        [many],
        [many[: len(many) // 2] + "0]"] * 3,
        ["[" * 100_000 + '"file_id"'],
        [json.dumps([layered])],
        [{"file_id": "x"}] * (MAX_FILES + 1),
        ['"file_id'] * 1_001,
    ):
        with pytest.raises(ValueError, match=r"files|texts|values|deep|layers"):
            files_named(values)


def test_long_texts_that_name_no_file_are_as_long_as_they_like() -> None:
    prose = "what, [after] all, is a file_id? " * 20_000
    table = json.dumps([{"name": "a, b, [c]", "number": 1}] * 20_000)
    assert files_named([prose, table, {"inside": prose}]) == []
