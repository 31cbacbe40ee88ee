"""Tokens that the chats which run may still cost: what a chat costs is counted once it is over."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from attrs import define, field

from app.stores.index import Whose

_ANSWER_TOKENS: Final = 2000
"""That an answer is taken to have until it is known. What is asked has at most as many as it has bytes."""


@define(eq=False, repr=False)
class TokensAhead:
    """By the names of those who pay. Of this process alone: it takes the others to have as many, so that all
    of them together keep within what is left of a quota."""

    processes: int = 1
    """How many there are, as far as is known."""
    _held: Counter[str] = field(init=False, factory=Counter)

    def hold(self, payers: Whose, size: int) -> Callable[[], None]:
        """From now on a chat with a question of so many bytes is counted; returns how to end that, once."""
        tokens = size + _ANSWER_TOKENS
        self._add(payers, tokens)
        return lambda: self._add(payers, -tokens)

    def of(self, name: str) -> int:
        """What all processes together may have ahead."""
        return self._held[name] * self.processes

    def _add(self, payers: Whose, tokens: int) -> None:
        for name in payers:
            self._held[name] += tokens
            if not self._held[name]:
                del self._held[name]
