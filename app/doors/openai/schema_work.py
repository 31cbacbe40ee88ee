"""What a request's JSON Schemas may take to be made into checks, told before one of them is made.

Neither the length nor the number of its schemas says that. An expression of 200 characters may take a tenth
of a millisecond or seventy: a class of Unicode's has hundreds of ranges, and the library writes each ``\\S``
and its like out by going over the whole expression again.
"""

import re
from typing import Any, Final

MOST_WORK: Final = 15_000
"""Of one request, over all its schemas and those of the responses that it refers to. About 1 µs each."""
MOST_STEPS: Final = 400_000
"""Of one request, over all answers that are checked for it: one check, and telling what is wrong."""
_SHORT: Final = re.compile(r"\\[sSdDwW]")
_PROPERTY: Final = re.compile(r"\\[pP]")
_COSTLY: Final = re.compile(r"[^\x00-\x7f]|\.")
_IGNORES_CASE: Final = re.compile(r"\(\?[a-zA-Z]*i")
_WORK_OF_A_PATTERN: Final = 40
_WORK_OF_A_CHARACTER: Final = 4
_WORK_OF_A_COSTLY_CHARACTER: Final = 14
"""A dot, one that is not ASCII, and any where case is ignored."""
_WORK_OF_SHORT: Final = 60
_WORK_OF_PROPERTY: Final = 700
_WORK_OF_A_CLASS: Final = 40
_WORK_OF_A_NEGATED_CLASS: Final = 250
_WORK_OF_A_CLASS_IN_ANY_CASE: Final = 6_000
"""The other case is looked up for each of its characters."""


class Work:
    """What one request has left. ``is_over``: it asked for more; ``made``: what was made of its schemas, each
    by its JSON."""

    def __init__(self) -> None:
        self._left = MOST_WORK
        self._steps_left = MOST_STEPS
        self.is_over = False
        self.made: dict[bytes, Any] = {}

    def spend(self, amount: int) -> None:
        """Raises ``ValueError`` where there is not so much left."""
        if amount > self._left:
            self.is_over = True
            raise ValueError(
                "all schemas of a request together have too many parts, or expressions in patternProperties "
                "with too many classes like \\S, \\W or \\P"
            )
        self._left -= amount

    def allows(self, steps: int | None) -> bool:
        """Whether an answer may be checked that takes so many; None are too many for any request."""
        if steps is None:
            return False
        if steps > self._steps_left:
            self.is_over = True
            return False
        self._steps_left -= steps
        return True


def work_of_pattern(pattern: str) -> int:
    """What it may take to compile it, at most; a regular expression without counts (``{3}``)."""
    short, length = len(_SHORT.findall(pattern)), len(pattern)
    work = _WORK_OF_A_PATTERN + short * (_WORK_OF_SHORT + length * 3 // 2)
    work += _WORK_OF_PROPERTY * len(_PROPERTY.findall(pattern))
    if _IGNORES_CASE.search(pattern):
        return work + _WORK_OF_A_COSTLY_CHARACTER * length + _WORK_OF_A_CLASS_IN_ANY_CASE * pattern.count("[")
    work += _WORK_OF_A_CHARACTER * length + _WORK_OF_A_COSTLY_CHARACTER * len(_COSTLY.findall(pattern))
    negated = pattern.count("[^") + pattern.count("[[") + pattern.count("[:^")
    return work + _WORK_OF_A_CLASS * pattern.count("[") + _WORK_OF_A_NEGATED_CLASS * negated
