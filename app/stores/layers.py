"""Limits in layers: what one user id, one owner, one root domain and the whole service may have of a thing.

Callers choose their user ids, so a limit for each user id bounds nobody who makes them up. An owner may
therefore have a share of what the whole service may have, and so may a root domain. Whoever is the root
itself (an API key, or everybody where authentication is switched off) stands for an app with many users: the
root's share is his.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Layer = Literal["user", "owner", "root", "service"]
LAYERS: Final[tuple[Layer, ...]] = ("user", "owner", "root", "service")
_WHOM: Final[dict[Layer, str]] = {
    "user": "one user id",
    "owner": "one caller",
    "root": "one root domain",
    "service": "all callers together",
}


PLACE_BYTES: Final = 65_536
"""Where places are counted, what is larger takes one for each of these: then a number of places is a number
of bytes, too."""


def places_of(size: int) -> int:
    """How many places so many bytes take."""
    return max(1, -(-size // PLACE_BYTES))


class Shares(NamedTuple):
    """How much of the whole an owner and a root domain may have, above 0 and at most 1."""

    owner: float
    root: float


class Limit(NamedTuple):
    """``most``: 0 is no limit. ``setting``: what an operator changes to move it."""

    most: int = 0
    setting: str = ""


NO_LIMIT: Final = Limit()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one thing. ``what``: the thing, behind a number, as in "5 ``active users``"; ``name``: as
    the metrics call it.

    ``apps_owner``: the owner's where he is the root itself.
    """

    what: str
    user: Limit = NO_LIMIT
    owner: Limit = NO_LIMIT
    root: Limit = NO_LIMIT
    service: Limit = NO_LIMIT
    apps_owner: Limit = NO_LIMIT
    name: str = ""

    @classmethod
    def of(
        cls,
        what: str,
        total: Limit,
        shares: Shares,
        *,
        user: Limit = NO_LIMIT,
        owner: Limit = NO_LIMIT,
        name: str = "",
    ) -> "Limits":
        """``owner``: a limit of its own for each owner, beside his share of the total; the smaller counts."""
        share = _share(total, shares.owner, "COZE_OWNER_SHARE")
        both = [limit for limit in (owner, share) if limit.most]
        return cls(
            what,
            user=user,
            owner=min(both, default=NO_LIMIT),
            root=_share(total, shares.root, "COZE_ROOT_SHARE"),
            service=total,
            apps_owner=owner,
            name=name,
        )

    @property
    def layers(self) -> list[Layer]:
        """Those in which there is one."""
        owner = self.owner if self.owner.most else self.apps_owner
        limits = (self.user, owner, self.root, self.service)
        return [layer for layer, limit in zip(LAYERS, limits, strict=True) if limit.most]

    def of_owner(self, owner: str) -> tuple[Limit, Limit, Limit, Limit]:
        """What holds for him and his users, layer by layer."""
        root_itself = not owner.partition("|")[2]
        return self.user, self.apps_owner if root_itself else self.owner, self.root, self.service

    def numbers(self, owner: str) -> list[int]:
        """The same for scripts; 0 is no limit."""
        return [limit.most for limit in self.of_owner(owner)]

    def bounds(self, owner: str) -> list[tuple[str, int]]:
        """For whom it counts beside the user (see ``payers``), and how many each may have; without those that
        have no limit."""
        pairs = zip(payers(owner), self.numbers(owner), strict=True)
        return [(whose, most) for whose, most in pairs if whose is not None and most]

    def refusal(self, owner: str, layer: int) -> tuple[str, dict[str, str | int]]:
        """What to tell a caller whom the layer of that number (0: the user's) refuses: a message, and its
        details."""
        limit, name = self.of_owner(owner)[layer], LAYERS[layer]
        text = f"At most {limit.most} {self.what} for {_WHOM[name]} ({limit.setting})"
        return text, {"layer": name, "setting": limit.setting, "limit": limit.most}


NO_LIMITS: Final = Limits("")


def payers(owner: str) -> tuple[str | None, str, str, str]:
    """For whom it counts in a process, layer by layer: the owner, his root, and "" for all; not for a user
    id, since what is counted there has none."""
    return None, owner, owner.partition("|")[0], ""


def _share(total: Limit, share: float, setting: str) -> Limit:
    """At least one, or a small service would serve nobody; all of it is no limit of its own."""
    if not total.most or share >= 1:
        return NO_LIMIT
    return Limit(max(1, math.floor(total.most * share)), f"{setting} of {total.setting}")
