"""The event stream grammar, on bytes."""

from itertools import pairwise

import pytest
from httpx_sse._decoders import SSEDecoder as OracleDecoder
from httpx_sse._decoders import SSELineDecoder as OracleLines
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coze.stream import SSEDecoder, SSEEvent, StreamTooLarge, frame
from app.exceptions import CozeApiError

from .vectors import BEG, DELTA, END, VECTORS, chat, event, message

SMALL = [name for name in VECTORS if name != "24_1mb"]


def decode(reads: list[bytes]) -> list[SSEEvent]:
    decoder = SSEDecoder()
    return [found for read in reads for found in decoder.feed(read)]


def oracle(stream: bytes) -> list[tuple[str, str]]:
    """httpx-sse on the whole text. It also dispatches events without data, which the standard does not."""
    lines = OracleLines()
    decoder = OracleDecoder()
    text = stream.decode("utf-8").removeprefix("\ufeff")
    found = [decoder.decode(line) for line in lines.decode(text)]
    # A CR at the very end is held back by the oracle until it is flushed.
    found += [decoder.decode(line) for line in lines.flush() if not line]
    return [(item.event or "message", item.data) for item in found if item is not None]


def in_text(events: list[SSEEvent]) -> list[tuple[str, str]]:
    return [(item.name, item.data.decode()) for item in events]


@pytest.mark.parametrize("name", SMALL)
def test_a_vector_gives_the_same_events_whole_as_read_and_one_byte_at_a_time(name: str) -> None:
    reads = VECTORS[name]
    whole = b"".join(reads)
    expected = decode([whole])

    assert decode(reads) == expected
    assert decode([whole[at : at + 1] for at in range(len(whole))]) == expected


@pytest.mark.parametrize("name", SMALL)
def test_a_vector_gives_the_same_events_cut_at_every_byte(name: str) -> None:
    whole = b"".join(VECTORS[name])
    expected = decode([whole])

    for at in range(len(whole) + 1):
        assert decode([whole[:at], whole[at:]]) == expected, f"cut at byte {at}"


@pytest.mark.parametrize("name", SMALL)
def test_a_vector_reads_as_an_independent_decoder_reads_it(name: str) -> None:
    whole = b"".join(VECTORS[name])

    assert in_text(decode([whole])) == [pair for pair in oracle(whole) if pair[1] or pair[0] == "done"]


def test_coze_own_bytes_become_named_events_with_untouched_data() -> None:
    assert decode(VECTORS["01_plain"])[:3] == [
        SSEEvent("conversation.chat.created", chat(b"created")),
        SSEEvent("conversation.chat.in_progress", chat(b"in_progress")),
        SSEEvent("conversation.message.delta", message("answer", "你")),
    ]


def test_crlf_and_lone_cr_end_lines_as_lf_does() -> None:
    plain = decode([BEG + event(DELTA, message("answer", "ok")) + END])

    assert decode(VECTORS["03_crlf"]) == plain
    assert decode(VECTORS["04_lone_cr"]) == plain[2:]


def test_a_cr_ends_its_event_without_waiting_for_the_next_read() -> None:
    decoder = SSEDecoder()

    assert decoder.feed(b"data:x\r\r") == [SSEEvent("message", b"x")]
    assert decoder.feed(b"\ndata:y\r\n") == []
    assert decoder.feed(b"\r\n") == [SSEEvent("message", b"y")]


def test_data_lines_are_joined_and_empty_data_counts_but_no_data_line_does_not() -> None:
    assert decode([b"data:a\ndata:\ndata: b\n\n"]) == [SSEEvent("message", b"a\n\nb")]
    assert decode([b"event:done\ndata:\n\n"]) == [SSEEvent("done", b"")]
    assert decode([b"event:done\ndata\n\n"]) == [SSEEvent("done", b"")]
    assert decode([b"event:ghost\n\ndata:x\n\n"]) == [SSEEvent("message", b"x")]


def test_other_line_separators_of_unicode_do_not_cut() -> None:
    (delta, *_) = decode(VECTORS["09_u2028"])

    assert delta.data == message("answer", "a\u2028b\u0085c\u2029d")


def test_a_byte_order_mark_is_dropped_at_the_start_only() -> None:
    assert decode(VECTORS["07_bom"])[0].name == "conversation.chat.created"
    assert decode([b"\xef", b"\xbb", b"\xbfdata:x\n\n"]) == [SSEEvent("message", b"x")]
    assert decode([b"data:x\n\n", b"\xef\xbb\xbfdata:y\n\n"]) == [SSEEvent("message", b"x")]
    assert decode([b"\xef\xbbdata:x\n\ndata:y\n\n"]) == [SSEEvent("message", b"y")]


def test_what_was_not_ended_is_in_the_tail_and_never_an_event() -> None:
    decoder = SSEDecoder()
    events = [found for read in VECTORS["20_cut"] for found in decoder.feed(read)]

    assert [found.name for found in events] == [
        "conversation.chat.created",
        "conversation.chat.in_progress",
        "conversation.message.delta",
    ]
    assert decoder.tail() == b'data:{"id":"71","con'


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n", b"\r\n"])
def test_a_bare_json_line_is_found_in_the_tail(ending: bytes) -> None:
    decoder = SSEDecoder()

    assert decoder.feed(VECTORS["22_json200"][0] + ending) == []
    assert decoder.tail() == VECTORS["22_json200"][0]


def test_the_megabyte_event_comes_out_whole_however_it_is_cut() -> None:
    whole = b"".join(VECTORS["24_1mb"])
    expected = decode([whole])

    assert len(expected[0].data) > 1_050_000
    assert decode([whole[at : at + 1] for at in range(len(whole))]) == expected
    assert decode([whole[at : at + 1400] for at in range(0, len(whole), 1400)]) == expected


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_the_work_is_linear_in_the_bytes_fed(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the bytes that are gone through line by line: each byte once, whatever the reads."""
    looked_at = 0
    original = SSEDecoder._lines

    def counting(self: SSEDecoder, chunk: bytes) -> list[SSEEvent]:
        nonlocal looked_at
        looked_at += len(self._line) + len(chunk)
        return original(self, chunk)

    monkeypatch.setattr(SSEDecoder, "_lines", counting)
    whole = event(DELTA, b"x" * 200_000) + b"data:a\ndata:b\n" * 5_000 + b"\n"
    decode([whole[at : at + size] for at in range(0, len(whole), size)])

    assert looked_at <= 2 * len(whole)


def test_an_event_over_the_bound_is_refused_after_what_was_complete() -> None:
    decoder = SSEDecoder(max_event_bytes=100)

    with pytest.raises(StreamTooLarge, match="larger than 100 bytes") as caught:
        decoder.feed(b"data:small\n\ndata:" + b"x" * 101 + b"\n\n")

    assert caught.value.events == [SSEEvent("message", b"small")]
    assert isinstance(caught.value, CozeApiError)
    assert caught.value.maybe_started


@pytest.mark.parametrize(
    "stream",
    [
        b"data:" + b"x" * 200,  # not even ended
        b":" + b"x" * 200 + b"\n",  # a comment
        b"data:1234567890\n" * 20,  # many small lines
        b"data:\n" * 200,  # many empty ones
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_nothing_unended_grows_past_the_bound(stream: bytes, size: int) -> None:
    decoder = SSEDecoder(max_event_bytes=100)

    reads = [stream[at : at + size] for at in range(0, len(stream), size)]
    with pytest.raises(StreamTooLarge):
        [decoder.feed(read) for read in reads]


def test_the_whole_stream_has_a_bound() -> None:
    decoder = SSEDecoder(max_stream_bytes=20)
    decoder.feed(b"data:12345\n\n")

    with pytest.raises(StreamTooLarge, match="larger than 20 bytes"):
        decoder.feed(b"data:12345\n\n")


# -- frames -----------------------------------------------------------------------------------------------


def test_a_frame_is_three_lines_and_ends_in_the_only_blank_one() -> None:
    assert frame("done", b'"[DONE]"') == b'event: done\ndata: "[DONE]"\n\n'
    assert frame("done", b"") == b"event: done\ndata: \n\n"


def test_line_breaks_in_data_become_data_lines() -> None:
    made = frame("error", b"a\nb\r\nc\rd\n\ne\n")

    assert made == b"event: error\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: e\ndata: \n\n"
    assert decode([made]) == [SSEEvent("error", b"a\nb\nc\nd\n\ne\n")]


@given(data=st.binary(max_size=200))
def test_a_frame_reads_back_as_its_data(data: bytes) -> None:
    made = frame("x", data)

    assert made.index(b"\n\n") == len(made) - 2
    assert decode([made]) == [SSEEvent("x", data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))]


# -- any stream, any cut ----------------------------------------------------------------------------------

FIELDS = [b"data:", b"data: ", b"event:", b"event: x", b"id:1", b":", b" ", b"a", b"{", b"[DONE]"]
ENDS = [b"\n", b"\n", b"\r", b"\r\n"]
ODD = ["汉".encode(), "\u2028".encode(), "\u0085".encode(), b"\x0b", b"\x1c", b"\xef\xbb\xbf"]
PIECES = st.sampled_from(FIELDS + ENDS + ODD)


@settings(max_examples=300, deadline=None)
@given(
    stream=st.lists(PIECES, max_size=40).map(b"".join),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_any_cut_of_any_stream_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    reads = [stream[start:end] for start, end in pairwise(places)]

    assert decode(reads) == decode([stream])


@settings(max_examples=300, deadline=None)
@given(stream=st.lists(PIECES, max_size=40).map(b"".join))
def test_any_stream_reads_as_an_independent_decoder_reads_it(stream: bytes) -> None:
    # The oracle cannot tell an event without data lines from one with an empty one: compare what has data.
    expected = [(name, data) for name, data in oracle(stream) if data]

    assert [pair for pair in in_text(decode([stream])) if pair[1]] == expected
