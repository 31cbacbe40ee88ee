"""What is wrong with a request, in plain words: pydantic's faults without pydantic's own terms."""

import re
from collections.abc import Mapping
from typing import Any, Final

from app.models.bodies import BOT_ID_PATTERN, CONVERSATION_ID_PATTERN, USER_ID_PATTERN
from app.utils.plain_words import rule_of

DATE_PATTERN: Final = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"
MESSAGE_ID_PATTERN: Final = r"^([1-9][0-9]{0,31})?$"
_GROUP: Final = "(day|bot|user|root)"
GROUPS_PATTERN: Final = f"^{_GROUP}(,{_GROUP}){{0,3}}$"
_PATTERNS: Final = {
    USER_ID_PATTERN: "must not hold control characters, line ends or changes of direction",
    CONVERSATION_ID_PATTERN: "must be 1 to 32 digits",
    BOT_ID_PATTERN: "must be 1 to 64 letters, digits, - or _",
    DATE_PATTERN: "must be a date, as in 2026-11-22",
    MESSAGE_ID_PATTERN: "must be the digits of a message_id",
    GROUPS_PATTERN: "must be some of day, bot, user and root, with commas between them",
}
"""Regular expressions that a request may offend, and what they ask for."""
_JSON: Final = {
    "recursion limit exceeded": "nested too deep",
    "EOF": "it ends too early, EOF",
    "lone leading surrogate": "half a character (a lone surrogate), lone leading surrogate",
    "unexpected end of hex escape": "half a character (a lone surrogate), unexpected end of hex escape",
}
"""The parser's words that need others in front of them, or in their place."""


def in_plain_words(fault: Mapping[str, Any]) -> str:
    """What is wrong with one field. ``fault``: one of pydantic's, without its input."""
    kind, limits = fault["type"], fault.get("ctx") or {}
    if kind == "json_invalid":
        return _json(str(limits.get("error", "it cannot be read")))
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(limits.get("pattern")), "has a form that is not allowed")
    if kind in ("value_error", "assertion_error"):
        return str(limits.get("error") or fault["msg"].partition(", ")[2])
    return rule_of(fault) or re.sub(r"^Input should be", "must be", str(fault["msg"]))


def _json(reason: str) -> str:
    for known, words in _JSON.items():
        if reason.startswith(known):
            reason = words + reason.removeprefix(known)
    return f"not valid JSON: {reason}"
