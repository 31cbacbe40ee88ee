"""Texts that are the same answer in another form."""

import pytest

from app.doors.openai.sameness import continuation


@pytest.mark.parametrize(
    ("sent", "text", "rest"),
    [
        ("", "", ""),
        ("hello", "hello world", " world"),
        ("one \ufffd\ufffd two", "one \U0001f600 two", ""),
        ("one \ufffd", "one \U0001f600 two", " two"),
        ("one \U0001f600", "one \ufffd\ufffd two", " two"),
        ("\ufffd", "a", ""),
        ("a b", "ab c", " c"),
        ("a\nb", "a\r\nb!", "!"),
        ("a\u00a0b", "a b", ""),
        ("caf\u00e9 x", "cafe\u0301 x y", " y"),
        ("cafe\u0301", "caf\u00e9", ""),
        ("x  ", "x", ""),
        ("abc", "abd", None),
        ("abc", "ab", None),
        ("one two", "three", None),
        ("a\ufffdb", "aXYb", None),
    ],
)
def test_white_space_normal_form_and_unreadable_characters_make_no_other_answer(
    sent: str, text: str, rest: str | None
) -> None:
    assert continuation(sent, text) == rest
