"""Whatever Coze sends, stores and leaves out: who reads by the folding rule alone has what the fold has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.coze.fold import Fold
from app.coze.stream import SSEEvent
from app.coze.wire import ChatState, Message
from app.models.chats import Chat
from app.tasks.frames import close_chat, fold_frames, stored_frames
from tests.support.folding import Folded, events_of, folded

# Services that other tests have started go on in threads of this process, and roll dice of their own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

IDS = st.sampled_from(["1", "1", "2", "2", "3", 4, ""])
TEXTS = st.sampled_from(["", "a", "ab", "abc", "b", "\n", "a\nb", "汉🙂"])
MAYBE = st.none() | TEXTS
KINDS = st.sampled_from(["answer"] * 6 + [None, "", "follow_up", "function_call", "verbose", "new_kind"])


def data_of(fields: dict[str, Any], missing: set[str]) -> bytes:
    return json.dumps({name: value for name, value in fields.items() if name not in missing}).encode()


MESSAGES = st.fixed_dictionaries(
    {
        "id": IDS,
        "type": KINDS,
        "content": MAYBE,
        "reasoning_content": st.sampled_from(["", None, "", "h", "hm"]),
        "content_type": st.sampled_from(["text", "text", None, "card"]),
    }
)
MISSING = st.sets(st.sampled_from(["id", "type", "content", "reasoning_content", "content_type"]), max_size=2)
EVENTS = st.builds(
    lambda name, message, missing: SSEEvent(f"conversation.message.{name}", data_of(message, missing)),
    st.sampled_from(["delta", "delta", "delta", "completed"]),
    MESSAGES,
    MISSING,
)
STORED = st.lists(
    st.builds(
        lambda message, kind, role, at: Message.parse(
            message | {"type": kind, "role": role, "created_at": at}
        ),
        MESSAGES,
        st.sampled_from(["answer", "answer", "answer", "follow_up", "verbose"]),
        st.sampled_from(["assistant"] * 5 + ["user"]),
        st.integers(1, 4),
    ),
    max_size=5,
)
STATUSES = st.sampled_from(["completed", "in_progress", "requires_action", "canceled", "failed"])
STEPS = st.one_of(
    st.tuples(st.just("events"), st.lists(EVENTS, min_size=1, max_size=4)),
    st.tuples(st.just("adopt"), STORED, STATUSES),
    st.tuples(st.just("taken over"), st.floats(0, 1)),
    st.tuples(st.just("trimmed")),
)


class World:
    """A chat's fold, its log, and a reader of it who knows only the rule."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.log: list[bytes] = []
        self.reader = Folded()

    def tell(self, frames: list[bytes]) -> None:
        self.log += frames
        for event in events_of(frames):
            self.reader.feed(event)

    def do(self, step: tuple[Any, ...]) -> None:
        if step[0] == "events":
            self.tell(self.fold.feed_all(step[1]))
        elif step[0] == "adopt":
            chat = ChatState.parse({"id": "6", "conversation_id": "5", "status": step[2]})
            self.tell(self.fold.adopt([message for message in step[1] if message], chat))
            self.fold.error = None  # goes on, so that more is seen
            self.fold.reopen()
        elif step[0] == "taken over":
            # The log holds less than the reader has seen.
            self.log = self.log[: int(len(self.log) * step[1])]
            self.fold = fold_frames(self.log, Fold())
            self.tell([self.fold.snapshot_frame()])
        else:
            self.log = []
            self.tell([self.fold.snapshot_frame()])

    def check(self) -> None:
        for reader in (self.reader, folded(events_of(self.log))):
            told = [
                {
                    "id": message_id,
                    "type": "answer",
                    "content": answer.content,
                    "content_type": answer.content_type,
                    "reasoning_content": answer.reasoning,
                }
                for message_id, answer in reader.answers.items()
            ]
            assert told == self.fold.answers()
            assert (reader.content, reader.reasoning) == (self.fold.content(), self.fold.reasoning())
            assert reader.follow_ups == self.fold.follow_ups()
        again = fold_frames(self.log, Fold())
        assert again.snapshot() == self.fold.snapshot()


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_a_reader_has_what_the_fold_has_after_every_step(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for step in steps:
        world.do(step)
        world.check()


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=6))
def test_a_record_tells_a_reader_the_same_once_the_log_has_expired(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for step in steps:
        world.do(step)
    world.fold.status = "completed"
    chat = Chat(
        chat_id="c",
        session_id="s",
        user_message={"content": "x", "timestamp": "t", "message_id": "m"},  # type: ignore[arg-type]
        status="processing",
        created_at="t",
        updated_at="t",
    )
    close_chat(chat, world.fold, "1-9")
    for event in events_of(stored_frames(chat)):
        world.reader.feed(event)
    assert (world.reader.content, world.reader.reasoning) == (chat.content, chat.reasoning_content)
    assert world.reader.follow_ups == chat.follow_up_questions
    assert chat.content == world.fold.content()


def told(*events: tuple[str, dict[str, Any]]) -> list[tuple[str, Any]]:
    """The frames for ``events``, as (name, content or snapshot)."""
    fold = Fold()
    fed = [SSEEvent(f"conversation.message.{name}", json.dumps(data).encode()) for name, data in events]
    return [
        (event.event.removeprefix("conversation.message."), event.json().get("content", event.json()))
        for event in events_of(fold.feed_all(fed))
    ]


def answer(content: str, message_id: str = "1", **more: Any) -> dict[str, Any]:
    return {"id": message_id, "type": "answer", "content": content, **more}


def test_an_event_that_agrees_adds_nothing() -> None:
    assert told(("delta", answer("a")), ("completed", answer("a"))) == [("delta", "a"), ("completed", "a")]


def test_a_completed_message_brings_the_rest_in_a_delta_before_it() -> None:
    frames = told(("delta", answer("a")), ("completed", answer("abc")))
    assert frames == [("delta", "a"), ("delta", "bc"), ("completed", "abc")]
    assert told(("completed", answer("abc", "never seen"))) == [("delta", "abc"), ("completed", "abc")]


def test_a_completed_message_that_differs_brings_a_snapshot_of_all_messages_before_it() -> None:
    frames = told(("delta", answer("one")), ("delta", answer("bad", "2")), ("completed", answer("***", "2")))
    assert [name for name, _ in frames] == ["delta", "delta", "snapshot", "completed"]
    assert [message["content"] for message in frames[2][1]["messages"]] == ["one", "***"]


def test_an_empty_completed_message_wipes_nothing_and_one_that_is_unknown_has_no_place() -> None:
    assert told(("delta", answer("a")), ("completed", answer(""))) == [("delta", "a"), ("completed", "")]
    fold = Fold()
    for data in (answer("", "1"), answer("b", "2"), answer("a", "1")):
        fold.feed(SSEEvent("conversation.message.completed", json.dumps(data).encode()))
    assert fold.content() == "b\na"


def test_a_delta_behind_the_completed_message_goes_on_with_it() -> None:
    fold = Fold()
    for name, data in (("completed", answer("ab")), ("delta", answer("c"))):
        fold.feed(SSEEvent(f"conversation.message.{name}", json.dumps(data).encode()))
    assert fold.content() == "abc"


def test_reasoning_is_told_by_the_same_rule() -> None:
    thought = answer("a", reasoning_content="hm")
    fold, reader = Fold(), Folded()
    for name, data in (("delta", answer("", reasoning_content="h")), ("completed", thought)):
        event = SSEEvent(f"conversation.message.{name}", json.dumps(data).encode())
        for each in events_of(fold.feed(event)):
            assert each.event != "snapshot"
            reader.feed(each)
    assert (reader.content, reader.reasoning) == ("a", "hm")


@pytest.mark.parametrize("kind", ["function_call", "tool_response", "follow_up", "verbose"])
def test_what_is_no_answer_brings_no_text_of_one(kind: str) -> None:
    frames = told(("completed", answer("x") | {"type": kind}))
    assert frames == ([] if kind == "verbose" else [("completed", "x")])


def test_what_is_stored_under_one_id_twice_counts_as_stored_last() -> None:
    fold = Fold()
    frames = fold.adopt(stored(answer("a"), answer("b")), ChatState.parse({"status": "completed"}))
    assert folded(events_of(frames)).content == fold.content() == "b"


def stored(*messages: dict[str, Any]) -> list[Message]:
    return [message for message in map(Message.parse, messages) if message is not None]


def test_stored_answers_keep_the_order_in_which_readers_saw_them() -> None:
    world = World()
    for data in (answer("a", "1"), answer("b", "2")):
        event = SSEEvent("conversation.message.delta", json.dumps(data).encode())
        world.tell(world.fold.feed(event))
    late, early = answer("aa", "1", created_at=9), answer("bb", "2", created_at=1)
    world.tell(world.fold.adopt(stored(early, late), ChatState.parse({"status": "completed"})))
    world.check()
    assert world.fold.content() == "aa\nbb"


def test_follow_ups_that_are_stored_otherwise_come_in_a_snapshot() -> None:
    world = World()
    question = {"id": "8", "type": "follow_up", "content": "old?"}
    world.tell(world.fold.feed(SSEEvent("conversation.message.completed", json.dumps(question).encode())))
    new = [question | {"content": text} for text in ("new?", "newer?")]
    world.tell(world.fold.adopt(stored(*new), ChatState.parse({"status": "completed"})))
    world.check()
    assert world.fold.follow_ups() == ["new?", "newer?"]


def test_a_stored_answer_that_is_empty_leaves_what_was_heard() -> None:
    fold = Fold()
    fold.feed(SSEEvent("conversation.message.delta", json.dumps(answer("heard")).encode()))
    fold.adopt(stored(answer("")), ChatState.parse({"status": "completed"}))
    assert fold.content() == "heard"
