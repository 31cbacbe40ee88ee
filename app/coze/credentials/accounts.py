"""Several credentials, and which conversation belongs to which.

A conversation can only be seen by the identity that made it. So the name of its credential is kept beside
it in Redis, and every call about it, on whichever replica, goes out under that name. Only what has no
conversation yet is free to go to another one, and does when its credential is in a cool-down.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from loguru import logger

from app.coze.codes import CODES
from app.coze.credentials.sources import TokenSource
from app.exceptions import CozeRateLimited, UpstreamError
from app.observing.metrics import CredentialTimes

_ACCOUNT_LIMITS: Final = frozenset({4011, 4013, 4019, 4020, 4022, 4027, 4028, 788788103})
"""Codes that are about the account behind a token, not about one user or one request."""
_LONGEST_COOL_DOWN: Final = 600.0
"""Seconds. Whoever tops an account up does not want to wait for an hour."""
_REFUSED_COOL_DOWN: Final = 60.0


def fingerprint(secret: str) -> str:
    """Identifies a credential without revealing it: 32 bits of a hash."""
    return hashlib.sha256(f"coze-credential\0{secret}".encode()).hexdigest()[:8]


@dataclass(slots=True, eq=False)
class Account:
    """One credential. ``name`` is ``<place in the settings>-<fingerprint>``."""

    name: str
    source: TokenSource
    cool_until: float = 0.0
    refused: bool = False
    """Why it is cooling: Coze does not accept its token."""
    last_code: int | None = None
    opened: int = 0
    """How often it was chosen for something new."""


class Accounts:
    """All credentials that are set."""

    def __init__(
        self, sources: Sequence[tuple[str, TokenSource]], *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            sources: for each a text that stays the same as long as its identity does, and the source.
            ticks: seconds of a clock that only goes forward.
        """
        self._ticks = ticks
        self._accounts = [
            Account(f"{place}-{fingerprint(text)}", source) for place, (text, source) in enumerate(sources)
        ]

    def named(self, name: str) -> "Credentials":
        """Those of the conversation that ``name`` was stored with; ``""``: of one still to be made."""
        return Credentials(self, self._find(name) if name else None)

    def name_for(self, owner: str) -> str:
        """Always the same one for an owner, as long as there are as many. By its place, since a token that is
        replaced keeps that; where one is added, only those who get it change."""
        places = range(len(self._accounts))
        chosen = max(places, key=lambda place: hashlib.sha256(f"{place}\0{owner}".encode()).digest())
        return self._accounts[chosen].name

    async def aclose(self) -> None:
        """Ends what is under way; before the client that it goes through is closed."""
        for account in self._accounts:
            await account.source.aclose()

    def _find(self, name: str) -> Account:
        """A token that was replaced by a new one of the same person keeps its place in the settings, so the
        place counts where the fingerprint is unknown."""
        place, _, mark = name.partition("-")
        for account in self._accounts:
            if account.name.endswith(f"-{mark}"):
                return account
        number = int(place) if place.isdecimal() else 0
        return self._accounts[number if number < len(self._accounts) else 0]

    def choose(self) -> Account:
        """For something new: the least used of those that work; if none does, the one that soonest will."""
        now = self._ticks()
        chosen = min(self._accounts, key=lambda a: (max(0.0, a.cool_until - now), a.opened))
        chosen.opened += 1
        return chosen

    def is_cooling(self, account: Account) -> bool:
        return account.cool_until > self._ticks()

    def has_other(self, account: Account) -> bool:
        """Whether one that works could take this one's place."""
        return any(other is not account and not self.is_cooling(other) for other in self._accounts)

    def cool_if_limited(self, account: Account, error: UpstreamError) -> bool:
        """Whether the failure sent the account into a cool-down."""
        code = error.coze_code
        # A 429 is about whoever asks, unless its code is known and says otherwise.
        if code not in _ACCOUNT_LIMITS and not (isinstance(error, CozeRateLimited) and code not in CODES):
            return False
        self.cool(account, min(float(error.retry_after or 60), _LONGEST_COOL_DOWN), code)
        return True

    def cool(self, account: Account, seconds: float, code: int | None, *, refused: bool = False) -> None:
        if not self.is_cooling(account) and len(self._accounts) > 1:
            logger.warning("Coze credential {} rests for {:.0f} s (code {})", account.name, seconds, code)
        account.cool_until = self._ticks() + seconds
        account.last_code, account.refused = code, refused

    def times(self) -> dict[str, CredentialTimes]:
        """By each credential's place in the settings."""
        now = self._ticks()
        return {
            str(place): CredentialTimes(account.source.expires_at, max(0.0, account.cool_until - now))
            for place, account in enumerate(self._accounts)
        }

    def states(self) -> list[dict[str, object]]:
        """Of each credential its state, never its value. ``cool_down_seconds``: what is left of it.
        ``expires_at``: unix seconds, where it is known."""
        states: list[dict[str, object]] = []
        for account in self._accounts:
            left = max(0.0, account.cool_until - self._ticks())
            state = "ready" if left == 0 else "refused" if account.refused else "cooling"
            states.append(
                {
                    "name": account.name,
                    "kind": account.source.kind,
                    "state": state,
                    "cool_down_seconds": round(left),
                    "last_code": account.last_code,
                    "opened": account.opened,
                    "expires_at": account.source.expires_at,
                }
            )
        return states


class Credentials:
    """The identity at Coze behind one conversation, or behind the one that is about to be made."""

    def __init__(self, accounts: Accounts, account: Account | None) -> None:
        self._accounts = accounts
        self._account = account
        self._may_choose = account is None
        self._may_switch = self._may_choose
        """Whether what was asked for last may go to another credential."""

    @property
    def name(self) -> str:
        """Tells identities apart, to be stored beside the conversation; empty while none was chosen."""
        return self._account.name if self._account else ""

    def named(self, name: str) -> "Credentials":
        """Those of the conversation that ``name`` was stored with; ``""``: of one still to be made."""
        return self._accounts.named(name)

    def name_for(self, owner: str) -> str:
        return self._accounts.name_for(owner)

    async def bearer(self, conversation_id: str | None) -> str:
        """The token alone, without ``Bearer``, for a call about this conversation."""
        self._may_switch = self._may_choose and conversation_id is None
        account = self._account
        if account is None or (self._may_switch and self._accounts.is_cooling(account)):
            account = self._account = self._accounts.choose()
        return await account.source.bearer()

    async def token_refused(self, bearer: str) -> bool:
        """Told once per call that Coze did not accept ``bearer``. True: ask again, there is a new one, or
        another credential's."""
        account = self._account
        if account is None:
            return False
        if await account.source.renew(bearer):
            return True
        self._accounts.cool(account, _REFUSED_COOL_DOWN, 4100, refused=True)
        return self._may_switch and self._accounts.has_other(account)

    def call_failed(self, error: UpstreamError) -> bool:
        """Told of every other failure. True: ask again, it is another credential's turn."""
        account = self._account
        if account is None or not self._accounts.cool_if_limited(account, error):
            return False
        return self._may_switch and self._accounts.has_other(account)
