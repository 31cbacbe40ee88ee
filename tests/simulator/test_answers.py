"""The bot's words, without a server."""

from __future__ import annotations

import pytest

from coze_simulator.answers import compose, count_tokens, is_chinese, split_deltas, split_tokens


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("what is 6 * 7?", "6 * 7 = 42"),
        ("3除以0是多少 3÷0", "3÷0 = ∞"),
        ("hello!", "hello!"),
        ("你好", "很高兴见到你"),
        ("what is my name?", "not told me"),
        ("What did I say before?", "not said anything"),
    ],
)
def test_simple_questions_are_really_answered(question: str, part: str) -> None:
    assert part in compose(question, []).content


@pytest.mark.parametrize("text", ["session 550e8400-e29b-41d4 of 2026/11/22", "写一首诗", "x" * 300])
def test_every_answer_holds_the_users_own_words(text: str) -> None:
    answer = compose(text, ["earlier"])
    assert text in answer.content
    assert is_chinese(answer.content) == is_chinese(text)
    assert len(set(answer.follow_ups)) == 3


def test_a_very_long_message_is_quoted_by_its_ends() -> None:
    content = compose("begin " + "x" * 4000 + " end", []).content
    assert "begin " in content
    assert " end" in content
    assert len(content) < 1500


def test_pieces_make_up_the_whole() -> None:
    text = " 你好, hello world!\n\n 1. ok  "
    assert "".join(split_tokens(text)) == text
    assert "".join(split_deltas(text, 4)) == text
    assert len(split_deltas("ab", 5)) == 5
    assert split_deltas("ab", 0) == []
    assert count_tokens("你好 abcd") == 4
