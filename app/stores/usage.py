"""What was used: chats and tokens by day, bot and user, and a user's tokens of today for the quota.

A chat is counted by the script that ends it (``chat_end``), in its own shard: both happen or neither does. So
sums are spread over the shards, and reading adds them up. Days are those of UTC, by Redis' clock, and a chat
belongs to the day on which it ended.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from itertools import chain, islice
from typing import Final, NamedTuple

from attrs import define, field

from app.exceptions import QuotaExceeded, RateLimited
from app.models import Identity
from app.models.chats import Usage
from app.observing.metrics import Metrics
from app.redis_client import Command, Fields, Key, Keys, RedisGate, pairs
from app.stores.ahead import TokensAhead
from app.stores.index import owner_key, whose
from app.stores.large_reads import LargeReads
from app.stores.layers import LAYERS, NO_LIMITS, Limits
from app.stores.portions import FROM_THE_FIRST, portion
from app.stores.scripts import usage_erase, usage_read
from app.stores.sessions import SessionRecord
from app.utils import iso, now_ms
from app.utils.fair_turns import FairTurns

_DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)
_SHARDS_AT_ONCE: Final = 8
_OF_EACH: Final = 125
"""Rows of each of those shards: what there is more of is read one shard at a time."""
_OF_ONE: Final = 1000
_ROWS_AT_ONCE: Final = 200
"""Rows that are made and added up in one turn of the event loop, a millisecond's work."""
_RETRY_SECONDS: Final = 5
_MOST: Final = 1 << 50
"""Tokens of one chat. What Coze says is added up in Lua's doubles, which are exact to 2**53."""
_SEPARATOR: Final = "\x1f"
"""Between user and bot in a row's name; neither can hold it."""
_GLOB: Final = re.compile(r"[\\*?\[\]]")
"""What Redis' patterns take for more than itself."""


_Where = dict[int, list[str]]
"""By shard: what completes the names of the hashes that are to be looked at, owner and day."""


class Used(NamedTuple):
    """One row: what a user used of a bot in one day, in one shard."""

    day: date
    user_id: str
    bot_id: str
    chats: int
    tokens: int
    input: int
    output: int


def _nothing() -> None:
    pass


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
    _large: LargeReads = field(kw_only=True, factory=LargeReads)
    _pieces: FairTurns = field(init=False, factory=FairTurns)
    _ahead: TokensAhead = field(init=False, factory=TokensAhead)

    def shared_by(self, processes: int) -> None:
        """So many processes are there."""
        self._ahead.processes = max(1, processes)

    def hold(self, owner: str, user: str, size: int) -> Callable[[], None]:
        """A chat runs, whose question has so many bytes; returns how to say, once, that it is over."""
        if not self._daily_tokens.layers:
            return _nothing
        return self._ahead.hold(whose(owner, user), size)

    async def charge(self, owner: str, user: str, size: int) -> Callable[[], None]:
        """As ``hold``, where the quota is not used up, nor will be by the chats that run already: many that
        are begun before the first of them is over would spend what is others'. The first one is let in,
        however large it is.

        Args:
            user: as the indexes name him.

        Raises:
            QuotaExceeded: it is used up.
            RateLimited: it may be, by what runs.
        """
        if not self._daily_tokens.layers:
            return _nothing
        names = whose(owner, user)
        ahead = [self._ahead.of(name) for name in names]
        # Before anything is waited for: of two that come together the second one sees the first.
        give_back = self._ahead.hold(names, size)
        with ExitStack() as refused:
            refused.callback(give_back)
            await self._check_quota(owner, user, ahead)
            refused.pop_all()
        return give_back

    async def _check_quota(self, owner: str, user: str, ahead: Sequence[int]) -> None:
        quotas = self._daily_tokens.numbers(owner)
        layers = [layer for layer, quota in enumerate(quotas) if quota]
        day, of_day = divmod(now_ms(), _DAY_MS)
        keys, names = self._keys, whose(owner, user)
        replies = await self._redis.pipeline(
            [Fields("MGET", *(keys.spent(s, names[layer], day) for layer in layers)) for s in keys.shards]
        )
        for layer, numbers in zip(layers, zip(*replies, strict=True), strict=True):
            spent = sum(int(number) for number in numbers if number is not None)
            if spent + ahead[layer] < quotas[layer]:
                continue
            message, details = self._daily_tokens.refusal(owner, layer)
            self._metrics.refused(self._daily_tokens.name, LAYERS[layer])
            limit, details = f"{message[0].lower()}{message[1:]}", details | {"used": spent}
            if spent < quotas[layer]:
                text = f"The chats that run may use up the tokens of this day: {limit}"
                raise RateLimited(text, retry_after=_RETRY_SECONDS, details=details)
            raise QuotaExceeded(
                f"The tokens of this day are used up: {limit}",
                retry_after=(_DAY_MS - of_day) // 1000 + 1,
                details=details | {"reset_at": iso((day + 1) * _DAY_MS)},
            )

    async def rows(self, identity: Identity, first: date, last: date) -> AsyncIterator[list[Used]]:
        """What the caller's owner used from ``first`` to ``last`` (inclusive), an admin's the whole root, in
        portions between which others have their turn.

        One user, bot and day comes once for each shard and owner; days that are not kept have no rows. Raises
        ``Overloaded``, see ``LargeReads``: each step has a turn.
        """
        begin = max((first - _EPOCH).days, (today() - _EPOCH).days - self._days)
        end = min((last - _EPOCH).days, (today() - _EPOCH).days + 1)
        async for where in self._where(identity, begin, end):
            async for found in self._read(identity.owner, where):
                while portion := await self._piece(identity.owner, found):
                    yield portion

    async def _read(self, owner: str, where: _Where) -> AsyncIterator[Iterator[Used]]:
        """The rows of one step after the other."""
        async with self._large.taken(owner):
            first = [self._usage_read(s, names, _OF_EACH, whole=False) for s, names in where.items()]
            replies = await self._redis.pipeline(first)
        yield chain.from_iterable(map(_rows, where.values(), replies))
        for (shard, names), reply in zip(where.items(), replies, strict=True):
            left = names[len(reply) :]
            while left:
                async with self._large.taken(owner):
                    more = self._usage_read(shard, left, _OF_ONE, whole=True)
                    read = await self._redis.run(more, alone=True)
                yield _rows(left, read)
                left = left[len(read) :]

    def _usage_read(
        self, shard: int, names: list[str], most: int, *, whole: bool
    ) -> Command[list[list[bytes]]]:
        return usage_read(usage=self._keys.usage(shard).usage, of_days=names, most=most, whole=whole)

    async def _piece(self, owner: str, rows: Iterator[Used]) -> list[Used]:
        """One in a turn of the event loop, by turns of the owners."""
        async with self._pieces.taken(owner):
            await asyncio.sleep(0)
            return [*islice(rows, _ROWS_AT_ONCE)]

    async def erase(self, identity: Identity, user_id: str) -> None:
        """Deletes the user's rows, and with them his part of all sums; an admin's of that name in the root.

        What he spent today is kept until the day ends, a count under a digest: erasing would otherwise be
        the way around the quota. Raises ``Overloaded``, see ``LargeReads``: each step has a turn.
        """
        root, rows = owner_key(identity.root), _GLOB.sub(r"\\\g<0>", user_id) + _SEPARATOR + "*"
        tomorrow = (today() - _EPOCH).days + 1
        async for where in self._where(identity, tomorrow - self._days - 2, tomorrow):
            left = {shard: (names, FROM_THE_FIRST) for shard, names in where.items()}
            while left:
                async with self._large.taken(identity.owner):
                    done = await self._redis.pipeline(
                        [
                            usage_erase(
                                at=self._keys.usage(s), root=root, of_days=names, place=place, rows=rows
                            )
                            for s, (names, place) in left.items()
                        ]
                    )
                steps = zip(left.items(), done, strict=True)
                rest = {shard: (names[count:], place) for (shard, (names, _)), (count, place) in steps}
                left = {shard: of_it for shard, of_it in rest.items() if of_it[0]}

    async def _where(self, identity: Identity, first: int, last: int) -> AsyncIterator[_Where]:
        """Of some shards at a time. An admin's are all owners of the root, in portions."""
        keys, own, root = self._keys, owner_key(identity.owner), owner_key(identity.root)
        for begin in range(0, len(keys.shards), _SHARDS_AT_ONCE):
            shards = keys.shards[begin : begin + _SHARDS_AT_ONCE]
            if not identity.admin:
                yield {shard: [f"{own}:{day}" for day in range(first, last + 1)] for shard in shards}
                continue
            for day in range(first, last + 1):
                lists = {shard: Key(f"{keys.usage(shard).usage_owners}{root}:{day}") for shard in shards}
                async for found in self._members(lists):
                    where = {
                        shard: [f"{owner.decode()}:{day}" for owner in owners]
                        for shard, owners in found.items()
                        if owners
                    }
                    if where:
                        yield where

    async def _members(self, lists: Mapping[int, Key]) -> AsyncIterator[dict[int, list[bytes]]]:
        """Of several sets, each member once: it is added up."""
        places = dict.fromkeys(lists, FROM_THE_FIRST)
        seen: dict[int, set[bytes]] = {each: set() for each in lists}
        while places:
            replies = await self._redis.pipeline([portion("SSCAN", lists[n], places[n]) for n in places])
            read = dict(zip(places, replies, strict=True))
            yield {
                n: [each for each in dict.fromkeys(some) if each not in seen[n]]
                for n, (_, some) in read.items()
            }
            for n, (_, some) in read.items():
                seen[n].update(some)
            places = {n: place for n, (place, _) in read.items() if place != FROM_THE_FIRST}


def _rows(names: Sequence[str], reply: Sequence[list[bytes]]) -> Iterator[Used]:
    for name, flat in zip(names, reply, strict=False):
        day = _EPOCH + timedelta(days=int(name.rpartition(":")[2]))
        for row, sums in pairs(flat):
            user_id, _, bot_id = row.decode().partition(_SEPARATOR)
            yield Used(day, user_id, bot_id, *map(int, sums.split()))
