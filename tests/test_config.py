"""Settings: what can be set, its defaults, and what is said of a wrong value."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from app.config import Settings, SettingsError, exiting_if_wrong, get_coze_config, load_settings

from .support import make_settings, settings_names
from .support.service import clean_environment

ROOT = Path(__file__).resolve().parents[1]
SECRET = "pat_never_shown_anywhere"

DEFAULTS: dict[str, Any] = {
    "APP_MODE": "remote",
    "COZE_USE_STREAM": True,
    "COZE_TIMEOUT": 30,
    "COZE_MAX_RETRIES": 3,
    "COZE_POLL_INTERVAL": 1.0,
    "COZE_CONNECT_TIMEOUT": 5,
    "COZE_FIRST_BYTE_TIMEOUT": 60,
    "COZE_IDLE_TIMEOUT": 120,
    "COZE_CHAT_TIMEOUT": 600,
    "REDIS_URL": SecretStr("redis://localhost:6379/0"),
    "COZE_REDIS_PREFIX": "coze:",
    "COZE_SESSION_EXPIRE": 3600,
    "COZE_RESULT_EXPIRE": 1800,
    "COZE_MAX_ACTIVE_USERS": 1000,
    "COZE_MAX_SESSIONS_PER_USER": 10,
    "COZE_MAX_OPENING_BYTES": 65_536,
    "COZE_USAGE_ROWS_PER_DAY": 32_000,
    "COZE_MAX_TOTAL_SESSIONS": 5000,
    "COZE_USER_INACTIVE_TIMEOUT": 7200,
    "COZE_MAX_MESSAGE_LENGTH": 4000,
    "COZE_LOG_LEVEL": "INFO",
    "COZE_LOG_FORMAT": "json",
    "ENABLE_AUTH": True,
    "HTTP_SCHEME": "https://",
    "ALCHEMY_HOST": "alchemy-studio.cn",
    "MOICEN_HOST": "moicen.com",
    "HUIWINGS_HOST": "huiwings.cn",
    "LOCAL_HOST": "localhost",
    "HOST": "0.0.0.0",
    "PORT": 6000,
}
"""Names and defaults that operators rely on: they do not change."""

# Read by what starts the service (container, script), not by the service.
OUTSIDE = {"HOST_PORT"}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as working directory and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    with clean_environment():
        yield tmp_path


def fields_by_name() -> dict[str, tuple[str, Any]]:
    """Variable -> (field, default)."""
    found = {}
    for field, info in Settings.model_fields.items():
        [name] = info.validation_alias.choices  # type: ignore[union-attr]
        found[str(name)] = (field, info.default)
    return found


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_a_documented_variable_has_its_documented_default(name: str) -> None:
    assert fields_by_name()[name][1] == DEFAULTS[name]


def test_only_a_token_and_a_bot_are_required(nowhere: Path) -> None:
    settings = load_settings(COZE_API_TOKEN=SECRET, COZE_BOT_ID="1")
    assert settings.api_token == SecretStr(SECRET)
    with pytest.raises(SettingsError, match="COZE_BOT_ID"):
        load_settings(COZE_API_TOKEN=SECRET)
    with pytest.raises(SettingsError, match="COZE_API_TOKEN must be set"):
        load_settings(COZE_BOT_ID="1")


def test_the_environment_comes_before_the_env_file(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / ".env").write_text(
        f"# a comment\nexport COZE_API_TOKEN='{SECRET}'\nCOZE_BOT_ID=2 # of the team\nPORT=7001\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PORT", "7002")
    settings = get_coze_config()
    assert (settings.bot_id, settings.port) == ("2", 7002)
    assert settings.api_token == SecretStr(SECRET)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "six thousand"),
        ("COZE_TIMEOUT", "0"),
        ("COZE_TIMEOUT", "nan"),
        ("COZE_USE_STREAM", "perhaps"),
        ("APP_MODE", "elsewhere"),
        ("COZE_API_URL", "api.coze.cn/v3/chat"),
        ("COZE_BOT_ID", "a bot"),
        ("COZE_REDIS_PREFIX", "{coze}"),
        ("COZE_MAX_SESSIONS_PER_USER", "0"),
        ("COZE_MAX_MESSAGE_LENGTH", "-1"),
        ("HTTP_SCHEME", "ftp://"),
        ("ALCHEMY_HOST", "evil.example/path"),
        ("COZE_LOG_LEVEL", "LOUD"),
        ("REDIS_URL", "not-a-url"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        make_settings(**{name: value})
    assert name in str(refused.value)


@pytest.mark.parametrize("name", ["COZE_API_TOKEN", "COZE_AUTHORIZATION", "REDIS_URL"])
def test_a_secret_shows_neither_in_errors_nor_in_the_settings(name: str) -> None:
    value = f"redis://:{SECRET}@localhost/0" if name == "REDIS_URL" else SECRET
    settings = make_settings(**{name: value})
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(SettingsError) as refused:
        make_settings(**{name: value, "PORT": "x", "COZE_BOT_ID": "?"})
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_blank_values_and_white_space_are_as_if_unset(nowhere: Path) -> None:
    settings = load_settings(COZE_API_TOKEN="", COZE_AUTHORIZATION=f" Bearer {SECRET} ", COZE_BOT_ID=" 3 ")
    assert settings.bot_id == "3"
    assert settings.authorization == SecretStr(SECRET)


def test_the_chat_address_follows_the_mode_unless_it_is_set() -> None:
    assert make_settings().chat_url == "https://api.coze.cn/v3/chat"
    assert make_settings(APP_MODE="local").chat_url == "http://localhost:5000/coze/v3/chat"
    assert make_settings(APP_MODE="local", COZE_API_URL="http://a/v3/chat").chat_url == "http://a/v3/chat"


def test_the_embedded_redis_is_for_one_process() -> None:
    assert make_settings(REDIS_URL="memory://").embedded_redis
    with pytest.raises(SettingsError, match=r"WORKERS must be 1 with REDIS_URL=memory://"):
        make_settings(REDIS_URL="memory://", WORKERS="2")


def test_the_log_level_may_be_written_small() -> None:
    assert make_settings(COZE_LOG_LEVEL="debug").log_level == "DEBUG"


def test_an_entry_point_ends_with_one_line_and_status_78(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exiting_if_wrong():
        make_settings(PORT="x", COZE_BOT_ID="?")
    assert ended.value.code == 78
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "PORT" in said
    assert "COZE_BOT_ID" in said


@pytest.mark.parametrize(
    "arguments", [["-m", "app"], ["-m", "uvicorn", "--factory", "app.__main__:build_app", "--port", "0"]]
)
def test_the_service_does_not_start_on_a_wrong_setting(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COZE_API_TOKEN": SECRET, "PORT": "x"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "COZE_BOT_ID" in said
    assert "PORT" in said
    assert SECRET not in said
    assert "Traceback" not in said


def test_the_documented_one_liner_prints_the_bot(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from app.config import get_coze_config; print(get_coze_config().bot_id)"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "COZE_API_TOKEN": SECRET,
            "COZE_BOT_ID": "42",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout == "42\n", done.stderr


# -- .env.example -----------------------------------------------------------------------------------------

_LINE = re.compile(r"#?([A-Z][A-Z0-9_]*)=(.*)")
_CHINESE = re.compile("[\u4e00-\u9fff]")


def example_lines() -> list[str]:
    return (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()


def test_the_example_lists_every_variable_once_and_no_other() -> None:
    names = [match[1] for line in example_lines() if (match := _LINE.fullmatch(line.strip()))]
    assert sorted(names) == sorted(settings_names() | OUTSIDE)


def test_every_variable_of_the_example_is_explained_in_chinese() -> None:
    unexplained, comment = [], ""
    for line in map(str.strip, example_lines()):
        match = _LINE.fullmatch(line)
        if match is None:
            comment = comment + line if line.startswith("#") else ""
            continue
        inline = match[2].partition(" #")[2]
        if not _CHINESE.search(comment + inline):
            unexplained.append(match[1])
    assert unexplained == []


def test_the_example_shows_the_defaults(nowhere: Path) -> None:
    shown = {}
    for line in map(str.strip, example_lines()):
        if match := _LINE.fullmatch(line):
            (nowhere / "line.env").write_text(f"{match[1]}={match[2]}\n", encoding="utf-8")
            shown |= dotenv_values(nowhere / "line.env", interpolate=False)
    required = {"COZE_API_TOKEN": SECRET, "COZE_BOT_ID": "1"}
    differing = {}
    for name, (field, default) in fields_by_name().items():
        if name in required:
            continue
        value = shown[name] or ""
        if value == "" and default in (None, ""):
            continue
        if getattr(load_settings(**(required | {name: value})), field) != default:
            differing[name] = value
    assert differing == {}


def test_the_example_as_it_is_needs_only_token_and_bot(nowhere: Path) -> None:
    values = dotenv_values(ROOT / ".env.example", interpolate=False)
    filled = {name: value for name, value in values.items() if name in settings_names()}
    load_settings(**(filled | {"COZE_API_TOKEN": SECRET, "COZE_BOT_ID": "1"}))
