"""What a client has can only grow: frames, snapshots and takeovers in any order give the whole answer, or an
error, and never a character twice."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from app.doors.openai.chunks import ChunkStream
from app.doors.openai.texts import SentText
from app.exceptions import CozeApiError, ServiceError
from app.models import Cursor
from app.tasks.reader import Batch, Ending

CHAT_ID = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"


def frame(event: str, data: Any) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def delta(message_id: str, text: str, **more: str) -> bytes:
    data = {"id": message_id, "type": "answer", "content": text, **more}
    return frame("conversation.message.delta", data)


def snapshot(**texts: str) -> bytes:
    messages = [
        {"id": name, "type": "answer", "content": text, "reasoning_content": ""}
        for name, text in texts.items()
    ]
    return frame("snapshot", {"messages": messages, "follow_up_questions": []})


def completed(message_id: str, text: str, kind: str = "answer") -> bytes:
    return frame("conversation.message.completed", {"id": message_id, "type": kind, "content": text})


def ending(content: str, status: str = "completed", reasoning: str = "") -> Ending:
    chat = {"chat_id": CHAT_ID, "status": status, "content": content, "reasoning_content": reasoning}
    return Ending(json.dumps(chat | {"usage": None}).encode())


def told(pieces: bytes) -> str:
    chunks = [json.loads(block[6:]) for block in pieces.decode().split("\n\n") if block.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


def read(*batches: list[bytes], final: str) -> str:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False)
    pieces = b"".join(stream.batch(Batch(1, 1, frames)) for frames in batches)
    return told(pieces + asyncio.run(stream.ending(ending(final), Cursor(1, 9))))


@pytest.mark.parametrize(
    ("frames", "final"),
    [
        ([delta("1", "ab"), snapshot(**{"1": "abcd"}), delta("1", "ef")], "abcdef"),
        ([delta("1", "abcd"), snapshot(**{"1": "ab"}), delta("1", "cdef")], "abcdef"),
        ([delta("1", "abcd"), snapshot(), delta("1", "abcdef")], "abcdef"),
        ([delta("1", "abcd"), snapshot(**{"1": "ab"}), delta("1", "c"), delta("1", "def")], "abcdef"),
        ([delta("1", "abcd"), snapshot(**{"1": "ab"}), snapshot(**{"1": "abcdef"})], "abcdef"),
        ([snapshot(**{"1": "one", "2": "tw"}), delta("2", "o")], "one\ntwo"),
        ([delta("1", "one"), delta("2", "two"), snapshot(**{"9": "one\ntwo"})], "one\ntwo"),
        ([delta("1", "one"), delta("2", ""), delta("2", "two"), delta("3", "3")], "one\ntwo\n3"),
        ([delta("1", ""), delta("2", "two"), delta("3", ""), delta("2", "!")], "two!"),
        ([delta("1", "abc "), snapshot(**{"1": "abc"})], "abc"),
        ([delta("1", "abc"), completed("1", "what it says is not read")], "abc"),
        ([completed("9", "next?", "follow_up"), delta("1", "x")], "x"),
        ([], "all of it"),
        ([delta("1", "a part")], "a part\nand a message that the log lost"),
    ],
)
def test_the_rest_is_sent_where_the_beginning_agrees(frames: list[bytes], final: str) -> None:
    assert read(frames, final=final).rstrip() == final
    assert read(*[[one] for one in frames], final=final).rstrip() == final


@pytest.mark.parametrize(
    ("frames", "final"),
    [
        ([delta("1", "abcd"), snapshot(**{"1": "abX"})], "abX"),
        ([delta("1", "a"), delta("2", "b"), delta("1", "c")], "ac\nb"),
        ([delta("1", "one"), delta("2", "b"), snapshot(**{"2": "b"})], "b"),
        ([delta("1", "abcd")], "abce"),
        ([delta("1", "abcd")], "ab"),
        ([delta("1", "abcd"), snapshot(**{"1": "ab"})], "ab"),
        ([delta("1", "abcd"), snapshot(**{"1": "ab"}), delta("1", "Xd")], "abXd"),
    ],
)
def test_an_answer_that_was_replaced_ends_with_an_error(frames: list[bytes], final: str) -> None:
    with pytest.raises(CozeApiError) as caught:
        read(frames, final=final)
    assert caught.value.details["openai_code"] == "answer_replaced"


@pytest.mark.parametrize("other", [snapshot(**{"1": "abX"}), snapshot(**{"2": "X", "1": "abcd"})])
def test_a_replaced_answer_is_told_at_once(other: bytes) -> None:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False)
    stream.batch(Batch(1, 1, [delta("1", "abcd")]))
    with pytest.raises(CozeApiError):
        stream.batch(Batch(2, 1, [other]))


def test_thoughts_and_answer_are_kept_apart() -> None:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False)
    frames = [
        delta("1", "", reasoning_content="hm"),
        delta("1", "", reasoning_content="m"),
        delta("1", "yes"),
    ]
    chunks = stream.batch(Batch(1, 1, frames)).decode().split("\n\n")[:-1]
    deltas = [json.loads(chunk[6:])["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"reasoning_content": "hmm"}, {"content": "yes"}]


@pytest.mark.parametrize(
    ("snapshots", "rest"),
    [
        ([{"1": "I look"}, {"1": "I look", "2": "21"}], "21"),
        ([{"1": "I"}, {"1": "I look", "2": "21"}], "21"),
        ([{"1": "I look it up"}], " it up"),
        ([{"1": "I look", "2": "21"}, {"1": "I"}, {"1": "I look", "2": "21"}], "21"),
    ],
)
def test_after_tools_a_log_that_is_behind_brings_nothing_twice(
    snapshots: list[dict[str, str]], rest: str
) -> None:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False, before={"content": "I look"})
    assert told(b"".join(stream.batch(Batch(2, 1, [snapshot(**each)])) for each in snapshots)) == rest


def test_after_tools_only_what_is_new_is_sent() -> None:
    before = {"content": "I look", "reasoning_content": ""}
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False, before=before)
    pieces = stream.batch(
        Batch(2, 1, [snapshot(**{"1": "I look"}), delta("2", "21"), delta("2", " degrees")])
    )
    pieces += asyncio.run(stream.ending(ending("I look\n21 degrees"), Cursor(2, 9)))
    assert told(pieces) == "21 degrees"


@pytest.mark.parametrize(("status", "code"), [("cancelled", "chat_cancelled"), ("failed", None)])
def test_what_is_not_whole_does_not_end_as_if_it_were(status: str, code: str | None) -> None:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=True)
    with pytest.raises(ServiceError) as caught:
        asyncio.run(stream.ending(ending("a part", status), Cursor(1, 2)))
    assert caught.value.details.get("openai_code") == code
    assert b"[DONE]" not in stream.error(caught.value, "")
    assert stream.finished


def test_whatever_comes_in_whatever_order_gives_the_answer_or_an_error() -> None:
    """A log as takeovers leave it: each may set it back to any place before what the client has."""
    chance = random.Random(4711)
    for _ in range(2000):
        final = ["".join(chance.choices("ab\n🙂", k=chance.randrange(1, 12))) for _ in range(3)]
        sent, out, places = SentText(), "", [0, 0, 0]
        for number, text in enumerate(final):
            while places[number] < len(text):
                move = chance.random()
                if move < 0.25:
                    places[number] = chance.randrange(places[number] + 1)
                    known = {str(n): final[n][: places[n]] for n in range(number + 1)}
                    out += sent.replace((name, known[name]) for name in known if known[name])
                else:
                    step = chance.randrange(1, 4)
                    out += sent.add(str(number), text[places[number] : places[number] + step])
                    places[number] = min(len(text), places[number] + step)
            if chance.random() < 0.3:
                out += sent.replace((str(n), final[n]) for n in range(number + 1))
        whole = "\n".join(final)
        assert out == whole
        assert sent.end(whole) == ""
