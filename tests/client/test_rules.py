"""When the client tries again and when it does not, and what it makes of odd streams: on scripted answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random
from time import thread_time
from typing import Any

import httpx
import pytest
from coze_fastapi_client import (
    ChatNotFound,
    CozeClient,
    CozeServiceError,
    Event,
    RateLimited,
    Replacement,
    ServiceFault,
    StreamBroken,
    Unavailable,
    UnexpectedAnswer,
    UpstreamError,
)
from coze_fastapi_client._sse import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

Answer = httpx.Response | Exception


class Script:
    """Answers one after the other, whatever is asked; keeps what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options: Any) -> CozeClient:
        http = httpx.Client(transport=httpx.MockTransport(self))
        return CozeClient("http://coze.test/prefix/", http=http, **options)


def refusal(status: int, code: str, *, after: str = "", **error: Any) -> httpx.Response:
    body = {"code": code, "message": "no", "request_id": "req_1", "retryable": status >= 429, "details": {}}
    headers = {"Retry-After": after} if after else {}
    return httpx.Response(
        status, headers=headers, json={"success": False, "data": None, "error": body | error}
    )


def envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "success": True,
        "data": {"task_id": None, "task_status": "completed", "task_result": {"data": data}},
    }


SESSION = {"session_id": "s-1", "user_id": "u-1", "status": "active"}
CHAT = {"chat_id": "c-1", "session_id": "s-1", "status": "completed", "content": "ab"}


def ok(data: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=envelope(data))


# -- calls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "passing",
    [
        refusal(503, "SHUTTING_DOWN"),
        refusal(429, "RATE_LIMITED"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
    ],
    ids=str,
)
def test_what_passes_is_tried_again_under_the_same_key(passing: Answer) -> None:
    script = Script(passing, passing, ok(SESSION))
    with script.client() as client:
        assert client.sessions.create("u-1").session_id == "s-1"
    assert len({request.headers["Idempotency-Key"] for request in script.asked}) == 1
    assert len(script.asked) == 3


@pytest.mark.parametrize(
    ("final", "error"),
    [
        (refusal(500, "INTERNAL_ERROR"), ServiceFault),
        (refusal(404, "COZE_CHAT_NOT_FOUND"), ChatNotFound),
        (refusal(503, "COZE_QUOTA_EXHAUSTED", retryable=False), Unavailable),
        # The chat has failed: under the same key it would only fail again.
        (refusal(502, "COZE_API_ERROR", details={"chat_id": "c-1"}), UpstreamError),
        (httpx.Response(200, text="<html>welcome</html>"), UnexpectedAnswer),
        (httpx.Response(200, json=[]), UnexpectedAnswer),
    ],
    ids=str,
)
def test_what_does_not_pass_is_said_at_once(final: httpx.Response, error: type[Exception]) -> None:
    script = Script(final)
    with script.client() as client, pytest.raises(error):
        client.chats.send("s-1", "hello")
    assert len(script.asked) == 1


def test_retries_end() -> None:
    script = Script(*[refusal(503, "OVERLOADED") for _ in range(3)])
    with script.client(max_retries=2) as client, pytest.raises(Unavailable):
        client.health()
    assert script.answers == []


def test_retry_after_is_waited_for_and_no_longer_than_the_patience() -> None:
    script = Script(refusal(429, "RATE_LIMITED", after="1"), ok(CHAT))
    began = time.monotonic()
    with script.client() as client:
        client.chats.result("c-1")
    assert time.monotonic() - began >= 1
    script = Script(refusal(429, "RATE_LIMITED", after="3600"))
    with script.client() as client, pytest.raises(RateLimited) as limited:
        client.chats.result("c-1")
    assert limited.value.retry_after == 3600


def test_every_request_carries_who_asks() -> None:
    tokens = iter(["t-1", "t-2"])
    script = Script(refusal(503, "OVERLOADED"), ok(SESSION))
    with script.client(token=lambda: next(tokens), host="music.moicen.com") as client:
        client.sessions.get("a/b?c")
    assert [request.headers["HtySudoerToken"] for request in script.asked] == ["t-1", "t-2"]
    assert {request.headers["HtyHost"] for request in script.asked} == {"music.moicen.com"}
    assert script.asked[0].url.raw_path == b"/prefix/coze/sessions/a%2Fb%3Fc?history_limit=20"


def test_a_caller_with_an_api_key_sends_it_alone() -> None:
    keys = iter(["k-1", "k-2"])
    script = Script(refusal(503, "OVERLOADED"), ok(SESSION))
    with script.client(api_key=lambda: next(keys)) as client:
        client.sessions.get("s-1")
    assert [request.headers["Authorization"] for request in script.asked] == ["Bearer k-1", "Bearer k-2"]
    assert "HtySudoerToken" not in script.asked[0].headers
    with pytest.raises(ValueError, match="an api_key, or a token"):
        script.client(api_key="k-1", token="t-1", host="music.moicen.com")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"api_key": "abc secret"}, r"api_key has the character U\+0020"),
        ({"token": "…"}, r"token has the character U\+2026.*placeholder"),
        ({"token": "abc\n"}, r"token has white space around it.*strip"),
        ({"token": "ab c"}, r"token has the character U\+0020"),
        ({"token": b"secret"}, "token has to be a str, not bytes"),
        ({"host": "音乐.example"}, r"host has the character U\+97F3"),
    ],
)
def test_what_no_header_can_have_is_refused_at_once_and_never_quoted(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        CozeClient("http://coze.test", **wrong)
    assert "abc" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_function_that_gives_a_wrong_token_is_a_value_error_of_the_call() -> None:
    script = Script(ok(SESSION))
    with script.client(token=lambda: "…") as client, pytest.raises(ValueError, match="token"):
        client.sessions.get("s-1")
    assert script.asked == []


def test_a_base_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        CozeClient("127.0.0.1:6000")


def test_a_newer_service_may_say_more_and_an_older_one_less() -> None:
    script = Script(ok({**CHAT, "usage": {"token_count": 1, "cached": 3}, "new": [1]}), ok(CHAT))
    with script.client() as client:
        more, less = client.chats.result("c-1"), client.chats.result("c-1")
    assert (more.raw["new"], more.usage and more.usage.token_count) == ([1], 1)
    assert (less.usage, less.follow_up_questions, less.tool_calls) == (None, (), ())


# -- streams ----------------------------------------------------------------------------------------------


class Cut(httpx.SyncByteStream):
    """Bytes, and then a connection that breaks."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Any:
        yield self._body
        raise httpx.ReadError("reset")


def sse(*frames: tuple[str, str, Any], cut: bool = False) -> httpx.Response:
    lines = [
        (f"id: {at}\n" if at else "") + f"event: {name}\ndata: {json.dumps(data)}\n\n"
        for at, name, data in frames
    ]
    body = "".join(lines).encode()
    headers = {"Content-Type": "text/event-stream", "X-Coze-Chat-Id": "c-1"}
    return httpx.Response(200, headers=headers, **({"stream": Cut(body)} if cut else {"content": body}))


def delta(at: str, text: str, message: str = "m-1") -> tuple[str, str, Any]:
    return at, "conversation.message.delta", {"id": message, "type": "answer", "content": text}


def completed(at: str, text: str, message: str = "m-1") -> tuple[str, str, Any]:
    return at, "conversation.message.completed", {"id": message, "type": "answer", "content": text}


def snapshot(at: str, *texts: str) -> tuple[str, str, Any]:
    messages = [{"id": f"m-{n}", "type": "answer", "content": text} for n, text in enumerate(texts, 1)]
    return at, "snapshot", {"messages": messages, "follow_up_questions": []}


def end(at: str, content: str = "ab", **chat: Any) -> list[tuple[str, str, Any]]:
    return [(at, "result", envelope({**CHAT, "content": content, **chat})), (at, "done", "[DONE]")]


RECONNECT = ("", "reconnect", "come back")


def reading(*answers: Answer, after: str | None = None, **options: Any) -> tuple[Script, Any, list[str]]:
    script = Script(*answers)
    with script.client(**options) as client, client.chats.follow("c-1", after=after) as stream:
        pieces = list(stream.text_deltas())
    return script, stream, pieces


def test_what_comes_again_is_dropped_and_what_is_missing_is_asked_for_again() -> None:
    script, stream, pieces = reading(
        sse(delta("1-1", "a"), delta("1-1", "a"), delta("1-3", "c"), cut=True),
        sse(delta("1-1", "a"), delta("1-2", "b"), *end("1-2")),
    )
    assert (pieces, stream.connections) == (["a", "b"], 2)
    assert script.asked[1].headers["Last-Event-ID"] == "1-1"
    assert script.asked[1].url.path == "/prefix/coze/chats/c-1/events"


@pytest.mark.parametrize(
    "broken",
    [
        sse(delta("1-1", "a"), RECONNECT),
        sse(delta("1-1", "a"), cut=True),
        sse(delta("1-1", "a")),
        sse(
            delta("1-1", "a"), ("", "error", {"code": "COZE_REDIS_ERROR", "retryable": True}), ("", "done", 1)
        ),
        sse(delta("1-1", "a"), ("1-1", "done", "[DONE]")),
    ],
    ids=["reconnect", "reset", "ended", "error without id", "done without result"],
)
def test_a_reading_that_ends_early_goes_on(broken: httpx.Response) -> None:
    script, stream, pieces = reading(
        broken, refusal(503, "SHUTTING_DOWN"), sse(delta("1-2", "b"), *end("1-2"))
    )
    assert (pieces, stream.connections, len(script.asked)) == (["a", "b"], 2, 3)


def test_machinery_is_no_event() -> None:
    script = Script(sse(delta("1-1", "a"), RECONNECT), sse(delta("1-2", "b"), *end("1-2")))
    with script.client() as client, client.chats.follow("c-1") as stream:
        names = [event.name.rpartition(".")[2] for event in stream]
    assert names == ["delta", "delta", "result"]


def test_heartbeats_are_no_news_and_no_trouble() -> None:
    """A bot thinks for longer than the patience, behind a proxy that cuts each connection after a while."""
    headers = {"Content-Type": "text/event-stream"}
    thinking = [httpx.Response(200, headers=headers, content=b": keep-alive\n\n") for _ in range(8)]
    _, stream, pieces = reading(*thinking, sse(delta("1-1", "ab"), *end("1-1")), patience=0.5)
    assert (pieces, stream.connections) == (["ab"], 9)


def test_a_chat_that_is_unknown_for_a_moment_is_asked_for_again() -> None:
    """A store that has lost its newest writes; at the very start it is an answer."""
    _, _, pieces = reading(
        sse(delta("1-1", "a"), cut=True),
        refusal(404, "COZE_CHAT_NOT_FOUND"),
        sse(delta("1-2", "b"), *end("1-2")),
    )
    assert pieces == ["a", "b"]
    with pytest.raises(ChatNotFound):
        reading(refusal(404, "COZE_CHAT_NOT_FOUND"))


def test_what_was_refused_for_good_ends_a_stream() -> None:
    with pytest.raises(CozeServiceError) as refused:
        reading(sse(delta("1-1", "a"), cut=True), refusal(401, "AUTH_INVALID", retryable=False))
    assert refused.value.code == "AUTH_INVALID"


def test_a_stream_without_news_is_given_up_after_the_patience() -> None:
    answers = [sse(delta("1-1", "a"), cut=True), *[sse(cut=True) for _ in range(50)]]
    with pytest.raises(StreamBroken) as broken:
        reading(*answers, patience=0.6)
    assert (broken.value.chat_id, broken.value.last_event_id) == ("c-1", "1-1")


# What a snapshot is to a reader who has read something.


def test_a_snapshot_that_agrees_brings_only_the_rest() -> None:
    _, _, pieces = reading(
        sse(delta("1-1", "a"), snapshot("2-1", "ab"), delta("2-2", "c"), *end("2-3", "abc"))
    )
    assert pieces == ["a", "b", "c"]


def test_a_snapshot_that_is_behind_takes_nothing_back() -> None:
    """The dead process had shown more than it had stored."""
    _, stream, pieces = reading(
        sse(
            delta("1-1", "abc"),
            snapshot("2-1", "a"),
            delta("2-2", "b"),
            delta("2-3", "cd"),
            *end("2-4", "abcd"),
        )
    )
    assert pieces == ["abc", "d"]
    assert stream.text == "abcd"


def test_a_snapshot_that_contradicts_replaces() -> None:
    _, stream, pieces = reading(
        sse(delta("1-1", "ax"), snapshot("2-1", "ab"), delta("2-2", "c"), *end("2-3", "abc"))
    )
    assert pieces == ["ax", "ab", "c"]
    assert [isinstance(piece, Replacement) for piece in pieces] == [False, True, False]
    assert stream.text == "abc"


def test_words_that_do_not_come_again_are_taken_back_at_the_end() -> None:
    _, stream, pieces = reading(sse(delta("1-1", "abc"), snapshot("2-1", "a"), *end("2-2", "a")))
    assert pieces == ["abc", "a"]
    assert isinstance(pieces[1], Replacement)
    assert stream.text == "a"


def test_the_stored_answer_counts_where_it_reads_otherwise() -> None:
    _, _, pieces = reading(sse(delta("1-1", "bad words"), snapshot("1-2", "***"), *end("1-3", "***")))
    assert pieces == ["bad words", Replacement("***")]
    assert isinstance(pieces[1], Replacement)


def test_what_a_completed_message_says_is_not_read() -> None:
    """The service sends a delta or a snapshot before it wherever it says more."""
    _, stream, pieces = reading(
        sse(delta("1-1", "a"), completed("1-2", "other"), delta("1-3", "b"), *end("1-4", "ab"))
    )
    assert (pieces, stream.text) == (["a", "b"], "ab")


def test_a_message_that_has_no_words_yet_keeps_its_place() -> None:
    frames = [delta("1-1", ""), delta("1-2", "x", "m-2"), delta("1-3", "a")]
    _, stream, pieces = reading(sse(*frames, *end("1-4", "a\nx")))
    assert (pieces, stream.text) == (["x", "a\nx"], "a\nx")
    frames = [delta("1-1", "a"), delta("1-2", "", "m-2"), delta("1-3", "x", "m-2"), delta("1-4", "", "m-3")]
    _, stream, pieces = reading(sse(*frames, *end("1-5", "a\nx")))
    assert (pieces, stream.text) == (["a", "\nx"], "a\nx")


@pytest.mark.parametrize("odd", [{"content": 7}, {"id": None}, {"type": "new_kind"}, {"content": None}])
def test_odd_deltas_do_no_harm(odd: dict[str, Any]) -> None:
    name = "conversation.message.delta"
    frames = [delta("1-1", "ab"), ("1-2", name, {"id": "m-9", "content": "", **odd})]
    _, stream, pieces = reading(sse(*frames, *end("1-3", "ab")))
    assert (pieces, stream.text) == (["ab"], "ab")


def test_answers_that_come_interleaved_end_in_order() -> None:
    _, stream, pieces = reading(
        sse(delta("1-1", "a"), delta("1-2", "x", "m-2"), delta("1-3", "b"), *end("1-4", "ab\nx"))
    )
    assert pieces == ["a", "\nx", "ab\nx"]
    assert stream.text == stream.chat.content


def test_behind_an_id_only_what_is_new_is_told() -> None:
    _, _, pieces = reading(sse(delta("1-3", "c"), completed("1-4", "abc"), *end("1-5", "abc")), after="1-2")
    assert pieces == ["c"]
    _, _, pieces = reading(sse(completed("1-4", "abc"), *end("1-5", "abc")), after="1-3")
    assert pieces == []
    # The log is gone: the service has but the whole.
    _, _, pieces = reading(sse(snapshot("1-4", "abc"), *end("1-5", "abc")), after="1-3")
    assert "".join(pieces) == "abc"


def test_a_cancelled_chat_keeps_what_was_read() -> None:
    _, stream, pieces = reading(sse(delta("1-1", "ab"), *end("1-2", "", status="cancelled")))
    assert (pieces, stream.text, stream.chat.status) == (["ab"], "ab", "cancelled")


# -- the grammar ------------------------------------------------------------------------------------------

TEXT = (
    ': hi\n\nretry: 1000\n\nid: 1-1\nevent: a\ndata: "你好"\n\n'
    "event:b\ndata:1\ndata:2\n\nid: 9\n\ndata: x\n\n"
)
EVENTS = [Event("1-1", "a", '"你好"'), Event(None, "b", "1\n2"), Event(None, "message", "x")]


def fed(chunks: Iterable[bytes]) -> tuple[list[Event], int]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)], decoder.comments


@pytest.mark.parametrize("end_of_line", ["\n", "\r\n", "\r"])
def test_a_stream_may_be_cut_at_every_byte(end_of_line: str) -> None:
    # A carriage return at the very end may be half of a line end, so one more line comes behind.
    raw = (TEXT + ":\n").replace("\n", end_of_line).encode()
    cuts: Callable[[int], list[bytes]] = lambda at: [raw[:at], raw[at:]]  # noqa: E731
    for at in range(len(raw)):
        assert fed(cuts(at))[0] == EVENTS
    assert fed(raw[n : n + 1] for n in range(len(raw)))[0] == EVENTS


PARTS = ["\n", "\r", "\r\n", "data: x", "data:你🙂", "data", "event: a", "id: 1-1", ": hi", "retry: 1", "é"]


@given(st.lists(st.sampled_from(PARTS)), st.randoms(use_true_random=False), st.booleans())
def test_events_do_not_depend_on_where_a_stream_is_cut(parts: list[str], at: Random, marked: bool) -> None:
    raw = ("".join(parts) + ":\n").encode()
    cuts = sorted(at.choices(range(len(raw) + 1), k=at.randrange(10)))
    pieces = [raw[begin:end] for begin, end in pairwise([0, *cuts, len(raw)])]
    assert fed(pieces) == fed([raw])
    if marked:  # a byte order mark is no part of the first line
        assert fed(bytes([byte]) for byte in b"\xef\xbb\xbf" + raw) == fed([raw])


def test_a_line_of_megabytes_costs_what_short_lines_of_the_same_length_do() -> None:
    """The processor's time, against that of the same bytes: a quadratic decoder takes a thousand times it."""
    piece, times = b"data: " + b"x" * 4089, []
    for end in (b"\n", b""):
        began = thread_time()
        [event], _ = fed([*[piece + end] * 2048, b"\n\n"])
        times.append(thread_time() - began)
        assert len(event.data) > 2047 * 4089
    assert times[1] < 20 * times[0] + 0.5
