"""What is wrong with settings, in plain words: never a piece of a value, which may be a secret."""

import difflib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from pydantic_core import ErrorDetails

from app.utils.plain_words import rule_of


class SettingsError(Exception):
    """Settings that are missing or wrong. ``faults``: for each the variable and its rule, never a value."""

    def __init__(self, *faults: str) -> None:
        super().__init__("configuration: " + "; ".join(faults))
        self.faults = faults


def read_env_file(path: Path) -> dict[str, str]:
    """What ``path`` sets, by name; nothing where there is no such file.

    Raises:
        SettingsError: it cannot be read as UTF-8 text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SettingsError(f"{path.name}: cannot be read ({why})") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without a mark can be read as UTF-8, and then every name is unknown
        raise SettingsError(f"{path.name}: is not UTF-8 text; save it in the encoding UTF-8")
    found = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def near_misses(names: Iterable[str], ours: list[str], cutoff: float) -> list[str]:
    """A sentence for each of ``names`` that is close to one of ``ours``. ``cutoff``: 1 is the same."""
    found = ((name, difflib.get_close_matches(name.upper(), ours, 1, cutoff)) for name in sorted(names))
    return [
        f"{name} is not a setting of this service: did you mean {close[0]}?"
        for name, close in found
        if close and len(name) > 5
    ]


_OF_SETTINGS: Final = {
    "missing": "must be set",
    "string_unicode": "must be UTF-8 text",
    "finite_number": "must be a number",
}
"""Where the words for requests do not fit."""


def explain(fault: ErrorDetails, described: str | None) -> str:
    """``described``: the rule of the field's pattern."""
    name, kind = ".".join(str(part) for part in fault["loc"]), fault["type"]
    rule = _OF_SETTINGS.get(kind) or rule_of(fault) or "cannot be used"
    if kind == "string_pattern_mismatch" and described:
        rule = described
    elif kind == "value_error":  # of our own rules, which quote nothing
        rule = str(fault["msg"]).removeprefix("Value error, ")
    return f"{name}: {rule}" if name else rule
