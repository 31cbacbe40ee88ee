"""JSON of Coze's of which a part is no JSON, and characters that came in halves."""

import time

import orjson
import pytest

from app.coze.fold import Fold
from app.coze.loose_json import loose_object, mended_object, split_half, whole
from app.coze.stream import SSEDecoder, SSEEvent
from app.coze.wire import ChatState, Message, integer, unix_seconds

from .vectors import CHAT, DELTA, MESSAGE, event

MENDED = [
    (b'{"a":"x\xf0\x9f","b":1}', {"a": "x\ufffd", "b": 1}),
    (b'{"a":"\xff\xfe"}', {"a": "\ufffd\ufffd"}),
    (b'{"a":"\\ud83d"}', {"a": "\ufffd"}),
    (b'{"a":"\\ude00x"}', {"a": "\ufffdx"}),
    (b'{"a":"\\ud83d\\ud83d\\ude00"}', {"a": "\ufffd\U0001f600"}),
    (b'{"\\ud83d":"k"}', {"\ufffd": "k"}),
    (b'{"a":1e999,"b":-1e999,"c":2}', {"a": None, "b": None, "c": 2}),
    (b'{"a":[NaN,Infinity,-Infinity,01,1.,+1,.5]}', {"a": [None] * 7}),
    (b'{"a":' + b"9" * 5000 + b',"b":1}', {"a": None, "b": 1}),
    (b'{"a":99999999999999999999999999,"b":1e999}', {"a": "99999999999999999999999999", "b": None}),
    (b'{"a":"\\x41 \\u12G4 \\\\x","c":"ok"}', {"a": "\ufffdx41 \ufffdu12G4 \\x", "c": "ok"}),
    (b'{"a":"tab\there\x01"}', {"a": "tab\there\x01"}),
    (b'\xef\xbb\xbf {"a":undefined}', {"a": None}),
    (b'{"a":1} and more', {"a": 1}),
    (b'{"a":{"b":["\xff"]}}', {"a": {"b": ["\ufffd"]}}),
]


@pytest.mark.parametrize(("data", "read"), MENDED)
def test_what_is_readable_is_read_and_can_be_written_again(data: bytes, read: object) -> None:
    found = mended_object(data)

    assert found == read
    assert orjson.loads(orjson.dumps(found)) == read


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a"', b'{"a":"x', b"[1]", b"null", b"\xff", b'{"a":' * 100_000]
)
def test_what_is_no_object_stays_unreadable(data: bytes) -> None:
    assert mended_object(data) is None


BAD_FOR_READERS = {
    "a text without end, full of quotes": b'{"a":"' + b'\\"' * 500_000,
    "a text without end that ends in an escape": b'{"a":"' + b'\\"' * 500_000 + b"\\",
    "backslashes": b'{"a":"' + b"\\" * 1_000_000,
    "quotes": b'{"a":' + b'"' * 1_000_000,
    "bytes that are no text": b'{"a":"' + b"\x80" * 1_000_000 + b'x"}',
}


@pytest.mark.parametrize("name", BAD_FOR_READERS)
def test_what_is_broken_on_purpose_takes_time_by_its_length_alone(name: str) -> None:
    began = time.process_time()
    found = loose_object(BAD_FOR_READERS[name])
    for text in (found or {}).values():
        split_half(str(text))
    assert time.process_time() - began < 3  # by the square of it these take minutes


@pytest.mark.parametrize(
    ("text", "before", "half"),
    [
        ("plain", "plain", ""),
        ("a\ud83d", "a", "\ud83d"),
        ("a\ude00", "a\ude00", ""),
        ("a\udcf0", "a", "\udcf0"),  # noqa: PT014  # another surrogate
        ("a\udcf0\udc9f\udc98", "a", "\udcf0\udc9f\udc98"),
        ("a\udcff", "a\udcff", ""),  # noqa: PT014
        ("a\udc80\udce4", "a\udc80", "\udce4"),
        ("\udce4\udcbd", "", "\udce4\udcbd"),
        ("\ud83d x", "\ud83d x", ""),
    ],
)
def test_only_the_beginning_of_a_character_waits_for_more(text: str, before: str, half: str) -> None:
    assert split_half(text) == (before, half)


CHARACTER = "\U0001f600".encode()
SPLITS: list[tuple[list[bytes], str]] = [
    ([CHARACTER[:1], CHARACTER[1:]], "\U0001f600"),
    ([CHARACTER[:2], CHARACTER[2:]], "\U0001f600"),
    ([CHARACTER[:1], CHARACTER[1:3], CHARACTER[3:]], "\U0001f600"),
    ([b"a" + CHARACTER[:3], CHARACTER[3:] + b"b"], "a\U0001f600b"),
    ([b"\\ud83d", b"\\ude00"], "\U0001f600"),
    ([b"\\ud83d", b"\\udc80"], "\U0001f480"),
    ([b"x\\ud83d", b"", b"\\ude00y"], "x\U0001f600y"),
    ([b"x\\ud83d", b"y"], "x\ufffdy"),
    ([b"x", b"\\ude00y"], "x\ufffdy"),
    ([b"x", CHARACTER[:2]], "x\ufffd"),
    ([b"x\xff", b"y"], "x\ufffdy"),
    ([CHARACTER[:2], b"y", CHARACTER[2:]], "\ufffdy\ufffd\ufffd"),
]


def told(frames: list[bytes]) -> str:
    """What a reader has who appends deltas and lets snapshots replace them. Every frame has to be UTF-8."""
    text = ""
    for each in frames:
        (found,) = SSEDecoder().feed(each)
        data = orjson.loads(found.data)
        if found.name == DELTA.decode():
            text += data["content"]
        elif found.name == "snapshot":
            text = "".join(item["content"] for item in data["messages"])
    return text


def delta(content: bytes, more: bytes = b"") -> SSEEvent:
    data = b'{"id":"m","role":"assistant","type":"answer","content":"' + content + b'"' + more + b"}"
    return SSEEvent(DELTA.decode(), data)


END = SSEEvent((CHAT + b"completed").decode(), b'{"id":"6","conversation_id":"5","status":"completed"}')


@pytest.mark.parametrize(("parts", "text"), SPLITS)
def test_a_character_in_halves_is_joined_or_replaced_and_readers_have_the_same(
    parts: list[bytes], text: str
) -> None:
    fold = Fold()

    frames = fold.feed_all([*map(delta, parts), END])

    assert (fold.content(), fold.status) == (text, "completed")
    assert told(frames) == text


def test_the_completed_message_brings_the_other_half() -> None:
    fold = Fold()
    whole_text = '{"id":"m","type":"answer","content":"one \U0001f600 two"}'.encode()

    frames = fold.feed_all([delta(b"one " + CHARACTER[:2]), SSEEvent(MESSAGE.decode(), whole_text), END])

    assert fold.content() == "one \U0001f600 two" == told(frames)


@pytest.mark.parametrize(
    "more",
    [
        b',"section_id":"\xff"',
        b',"meta_data":{"x":"\xf0\x9f"}',
        b',"x":"\\ud83d"',
        b',"x":"\\q"',
        b',"\xff":1',
    ],
)
def test_a_bad_field_that_nobody_reads_costs_neither_text_nor_utf8(more: bytes) -> None:
    fold = Fold()

    frames = fold.feed_all([delta(b"hi", more), END])

    assert (fold.content(), fold.status, told(frames)) == ("hi", "completed", "hi")
    assert fold.reader.mended == 1


def test_a_delta_that_cannot_be_read_leaves_the_answer_open_for_the_stored_one() -> None:
    fold = Fold()

    fold.feed_all([delta(b"one "), SSEEvent(DELTA.decode(), b'{"id":"m","content":"tw'), END])

    assert (fold.status, fold.settled, fold.reader.lost) == ("in_progress", True, 1)
    stored = Message(id="m", type="answer", content="one two")
    fold.adopt([stored], ChatState(id="6", conversation_id="5", status="completed"))
    assert (fold.status, fold.content()) == ("completed", "one two")


def test_an_answer_with_a_gap_is_not_there_where_coze_has_stored_none() -> None:
    fold = Fold()
    fold.feed_all([delta(b"one "), SSEEvent(DELTA.decode(), b"{"), END])

    assert fold.lacks_answer([], ChatState(id="6", conversation_id="5", status="completed"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1737533801, 1737533801),
        (1737533801123, 1737533801),
        ("1737533801", 1737533801),
        (1737533801.9, 1737533801),
        (0, 0),
        (-1, None),
        (-1_000_000_000_000, None),
        (253402300800, 253402300),
        (9_000_000_000_000_000_000, None),
        (1e26, None),
        ("x", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_times_are_seconds_that_a_calendar_has_or_none(value: object, seconds: int | None) -> None:
    assert unix_seconds(value) == seconds


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60), 1e300, "9" * 19, "1.5", {}, False])
def test_numbers_that_nobody_counts_to_are_none(value: object) -> None:
    assert integer(value) is None


def test_whole_leaves_good_text_as_it_is() -> None:
    assert whole("a\U0001f600\u4f60") == "a\U0001f600\u4f60"


def test_events_that_are_passed_on_unread_are_utf8() -> None:
    fold = Fold()
    decoder = SSEDecoder()

    frames = [
        shown
        for found in decoder.feed(
            event(b"PING", b"\xff text") + event(b"conversation.audio.delta", b'{"a":"\xff"}')
        )
        for shown in fold.feed(found)
    ]

    assert b"".join(frames).decode() == (
        'event: PING\ndata: \ufffd text\n\nevent: conversation.audio.delta\ndata: {"a":"\ufffd"}\n\n'
    )
