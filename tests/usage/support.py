"""What was used, as the service tells it and as Coze itself has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support import Client, SimControl, data_of

COUNTS = ("chats", "tokens", "input", "output")


async def report(client: Client, **params: str) -> dict[str, Any]:
    """``since`` stands for ``from``."""
    if "since" in params:
        params["from"] = params.pop("since")
    found: dict[str, Any] = data_of(await client.get("/coze/usage", params=params))
    return found


async def total(client: Client, **params: str) -> tuple[int, ...]:
    """Chats, tokens, input, output."""
    return counts((await report(client, **params))["total"])


def counts(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in COUNTS)


def told(chats: Iterable[dict[str, Any]]) -> tuple[int, ...]:
    """The same of these chats, as their results tell it."""
    sums = [0, 0, 0, 0]
    for chat in chats:
        usage = chat["usage"] or {"token_count": 0, "input_count": 0, "output_count": 0}
        sums[0] += 1
        sums[1] += usage["token_count"]
        sums[2] += usage["input_count"]
        sums[3] += usage["output_count"]
    return tuple(sums)


def at_coze(simulator: SimControl, chats: Iterable[dict[str, Any]]) -> tuple[int, ...]:
    """The same of these chats, as Coze has them."""
    stored = simulator.running.app.core.store.chats
    usages = [stored[chat["metadata"]["coze_chat_id"]].usage.view() for chat in chats]
    return (
        len(usages),
        sum(usage["token_count"] for usage in usages),
        sum(usage["input_count"] for usage in usages),
        sum(usage["output_count"] for usage in usages),
    )
