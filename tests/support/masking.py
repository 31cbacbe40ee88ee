"""Golden files: whole answers with their ids and times masked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "data"

_PATTERNS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"), "<time>"),
    (re.compile(r"coze_session_[0-9]{13}_[a-z2-7]{21}"), "<session_id>"),
    (re.compile(r"coze_chat_[0-9]{13}_[a-z2-7]{41}"), "<chat_id>"),
    (re.compile(r"req_[a-z2-7]{20}"), "<request_id>"),
    (re.compile(r"msg_[a-z2-7]{20}"), "<message_id>"),
    (re.compile(r"\b[0-9]{14}[0-9A-F]{18,}\b"), "<logid>"),
    (re.compile(r"\b7[0-9]{18}\b"), "<coze_id>"),
)
_UNIX = frozenset({"created_at", "completed_at", "updated_at", "failed_at"})
_BY_NAME = {"logid": "<logid>", "x-coze-logid": "<logid>", "uptime_seconds": "<seconds>"}


def mask(value: Any, name: str = "") -> Any:
    """``value`` (as JSON has it) with every id and time replaced by its kind."""
    if isinstance(value, dict):
        return {key: mask(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item) for item in value]
    if name in _BY_NAME and value is not None:
        return _BY_NAME[name]
    if name in _UNIX and isinstance(value, int) and value > 1_000_000_000:
        return "<unix>"
    if isinstance(value, str):
        for pattern, kind in _PATTERNS:
            value = pattern.sub(kind, value)
    return value


class Golden:
    """Compares with ``tests/data/<name>.json``; with ``--update-golden`` it writes the file instead."""

    def __init__(self, *, update: bool) -> None:
        self._update = update

    def __call__(self, name: str, value: Any) -> None:
        path = DATA / f"{name}.json"
        text = json.dumps(mask(value), ensure_ascii=False, indent=2, sort_keys=False) + "\n"
        if self._update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"no {path.name}: run pytest with --update-golden and read what it wrote"
        # Compared as data: the order of fields in an object is no part of the contract.
        assert json.loads(text) == json.loads(path.read_text(encoding="utf-8"))
