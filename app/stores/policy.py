"""What the settings say to the stores: how long sessions, logs and leases live, and how much there may be."""

from dataclasses import dataclass
from typing import NamedTuple

from app.stores.layers import Limits


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Times in milliseconds. ``ttl``: how long a session lives after what was done last in it; ``hold``: what
    a running chat adds to that. ``sessions``, and ``users`` who have any: how many there may be."""

    ttl: int
    inactive: int
    sessions: Limits
    users: Limits
    hold: int


class LogPolicy(NamedTuple):
    """What the scripts about chats need to know of the settings. All in milliseconds.

    ``hold``: what a running chat adds to the life of its session and log. ``usage_ttl``: how long a day's
    usage is kept. ``quota``: what a user spends in a day is counted, too. ``usage_rows``: of an owner's day
    in one shard; what finds no row shares one that tells no names.
    """

    lease: int
    session_ttl: int
    log_ttl: int
    hold: int
    usage_ttl: int
    quota: bool = False
    usage_rows: int = 1000
