"""COZE_BOTS and COZE_OPENAI_API_KEYS: what may stand in them, and that a start with wrong ones fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.auth.api_keys import ApiKeys, KeySetting
from app.config import SettingsError
from tests.support import make_settings

GOOD = "sk-0123456789abcdef"
NONE = KeySetting("COZE_API_KEYS")


def test_without_bots_the_default_one_is_coze() -> None:
    assert make_settings(COZE_BOT_ID="7").bots == {"coze": "7"}
    assert make_settings(COZE_BOTS=" a:1, 助手 : 2,,b/c:3 ").bots == {"a": "1", "助手": "2", "b/c": "3"}


@pytest.mark.parametrize(
    "bots", ["a", "a:", ":1", "a:1,a:2", "a b:1", "a:b c", "a:1:2", "a:1;b:2", "x" * 65 + ":1"]
)
def test_bots_that_make_no_sense_stop_the_start(bots: str) -> None:
    with pytest.raises(SettingsError, match="COZE_BOTS"):
        make_settings(COZE_BOTS=bots)


@pytest.mark.parametrize(
    "keys",
    [GOOD, f"a {GOOD}", "a:short", f"a:{GOOD},a:{GOOD}x", f"a:{GOOD},b:{GOOD}", f"ä:{GOOD}", f"a:{GOOD}é"],
)
def test_keys_that_make_no_sense_stop_the_start_and_are_not_shown(keys: str) -> None:
    with pytest.raises(SettingsError, match="COZE_OPENAI_API_KEYS") as caught:
        make_settings(COZE_OPENAI_API_KEYS=keys)
    assert "0123456789" not in str(caught.value)
    assert "short" not in str(caught.value)


def test_a_key_stands_for_its_name_and_does_not_show() -> None:
    keys = ApiKeys(NONE, KeySetting("COZE_OPENAI_API_KEYS", f"a:{GOOD}, b:{GOOD}2\nc:{GOOD}3"))
    owners = [found.owner for key in ("", "2", "3") if (found := keys.identify(GOOD + key, "openai"))]
    assert owners == ["api_key:a|", "api_key:b|", "api_key:c|"]
    assert keys.identify("", "openai") is None
    assert keys.identify(GOOD[:-1], "openai") is None
    assert "0123456789" not in repr(vars(keys))


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    for content in (b"a:short", b"\xff\xfe", None):
        file = tmp_path / "keys"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ValueError, match="COZE_OPENAI_API_KEYS_FILE") as caught:
            ApiKeys(NONE, KeySetting("COZE_OPENAI_API_KEYS", "", file))
        assert "short" not in str(caught.value)
