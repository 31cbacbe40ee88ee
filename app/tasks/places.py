"""Places in this process for what lasts: running chats, open streams. Nothing of it is in Redis, so a process
that dies gives all of its places back."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from app.exceptions import Overloaded, RateLimited
from app.stores.layers import LAYERS, Limits

_RETRY_SECONDS: Final = 5


class Place:
    """One place that is taken."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back
        self.kept = False

    def keep(self) -> Callable[[], None]:
        """For whoever needs it for longer, and calls what is returned, once, when it is free again."""
        self.kept = True
        return self._give_back


class Places:
    """Counts places by owner and root. ``limits``: those of one process; ``changed`` is told of each change.

    A place is taken before anything is begun: a burst must not slip through while each of it waits.
    """

    def __init__(self, limits: Limits, changed: Callable[[int], object] = lambda _: None) -> None:
        self._limits = limits
        self._changed = changed
        self._held: Counter[str] = Counter()
        """By owner, by root, and under "" all."""

    @contextlib.contextmanager
    def taken(self, owner: str) -> Iterator[Place]:
        """A place for the block, or for longer if somebody keeps it.

        Raises ``RateLimited`` where the caller or his root has as many as may be, ``Overloaded`` where the
        process has.
        """
        self._refuse_if_full(owner)
        give_back = self.hold(owner)
        place = Place(give_back)
        try:
            yield place
        finally:
            if not place.kept:
                give_back()

    def taken_if(self, wanted: bool, owner: str) -> AbstractContextManager[Place | None]:
        """A place where one is ``wanted``, else None."""
        return self.taken(owner) if wanted else contextlib.nullcontext()

    def hold(self, owner: str) -> Callable[[], None]:
        """A place for what cannot be refused, such as a chat of another process; returns how to give it
        back."""
        self._count(owner, 1)
        return partial(self._count, owner, -1)

    def _refuse_if_full(self, owner: str) -> None:
        for layer, (most, whose) in enumerate(zip(self._limits.numbers(owner), _layers(owner), strict=True)):
            if whose is not None and most and self._held[whose] >= most:
                message, details = self._limits.refusal(owner, layer)
                error = Overloaded if LAYERS[layer] == "service" else RateLimited
                raise error(message, details=details, retry_after=_RETRY_SECONDS)

    def _count(self, owner: str, change: int) -> None:
        self._changed(change)
        for whose in _layers(owner):
            if whose is None:
                continue
            self._held[whose] += change
            if not self._held[whose]:
                del self._held[whose]


def _layers(owner: str) -> tuple[str | None, str, str, str]:
    """Whom a place counts for; not for a user id, since a stream has none."""
    return None, owner, owner.partition("|")[0], ""
