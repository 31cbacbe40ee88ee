"""Places in this process for what lasts: running chats; open streams, waits and uploads. Nothing of it is in
Redis, so a process that dies gives all of its places back."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from attrs import define, field

from app.exceptions import Overloaded, RateLimited
from app.observing.metrics import Metrics
from app.stores.layers import LAYERS, Limits, payers, places_of

_RETRY_SECONDS: Final = 5


class Place:
    """One that is taken, of a certain size."""

    def __init__(self, places: "Places", owner: str, size: int = 0) -> None:
        self._places = places
        self._owner = owner
        self._taken = 0
        self.kept = False
        self._also: list[Callable[[], None]] = []
        self._count(places_of(size))

    def has(self, size: int) -> None:
        """From now on as many as so many bytes need. Raises as ``Places.taken``, and is left as it was
        then."""
        if (more := places_of(size) - self._taken) > 0:
            self._places.refuse_if_full(self._owner, more, self._taken)
        self._count(more)

    def keep(self) -> Callable[[], None]:
        """For whoever needs it for longer, and calls what is returned, once, when it is free again."""
        self.kept = True
        self._places.count_kept(1)

        def give_back() -> None:
            self._places.count_kept(-1)
            self.give_back()

        return give_back

    def give_back(self) -> None:
        self._count(-self._taken)
        while self._also:
            self._also.pop()()

    def also(self, give_back: Callable[[], None]) -> None:
        """Called when the place is given back."""
        self._also.append(give_back)

    def _count(self, change: int) -> None:
        self._taken += change
        self._places.count(self._owner, change)


@define(eq=False, repr=False)
class Places:
    """Counts places by owner and root. ``limits``: those of one process; ``kept_changed`` is told how many
    more or less are kept for longer than a block. ``refuse_first``: raises where a full process has a better
    reason to refuse than that, such as that it is leaving: then another one may have room. ``for_small``: the
    part of each bound that whoever has a place already cannot get, so that what needs only one is not kept
    out by what grows.

    A place is taken before anything is begun: a burst must not slip through while each of it waits.
    """

    _limits: Limits
    _kept_changed: Callable[[int], object] = lambda _: None
    _metrics: Metrics = field(kw_only=True, factory=Metrics)
    _refuse_first: Callable[[], None] = field(kw_only=True, default=lambda: None)
    _for_small: float = field(kw_only=True, default=0.0)
    kept: int = field(init=False, default=0)
    """How many are kept for longer than a block."""
    _held: Counter[str] = field(init=False, factory=Counter)
    """By owner, by root, and under "" all."""

    @contextlib.contextmanager
    def taken(self, owner: str) -> Iterator[Place]:
        """A place for the block, or for longer if somebody keeps it.

        Raises ``RateLimited`` where the caller or his root has as many as may be, ``Overloaded`` where the
        process has.
        """
        self.refuse_if_full(owner, 1, 0)
        place = Place(self, owner)
        try:
            yield place
        finally:
            if not place.kept:
                place.give_back()

    def taken_if(self, wanted: bool, owner: str) -> AbstractContextManager[Place | None]:
        """A place where one is ``wanted``, else None."""
        return self.taken(owner) if wanted else contextlib.nullcontext()

    def hold(self, owner: str, size: int) -> Place:
        """Places for what cannot be refused, such as a chat of another process, until they are given back.
        ``size``: bytes."""
        return Place(self, owner, size)

    def refuse_if_full(self, owner: str, more: int, own: int) -> None:
        """Raises as ``taken`` does, for somebody who has ``own`` places and wants ``more``. Where nobody else
        has any he gets them: what needs more than there may ever be would be refused for ever."""
        for layer, (most, whose) in enumerate(zip(self._limits.numbers(owner), payers(owner), strict=True)):
            if whose is None or not most:
                continue
            held, there_are = self._held[whose], most - int(most * self._for_small) if own else most
            if held > own and held + more > there_are:
                self._refuse_first()
                message, details = self._limits.refusal(owner, layer)
                self._metrics.refused(self._limits.name, LAYERS[layer])
                error = Overloaded if LAYERS[layer] == "service" else RateLimited
                raise error(message, details=details, retry_after=_RETRY_SECONDS)

    @property
    def all_taken(self) -> int:
        """How many are taken in the process."""
        return self._held[""]

    def count_kept(self, change: int) -> None:
        self.kept += change
        self._kept_changed(change)

    def count(self, owner: str, change: int) -> None:
        for whose in payers(owner):
            if whose is None:
                continue
            self._held[whose] += change
            if not self._held[whose]:
                del self._held[whose]
