"""A refusal that comes as the beginning of a stream, in each of its envelopes."""

import pytest

from app.coze.codes import retries_before_start
from app.coze.replies import Head, raise_refusal
from app.exceptions import CozeBusy, UpstreamError

HEAD = Head(status=200, content_type="text/event-stream", logid="L1", retry_after=None)
FAILED = "conversation.chat.failed"

REFUSALS = [
    ("error", b'{"code":4016,"msg":"x"}', 4016),
    ("error", b'{"code":"4013","msg":"x"}', 4013),
    ("error", b'{"code":4009.0}', 4009),
    ("error", b'{"code":4100,"msg":"\xff"}', 4100),
    ("error", b'{"code":700012006,"x":1e999}', 700012006),
    ("error", b'{"code":4028,"msg":"\\ud83d"}', 4028),
    ("error", b'{"code":5000,"detail":{"logid":"L2"}}', 5000),
    ("error", b'{"code":700012014}', 700012014),
    ("message", b'{"code":4016,"msg":"x"}', 4016),
    ("message", b'{"code":4100,"msg":"x"}', 4100),
    (FAILED, b'{"code":4016,"msg":"x"}', 4016),
    (FAILED, b'{"last_error":{"code":4013,"msg":"x"}}', 4013),
    ("error", b'{"error_code":4016,"error_message":"x"}', 4016),
    ("error", b'{"code":0,"error_code":"4013"}', 4013),
    (FAILED, b'{"last_error":{"error_code":4100}}', 4100),
]


@pytest.mark.parametrize(("name", "data", "code"), REFUSALS)
def test_a_refusal_in_any_envelope_says_that_nothing_was_begun(name: str, data: bytes, code: int) -> None:
    with pytest.raises(UpstreamError) as caught:
        raise_refusal(name, data, HEAD)

    assert (caught.value.coze_code, caught.value.maybe_started) == (code, False)
    assert isinstance(caught.value, CozeBusy) == (code == 4016)


@pytest.mark.parametrize(
    ("name", "data", "tells"),
    [
        ("conversation.chat.created", b'{"id":"7"}', True),
        ("conversation.message.delta", b'{"id":"1","code":4016}', True),
        (FAILED, b'{"id":"7","last_error":{"code":4016}}', True),
        ("error", b"{}", True),
        ("error", b"not json", True),
        ("done", b'"[DONE]"', True),
        ("PING", b'{"code":4016}', False),
        ("message", b"[DONE]", False),
        ("message", b'{"code":0}', False),
    ],
)
def test_what_tells_of_a_chat_or_has_no_code_is_no_refusal(name: str, data: bytes, tells: bool) -> None:
    assert raise_refusal(name, data, HEAD) is tells


@pytest.mark.parametrize("status", [200, 400, 403, 429, 500])
@pytest.mark.parametrize("code", [700012014, 123456789, 999999999, 100000000])
def test_a_nine_digit_code_that_nobody_knows_is_not_repeated(code: int, status: int) -> None:
    head = Head(status=status, content_type="", logid=None, retry_after=1)

    with pytest.raises(UpstreamError) as caught:
        raise_refusal("error", b'{"code":%d}' % code, head)

    assert retries_before_start(caught.value) == 0
