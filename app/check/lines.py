"""What a check finds: one line each, with its fix, and a short word in Chinese."""

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["ok", "skip", "warn", "fail"]

_MARKS: Final[dict[Severity, str]] = {"ok": "[ ok ]", "skip": "[ -- ]", "warn": "[warn]", "fail": "[FAIL]"}


@dataclass(frozen=True, slots=True)
class Line:
    """``skip``: could not be checked, which is neither good nor bad."""

    severity: Severity
    name: str
    text: str
    fix: str = ""
    hint: str = ""
    """In Chinese."""

    def __str__(self) -> str:
        fix = f" Fix: {self.fix}" if self.fix else ""
        hint = f" （{self.hint}）" if self.hint else ""
        return f"{_MARKS[self.severity]} {self.name:<12} {self.text}.{fix}{hint}"


def exit_code(lines: list[Line]) -> int:
    """0: fine, 1: warnings, 2: failures."""
    found = {line.severity for line in lines}
    return 2 if "fail" in found else 1 if "warn" in found else 0
