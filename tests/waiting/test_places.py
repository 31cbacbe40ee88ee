"""Places in a process: counted by caller, root and process, in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from app.exceptions import Overloaded, RateLimited, ShuttingDown
from app.stores.layers import PLACE_BYTES, Limit, Limits, Shares
from app.tasks.places import Places

ALICE, BOB, ELSEWHERE = "r.example|alice", "r.example|bob", "else.example|alice"


def places(total: int = 10, owner: float = 0.4, root: float = 0.6, **more: Any) -> Places:
    return Places(Limits.of("places", Limit(total, "TOTAL"), Shares(owner, root)), **more)


def take(taken: ExitStack, all_places: Places, owner: str, size: int = 0) -> None:
    taken.enter_context(all_places.taken(owner)).has(size)


def free_of(all_places: Places, owner: str) -> int:
    """How many he could still take."""
    with ExitStack() as taken:
        for number in range(100):
            try:
                take(taken, all_places, owner)
            except (RateLimited, Overloaded):
                return number
    raise AssertionError("no bound")


def test_what_is_large_takes_a_place_for_each_piece_of_it() -> None:
    shared = places()
    with ExitStack() as taken:
        take(taken, shared, ALICE, 2 * PLACE_BYTES + 1)
        assert [free_of(shared, owner) for owner in (ALICE, BOB, ELSEWHERE)] == [1, 3, 4]
    assert [free_of(shared, owner) for owner in (ALICE, BOB, ELSEWHERE)] == [4, 4, 4]


def test_what_grows_leaves_room_for_what_needs_only_one() -> None:
    shared = places(for_small=0.5)
    with ExitStack() as taken:
        for _ in range(2):
            place = taken.enter_context(shared.taken(ALICE))
        with pytest.raises(RateLimited):
            place.has(2 * PLACE_BYTES)
        assert [free_of(shared, owner) for owner in (ALICE, BOB, ELSEWHERE)] == [2, 4, 4]


def test_a_refusal_of_more_leaves_the_place_as_it_was() -> None:
    shared = places()
    with ExitStack() as taken:
        take(taken, shared, ALICE, 2 * PLACE_BYTES)
        place = taken.enter_context(shared.taken(ALICE))
        with pytest.raises(RateLimited, match="TOTAL"):
            place.has(3 * PLACE_BYTES)
        assert free_of(shared, ALICE) == 1
        place.has(2 * PLACE_BYTES)
        assert free_of(shared, ALICE) == 0


def test_what_is_larger_than_all_places_is_let_in_alone() -> None:
    shared = places()
    with ExitStack() as taken:
        take(taken, shared, ALICE, 100 * PLACE_BYTES)
        assert [free_of(shared, owner) for owner in (ALICE, BOB, ELSEWHERE)] == [0, 0, 0]
        with pytest.raises(Overloaded):
            take(taken, shared, ELSEWHERE)
    with ExitStack() as taken:
        take(taken, shared, ALICE)
        with pytest.raises(RateLimited):
            take(taken, shared, ALICE, 100 * PLACE_BYTES)


def test_what_cannot_be_refused_takes_places_all_the_same() -> None:
    shared = places()
    place, told = shared.hold(ALICE, 7 * PLACE_BYTES), list[str]()
    place.also(lambda: told.append("given back"))
    assert [free_of(shared, owner) for owner in (ALICE, BOB, ELSEWHERE)] == [0, 0, 3]
    assert shared.all_taken == 7
    place.give_back()
    assert shared.all_taken == 0
    assert (free_of(shared, ALICE), told) == (4, ["given back"])


def test_only_what_is_kept_is_told() -> None:
    told: list[int] = []
    shared = places(kept_changed=told.append)
    with shared.taken(ALICE) as place:
        place.has(PLACE_BYTES * 2)
        assert told == []
        give_back: Callable[[], None] = place.keep()
    assert (told, free_of(shared, ALICE)) == ([1], 2)
    give_back()
    assert (told, free_of(shared, ALICE)) == ([1, -1], 4)


def test_a_full_process_that_leaves_says_so_instead() -> None:
    def leaving() -> None:
        raise ShuttingDown

    full = places(1, owner=1, root=1, refuse_first=leaving)
    with ExitStack() as taken:
        take(taken, full, ALICE)
        with pytest.raises(ShuttingDown):
            take(taken, full, BOB)
