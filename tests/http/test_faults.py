"""What an error's message says: where, what, and the limit; never a word of the library that found it."""

from __future__ import annotations

import pytest

from tests.support import Client, error_of

JSON = {"Content-Type": "application/json"}
DEEP = b'{"message":"a","parameters":{"x":' + b"[" * 2000 + b"]" * 2000 + b"}}"

UNREADABLE = {
    "empty": (b"", "is empty"),
    "cut": (b'{"message":"a', "ends too early"),
    "trailing comma": (b'{"message":"a",}', "trailing comma at line 1 column 16"),
    "single quotes": (b"{'message':'a'}", "key must be a string at line 1 column 2"),
    "two values": (b'{"message":"a"}{}', "trailing characters at line 1 column 16"),
    "raw line end": (b'{"message":"a\nb"}', "control character"),
    "wrong escape": (b'{"message":"\\x"}', "invalid escape at line 1 column 14"),
    "half a character": (b'{"message":"\\ud83d"}', "surrogate"),
    "the other half": (b'{"message":"\\ude00"}', "surrogate"),
    "half and a letter": (b'{"message":"\\ud83dx"}', "surrogate"),
    "too deep": (DEEP, "nested too deep"),
    "GBK": ('{"message":"中"}'.encode("gbk"), "not UTF-8: byte 0xd6 at offset 12"),
    "Latin-1": ('{"message":"é"}'.encode("latin-1"), "not UTF-8: byte 0xe9 at offset 12"),
    "UTF-16": ('{"message":"a"}'.encode("utf-16"), "UTF-16"),
    "UTF-16 without mark": ('{"message":"a"}'.encode("utf-16-le"), "UTF-16"),
    "UTF-32": ('{"message":"a"}'.encode("utf-32"), "UTF-16 or UTF-32"),
    "NaN": (b'{"message":"a","parameters":{"x":NaN}}', "numbers must be finite"),
    "form": (b"message=a", "expected value at line 1 column 1"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_body_that_cannot_be_read_is_told_where_and_why(client: Client, name: str) -> None:
    body, why = UNREADABLE[name]
    session_id = await client.open_session()
    answer = await client.post(f"/coze/sessions/{session_id}/messages", content=body, headers=JSON)
    assert answer.status_code == 400
    assert why in error_of(answer)["message"]


async def test_a_byte_order_mark_is_no_fault(client: Client) -> None:
    answer = await client.post("/coze/sessions", content=b'\xef\xbb\xbf{"user_id":"u"}', headers=JSON)
    assert answer.status_code == 200


WRONG = {
    "missing": ({}, "user_id: is required"),
    "number": ({"user_id": 1}, "user_id: must be a string"),
    "null": ({"user_id": None}, "user_id: must be a string"),
    "empty": ({"user_id": ""}, "user_id: must have at least 1 characters"),
    "long": ({"user_id": "u" * 129}, "user_id: must have at most 128 characters"),
    "line end": ({"user_id": "a\nb"}, "user_id: must not hold control characters"),
    "bot": ({"user_id": "u", "bot_id": "a b"}, "bot_id: must be 1 to 64 letters"),
    "conversation": ({"user_id": "u", "conversation_id": "x"}, "conversation_id: must be 1 to 32 digits"),
    "list": ({"user_id": "u", "meta_data": []}, "meta_data: must be an object"),
    "value": ({"user_id": "u", "metadata": {"a": 1}}, "metadata.a: must be a string"),
    "many": ({"user_id": "u", "meta_data": {str(n): "x" for n in range(16)}}, "must have at most 15 items"),
    "flag": ({"user_id": "u", "auto_save_history": "yes"}, "auto_save_history: must be true or false"),
    "role": (
        {"user_id": "u", "additional_messages": [{"role": "system"}]},
        "additional_messages.0.role: must be 'user' or 'assistant'",
    ),
    "kind": (
        {"user_id": "u", "additional_messages": [{"role": "assistant", "type": "question"}]},
        "additional_messages.0: type question goes with role user",
    ),
    "both": ({"user_id": "u", "metadata": {"a": "1"}, "meta_data": {"a": "2"}}, "two names for one thing"),
    "array": ([], "body: must be an object"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_field_is_named_in_the_message_with_its_limit(client: Client, name: str) -> None:
    body, why = WRONG[name]
    error = error_of(await client.post("/coze/sessions", json=body))
    assert why in error["message"]
    for internal in ("Value error", "Input should", "String should", "pydantic", "^[", "class", "Extra"):
        assert internal not in str(error)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("history_limit=x", "history_limit: must be a whole number"),
        ("history_limit=101", "history_limit: must be at most 100"),
        ("history_limit=-1", "history_limit: must be at least 0"),
        ("history_limit=1.5", "history_limit: must be a whole number"),
    ],
)
async def test_a_wrong_query_is_named_with_its_limit(client: Client, query: str, why: str) -> None:
    assert why in error_of(await client.get(f"/coze/sessions/s-1?{query}"))["message"]


@pytest.mark.parametrize("name", ["meta_data", "metadata"])
async def test_meta_data_is_taken_under_both_names(client: Client, name: str) -> None:
    session_id = await client.open_session(**{name: {"app": "web"}})
    assert (await client.session(session_id))["metadata"] == {"app": "web"}
    answer = await client.send(session_id, "hi", **{name: {"k": "v"}})
    assert answer.status_code == 200


async def test_the_same_call_under_either_name_is_one_call(client: Client) -> None:
    made = set()
    for name in ("meta_data", "metadata"):
        body = {"user_id": "u", name: {"a": "1"}}
        answer = await client.post("/coze/sessions", json=body, headers={"Idempotency-Key": "one-call"})
        made.add(answer.json()["data"]["task_result"]["data"]["session_id"])
    assert len(made) == 1
