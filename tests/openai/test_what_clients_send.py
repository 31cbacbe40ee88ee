"""Whatever clients send is read as what it means, or refused with the place and the reason."""

from __future__ import annotations

import base64
import json
import random
import time
import tracemalloc
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import pytest
from pydantic import ValidationError

from app.doors.openai.bodies import ChatCompletionRequest
from app.doors.openai.completions import bot_of
from app.doors.openai.data_urls import clean_url, data_of_url
from app.doors.openai.dialog import Question, question_of, tool_outputs_of
from app.doors.openai.errors import openai_error
from app.exceptions import ModelNotFound, ValidationFailed

from .support import said

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
TRICKY = PNG + bytes(range(256)) + b"\xfb\xff\xfexy"
BASE64 = base64.b64encode(TRICKY).decode()
assert BASE64.endswith("==")
assert {"+", "/"} <= set(BASE64)
MAX_IMAGE = 10_000


def body_of(messages: Any, **more: Any) -> ChatCompletionRequest:
    body = {"model": "coze", "messages": messages} | more
    return ChatCompletionRequest.model_validate_json(json.dumps(body))


def asked(messages: Any, **more: Any) -> Question:
    return question_of(body_of(messages, **more), MAX_IMAGE)


def refused(messages: Any, **more: Any) -> dict[str, Any]:
    """The error as clients get it."""
    with pytest.raises(ValidationFailed) as caught:
        asked(messages, **more)
    return cast("dict[str, Any]", openai_error(caught.value)["error"])


# -- data: URLs -------------------------------------------------------------------------------------------

PERCENT = BASE64.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
WITH_BREAKS = "\r\n".join(BASE64[n : n + 76] for n in range(0, len(BASE64), 76))


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{BASE64}",
        f"data:image/png;base64,{BASE64.rstrip('=')}",
        f"data:image/png;base64,{BASE64.removesuffix('=')}",
        f"data:image/png;base64,{BASE64.replace('+', '-').replace('/', '_')}",
        f"data:image/png;base64,{BASE64.replace('+', '-').replace('/', '_').rstrip('=')}",
        f"data:image/png;base64,{PERCENT}",
        f"data:image/png;base64,{WITH_BREAKS}",
        f"data:image/png;base64,{WITH_BREAKS}\n",
        "data:image/png;base64,{}".format(BASE64.replace("A", "A\t ").replace("B", "B\f")),
        "data:image/png;base64,{}".format(WITH_BREAKS.replace("\r\n", "%0D%0A")),
        f"data:image/png;base64, {BASE64}",
        f" \0\n data:image/png;base64,{BASE64} \x1f ",
        f"da\nta:image/png;base\t64,{BASE64}",
        f"DATA:IMAGE/PNG;BASE64,{BASE64}",
        f"data: image/png ; base64 ,{BASE64}",
        f"data:;base64,{BASE64}",
        f"data:application/octet-stream;base64,{BASE64}",
        f"data:text/plain;charset=utf-8;base64,{BASE64}",
        f'data:image/png;name="a b.png";base64,{BASE64}',
        f"data:image/png;base64;name=a.png,{BASE64}",
        f"data:nonsense;base64,{BASE64}",
        f"data:image/png;base64,{BASE64}#fragment",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in TRICKY),
    ],
)
def test_every_form_of_a_data_url_that_browsers_take_gives_the_same_bytes(url: str) -> None:
    question = asked(
        [said([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}])]
    )
    assert [image.data for image in question.asked.enclosed] == [TRICKY]
    assert data_of_url(clean_url(url)) == TRICKY


LONG = TRICKY + random.Random(1).randbytes(300_000)


@pytest.mark.parametrize("shift", range(4))
def test_a_long_file_is_read_in_pieces_that_cut_nothing(shift: int) -> None:
    data = bytes(shift) + LONG
    text = base64.b64encode(data).decode()
    broken = "%0A \f".join(text[at : at + 7] for at in range(0, len(text), 7))
    escaped = "," * shift + "".join(f"%{byte:02X}" for byte in data)
    assert data_of_url(f"data:;base64,{text}") == data
    assert data_of_url(f"data:;base64,{broken}{'=' * 100_000}") == data
    assert data_of_url(f"data:,{escaped}") == b"," * shift + data
    for url in (f"data:;base64,{text[:-1]}=A", f"data:,{escaped}%4", f"data:;base64,{text}!"):
        with pytest.raises(ValueError, match="base64"):
            data_of_url(url)


@pytest.mark.parametrize("piece", ["%41", "%25", "%3d", "%3Da", "=", "%41=%0A", "_", "+"])
def test_escapes_are_read_as_everybody_reads_them_and_are_no_objects_each(piece: str) -> None:
    url = "data:," + piece * 200_000
    tracemalloc.start()
    try:
        data = data_of_url(url)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data == unquote_to_bytes(piece * 200_000)
    assert most < 12 * len(url), "each escape would be an object, and two million of them take seconds"


@pytest.mark.parametrize("text", ["%", "%4", "%%41", "a%", "%4g", "%g4", "=%=", "%\t41"])
def test_a_percent_sign_that_begins_no_escape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="%"):
        data_of_url("data:," + text)


def test_the_words_of_a_media_type_are_bounded() -> None:
    with pytest.raises(ValueError, match="media type"):
        data_of_url("data:" + ";" * 1_000_000 + ",AAAA")


def test_an_address_outside_of_ascii_is_cleaned_as_fast_as_any() -> None:
    began = time.process_time()
    assert len(clean_url("data:," + "\u00e9\n" * 4_000_000)) == 4_000_006
    assert time.process_time() - began < 0.4  # letter by letter it takes a second, in which nobody is served


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,", "holds nothing"),
        ("data:,", "holds nothing"),
        ("data:image/png;base64,!!!!", "not base64"),
        ("data:image/png;base64,iVBORw==KGgo", "not base64"),
        ("data:image/png;base64,iVBOR", "cut off"),
        ("data:image/png;base64,%zz%zz", "not base64"),
        ("data:image/png;base64,图图图图", "not base64"),
        ("data:image/png;base64," + base64.b64encode(b"%PDF-1.7").decode(), "application/pdf"),
        ("data:image/png;base64," + base64.b64encode(b"<svg xmlns='x'>").decode(), "HTML"),
        ("data:image/png," + BASE64, "text/plain"),
        ("http://example.com/a.png", "https"),
        ("https://example.com/" + "a" * 2048, "at most 2048"),
        ("file:///etc/passwd", "https"),
        (BASE64, "https"),
        ("", "https"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason_and_passed_over_in_the_history(
    url: str, reason: str
) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    error = refused([said([{"type": "text", "text": "?"}, part])])
    assert reason.lower() in error["message"].lower()
    assert error["param"] == "messages.0.content.1.image_url.url"
    assert not url or len(url) < 10 or url not in error["message"]
    later = asked([said([{"type": "text", "text": "old"}, part]), said("new")])
    assert [(turn.text, turn.enclosed) for turn in later.history] == [("old", [])]


# -- parts ------------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
FOREIGN: list[Any] = [
    {"type": "reasoning", "text": "hm"},
    {"type": "thinking", "thinking": "hm", "signature": "x"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "tool_use", "id": "1", "name": "f", "input": {}},
    {"type": "tool_result", "tool_use_id": "1", "content": "x"},
    {"type": "tool_call", "id": "1"},
    {"type": "server_tool_use", "id": "1"},
    {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
    {"type": "audio", "audio": {"id": "x"}},
    {"type": "file", "file": {"file_id": "x"}},
    {"type": "input_file", "file_id": "x"},
    {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
    {"type": "image", "source": {"type": "base64", "data": "x"}},
    {"type": "image_file", "image_file": {"file_id": "x"}},
    {"type": "image_url"},
    {"type": "image_url", "image_url": None},
    {"type": "text"},
    {"type": "text", "text": None},
    {"type": "text", "text": ["x"]},
    {"type": ["text"], "text": "x"},
    {"type": {}, "text": "x"},
    {"type": "step_start"},
    {},
    None,
    True,
    ["x"],
]


@pytest.mark.parametrize("part", FOREIGN, ids=json.dumps)
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_part_that_cannot_be_sent_is_passed_over_in_the_history_and_refused_at_the_end(
    part: Any, role: str
) -> None:
    words = {"type": "text", "text": "b"}
    question = asked([said([part, words], role), said([part], "assistant"), said("c")])
    assert [(turn.text, turn.enclosed) for turn in question.history] == [("b", [])]
    error = refused([said("a"), said([words, part])])
    assert error["param"].startswith("messages.1.content.1.")


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "b"}],
        [{"type": "input_text", "text": "b"}],
        [{"type": "output_text", "text": "b", "annotations": []}],
        [{"type": "refusal", "refusal": "b"}],
        [{"type": "text", "text": {"value": "b", "annotations": []}}],
        [{"text": "b"}],
        ["b"],
        {"type": "text", "text": "b"},
        "b",
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_every_part_with_a_text_is_taken_wherever_it_stands(content: Any, role: str) -> None:
    question = asked([said(content, role), said(content)])
    assert ([turn.text for turn in question.history], question.asked.text) == (["b"], "b")


@pytest.mark.parametrize(
    "part",
    [
        IMAGE,
        {"type": "image_url", "image_url": "https://example.com/a.png"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"image_url": {"url": " https://example.com/a.png\n"}},
    ],
)
def test_pictures_are_the_users_and_one_alone_gets_a_text(part: Any) -> None:
    question = asked([said([part]), said([part, {"type": "text", "text": "b"}], "assistant"), said([part])])
    turns = [*question.history, question.asked]
    assert [(turn.role, turn.text, len(turn.enclosed)) for turn in turns] == [
        ("user", "[image]", 1),
        ("assistant", "b", 0),
        ("user", "[image]", 1),
    ]
    assert turns[0].enclosed[0].url == "https://example.com/a.png"
    blank = asked([said([{"type": "text", "text": " "}, part])])
    assert blank.asked.text == "[image]"


def test_a_picture_of_the_history_that_is_too_large_to_upload_is_passed_over() -> None:
    large = base64.b64encode(PNG + bytes(MAX_IMAGE)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{large}"}}
    question = asked([said([part, {"type": "text", "text": "old"}]), said([part])])
    assert [(turn.text, turn.enclosed) for turn in question.history] == [("old", [])]
    assert len(question.asked.enclosed) == 1


# -- where the question is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "history", "question"),
    [
        ([said("t", "system")], [], "t"),
        ([said("t", "developer")], [], "t"),
        ([said("r", "system"), said("t", "system")], ["r"], "t"),
        ([said("a"), said("t", "system")], ["a"], "t"),
        ([said("a"), said("b", "assistant"), said("t", "developer")], ["a", "b"], "t"),
        ([said("r", "system"), said("a"), said("t", "system")], ["r", "a"], "t"),
        ([said("a"), said("", "assistant")], [], "a"),
        ([said("a"), said([], "assistant")], [], "a"),
        ([said("a"), said(None, "assistant")], [], "a"),
        ([said("a"), said([{"type": "text", "text": " "}], "assistant")], [], "a"),
        ([said("a"), said(" \n", "system")], [], "a"),
        ([said("r", "system"), said("a"), said("", "assistant"), said("", "system")], ["r"], "a"),
        ([said([{"type": "text", "text": "t"}], "system")], [], "t"),
        (said("alone"), [], "alone"),
    ],
)
def test_the_question_is_the_last_message_that_says_something(
    messages: Any, history: list[str], question: str
) -> None:
    found = asked(messages)
    assert ([turn.text for turn in found.history], found.asked.text) == (history, question)
    assert found.asked.role == "user"


@pytest.mark.parametrize(
    "messages",
    [
        [said("a"), said("b", "assistant")],
        [said("", "assistant")],
        [said("a"), {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}],
        [said("a"), {"role": "function", "name": "f", "content": "21"}, said("", "assistant")],
    ],
)
def test_a_dialog_without_a_question_is_refused_with_the_place(messages: Any) -> None:
    error = refused(messages)
    assert error["param"].startswith("messages.")
    assert error["param"].endswith(".role")


def test_more_messages_than_are_read_are_too_long() -> None:
    error = refused([said("a")] * 10_001)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


def test_a_tool_output_that_is_too_long_is_told_so() -> None:
    call = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n:x"
    message = {"role": "tool", "tool_call_id": call, "content": "a" * 500_001}
    with pytest.raises(ValidationFailed) as caught:
        tool_outputs_of(body_of([message]).messages)
    assert openai_error(caught.value)["error"]["code"] == "context_length_exceeded"


# -- values of another type -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "given", "meant"),
    [
        ("n", 1.0, 1),
        ("n", "1", 1),
        ("n", None, None),
        ("user", 123, "123"),
        ("user", 123.0, "123"),
        ("user", -5, "-5"),
        ("user", 0, "0"),
        ("user", 9_007_199_254_740_993, "9007199254740993"),
        ("model", 4, "4"),
        ("stream", "true", True),
        ("stream", "False", False),
        ("stream", 1, True),
        ("stream", 0, False),
        ("stream", 0.0, False),
        ("logprobs", "false", False),
        ("logprobs", 0, False),
        ("metadata", {"a": 1}, {"a": "1"}),
        ("metadata", {"a": 1.0}, {"a": "1"}),
        ("metadata", {"a": 1.5}, {"a": "1.5"}),
        ("metadata", {"a": True, "b": False}, {"a": "true", "b": "false"}),
        ("metadata", {"a": None}, {"a": ""}),
        ("metadata", [], {}),
        ("tool_choice", {"type": "auto"}, {"type": "auto"}),
        ("tool_choice", {"type": "none"}, {"type": "none"}),
        ("response_format", "text", "text"),
    ],
)
def test_a_value_of_another_type_is_read_where_its_meaning_is_beyond_doubt(
    field: str, given: Any, meant: Any
) -> None:
    assert getattr(body_of([said("x")], **{field: given}), field) == meant


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("n", 1.5),
        ("n", "one"),
        ("n", True),
        ("n", 2.0),
        ("n", "2"),
        ("n", []),
        ("n", float("nan")),
        ("n", 1e300),
        ("user", True),
        ("user", 1.5),
        ("user", float("inf")),
        ("user", 10**400),
        ("user", ["u"]),
        ("user", {"id": "u"}),
        ("stream", "yes"),
        ("stream", "1"),
        ("stream", 2),
        ("stream", []),
        ("stream", ""),
        ("logprobs", "true"),
        ("logprobs", 1),
        ("metadata", "a"),
        ("metadata", ["a"]),
        ("metadata", {"a": {}}),
        ("metadata", {"a": ["x"]}),
        ("metadata", {"a": float("nan")}),
        ("metadata", {"a": 10**400}),
        ("messages", "hi"),
        ("messages", {}),
        ("messages", [["hi"]]),
        ("messages", [said(True)]),
        ("stream_options", True),
        ("stream_options", {"include_usage": "maybe"}),
        ("tool_choice", {}),
        ("tool_choice", {"type": "required"}),
        ("tool_choice", {"type": ["auto"]}),
        ("tool_choice", False),
        ("response_format", "json"),
        ("response_format", ["text"]),
    ],
)
def test_a_value_that_could_mean_several_things_is_refused_at_its_field(field: str, given: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        body_of(**{"messages": [said("x")], field: given})
    assert caught.value.errors()[0]["loc"][0] == field


def test_numbers_in_messages_are_texts_and_usage_is_asked_for_by_any_clear_flag() -> None:
    question = asked([said(1, "user"), said(2.0, "assistant"), said([3])])
    assert ([turn.text for turn in question.history], question.asked.text) == (["1", "2"], "3")
    for flag, meant in (("true", True), (1, True), ("False", False), (0, False)):
        assert body_of([said("x")], stream_options={"include_usage": flag}).include_usage is meant
    assert body_of([said("x")], stream_options=[]).include_usage is False


def test_meta_data_is_metadata_and_both_together_are_refused() -> None:
    assert body_of([said("x")], meta_data={"session_id": "s", "a": 1}).metadata == {
        "session_id": "s",
        "a": "1",
    }
    assert body_of([said("x")], meta_data=None, metadata={"a": "b"}).metadata == {"a": "b"}
    with pytest.raises(ValidationError, match="the same"):
        body_of([said("x")], meta_data={"a": "b"}, metadata={"a": "b"})


# -- models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", ["", "cOZE", "coze ", "coze/", "/coze", "gpt-4o", "coze\0", "扣子", "a/b/c", "*"]
)
def test_a_name_that_is_not_listed_is_no_model(model: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        bot_of({"coze": "1", "a/b": "2"}, model)
    error = openai_error(caught.value)["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_outputs_are_told_by_their_calls_names_however_many_there_are() -> None:
    ours = "call_coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"
    others: list[Any] = [{"id": f"x{n}", "function": {"name": "other"}} for n in range(5000)]
    odd: list[Any] = [{"id": {"a": 1}, "function": {"name": "odd"}}, {"function": {"name": "odd"}}, 5]
    named: list[Any] = [{"id": ours, "function": {"name": "older"}}, {"id": ours, "function": {"name": "f"}}]
    outputs = [{"role": "tool", "tool_call_id": ours, "content": "1"}] * 4000
    calls = {"role": "assistant", "tool_calls": [*named, *odd, *others]}
    asked = question_of(body_of([calls, *outputs]), 1).asked.text
    assert asked.count("The function `f` returned:\n1") == 4000
