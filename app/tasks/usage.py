"""Reports of what was used."""

from collections import defaultdict
from datetime import date, timedelta
from typing import Final, TypedDict

from app.exceptions import wrong_field
from app.models import Identity
from app.stores.index import user_key
from app.stores.rates import RateStore
from app.stores.usage import UsageStore, Used, today

_DEFAULT_DAYS: Final = 30
_FIRST_YEAR: Final = 2000
_MOST_ROWS: Final = 10_000
"""Of a report: to write many more would hold the process up."""
_COLUMNS: Final = {"day": "day", "bot": "bot_id", "user": "user_id", "root": "root"}
"""What can be grouped by, and what it is called in a row; rows are sorted in this order."""
_COUNTS: Final = ("chats", "tokens", "input", "output")
Report = TypedDict(
    "Report",
    {"from": str, "to": str, "group_by": list[str], "rows": list[dict[str, object]], "total": dict[str, int]},
)


class UsageService:
    def __init__(self, usage: UsageStore, rates: RateStore) -> None:
        self._usage = usage
        self._rates = rates

    async def report(self, identity: Identity, first: str, last: str, group_by: str) -> Report:
        """Sums of the caller's owner, an admin's of the root. ``first``, ``last``: ISO dates, "" = the last
        30 days; ``group_by``: names out of day, bot, user, root with commas between them."""
        await self._rates.take("reports", identity.owner, user_key(identity.owner, ""))
        until = _date("to", last) if last else today()
        since = _date("from", first) if first else until - timedelta(days=_DEFAULT_DAYS - 1)
        if since > until:
            raise wrong_field("from", "is not after `to`")
        chosen = [name for name in _COLUMNS if name in group_by.split(",")]
        sums: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(_COUNTS))
        total = [0] * len(_COUNTS)
        async for portion in self._usage.rows(identity, since, until):
            for used in portion:
                group = sums[tuple(_column(name, used, identity.root) for name in chosen)]
                for n, count in enumerate((used.chats, used.tokens, used.input, used.output)):
                    group[n] += count
                    total[n] += count
            if len(sums) > _MOST_ROWS:
                problem = f"gives more than {_MOST_ROWS} rows: name fewer days, or fewer groups"
                raise wrong_field("group_by", problem)
        return {
            "from": since.isoformat(),
            "to": until.isoformat(),
            "group_by": chosen,
            "rows": [_row(chosen, group, counts) for group, counts in sorted(sums.items())],
            "total": dict(zip(_COUNTS, total, strict=True)),
        }


def _column(name: str, used: Used, root: str) -> str:
    if name == "day":
        return used.day.isoformat()
    if name == "root":
        return root
    return used.bot_id if name == "bot" else used.user_id


def _row(chosen: list[str], group: tuple[str, ...], counts: list[int]) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(_COLUMNS.values())
    row |= {_COLUMNS[name]: value for name, value in zip(chosen, group, strict=True)}
    return row | dict(zip(_COUNTS, counts, strict=True))


def _date(field: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.year < _FIRST_YEAR:
        raise wrong_field(field, "is a date, as in 2026-11-22")
    return day
