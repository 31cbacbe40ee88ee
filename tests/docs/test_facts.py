"""What the tables of the pages list is what the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.exceptions import ERROR_CLASSES
from tests.support import settings_names

from .pages import LANGUAGES, PAGES, ROOT


def page(language: str, name: str) -> str:
    return (ROOT / "docs" / language / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_code_stands_beside_its_status(language: str) -> None:
    rows = [line.split("|") for line in page(language, "errors.md").splitlines() if line.startswith("| ")]
    listed = {
        (code, status)
        for row in rows
        for code in re.findall(r"`([A-Z_]+)`", row[2])
        for status in re.findall(r"\d{3}", row[1])
    }
    wanted = {(code, str(error.status)) for code, error in ERROR_CLASSES.items()}
    assert wanted - listed == set()
    from_nginx = {"BAD_GATEWAY"}
    assert {code for code, _ in listed} - {code for code, _ in wanted} == from_nginx


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_published_route_is_listed_and_nothing_else(language: str) -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    published = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    shown = re.findall(r"`([A-Z]+) (/[^`]*)`", page(language, "api.md"))
    listed = {(method, path) for method, path in shown}
    assert published - listed == set()
    unpublished = {("GET", "/coze/metrics"), ("GET", "/coze/playground"), ("GET", "/coze/console")}
    assert listed - published <= unpublished


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_variable_that_a_page_names_is_a_setting(language: str) -> None:
    named = {
        name
        for file in sorted(Path(ROOT / "docs" / language).glob("*.md"))
        for name in re.findall(
            r"`((?:COZE|REDIS|RATE_LIMIT|MAX|ENABLE|HTY|AUTH|DRAIN|LEASE|UPLOAD|CORS)_[A-Z_]*[A-Z])`",
            file.read_text(encoding="utf-8"),
        )
    }
    assert named - settings_names() - set(ERROR_CLASSES) == set()
    assert len(named & settings_names()) > 30


def test_every_script_that_writes_a_key_is_there_and_every_script_is_named() -> None:
    scripts = {file.stem for file in (ROOT / "app").rglob("*.lua")} - {"prelude"}
    [keys] = [page for page in PAGES if page.name == "KEYS.md"]
    text = keys.read_text(encoding="utf-8")
    writers = {
        name
        for row in text.splitlines()
        if row.startswith("| `P")
        for name in re.findall(r"`([a-z]+_[a-z_]+)`", row.rsplit("|", 2)[1])
    }
    assert len(writers) > 15
    assert writers - scripts == set()
    read_only = {
        *("chat_read", "conversation_list", "file_read", "lease_scan", "log_read", "session_page"),
        "usage_read",
    }
    assert scripts - set(re.findall(r"`([a-z_]+)`", text)) == read_only


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CONTRIBUTING.zh.md"])
def test_every_folder_of_tests_is_in_the_table(name: str) -> None:
    rows = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = {folder for row in rows for folder in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    there = {file.parent.name for file in (ROOT / "tests").glob("*/test_*.py")}
    assert there == listed
