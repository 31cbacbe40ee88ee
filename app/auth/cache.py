"""Verdicts on tokens, and a bounded memory of them."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.models import Identity


@dataclass(frozen=True, slots=True)
class Accepted:
    """``exp`` in seconds since the epoch; past it the identity is void whatever the cache says."""

    identity: Identity
    exp: float


@dataclass(frozen=True, slots=True)
class Refused:
    """``message`` is for the caller."""

    message: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The auth service could not be asked. Never kept."""


Verdict = Accepted | Refused | Unanswered


def cache_key(token: str, root: str) -> bytes:
    """SHA-256: what is kept of a token gives nobody the token. The NUL keeps the two parts apart."""
    return hashlib.sha256(f"{token}\0{root}".encode()).digest()


class VerdictCache:
    """The most recently used verdicts, at most ``max_entries``. ``ticks`` is a clock that only goes forward.

    A quarter of the room is for refusals, the rest for identities: a flood of wrong tokens pushes out
    nobody who is known.
    """

    def __init__(
        self, *, max_entries: int, accepted_ttl: float, refused_ttl: float, ticks: Callable[[], float]
    ) -> None:
        self._ticks = ticks
        self._room_refused = max_entries // 4
        self._room_accepted = max_entries - self._room_refused
        self._accepted_ttl = accepted_ttl
        self._refused_ttl = refused_ttl
        self._accepted: OrderedDict[bytes, tuple[float, Accepted]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, Refused]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accepted) + len(self._refused)

    def get(self, key: bytes) -> Accepted | Refused | None:
        """What was found out not too long ago."""
        for entries in (self._accepted, self._refused):
            found = entries.get(key)
            if found is None:
                continue
            until, verdict = found
            if self._ticks() < until:
                entries.move_to_end(key)
                return verdict
            if entries is self._refused:
                del entries[key]
        return None

    def knew(self, key: bytes) -> Identity | None:
        """Of whom the last verdict was a yes, however long ago. That lets nobody in: it only says who goes
        first where many are to be checked."""
        found = self._accepted.get(key)
        return None if found is None else found[1].identity

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Remembers yes and no; that nobody answered is nothing to remember."""
        if isinstance(verdict, Accepted):
            self._refused.pop(key, None)
            self._accepted[key] = (self._ticks() + self._accepted_ttl, verdict)
            _trim(self._accepted, self._room_accepted)
        elif isinstance(verdict, Refused):
            self._accepted.pop(key, None)
            self._refused[key] = (self._ticks() + self._refused_ttl, verdict)
            _trim(self._refused, self._room_refused)


def _trim(
    entries: OrderedDict[bytes, tuple[float, Accepted]] | OrderedDict[bytes, tuple[float, Refused]], room: int
) -> None:
    while len(entries) > room:
        entries.popitem(last=False)
