"""From events to an answer."""

import json
from typing import Final

import pytest

from app.coze.fold import MAX_ANSWERS, MAX_TEXT, Fold
from app.coze.stream import SSEDecoder, SSEEvent
from app.coze.wire import ChatState, Message, TokenUsage
from app.exceptions import CozeApiError, CozeBusy, CozeQuotaExhausted

from .vectors import CHAT, DELTA, END, MESSAGE, VECTORS, chat, event, message


def fold_of(*reads: bytes, fold: Fold | None = None) -> tuple[Fold, list[bytes]]:
    """The fold after reading until it says that nothing more comes, and the frames for readers."""
    fold = fold or Fold()
    decoder = SSEDecoder()
    frames: list[bytes] = []
    for read in reads:
        for found in decoder.feed(read):
            if fold.done:
                return fold, frames
            frames += fold.feed(found)
    return fold, frames


def folded(name: str) -> Fold:
    return fold_of(*VECTORS[name])[0]


TEXTS = {
    "01_plain": "你好",
    "02_space": " a",
    "03_crlf": "ok",
    "04_lone_cr": "ok",
    "06_noise": "x",
    "07_bom": "x",
    "08_utf8_split": "你",
    "09_u2028": "a\u2028b\u0085c\u2029d",
    "10_reasoning": "\n\nhi",
    "11_empty_deltas": "z",
    "13_plugin": "sun",
    "16_failed_chat": "par",
    "20_cut": "half",
    "21_no_done": "x",
    "24_1mb": "汉" * 350_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_a_vector(name: str) -> None:
    assert folded(name).content() == TEXTS[name]


COMPLETED = {"01_plain", "03_crlf", "04_lone_cr", "06_noise", "07_bom", "08_utf8_split", "09_u2028"}
COMPLETED |= {"10_reasoning", "11_empty_deltas", "12_multi_answer", "13_plugin", "21_no_done", "24_1mb"}
FAILED = {"05_multiline_data", "16_failed_chat", "17_failed_bare", "18_error_empty"}


@pytest.mark.parametrize("name", VECTORS)
def test_the_outcome_of_a_vector(name: str) -> None:
    fold = folded(name)
    if name in COMPLETED:
        assert (fold.status, fold.error) == ("completed", None)
        assert fold.final_data is not None
        assert json.loads(fold.final_data)["status"] == "completed"
    elif name in FAILED:
        assert fold.status == "failed"
        assert fold.error is not None
        assert fold.final_data is None
    elif name == "14_requires_action":
        assert fold.status == "requires_action"
    else:
        assert (fold.status, fold.error, fold.final_data) == ("in_progress", None, None)


def test_the_ids_and_usage_come_from_the_chat_events() -> None:
    fold = folded("01_plain")

    assert (fold.coze_chat_id, fold.conversation_id) == ("6", "5")
    assert fold.usage == TokenUsage(token_count=3, input_count=1, output_count=2)


def test_readers_get_cozes_events_as_they_came_but_not_the_end_nor_machinery() -> None:
    _, frames = fold_of(*VECTORS["01_plain"])

    assert frames == [
        b"event: conversation.chat.created\ndata: " + chat(b"created") + b"\n\n",
        b"event: conversation.chat.in_progress\ndata: " + chat(b"in_progress") + b"\n\n",
        b"event: conversation.message.delta\ndata: " + message("answer", "你") + b"\n\n",
        b"event: conversation.message.delta\ndata: " + message("answer", "好") + b"\n\n",
        b"event: conversation.message.completed\ndata: " + message("answer", "你好") + b"\n\n",
    ]


def test_plugin_calls_are_passed_on_and_verbose_messages_are_not() -> None:
    _, frames = fold_of(*VECTORS["13_plugin"])
    text = b"".join(frames)

    assert b"function_call" in text
    assert b"tool_response" in text
    assert b"knowledge_recall" not in text
    knowledge = event(MESSAGE, message("knowledge", "chunk"))
    assert fold_of(knowledge, event(DELTA, message("verbose", "x")))[1] == []


def test_unknown_events_and_audio_are_passed_on_unread() -> None:
    assert fold_of(b"event:PING\ndata:not json\n\n")[1] == [b"event: PING\ndata: not json\n\n"]
    audio = event(b"conversation.audio.delta", message("answer", "UklGRg==", content_type="audio"))
    fold, frames = fold_of(*VECTORS["21_no_done"], audio, event(b"done", b""))

    assert frames[-1].startswith(b"event: conversation.audio.delta\n")
    assert (fold.content(), fold.status, fold.done) == ("x", "completed", True)


def test_reasoning_of_the_deltas_outlives_a_completed_message_without_any() -> None:
    fold = folded("10_reasoning")

    assert fold.reasoning() == "think"
    assert fold.answers() == [
        {
            "id": "71",
            "type": "answer",
            "content": "\n\nhi",
            "content_type": "text",
            "reasoning_content": "think",
        }
    ]


def test_several_answers_stay_in_order_of_first_appearance() -> None:
    fold = folded("12_multi_answer")

    assert [answer["content"] for answer in fold.answers()] == ["one", "two"]
    assert fold.content() == "one\ntwo"
    assert fold.follow_ups() == ["next?"]
    assert fold.snapshot() == {"messages": fold.answers(), "follow_up_questions": ["next?"]}


def test_a_completed_message_replaces_its_deltas_but_an_empty_one_does_not() -> None:
    parts = [event(DELTA, message("answer", "wrong"))]

    assert fold_of(*parts, event(MESSAGE, message("answer", "right")))[0].content() == "right"
    assert fold_of(*parts, event(MESSAGE, message("answer", "")))[0].content() == "wrong"


def test_a_tool_call_is_asked_for_by_the_event_and_not_by_an_empty_shell() -> None:
    fold = folded("14_requires_action")
    assert fold.required_action is not None
    (call,) = fold.required_action["submit_tool_outputs"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"a":1}'}

    shell = b',"required_action":{"type":"","submit_tool_outputs":{"tool_calls":[]}}'
    fold, _ = fold_of(event(CHAT + b"completed", chat(b"completed", shell)))
    assert (fold.status, fold.required_action) == ("completed", None)
    null = b',"required_action":{"type":"x","submit_tool_outputs":{"tool_calls":null}}'
    assert fold_of(event(CHAT + b"in_progress", chat(b"in_progress", null)))[0].status == "in_progress"


def test_a_chat_goes_on_after_tool_outputs_in_the_same_fold() -> None:
    fold = folded("14_requires_action")
    fold.reopen()
    fold, _ = fold_of(event(DELTA, message("answer", "21 degrees")), END, fold=fold)

    assert (fold.status, fold.required_action, fold.content()) == ("completed", None, "21 degrees")


def test_the_error_of_a_failed_chat_names_its_code_and_never_cozes_text() -> None:
    error = folded("16_failed_chat").error
    assert isinstance(error, CozeApiError)
    assert (error.coze_code, error.maybe_started) == (5000, True)
    assert "interval" not in error.message

    bare = folded("17_failed_bare").error
    assert bare is not None
    assert bare.coze_code == 720702204
    split = folded("05_multiline_data").error
    assert split is not None
    assert split.coze_code == 103100001
    empty = folded("18_error_empty").error
    assert empty is not None
    assert empty.coze_code is None


def test_an_error_wins_over_a_completed_that_follows_it() -> None:
    """coze-studio sends both when its model fails."""
    failed = event(b"error", b'{"code":103200002,"msg":"goroutine 1 [running]"}')
    done = b"event:conversation.stream.done\ndata:\n\n"
    fold, frames = fold_of(failed, END.split(b"event:done")[0], done)

    assert (fold.status, fold.final_data, fold.done, frames) == ("failed", None, True, [])
    assert fold.error is not None
    assert "goroutine" not in str(fold.error)


def test_an_error_in_the_stream_has_the_class_of_its_code_and_a_logid() -> None:
    fold, _ = fold_of(event(b"error", b'{"code":4016,"msg":"busy"}'), fold=Fold(logid="L1"))
    assert isinstance(fold.error, CozeBusy)
    assert fold.error.logid == "L1"

    fold, _ = fold_of(event(b"error", b'{"code":4028,"detail":{"logid":"L2"}}'), fold=Fold(logid="L1"))
    assert isinstance(fold.error, CozeQuotaExhausted)
    assert fold.error.logid == "L2"
    assert fold.settled


def test_a_completed_chat_with_an_error_code_has_failed() -> None:
    fold, _ = fold_of(event(CHAT + b"completed", chat(b"completed", b',"last_error":{"code":"4011"}')))

    assert fold.status == "failed"
    assert isinstance(fold.error, CozeQuotaExhausted)


@pytest.mark.parametrize("spelling", [b"canceled", b"cancelled"])
def test_both_spellings_of_canceled_end_a_chat(spelling: bytes) -> None:
    fold, frames = fold_of(event(CHAT + spelling, chat(spelling)))

    assert (fold.status, frames, fold.final_data) == ("canceled", [], chat(spelling))


def test_the_first_of_all_forms_of_done_ends_the_reading() -> None:
    for form in VECTORS["27_done_forms"]:
        assert folded("27_done_forms").done
        assert fold_of(form)[0].done
    assert fold_of(b"data: [DONE]\n\n")[0].done
    assert fold_of(b"event:conversation.stream.done\ndata:\n\n")[0].done


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[1]", b"\xff", b'"x"'])
@pytest.mark.parametrize("name", [DELTA, MESSAGE, CHAT + b"created"])
def test_unreadable_data_is_passed_over(name: bytes, data: bytes) -> None:
    fold = Fold()

    assert fold.feed(SSEEvent(name.decode(), data)) == []
    assert (fold.answers(), fold.status, fold.error) == ([], "in_progress", None)


def test_data_nested_without_end_is_dropped() -> None:
    fold = Fold()
    deep = b'{"x":' + b"[" * 100_000

    assert [fold.feed(SSEEvent(name.decode(), deep)) for name in (DELTA, CHAT + b"created")] == [[], []]
    assert fold.answers() == []


def test_a_broken_end_is_still_an_end() -> None:
    fold, _ = fold_of(event(CHAT + b"completed", b"{"))

    assert (fold.status, fold.final_data, fold.error) == ("completed", None, None)


def test_fields_of_unexpected_types_do_no_harm() -> None:
    odd = b'{"id":71,"type":"answer","content":"x","reasoning_content":null,"content_type":7,"meta_data":[]}'
    fold, frames = fold_of(event(DELTA, odd), event(DELTA, b'{"id":"72","content":"y"}'))

    assert len(frames) == 2
    assert [answer["id"] for answer in fold.answers()] == ["71", "72"]
    assert fold.content() == "x\ny"


def test_the_number_of_answers_is_bounded() -> None:
    fold = Fold()
    for number in range(MAX_ANSWERS + 1):
        fold.feed(SSEEvent(DELTA.decode(), message("answer", "x", id=str(number))))

    assert isinstance(fold.error, CozeApiError)
    assert len(fold.answers()) == MAX_ANSWERS


def test_the_text_of_all_answers_has_a_bound_past_which_the_chat_fails_and_nothing_is_told() -> None:
    half = "x" * (MAX_TEXT // 2)
    fold, last = Fold(), message("answer", "y", id="73")
    for number in (71, 72):
        assert fold.feed(SSEEvent(DELTA.decode(), message("answer", half, id=str(number))))
    assert fold.error is None
    for name, data in ((DELTA, last), (MESSAGE, last), (MESSAGE, message("answer", half + "y", id="71"))):
        again = Fold()
        again.restore(fold.snapshot())
        assert again.feed(SSEEvent(name.decode(), data)) == []
        assert isinstance(again.error, CozeApiError)
        assert (again.status, len(again.content())) == ("failed", MAX_TEXT + 1)


def test_a_text_that_is_told_again_counts_once() -> None:
    text = "x" * (MAX_TEXT // 2 + 1)
    fold = Fold()
    fold.feed(SSEEvent(DELTA.decode(), message("answer", text)))
    fold.feed(SSEEvent(MESSAGE.decode(), message("answer", text)))
    fold.adopt(
        [Message(id="71", type="answer", content=text)],
        ChatState(id="6", conversation_id="5", status="completed"),
    )
    assert (fold.error, fold.content()) == (None, text)
    more = [Message(id="71", type="answer", content=text), Message(id="72", type="answer", content=text)]
    fold.adopt(more, ChatState(id="6", conversation_id="5", status="completed"))
    assert isinstance(fold.error, CozeApiError)
    assert fold.content() == text


def test_reading_the_text_in_between_changes_nothing() -> None:
    fold = Fold()
    for number in range(100):
        fold.feed(SSEEvent(DELTA.decode(), message("answer", "ab")))
        assert fold.content() == "ab" * (number + 1)


# -- repair -----------------------------------------------------------------------------------------------


def stored(content: str, **more: object) -> Message:
    found = Message.parse({"id": "71", "role": "assistant", "type": "answer", "content": content, **more})
    assert found is not None
    return found


def state(status: str, **more: object) -> ChatState:
    return ChatState.parse({"id": "6", "conversation_id": "5", "status": status, **more})


def test_a_cut_stream_is_repaired_by_cozes_stored_answer() -> None:
    fold, _ = fold_of(
        event(DELTA, message("answer", "", reasoning_content="think")), event(DELTA, message("answer", "ha"))
    )
    follow_up = Message(id="80", type="follow_up", content="more?")
    usage = {"token_count": 3, "output_count": 2, "input_count": 1}
    fold.adopt([Message(id="9", type="verbose"), stored("half"), follow_up], state("completed", usage=usage))

    assert (fold.status, fold.content(), fold.reasoning()) == ("completed", "half", "think")
    assert fold.follow_ups() == ["more?"]
    assert (fold.coze_chat_id, fold.conversation_id) == ("6", "5")
    assert fold.usage == TokenUsage(token_count=3, input_count=1, output_count=2)


def test_stored_answers_come_in_the_order_seen_live_and_then_of_time() -> None:
    fold, _ = fold_of(
        event(DELTA, message("answer", "a", id="1")), event(DELTA, message("answer", "b", id="2"))
    )
    listed = [stored("d", id="4", created_at=9), stored("c", id="3", created_at="8")]
    listed += [stored("b", id="2", created_at=7), stored("a", id="1", created_at=7)]
    fold.adopt(listed, state("completed"))

    assert [answer["content"] for answer in fold.answers()] == ["a", "b", "c", "d"]


def test_a_half_character_is_told_before_an_error_that_ends_its_answer() -> None:
    half = message("answer", "well ?").replace(b"?", rb"\ud83d")
    fold, frames = fold_of(event(DELTA, half), event(b"error", b'{"code":5000,"msg":""}'))

    assert fold.content() == "well \N{REPLACEMENT CHARACTER}"
    assert [frame.split(b"\n")[0] for frame in frames] == [b"event: " + DELTA, b"event: " + DELTA]


def test_a_half_character_of_an_answer_that_is_broken_off_is_told_once() -> None:
    fold, _ = fold_of(event(DELTA, message("answer", "well ?").replace(b"?", rb"\ud83d")))
    assert fold.content() == "well "

    [told] = fold.end_halves()
    assert "\N{REPLACEMENT CHARACTER}".encode() in told
    assert fold.content() == "well \N{REPLACEMENT CHARACTER}"
    assert fold.end_halves() == []


def test_an_empty_list_does_not_wipe_what_was_heard() -> None:
    heard = event(MESSAGE, message("answer", "whole"))
    fold, _ = fold_of(heard)
    fold.adopt([], state("completed"))

    assert (fold.status, fold.content()) == ("completed", "whole")


_SPENT: Final = {"token_count": 30, "input_count": 20, "output_count": 10}
_PLUGIN: Final = Message(id="f", type="function_call", content="{}")


@pytest.mark.parametrize(
    ("heard", "listed", "usage", "lacks"),
    [
        pytest.param(DELTA, [], None, True, id="half of it was heard, nothing is stored"),
        pytest.param(DELTA, [_PLUGIN], None, True, id="half of it was heard, only the machinery is stored"),
        pytest.param(DELTA, [stored("half and half")], None, False, id="half of it was heard, all is stored"),
        pytest.param(MESSAGE, [], _SPENT, False, id="all of it was heard"),
        pytest.param(b"", [], _SPENT, True, id="nothing was heard, and Coze has written something"),
        pytest.param(b"", [_PLUGIN], _SPENT, False, id="nothing was heard, and it was no answer"),
        pytest.param(b"", [], {**_SPENT, "output_count": 0}, False, id="Coze has written nothing"),
        pytest.param(b"", [], None, False, id="nobody knows whether it has"),
    ],
)
def test_a_completed_chat_lacks_its_answer_while_coze_has_not_stored_it(
    heard: bytes, listed: list[Message], usage: dict[str, int] | None, lacks: bool
) -> None:
    fold, _ = fold_of(*([event(heard, message("answer", "half"))] if heard else []))

    assert fold.lacks_answer(listed, state("completed", usage=usage)) is lacks
    assert not fold.lacks_answer(listed, state("failed", usage=usage))


def test_stored_reasoning_wins_over_what_was_heard_of_it() -> None:
    fold, _ = fold_of(event(DELTA, message("answer", "", reasoning_content="thi")))
    fold.adopt([stored("x", reasoning_content="think")], state("completed"))

    assert fold.reasoning() == "think"


def test_a_failed_state_brings_its_error_and_an_earlier_error_stays() -> None:
    fold = Fold()
    fold.adopt([], state("failed", last_error={"code": 4028, "msg": "credits"}))
    assert isinstance(fold.error, CozeQuotaExhausted)
    assert fold.status == "failed"

    fold, _ = fold_of(event(b"error", b'{"code":5000}'))
    fold.adopt([stored("x")], state("completed"))
    assert fold.status == "failed"
    assert fold.error is not None
    assert fold.error.coze_code == 5000


def test_a_chat_that_still_runs_leaves_the_fold_open() -> None:
    fold = Fold()
    fold.adopt([stored("ha")], state("in_progress"))

    assert (fold.status, fold.content()) == ("in_progress", "ha")
