"""Who is asking, and where in a log; the shapes of the contract are in the modules beside this one."""

import re
from dataclasses import dataclass

import msgspec

# -- who is asking ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: the root domain, the person (None: the root itself) and whether an admin of that root."""

    root: str
    hty_id: str | None
    admin: bool = False

    @property
    def owner(self) -> str:
        """What sessions remember. Roles may change, so they are not part of it."""
        return f"{self.root}|{self.hty_id or ''}"

    @property
    def admin_prefix(self) -> str:
        """Prefix of the owners that an admin may see; empty for everybody else."""
        return f"{self.root}|" if self.admin else ""

    def may_see(self, owner: str) -> bool:
        return owner == self.owner or (self.admin and owner.startswith(self.admin_prefix))


# -- the event log's coordinates ------------------------------------------------------------------------


class Cursor(msgspec.Struct, frozen=True, order=True, gc=False):
    """Position in a chat's event log; as SSE id and Redis stream id it reads ``<epoch>-<frame>``."""

    epoch: int
    frame: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.frame}"

    @property
    def behind(self) -> "Cursor":
        """The id of ``done`` behind an end at this place. What is added later begins another epoch."""
        return Cursor(self.epoch, self.frame + 1)

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """None if ``text`` is not ``<digits>-<digits>`` of a sane length."""
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,12})", text)
        return cls(int(match[1]), int(match[2])) if match else None
