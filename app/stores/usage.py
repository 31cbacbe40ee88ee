"""What was used: chats and tokens by day, bot and user, and a user's tokens of today for the quota.

A chat is counted by the script that ends it (``chat_end``), in its own shard: both happen or neither does. So
sums are spread over the shards, and reading adds them up. Days are those of UTC, by Redis' clock, and a chat
belongs to the day on which it ended.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from itertools import islice
from typing import Final, NamedTuple

from attrs import define, field

from app.exceptions import QuotaExceeded
from app.models import Identity
from app.models.chats import Usage
from app.observing.metrics import Metrics
from app.redis_client import Fields, Keys, RedisGate, pairs
from app.stores.index import owner_key, whose
from app.stores.layers import LAYERS, NO_LIMITS, Limits
from app.stores.scripts import usage_erase, usage_read
from app.stores.sessions import SessionRecord
from app.utils import iso, now_ms

_DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)
_DAYS_AT_ONCE: Final = 7
_SHARDS_AT_ONCE: Final = 8
"""A shard's script reads so many days of an owner in one step, and so many shards are read at once: neither
Redis nor this process must be kept from others for long. Of a whole root it is one day."""
_ROWS_AT_ONCE: Final = 1000
_MOST: Final = 1 << 50
"""Tokens of one chat. What Coze says is added up in Lua's doubles, which are exact to 2**53."""
_SEPARATOR: Final = "\x1f"
"""Between user and bot in a row's name; neither can hold it."""


class Used(NamedTuple):
    """One row: what a user used of a bot in one day, in one shard."""

    day: date
    user_id: str
    bot_id: str
    chats: int
    tokens: int
    input: int
    output: int


def usage_of_end(usage: Usage | None) -> str:
    """What the script that ends a chat adds up: tokens, of which input and output."""
    if usage is None:
        return "0 0 0"
    read, written = usage.input_count, usage.output_count
    counts = (usage.token_count or read + written, read, written)
    if min(counts) < 0 or max(counts) > _MOST:
        counts = tuple(min(max(count, 0), _MOST) for count in counts)  # type: ignore[assignment]  # still three
    return "{} {} {}".format(*counts)


def usage_row(session: SessionRecord) -> str:
    return f"{session.user_id}{_SEPARATOR}{session.bot_id}"


def today() -> date:
    return _EPOCH + timedelta(milliseconds=now_ms())


@define(eq=False, repr=False)
class UsageStore:
    """``days``: how long a day is kept after its end. ``daily_tokens``: the quotas."""

    _redis: RedisGate
    _keys: Keys
    _days: int = field(kw_only=True)
    _daily_tokens: Limits = field(kw_only=True, default=NO_LIMITS)
    _metrics: Metrics = field(kw_only=True, factory=Metrics)

    async def check_quota(self, owner: str, user: str) -> None:
        """What still runs is not counted yet, so a user can go over it by the chats that run at once.
        ``user``: as the indexes name him. Costs nothing without a quota. Raises ``QuotaExceeded``."""
        quotas = self._daily_tokens.numbers(owner)
        layers = [layer for layer, quota in enumerate(quotas) if quota]
        if not layers:
            return
        day, of_day = divmod(now_ms(), _DAY_MS)
        keys, names = self._keys, whose(owner, user)
        replies = await self._redis.pipeline(
            [Fields("MGET", *(keys.spent(s, names[layer], day) for layer in layers)) for s in keys.shards]
        )
        for layer, numbers in zip(layers, zip(*replies, strict=True), strict=True):
            spent = sum(int(number) for number in numbers if number is not None)
            if spent >= quotas[layer]:
                message, details = self._daily_tokens.refusal(owner, layer)
                self._metrics.refused(self._daily_tokens.name, LAYERS[layer])
                raise QuotaExceeded(
                    f"The tokens of this day are used up: {message[0].lower()}{message[1:]}",
                    retry_after=(_DAY_MS - of_day) // 1000 + 1,
                    details=details | {"used": spent, "reset_at": iso((day + 1) * _DAY_MS)},
                )

    async def rows(self, identity: Identity, first: date, last: date) -> AsyncIterator[list[Used]]:
        """What the caller's owner used from ``first`` to ``last`` (inclusive), an admin's the whole root, in
        portions between which others have their turn.

        One user, bot and day comes once for each shard and owner; days that are not kept have no rows.
        """
        begin = max((first - _EPOCH).days, (today() - _EPOCH).days - self._days)
        end = min((last - _EPOCH).days, (today() - _EPOCH).days + 1)
        keys, (owner, root) = self._keys, _whose(identity)
        days = _DAYS_AT_ONCE if owner else 1
        for day in range(begin, end + 1, days):
            until = min(day + days - 1, end)
            for shard in range(0, len(keys.shards), _SHARDS_AT_ONCE):
                replies = await self._redis.pipeline(
                    [
                        usage_read(at=keys.usage(s), owner=owner, root=root, first_day=day, last_day=until)
                        for s in keys.shards[shard : shard + _SHARDS_AT_ONCE]
                    ]
                )
                found = (row for reply in replies for row in _rows(reply))
                while portion := list(islice(found, _ROWS_AT_ONCE)):
                    yield portion
                    await asyncio.sleep(0)

    async def erase(self, identity: Identity, user_id: str) -> None:
        """Deletes the user's rows, and with them his part of all sums; an admin's of that name in the root.

        What he spent today is kept until the day ends, a count under a digest: erasing would otherwise be
        the way around the quota.
        """
        keys, (owner, root), row = self._keys, _whose(identity), user_id + _SEPARATOR
        tomorrow = (today() - _EPOCH).days + 1
        first = tomorrow - self._days - 2
        await self._redis.pipeline(
            [
                usage_erase(
                    at=keys.usage(s), owner=owner, root=root, first_day=first, last_day=tomorrow, row=row
                )
                for s in keys.shards
            ]
        )


def _whose(identity: Identity) -> tuple[str, str]:
    """Owner and root as the scripts name them; no owner: all of the root."""
    return "" if identity.admin else owner_key(identity.owner), owner_key(identity.root)


def _rows(reply: list[tuple[int, list[bytes]]]) -> Iterator[Used]:
    for day, flat in reply:
        for row, sums in pairs(flat):
            user_id, _, bot_id = row.decode().partition(_SEPARATOR)
            yield Used(_EPOCH + timedelta(days=day), user_id, bot_id, *map(int, sums.split()))
