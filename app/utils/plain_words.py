"""What a value must be like, in plain words in place of pydantic's own."""

from collections.abc import Mapping
from typing import Any, Final

_WORDS: Final[dict[str, str]] = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "holds half a character (a lone surrogate)",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of a sane size",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be an array",
    "none_required": "must be null",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items, has {actual_length}",
    "too_long": "must have at most {max_length} items",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""By the fault's type; with the limits that come with it."""


def rule_of(fault: Mapping[str, Any]) -> str | None:
    """The rule that a value has broken; None where we have no words for it. ``fault``: one of pydantic's."""
    limits = {
        name: int(limit) if isinstance(limit, float) and limit.is_integer() else limit
        for name, limit in (fault.get("ctx") or {}).items()
    }
    words = _WORDS.get(fault["type"])
    return words.format_map(limits) if words is not None else None
