"""What Coze says reaches OpenAI's clients in a form that they can use, or as an error with its reason."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from app.doors.openai.chunks import ChunkStream, refusal_of, tool_calls_of
from app.doors.openai.completions import completion_of
from app.doors.openai.errors import OPENAI_ERRORS, openai_error
from app.doors.openai.texts import rest_alike
from app.exceptions import CozeApiError, CozeQuotaExhausted, CozeRateLimited, ServiceError
from app.models import Cursor
from app.tasks.reader import Batch, Ending

from .test_texts import CHAT_ID, delta, frame, told


def chat_of(**more: Any) -> dict[str, Any]:
    chat = {"chat_id": CHAT_ID, "status": "completed", "content": "", "reasoning_content": "", "usage": None}
    return chat | {"metadata": {}, "assistant_message": None} | more


def streamed(frames: list[bytes], chat: dict[str, Any]) -> bytes:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False)
    pieces = b"".join(stream.batch(Batch(1, n, [each])) for n, each in enumerate(frames, 1))
    return pieces + asyncio.run(stream.ending(Ending(json.dumps(chat).encode()), Cursor(1, 9)))


def refusal(chat: dict[str, Any]) -> ServiceError:
    error = refusal_of(chat)
    assert error is not None
    return error


def told_of(error: ServiceError) -> dict[str, Any]:
    body: dict[str, Any] = openai_error(error)["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return body


def answer_to(error: ServiceError) -> tuple[int, str, str, str, int | None]:
    """Status, type, code, x-should-retry, Retry-After."""
    body, retry = told_of(error), OPENAI_ERRORS.headers(error)["X-Should-Retry"]
    status = OPENAI_ERRORS.status(error)
    return status, body["type"], body["code"], retry, OPENAI_ERRORS.retry_after(error)


# -- tool calls -------------------------------------------------------------------------------------------


def waiting(*calls: Any) -> dict[str, Any]:
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": list(calls)}}
    return chat_of(status="requires_action", required_action=action)


NAMED = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
NOT_ANSWERABLE: list[tuple[dict[str, Any], str]] = [
    (waiting(), "unknown"),
    (waiting({"id": "c1", "type": "reply_message"}), "reply_message"),
    (waiting(NAMED, {"id": "c2", "type": "reply_message"}), "reply_message"),
    (waiting({"id": "c1", "type": "function", "function": {"name": ""}}), "function"),
    (waiting({"id": "c1", "type": "function", "function": {"name": " "}}), "function"),
    (waiting({"id": "c1", "type": "function", "function": {"name": None}}), "function"),
    (waiting({"id": "c1", "type": "function", "function": {"name": 5}}), "function"),
    (waiting({"id": "c1", "type": "function", "function": "f"}), "function"),
    (waiting({"id": "c1", "type": "function"}), "function"),
    (waiting({"type": "function", "function": {"name": "f"}}), "function"),
    (waiting({"id": "", "type": "function", "function": {"name": "f"}}), "function"),
    (waiting({"id": "c1", "type": "<b>"}), "unknown"),
    (waiting({"id": "c1", "type": {}}), "unknown"),
    (waiting(None), "unknown"),
    (waiting("f"), "unknown"),
    (chat_of(status="requires_action", required_action=None), "unknown"),
    (chat_of(status="requires_action", required_action=[]), "unknown"),
    (chat_of(status="requires_action", required_action={"submit_tool_outputs": []}), "unknown"),
    (
        chat_of(status="requires_action", required_action={"submit_tool_outputs": {"tool_calls": None}}),
        "unknown",
    ),
    (
        chat_of(status="requires_action", required_action={"submit_tool_outputs": {"tool_calls": {}}}),
        "unknown",
    ),
]


@pytest.mark.parametrize(("chat", "named"), NOT_ANSWERABLE)
def test_what_is_no_named_function_is_an_error_that_says_so_streamed_or_not(
    chat: dict[str, Any], named: str
) -> None:
    assert tool_calls_of(chat) == []
    error = refusal(chat)
    assert f"({named})" in told_of(error)["message"]
    assert answer_to(error) == (400, "server_error", "unsupported_action", "false", None)
    with pytest.raises(ServiceError) as caught:
        streamed([delta("1", "hm")], chat)
    assert told_of(caught.value) == told_of(error)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ({"name": "f"}, "{}"),
        ({"name": "f", "arguments": ""}, "{}"),
        ({"name": "f", "arguments": " \n"}, "{}"),
        ({"name": "f", "arguments": None}, "{}"),
        ({"name": "f", "arguments": {}}, "{}"),
        ({"name": "f", "arguments": {"a": 1}}, '{"a":1}'),
        ({"name": "f", "arguments": '{"a":1}'}, '{"a":1}'),
        ({"name": "f", "arguments": "not json"}, "not json"),
        ({"name": " f\n", "arguments": "{}"}, "{}"),
        ({"name": "f", "arguments": []}, "{}"),
    ],
)
def test_a_named_function_has_arguments_streamed_or_not(function: Any, arguments: str) -> None:
    chat = waiting({"id": "c1", "type": "function", "function": function}, NAMED)
    calls = completion_of(chat, "coze", None)["choices"][0]["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": arguments}, NAMED["function"]]
    chunks = [
        json.loads(block[6:]) for block in streamed([], chat).split(b"\n\n") if b'tool_calls":' in block
    ]
    [found] = [c["choices"][0]["delta"]["tool_calls"] for c in chunks if c["choices"][0]["delta"]]
    assert [{name: call[name] for name in ("id", "type", "function")} for call in found] == calls


# -- failures ---------------------------------------------------------------------------------------------


def failed(code: str, coze_code: int | None = None, **more: Any) -> dict[str, Any]:
    error = {
        "code": code,
        "message": "Coze said no",
        "retryable": True,
        "retry_after": 5,
        "coze_code": coze_code,
    }
    hint, logid = more.pop("hint", None), more.pop("logid", None)
    return chat_of(status="failed", error=error | {"hint": hint, "logid": logid}, **more)


BEGUN: list[dict[str, Any]] = [
    {"metadata": {"coze_chat_id": "7"}},
    {"content": "abc"},
    {"reasoning_content": "hm"},
    {"metadata": {"coze_chat_id": "7"}, "content": "abc"},
]


@pytest.mark.parametrize("begun", BEGUN)
@pytest.mark.parametrize(
    ("code", "coze_code", "told"),
    [
        ("COZE_RATE_LIMITED", 4013, "rate_limit_exceeded"),
        ("COZE_RATE_LIMITED", 4020, "rate_limit_exceeded"),
        ("COZE_RATE_LIMITED", None, "rate_limit_exceeded"),
        ("OVERLOADED", 4009, "overloaded"),
        ("COZE_SESSION_BUSY", 4016, "coze_session_busy"),
        ("COZE_API_ERROR", 5000, "coze_api_error"),
        ("COZE_API_ERROR", 720702222, "coze_api_error"),
        ("COZE_API_ERROR", None, "coze_api_error"),
        ("COZE_TIMEOUT", None, "coze_timeout"),
        ("SHUTTING_DOWN", None, "shutting_down"),
        ("INTERNAL_ERROR", None, "internal_error"),
    ],
)
def test_an_answer_that_had_begun_and_failed_has_the_status_that_no_client_repeats(
    code: str, coze_code: int | None, told: str, begun: dict[str, Any]
) -> None:
    assert answer_to(refusal(failed(code, coze_code, **begun))) == (400, "server_error", told, "false", None)


@pytest.mark.parametrize(
    ("code", "coze_code", "told"),
    [
        ("COZE_QUOTA_EXHAUSTED", 4028, (429, "insufficient_quota", "insufficient_quota")),
        ("COZE_QUOTA_EXHAUSTED", 4011, (429, "insufficient_quota", "insufficient_quota")),
        ("COZE_RATE_LIMITED", 4008, (429, "insufficient_quota", "insufficient_quota")),
        ("COZE_API_ERROR", 4010, (400, "invalid_request_error", "context_length_exceeded")),
        ("COZE_API_ERROR", 4105, (400, "invalid_request_error", "content_policy_violation")),
    ],
)
def test_what_is_final_from_the_start_is_told_alike_when_it_comes_later(
    code: str, coze_code: int, told: tuple[int, str, str]
) -> None:
    for begun in ({}, *BEGUN):
        error = refusal(failed(code, coze_code, hint="Do that.", logid="L1", **begun))
        assert answer_to(error) == (*told, "false", None)
        assert error.headers == {"X-Coze-Logid": "L1"}
        message = told_of(error)["message"]
        assert all(part in message for part in ("Do that.", "L1"))


def test_what_is_not_known_to_have_been_refused_counts_as_begun() -> None:
    """A connection that broke before Coze said anything: it may be at work on it."""
    for code in ("COZE_API_ERROR", "COZE_TIMEOUT", "INTERNAL_ERROR"):
        assert answer_to(refusal(failed(code)))[0] == 400


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (CozeApiError("code 4015: x", coze_code=4015, hint="Publish it."), ["(Publish it.)"]),
        (CozeApiError("no", coze_code=4015), ["(Coze's code 4015)"]),
        (CozeApiError("code 4015: x", coze_code=4015, logid="L1"), ["(logid L1)"]),
        (CozeApiError("no", coze_code=1, hint="Do.", logid="L1"), ["(Coze's code 1; Do.; logid L1)"]),
        (CozeRateLimited(coze_code=4020, hint="Buy more RPM."), ["4020", "Buy more RPM."]),
        (CozeQuotaExhausted(coze_code=4028, hint="Top up."), ["4028", "Top up."]),
        (refusal(failed("COZE_API_ERROR", 103100001, hint="The log.")), ["103100001", "The log."]),
        (refusal(failed("COZE_RATE_LIMITED", 4013, logid="L2")), ["4013", "L2"]),
        (refusal(failed("COZE_TIMEOUT", None, hint="COZE_CHAT_TIMEOUT")), ["COZE_CHAT_TIMEOUT"]),
        (refusal(failed("COZE_API_ERROR", 0)), ["Coze's code 0"]),
    ],
)
def test_what_an_operator_needs_is_in_the_message(error: ServiceError, parts: list[str]) -> None:
    message = told_of(error)["message"]
    assert all(part in message for part in parts)
    in_a_stream = ChunkStream(CHAT_ID, "coze", include_usage=False).error(error, "r")
    assert json.loads(in_a_stream[6:])["error"]["message"] == message


# -- what it is -------------------------------------------------------------------------------------------

CARD = '{"card_type":3}'


@pytest.mark.parametrize(
    ("content_type", "notice"),
    [
        ("text", ""),
        ("", ""),
        (None, ""),
        ("card", "[card: "),
        ("object_string", "[object_string: "),
        ("audio", "[audio: "),
        ("widget", "[widget: "),
        ("<b>", "[unknown type: "),
        ("a" * 99, "[unknown type: "),
        ("Card]\n", "[unknown type: "),
        (5, "[unknown type: "),
        ({"a": 1}, "[unknown type: "),
    ],
)
def test_what_is_no_text_does_not_pass_for_the_bots_words(content_type: Any, notice: str) -> None:
    chat = chat_of(content=CARD, assistant_message={"content_type": content_type})
    whole = completion_of(chat, "coze", None)["choices"][0]["message"]["content"]
    message = {"id": "1", "type": "answer", "content": CARD, "content_type": content_type}
    in_two = [message | {"content": CARD[:5]}, message | {"content": CARD[5:]}]
    for frames in (
        [],
        [frame("conversation.message.delta", message)],
        [frame("conversation.message.delta", half) for half in in_two],
        [frame("snapshot", {"messages": [message]})],
        [frame("conversation.message.delta", in_two[0]), frame("snapshot", {"messages": [message]})],
    ):
        assert told(streamed(frames, chat)) == whole
    assert whole.startswith(notice or CARD)
    assert whole.endswith(CARD)
    assert "\n".join(whole.split("\n")[1:]) == (CARD if notice else "")


@pytest.mark.parametrize(
    ("more", "text", "final"),
    [
        (b'"section_id":"\xff"', b"hi", "hi"),
        (b'"meta_data":{"cost":1e999}', b"hi", "hi"),
        (b'"meta_data":{"cost":-1e999}', b"hi", "hi"),
        (b'"cost":NaN', b"hi", "hi"),
        (b'"cost":Infinity', b"hi", "hi"),
        (b'"x":"\\ud83d"', b"hi", "hi"),
        (b'"x":"\\udc00\\ud800"', b"hi", "hi"),
        (b'"\\ud83d":1', b"hi", "hi"),
        (b'"x":"\xed\xa0\x80"', b"hi", "hi"),
        (b'"x":"\xc3"', b"hi", "hi"),
        (b'"x":' + b"9" * 400, b"hi", "hi"),
        (b'"x":1', b"h\xff", "h\ufffd"),
        (b'"x":1', b"h\\ud83d", "h\ufffd"),
        (b'"x":1', b"h\\ud83d", "h🙂"),
        (b'"x":1', b"h\xff", "hé"),
        (b"not json", b"hi", "hi"),
        (b'"x":' + b"[" * 100_000, b"hi", "hi"),
    ],
)
def test_a_frame_that_a_stricter_parser_refuses_does_not_end_the_stream(
    more: bytes, text: bytes, final: str
) -> None:
    data = b'{"id":"m1","type":"answer","content":"%b","content_type":"text",%b}' % (text, more)
    frames = [b"event: conversation.message.delta\ndata: %b\n\n" % data]
    pieces = streamed(frames, chat_of(content=final))
    assert told(pieces) in (final, "h\ufffd")
    assert pieces.endswith(b"data: [DONE]\n\n")
    pieces.decode()


@pytest.mark.parametrize(
    ("sent", "text", "rest"),
    [
        ("a\r\nb", "a\nb", ""),
        ("a\nb", "a\r\nbc", "c"),
        ("a b", "ab c", " c"),
        ("a ", "a b", "b"),
        ("e\u0301", "\u00e9!", "!"),
        ("\u00e9", "e\u0301!", "!"),
        ("\ufffd\ufffdb", "🙂bc", "c"),
        ("a🙂", "a\ufffd\ufffdb", "b"),
        ("a\ufffd", "a🙂", ""),
        ("a\ufffdb", "abc", "c"),
        ("a\ufffd", "a\u00e9b", "b"),
        ("\ufffd", "\ufffdx", "x"),
        ("\u00a0a\u3000b", "a b\nc", "\nc"),
        ("한", "\u1112\u1161\u11ab글", "글"),
        ("", "x", "x"),
        ("ab", "ac", None),
        ("ab", "a", None),
        ("a\ufffdb", "a🙂c", None),
        ("A", "a", None),
        ("abc", "", None),
    ],
)
def test_differences_that_are_none_do_not_make_another_answer(sent: str, text: str, rest: str | None) -> None:
    assert rest_alike(text, sent) == rest
    whole = chat_of(content=text)
    if rest is not None:
        assert told(streamed([delta("1", sent)], whole)) == sent + (
            text[len(sent) :] if text.startswith(sent) else rest
        )
        snapshot = frame("snapshot", {"messages": [{"id": "1", "content": text}]})
        assert told(streamed([delta("1", sent), snapshot], whole)).startswith(sent)
    else:
        with pytest.raises(CozeApiError):
            streamed([delta("1", sent)], whole)


def test_a_sign_of_life_is_a_chunk_and_says_nothing() -> None:
    for usage in (False, True):
        piece = ChunkStream(CHAT_ID, "coze", include_usage=usage).heartbeat
        assert piece.startswith(b"data: {")
        assert piece.endswith(b"}\n\n")
        [choice] = json.loads(piece[6:])["choices"]
        assert (choice["delta"], choice["finish_reason"]) == ({}, None)


@pytest.mark.parametrize(("char", "is_found"), [("a", True), ("你", True), ("é", False), ("\u0301", True)])
@pytest.mark.parametrize("place", [0, 2_000_000])
def test_long_texts_that_differ_by_a_blank_are_compared_at_once(
    char: str, place: int, is_found: bool
) -> None:
    """Letter by letter four million took three seconds and 800 MB."""
    sent = char * 4_000_000
    begun = time.process_time()
    rest = rest_alike(f"{sent[:place]} {sent[place:]} more", sent)
    assert time.process_time() - begun < 1
    assert rest == (" more" if is_found else None)
