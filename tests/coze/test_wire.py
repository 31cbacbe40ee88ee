"""Requests, addresses, and tolerant readings of answers."""

import json
from typing import Any

import pytest

from app.coze.codes import CODES, coze_error, retries_before_start, retries_when_safe, rule_for
from app.coze.replies import Head, looks_like, parse_retry_after, read_reply
from app.coze.wire import (
    ChatRequest,
    ChatState,
    Endpoints,
    EnterMessage,
    Message,
    TokenUsage,
    required_action_of,
)
from app.exceptions import (
    CozeApiError,
    CozeBusy,
    CozeOverloaded,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    UpstreamError,
)


def head(status: int = 200, **headers: str) -> Head:
    return Head.of(status, {name.replace("_", "-"): value for name, value in headers.items()})


def refused(body: bytes, status: int = 200, **headers: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read_reply(head(status, **headers), body)
    return caught.value


# -- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chat_url", "base_url", "base"),
    [
        ("https://api.coze.cn/v3/chat", None, "https://api.coze.cn"),
        ("https://api.coze.cn/v3/chat/", "", "https://api.coze.cn"),
        ("http://localhost:5000/coze/v3/chat", None, "http://localhost:5000/coze"),
        ("http://localhost:5000/coze/v3/chat", "http://127.0.0.1:5000/coze", "http://127.0.0.1:5000/coze"),
        ("http://x/v3/chat", "http://y/coze/v3", "http://y/coze"),
        ("http://x/v3/chat", "http://y/coze/v3/", "http://y/coze"),
        ("http://x/chat", "http://y", "http://y"),
        ("http://v3/v3/chat", None, "http://v3"),
    ],
)
def test_all_addresses_hang_off_the_same_prefix(chat_url: str, base_url: str | None, base: str) -> None:
    found = Endpoints.derive(chat_url, base_url)

    assert found.chat == chat_url.rstrip("/")
    assert found.base == base
    assert found.url("/v3/chat/retrieve") == base + "/v3/chat/retrieve"


def test_a_chat_address_that_tells_no_base_needs_one() -> None:
    with pytest.raises(ValueError, match="base address"):
        Endpoints.derive("https://proxy.example/chat")


# -- requests ---------------------------------------------------------------------------------------------


def test_the_conversation_goes_into_the_query_and_not_into_the_body() -> None:
    request = ChatRequest(bot_id="9", user_id="u", messages=[], conversation_id="5")

    assert request.query == {"conversation_id": "5"}
    assert json.loads(request.body(stream=True)) == {
        "bot_id": "9",
        "user_id": "u",
        "stream": True,
        "auto_save_history": True,
        "additional_messages": [],
    }
    assert ChatRequest(bot_id="9", user_id="u", messages=[]).query == {}


def test_a_request_carries_what_was_given_and_each_message_the_type_of_its_role() -> None:
    messages = [EnterMessage("assistant", "hi"), EnterMessage("user", "你", meta_data={"k": "v"})]
    request = ChatRequest(
        bot_id="9",
        user_id="u",
        messages=messages,
        auto_save_history=False,
        custom_variables={"name": "x"},
        meta_data={"chat": "c"},
        parameters={"n": [1]},
    )
    body = json.loads(request.body(stream=False))

    assert body["additional_messages"] == [
        {"role": "assistant", "type": "answer", "content": "hi", "content_type": "text"},
        {
            "role": "user",
            "type": "question",
            "content": "你",
            "content_type": "text",
            "meta_data": {"k": "v"},
        },
    ]
    assert (body["stream"], body["auto_save_history"]) == (False, False)
    assert (body["custom_variables"], body["meta_data"]) == ({"name": "x"}, {"chat": "c"})
    assert body["parameters"] == {"n": [1]}


# -- answers ----------------------------------------------------------------------------------------------


def test_r1_a_chat_that_failed_at_once_reports_its_code_and_its_list_is_empty() -> None:
    body = (
        b'{"code":0,"msg":"","data":{"id":"6","conversation_id":"5","bot_id":"9","status":"failed",'
        b'"last_error":{"code":4028,"msg":"credits"}}}'
    )
    found = ChatState.parse(read_reply(head(), body).data, logid="L")
    error = found.failure()

    assert found.status == "failed"
    assert isinstance(error, CozeQuotaExhausted)
    assert (error.coze_code, error.logid, error.maybe_started) == (4028, "L", True)
    listed = read_reply(head(), b'{"code":0,"msg":"","detail":{"logid":"L"}}')
    assert (listed.data, listed.logid) == (None, "L")


def test_r2_an_absent_code_is_success() -> None:
    body = b'{"data":{"id":"6","conversation_id":"5","bot_id":"9","status":"canceled"}}'

    assert ChatState.parse(read_reply(head(), body).data).status == "canceled"


def test_r3_null_fields_are_read() -> None:
    found = ChatState.parse({"id": "6", "last_error": None, "usage": None})

    assert (found.error_code, found.usage, found.status) == (None, None, "unknown")


def test_r4_paging_keys_sit_beside_the_data() -> None:
    body = b'{"code":0,"msg":"","data":[],"first_id":"0","last_id":"0","has_more":false}'
    reply = read_reply(head(), body)

    assert (reply.data, reply.body["last_id"], reply.body["has_more"]) == ([], "0", False)


def test_r5_the_shapes_of_the_self_hosted_server_are_read() -> None:
    cancelled = read_reply(head(), b'{"ChatV3ChatDetail":{"status":"cancelled"},"BaseResp":null}')
    assert ChatState.parse(cancelled.data).status == "canceled"
    listed = read_reply(head(x_log_id="S"), b'{"Messages":[{"id":"7"}],"code":0}')
    assert (listed.data, listed.logid) == ([{"id": "7"}], "S")


@pytest.mark.parametrize(
    ("spelling", "status"),
    [
        ("created", "created"),
        ("compleated", "completed"),
        ("cancelled", "canceled"),
        ("required_action", "requires_action"),
        ("expired", "failed"),
        ("later", "unknown"),
        (None, "unknown"),
        (3, "unknown"),
    ],
)
def test_every_spelling_of_a_status_is_one_of_ours(spelling: Any, status: str) -> None:
    assert ChatState.parse({"status": spelling}).status == status


@pytest.mark.parametrize("junk", [None, [], "x", 3, {}, {"id": {}, "usage": [], "meta_data": "x"}])
def test_junk_reads_as_an_empty_chat(junk: Any) -> None:
    found = ChatState.parse(junk)

    assert (found.id, found.conversation_id, found.status, found.meta_data) == ("", "", "unknown", {})


def test_zero_usage_is_none_and_the_other_spelling_counts() -> None:
    assert TokenUsage.parse({"token_count": 0, "output_count": 0, "input_count": 0}) is None
    assert TokenUsage.parse({"input_tokens": 1, "output_tokens": "2"}) == TokenUsage(3, 1, 2)


def test_an_empty_tool_call_shell_is_no_action() -> None:
    assert required_action_of({"type": "", "submit_tool_outputs": {"tool_calls": []}}) is None
    assert required_action_of({"submit_tool_outputs": {"tool_calls": None}}) is None
    assert required_action_of({"submit_tool_outputs": []}) is None


def test_a_message_of_the_user_is_known_by_its_role() -> None:
    listed = Message.parse({"id": 7, "role": "user", "type": "", "created_at": "1716809829", "content": None})

    assert listed is not None
    assert (listed.is_question, listed.id, listed.created_at, listed.content) == (True, "7", 1716809829, "")
    assert Message.parse("x") is None


def test_an_id_out_of_bounds_is_no_id() -> None:
    assert ChatState.parse({"id": "x" * 129, "conversation_id": 7380000000000000005}).id == ""
    assert ChatState.parse({"conversation_id": 7380000000000000005}).conversation_id == "7380000000000000005"


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_code_in_the_body_counts_whatever_the_status(status: int) -> None:
    error = refused(b'{"code":4016,"msg":"busy","detail":{"logid":"20250101ABC"}}', status)

    assert isinstance(error, CozeBusy)
    assert (error.coze_code, error.logid, error.maybe_started) == (4016, "20250101ABC", False)
    assert "4016" in error.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, CozeRateLimited) for code in (4008, 4013, 4020)),
        (4016, CozeBusy),
        (4009, CozeOverloaded),
        *((code, CozeQuotaExhausted) for code in (4011, 4019, 4022, 4027, 4028, 788788103)),
        *((code, CozeApiError) for code in (4000, 4001, 4015, 4100, 4102, 5000, 700012006, 1, 999999999)),
    ],
)
def test_the_class_of_each_code(code: int, kind: type[UpstreamError]) -> None:
    assert type(coze_error(code, maybe_started=False)) is kind


def test_every_listed_code_makes_an_error_that_tells_it() -> None:
    for code in CODES:
        error = coze_error(code, logid="L", maybe_started=True)
        assert error.details["coze_code"] == code
        assert error.details["logid"] == "L"
        assert str(code) in error.message


def test_operators_are_told_what_to_do() -> None:
    hint = coze_error(4100, maybe_started=False).hint
    assert hint is not None
    assert "COZE_API_TOKEN" in hint
    assert "hint" in coze_error(4015, maybe_started=False).details


def test_cozes_own_text_never_gets_into_an_error() -> None:
    error = refused(b'{"code":5000,"msg":"panic: goroutine 12","detail":{"logid":"L"}}')

    assert "goroutine" not in str(error)
    assert "goroutine" not in json.dumps(error.details)


@pytest.mark.parametrize(
    ("status", "kind", "started", "retryable"),
    [
        (301, CozeApiError, False, False),
        (400, CozeApiError, False, False),
        (401, CozeApiError, False, False),
        (404, CozeApiError, False, False),
        (408, CozeApiError, True, True),
        (429, CozeRateLimited, False, True),
        (500, CozeApiError, False, True),
        (502, CozeApiError, False, True),
        (503, CozeApiError, False, True),
        (504, CozeApiError, True, True),
    ],
)
@pytest.mark.parametrize("body", [b"<html><h1>Bad Gateway</h1>", b"", b"\xff", b'{"code":0}', b"[1]"])
def test_a_status_without_a_code(
    status: int, kind: type[UpstreamError], started: bool, retryable: bool, body: bytes
) -> None:
    error = refused(body, status, content_type="text/html", x_tt_logid="L")

    assert type(error) is kind
    assert (error.maybe_started, error.retryable) == (started, retryable)
    assert (error.coze_code, error.logid) == (None, "L")
    assert str(status) in error.message
    assert "html" not in error.message.lower()
    assert "Gateway" not in error.message


@pytest.mark.parametrize("body", [b"", b"<html>login here</html>", b"[]", b"null", b"{"])
def test_a_success_that_is_no_json_object_may_have_started_something(body: bytes) -> None:
    error = refused(body)

    assert (error.message, error.maybe_started) == ("Coze's answer is not JSON", True)


def test_the_older_error_form_is_an_error_and_its_logid_is_kept() -> None:
    error = refused(b'{"error":{"logid":"OLD","detail":"x"}}')
    assert (error.logid, error.coze_code) == ("OLD", None)
    assert refused(b'{"code":"4100","error":{"logid":"OLD"}}').coze_code == 4100


def test_a_byte_order_mark_before_json_is_ignored() -> None:
    assert read_reply(head(), b'\xef\xbb\xbf{"data":{}}').data == {}


def test_an_unlisted_code_on_a_429_is_a_rate_limit() -> None:
    error = refused(b'{"code":4999}', 429, retry_after="7")

    assert isinstance(error, CozeRateLimited)
    assert error.retry_after == 7
    assert retries_before_start(error) > 3


@pytest.mark.parametrize(
    ("code", "retries"),
    [
        (4009, 1000),
        (4013, 1000),
        (4000, 0),
        (4016, 0),
        (4020, 0),
        (4100, 0),
        (5000, 2),
        (5001, 0),
        (720702222, 2),
        (720700801, 1),
        (123456789, 0),
        (4998, 0),
    ],
)
def test_how_often_a_code_may_be_asked_again(code: int, retries: int) -> None:
    assert retries_before_start(coze_error(code, maybe_started=False)) == retries
    assert retries_before_start(coze_error(code, maybe_started=True)) == 0
    assert rule_for(code).retries == retries


def test_a_safe_call_is_repeated_after_a_break_and_once_after_a_timeout() -> None:
    assert retries_when_safe(CozeApiError(retryable=True)) > 3
    assert retries_when_safe(CozeTimeout()) == 1
    assert retries_when_safe(CozeTimeout(maybe_started=False)) > 3
    assert retries_when_safe(CozeApiError()) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        (" 0 ", 0),
        ("-5", 0),
        ("999999", 86400),
        ("", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 86400),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(value: str, seconds: int | None) -> None:
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"", "unknown"),
        (b" \r\n", "unknown"),
        (b"\n{", "json"),
        (b"<html", "markup"),
        (b"event:", "stream"),
        (b"\xef\xbb\xbfdata:", "stream"),
        (b": ping", "stream"),
        (b"id: 7", "stream"),
        (b"retry: 1", "stream"),
        (b"[", "json"),
        (b"null", "json"),
        (b'"x"', "json"),
        (b"-1", "json"),
        (b" true", "json"),
    ],
)
def test_the_first_byte_tells_what_a_body_is(first: bytes, kind: str) -> None:
    assert looks_like(first) == kind
