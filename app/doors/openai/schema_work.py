"""What a request's JSON Schemas may take to be made into checks, told before one of them is made.

Neither the length nor the number of its schemas says that. An expression of 200 characters may take a tenth
of a millisecond or seventy: a class of Unicode's has hundreds of ranges, and the library writes each ``\\S``
and its like out by going over the whole expression again.
"""

import re
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from app.utils.big_bodies import BigBodies
from app.utils.recent import Recent

_P = ParamSpec("_P")
_T = TypeVar("_T")

MOST_WORK: Final = 15_000
"""Of one request, over all its schemas and those of the responses that it refers to. About 1 µs each: most
of it to tell what the check costs, and a copy, and then the library's part."""
MOST_STEPS: Final = 400_000
"""Of one request, over all answers that are checked for it: one check, and telling what is wrong."""
_KEPT_BYTES: Final = 16 * 1024 * 1024
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
    """What one request has left. ``is_over``: it asked for more.

    Args:
        made: checks that there are, each by its schema; those of the process, so that a request finds what
            another one has made. They cost a request the same whether they are there or not: else what it may
            ask for would depend on others.
        bodies: with whose turns that is done which takes long, in the name of ``owner``; None: at once.
    """

    def __init__(
        self, made: Recent[Any] | None = None, bodies: BigBodies | None = None, owner: str = ""
    ) -> None:
        self._left = MOST_WORK
        self._steps_left = MOST_STEPS
        self._paid = set[bytes]()
        self._bodies = bodies
        self._owner = owner
        self.is_over = False
        self.made: Recent[Any] = Recent(_KEPT_BYTES) if made is None else made

    @property
    def left(self) -> int:
        return self._left

    async def beside(self, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> _T:
        """What ``function`` returns, in the owner's turn and beside the event loop."""
        if self._bodies is None:
            return function(*args, **more)
        return await self._bodies.work_briefly(self._owner, function, *args, **more)

    def has_paid(self, schema: bytes) -> bool:
        """Equal schemas of a request are one, also where its check has to be made again."""
        return schema in self._paid

    def paid(self, schema: bytes) -> None:
        self._paid.add(schema)

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
