"""Values of another JSON type than OpenAI's, where their meaning is beyond doubt: read as what they mean.

Everything else is handed on as it is, and refused by the field's own type.
"""

import json
import math
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

_FLAGS: Final = {"true": True, "false": False}
MOST_PARTS: Final = 1000
"""Of one message."""
_MOST: Final = 1 << 64
"""Whole numbers beyond this are nobody's id, and costly to write out."""


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -_MOST < value < _MOST else None


def clear_text(value: Any) -> Any:
    """123 and 123.0 are "123"."""
    number = _whole(value)
    return value if number is None else str(number)


def clear_flag(value: Any) -> Any:
    """ "true", "False", 1 and 0."""
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower(), value)
    number = _whole(value)
    return bool(number) if number in (0, 1) else value


def clear_count(value: Any) -> Any:
    """1.0 and "1"."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    number = _whole(value)
    return value if number is None else number


def clear_object(value: Any) -> Any:
    """PHP writes an empty object as a list."""
    return {} if value == [] else value


def clear_texts(value: Any) -> Any:
    """The values of an object as texts: numbers and flags as JSON writes them, null as nothing."""
    value = clear_object(value)
    return {name: _json_text(item) for name, item in value.items()} if isinstance(value, dict) else value


def _json_text(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        number = _whole(value)
        return json.dumps(value if number is None else number)
    return clear_text(value)


def clear_messages(value: Any) -> Any:
    """One message alone is a list of one."""
    return [value] if isinstance(value, dict) else value


def clear_content(value: Any) -> Any:
    """A number as text, one part alone as a list of one, texts among parts as text parts.

    What is no part at all gets its JSON type as its type: nobody knows it, so it is passed over or refused as
    other unknown parts are. Raises ``ValueError`` where it is neither: pydantic would name both types of the
    field in its own words.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        value = clear_text(value)
        if value is None or isinstance(value, str):
            return value
        raise ValueError("must be a text, or an array of parts")
    if len(value) > MOST_PARTS:
        raise ValueError(f"must have at most {MOST_PARTS} parts, has {len(value)}")
    return [part if isinstance(part, dict) else _part_of(part) for part in value]


def _part_of(value: Any) -> dict[str, Any]:
    text = clear_text(value)
    return {"type": "text", "text": text} if isinstance(text, str) else {"type": type(value).__name__}


Flag = Annotated[bool, BeforeValidator(clear_flag)]
Count = Annotated[int, BeforeValidator(clear_count)]
ClearText = BeforeValidator(clear_text)
ClearTexts = BeforeValidator(clear_texts)
ClearObject = BeforeValidator(clear_object)
ClearMessages = BeforeValidator(clear_messages)
ClearContent = BeforeValidator(clear_content)
