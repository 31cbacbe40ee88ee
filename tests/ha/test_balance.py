"""How sessions and chats spread over the three masters of a Cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from scripts.capacity_model import dealt, fair_ranges
from tests.faults.support import Clients, cluster
from tests.support import Client, SimControl, data_of

from .groups import MASTERS, Cluster, running_group

pytestmark = pytest.mark.ha

SESSIONS = 1000
CHATS = 500
AT_ONCE = 20
MOST = 0.40
MOST_WITH_INDEX = 0.50
NEAR = 0.06
"""Sessions choose their shard by chance, and conversations lie in slots of their own."""

LIMITS = {
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
    "RATE_LIMIT_SESSIONS_PER_MINUTE": "0",
    "COZE_MAX_ACTIVE_USERS": "100000",
    "COZE_MAX_TOTAL_SESSIONS": "100000",
}


class FairCluster(Cluster):
    """With the slots dealt out so that each master has a third of the shards."""

    ranges = fair_ranges(3)


@pytest.fixture(params=[Cluster, FairCluster], ids=["usual ranges", "fair ranges"])
def spread(request: pytest.FixtureRequest, shared_simulator: SimControl) -> Iterator[Any]:
    with ExitStack() as stack:
        group = stack.enter_context(running_group(request.param))
        yield stack.enter_context(cluster(count=1, simulator=shared_simulator, redis=group, **LIMITS))


async def fill(client: Client) -> None:
    """Sessions, each of a user of its own; the first of them with a chat."""
    numbers = iter(range(SESSIONS))

    async def one_after_the_other() -> None:
        for number in numbers:
            session_id = await client.open_session(f"spread-{number}")
            if number < CHATS:
                assert data_of(await client.send(session_id, "hello"))["status"] == "completed"

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


def look(group: Cluster) -> list[Counter[str]]:
    """Of each master: commands so far; keys and bytes of the shards, of the indexes, and of what lies in a
    slot of its own."""
    found = []
    for server in group.servers[:MASTERS]:
        with server.client() as client:
            seen = Counter(commands=client.info("stats")["total_commands_processed"])
            for key in client.scan_iter(count=1000):
                tag = key.partition(b"{")[2].partition(b"}")[0].decode()
                kind = "index" if tag == "index" else "shards" if len(tag) == 2 else "others"
                seen[f"keys of {kind}"] += 1
                seen[f"bytes of {kind}"] += client.memory_usage(key, samples=0) or 0
        found.append(seen)
    return found


def shares(found: list[Counter[str]], *names: str) -> list[float]:
    each = [sum(seen[name] for name in names) for seen in found]
    return [round(part / sum(each), 3) for part in each]


async def test_what_lies_in_shards_is_spread_as_the_slots_are_and_the_indexes_are_not(spread: Any) -> None:
    group: Cluster = spread.redis
    before = look(group)
    async with Clients(spread.urls) as clients:
        await fill(clients[0])
    after = look(group)
    for new, old in zip(after, before, strict=True):
        new["commands"] -= old["commands"]
    parts = [count / 32 for count, _ in dealt([*group.ranges])]
    of_shards = {name: shares(after, f"{name} of shards") for name in ("keys", "bytes")}
    told = of_shards | {
        "all keys": shares(after, "keys of shards", "keys of index", "keys of others"),
        "all bytes": shares(after, "bytes of shards", "bytes of index", "bytes of others"),
        "commands": shares(after, "commands"),
    }
    for found in of_shards.values():
        assert found == pytest.approx(parts, abs=NEAR), told
    # Limits and rates of all users are one slot: that master has more of everything, whatever the ranges.
    assert shares(after, "keys of index") == [1, 0, 0], told
    if isinstance(group, FairCluster):
        assert max(max(found) for found in of_shards.values()) <= MOST, told
        assert max(told["all bytes"]) <= MOST_WITH_INDEX, told
