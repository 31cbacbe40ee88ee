"""What callers take of the service, and what they are refused, judged by what their clients did and saw.

Clients know bounds: what was granted to them was taken, and no more can have been taken than was asked for.
A group's limit must hold for the lower bound, and refusing needs the upper one: what the group that was
refused asked for, and of the other groups in its layer at most what each of them may have. So it is a
violation, too, if somebody is refused because others took more than their shares.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from app.config import Settings
from app.models import Identity
from app.stores.layers import LAYERS, Limits
from app.tasks.limits import ServiceLimits
from tests.simulation.book import Book
from tests.simulation.clock import CLOCK

ROOT: Final = "moicen.com"
_REFUSAL: Final = re.compile(r"At most (\d+) (.+) for (.+) \(([A-Z_]+(?: of [A-Z_]+)?)\)")
_WHOM: Final = {"one user id": 0, "one caller": 1, "one root domain": 2, "all callers together": 3}
_LATE: Final = 15.0
"""Seconds that a call may be under way before it takes its token, while nothing is in trouble."""
_SURELY: Final = 120.0
"""A session that was told to live so much longer is surely there."""


def name_of(who: str) -> tuple[str, str]:
    """Name and root of a caller: ``alice`` is of ``ROOT``, ``dave@huiwings.cn`` of another one."""
    name, _, root = who.partition("@")
    return name, root or ROOT


def owner_of(who: str) -> str:
    name, root = name_of(who)
    return Identity(root, name).owner


def group_of(layer: int, who: str, user: str) -> tuple[str, ...]:
    """Whom the layer counts together with that user of that caller."""
    return ((who, user), (who,), (name_of(who)[1],), ())[layer]


@dataclass(frozen=True)
class Asked:
    """``what``: messages or sessions."""

    at: float
    what: str
    who: str
    user: str


class Shares:
    def __init__(self, book: Book, settings: Settings) -> None:
        self._book = book
        self._limits = ServiceLimits.of(settings)
        self._asked: list[Asked] = []

    # -- what clients do -----------------------------------------------------------------------------------

    def about(self, method: str, path: str, who: str, body: Any) -> Asked | None:
        """What a call asks for that has a limit."""
        if method != "POST" or not isinstance(body, dict):
            return None
        if path == "/coze/sessions":
            return Asked(CLOCK.now, "sessions", who, body["user_id"])
        session_id = (body.get("metadata") or {}).get("session_id", "")
        if path.endswith("/messages"):
            session_id = path.split("/")[3]
        elif path == "/coze/api/v3/chat":
            return Asked(CLOCK.now, "messages", who, body["user_id"])
        elif not path.endswith("/chat/completions"):
            return None
        users = (note.user for note in self._book.sessions.values() if note.id == session_id)
        return Asked(CLOCK.now, "messages", who, next(users, body.get("user", "")))

    def ask(self, asked: Asked | None) -> None:
        if asked is not None:
            self._asked.append(asked)

    def refused(self, asked: Asked | None, raw: bytes | dict[str, Any]) -> None:
        """A 429 of our own: layer and setting are named, and the layer can be full."""
        error = (json.loads(raw) if isinstance(raw, bytes) else raw)["error"]
        found = _REFUSAL.search(error["message"])
        if asked is None or error.get("code") in ("COZE_RATE_LIMITED", "COZE_QUOTA_EXHAUSTED"):
            return
        if found is None or found[3] not in _WHOM:
            self._book.violated("shares", f"{asked.who}: a refusal without layer and setting: {error}")
            return
        layer = _WHOM[found[3]]
        details = error.get("details")  # the OpenAI door has none
        told = {"layer": LAYERS[layer], "setting": found[4], "limit": int(found[1])}
        if details is not None and {name: details.get(name) for name in told} != told:
            self._book.violated("shares", f"{asked.who}: {details} and {error['message']!r}")
        self._judge(asked, found[2], layer, int(found[1]))

    def _judge(self, asked: Asked, what: str, layer: int, limit: int) -> None:
        rate = self._limits.rates.get(asked.what)  # type: ignore[call-overload]  # one of its keys
        since = 0.0
        if rate is not None and rate.what == what:
            limits, since = rate, CLOCK.now - 60.0 - _LATE
        elif what in (self._limits.users.what, self._limits.sessions.what):
            limits = self._limits.users if what == self._limits.users.what else self._limits.sessions
        else:
            return  # of one process, which nobody outside can tell
        taken = [
            (each.who, each.user) for each in self._asked if each.what == asked.what and each.at >= since
        ]
        if limits is self._limits.users:
            taken = sorted(set(taken))
        if limits.of_owner(owner_of(asked.who))[layer].most != limit:
            self._book.violated("shares", f"{asked.who}: {limit} {what} are not the limit")
        if self._book.losses or self._book.troubled("redis", "replica"):
            return  # what was asked long ago may be done only now
        possible = _possible(limits, layer, asked.who, asked.user, taken)
        if possible < limit:
            text = f"{asked.who}, {asked.user}: refused at {limit} {what} ({LAYERS[layer]})"
            self._book.violated("shares", f"{text}, though it can be {possible} at most")

    # -- what they have ------------------------------------------------------------------------------------

    def check_users(self) -> None:
        """Who surely has sessions, at this moment."""
        active = {
            (note.who, note.user)
            for note in self._book.sessions.values()
            if note.id and note.over is None and CLOCK.now < note.alive_until - _SURELY
        }
        self._check(self._limits.users, Counter(active))

    def check_sessions(self, live: dict[tuple[str, str], int]) -> None:
        """``live``: how many sessions each user of each caller has."""
        self._check(self._limits.sessions, Counter(live))

    def _check(self, limits: Limits, held: Counter[tuple[str, str]]) -> None:
        if self._book.losses:
            return
        for layer in range(len(LAYERS)):
            sums: Counter[tuple[str, ...]] = Counter()
            for (who, user), count in held.items():
                sums[group_of(layer, who, user)] += count
            for who, user in held:
                most = limits.of_owner(owner_of(who))[layer].most
                if most and sums[group_of(layer, who, user)] > most:
                    text = f"{who}, {user}: {sums[group_of(layer, who, user)]} {limits.what}"
                    self._book.violated("shares", f"{text}, {LAYERS[layer]} has {most}")
                    return

    def check_rates(self) -> None:
        """Of messages: no bucket ever gave more than a minute's worth and what came back meanwhile."""
        if self._book.losses:
            return
        rate = self._limits.rates["messages"]
        for layer in range(len(LAYERS)):
            groups: defaultdict[tuple[str, ...], list[tuple[float, float, str]]] = defaultdict(list)
            for chat in self._book.chats.values():
                if chat.id and chat.accepted_at is not None:
                    who, user = chat.session.who, chat.session.user
                    groups[group_of(layer, who, user)].append((chat.sent_at, chat.accepted_at, who))
            for group, granted in groups.items():
                most = rate.of_owner(owner_of(granted[0][2]))[layer].most
                if most and (over := _over(most, granted)):
                    self._book.violated("shares", f"{group} was granted {over}, {LAYERS[layer]} has {most}")


def _possible(limits: Limits, layer: int, who: str, user: str, taken: Iterable[tuple[str, str]]) -> int:
    """How much the group in that layer can have taken at most."""
    mine = [each for each in taken if group_of(layer, *each) == group_of(layer, who, user)]
    if layer == 0:
        return len(mine)
    total = 0
    inside = Counter(group_of(layer - 1, *each) for each in mine)
    callers = {group_of(layer - 1, *each): each[0] for each in mine}
    for group, count in inside.items():
        most = limits.of_owner(owner_of(callers[group]))[layer - 1].most
        own = group == group_of(layer - 1, who, user)
        total += count if own or not most else min(count, most)
    return total


def _over(most: int, granted: list[tuple[float, float, str]]) -> str:
    """Which of them are more than a bucket can give; "" if none."""
    granted = sorted(granted)
    for first, (begun, _, _) in enumerate(granted):
        end = begun
        for last, (_, accepted, _) in enumerate(granted[first:], 1):
            end = max(end, accepted)
            if last > most + most * (end - begun) / 60.0 + 0.001:
                return f"{last} in {end - begun:.3f} s"
    return ""
