"""What a number of users takes: the arithmetic of scripts/capacity.py, from costs that were measured.

Nothing here reads or prints: figures go in and come out. Bytes, seconds, microseconds of a core, unless a
name says otherwise. How it is computed, and what was measured, is in docs/en/capacity.md.
"""

from __future__ import annotations

import binascii
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

SHARDS = 32
SLOTS = 16_384
DAY_HOURS = 24
TICK_SECONDS, SPACING_SECONDS = 0.08, 0.025
"""How long the service gathers frames, and between two pipelines in the long run (stores/event_log)."""
RECORDS_PER_SESSION = 100
CONNECTIONS_OF_A_PROCESS = 64 + 36
"""At most: REDIS_POOL_SIZE, and the reads that wait."""
CONNECTIONS_TO_A_NODE = CONNECTIONS_OF_A_PROCESS + 2 * 8
URGENT_PER_CHAT = 2
"""Commits that do not wait for the tick: Coze's ids, and the end."""


@dataclass(frozen=True)
class Costs:
    """What was measured, as ``benchmarks/results/capacity.json`` has it."""

    memory: Mapping[str, float]
    commands: Mapping[str, float]
    redis_us: Mapping[str, float]
    cpu_us: Mapping[str, float]
    process: Mapping[str, float]

    @classmethod
    def of(cls, found: Mapping[str, Mapping[str, float]]) -> Costs:
        names = ("memory", "commands", "redis_us", "cpu_us", "process")
        return cls(**{name: found[name] for name in names})


@dataclass(frozen=True)
class Demand:
    """What is asked for. ``hours_a_day``: for how long one user is active; ``sessions_per_day``: that one
    begins; ``keyed``: share of the messages that carry an Idempotency-Key."""

    users: int
    messages_per_hour: float
    deltas: int = 150
    answer_seconds: float = 10.0
    answer_chars: int = 400
    session_hours: float = 1.0
    result_hours: float = 0.5
    hours_a_day: float = 2.0
    sessions_per_day: float = 1.0
    sessions_at_once: float = 1.0
    keyed: float = 1.0
    one_caller: bool = False
    conversation_days: int = 180
    usage_days: int = 35
    bytes_per_char: float = 3.0
    replica_cores: float = 1.0
    redis_gib: float = 16.0
    headroom: float = 0.4

    @property
    def chats_per_second(self) -> float:
        return self.users * self.messages_per_hour / 3600

    @property
    def sessions_per_second(self) -> float:
        """At the busiest: all users begin theirs in the hours in which they are active."""
        return self.users * self.sessions_per_day / (self.hours_a_day * 3600)

    @property
    def answer_bytes(self) -> float:
        return self.answer_chars * self.bytes_per_char

    @property
    def running(self) -> float:
        return self.chats_per_second * self.answer_seconds

    @property
    def share(self) -> float:
        """Of a core, or of a Redis, that may be used."""
        return 1 - self.headroom


@dataclass(frozen=True)
class Flow:
    """What one process does in a second."""

    chats: float
    deltas_per_chat: float
    answer_seconds: float
    sessions: float = 0.0
    keyed: float = 1.0
    readers: float = 1.0
    late: float = 0.0
    """Seconds by which a commit comes later than meant, where other programs have the core."""

    @property
    def deltas(self) -> float:
        return self.chats * self.deltas_per_chat

    @property
    def running(self) -> float:
        return self.chats * self.answer_seconds

    @property
    def gathering(self) -> float:
        """Seconds from the first frame that is to be written to its commit: the tick, which what is urgent
        shortens, but not below the spacing."""
        urgent = URGENT_PER_CHAT * self.chats
        until_urgent = (1 - math.exp(-urgent * TICK_SECONDS)) / urgent if urgent else TICK_SECONDS
        return max(SPACING_SECONDS, until_urgent) + self.late

    @property
    def pipelines(self) -> float:
        return 1 / (self.gathering + 1 / self.deltas) if self.deltas else URGENT_PER_CHAT * self.chats

    @property
    def commits_per_chat(self) -> float:
        """XADDs. Among many chats a commit may come at any moment; where a chat is alone, its own delta
        begins the time in which more are gathered. Gaps lie between half and one and a half times their
        mean."""
        if not self.deltas_per_chat or not self.answer_seconds:
            return 0.0
        gap = self.answer_seconds / self.deltas_per_chat
        gaps = self.gathering / gap
        among_many = _any_delta(gaps) / gaps
        alone = 1 / (1 + max(0.0, gaps - 0.5))
        busy = self.pipelines * self.gathering
        return self.deltas_per_chat * (busy * among_many + (1 - busy) * alone)


def _any_delta(gaps: float) -> float:
    """Chance of at least one delta in a time of so many mean gaps."""
    if gaps <= 0.5:
        return gaps
    return 1.0 if gaps >= 1.5 else 1 - (1.5 - gaps) ** 2 / 2


def service_cores(costs: Costs, flow: Flow) -> float:
    """Cores that one process needs. Its rounds (a pipeline to Redis, and what wakes it for that) cost as much
    however many chats there are: a few busy processes need less than many idle ones."""
    us = costs.cpu_us
    per_second = (
        flow.chats * us["chat"]
        + flow.deltas * (us["delta"] + (flow.readers - 1) * us["delivered"])
        + flow.pipelines * us["pipeline"]
        + flow.sessions * us["session"]
        + flow.running * us["running_second"]
        + us["idle_second"]
    )
    return per_second / 1e6


def redis_commands(costs: Costs, flow: Flow) -> float:
    """Commands a second that one process asks for, those inside scripts among them, as INFO counts."""
    each = costs.commands
    return (
        flow.chats * (each["chat"] + flow.commits_per_chat + flow.keyed * each["key"])
        + flow.sessions * each["session"]
        + flow.running * each["running_second"]
        + each["idle_second"]
    )


@dataclass(frozen=True)
class RedisCpu:
    """Cores: of what lies in the 32 shards, and in the one slot {index}."""

    shards: float
    index: float

    @property
    def total(self) -> float:
        return self.shards + self.index


def redis_cpu(costs: Costs, flow: Flow) -> RedisCpu:
    """For one process."""
    us, shares = costs.redis_us, costs.redis_us
    chat, session = flow.chats * us["chat"], flow.sessions * us["session"]
    index = chat * shares["chat_index_share"] + session * shares["session_index_share"]
    rest = (
        flow.chats * flow.commits_per_chat * us["commit"]
        + flow.pipelines * us["pipeline"]
        + us["idle_second"]
    )
    return RedisCpu((chat + session - index + rest) / 1e6, index / 1e6)


# -- memory -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What lies in Redis at one moment, in numbers. ``sessions``: alive; ``tombstones``: over for less than a
    day; ``logs``: of chats that are over; ``callers``: users who come with a token of their own."""

    users: float = 0
    callers: float = 0
    sessions: float = 0
    tombstones: float = 0
    records: float = 0
    logs: float = 0
    keys: float = 0
    conversations: float = 0
    talkers: float = 0
    usage_rows: float = 0
    usage_in_large: bool = False
    """Rows lie in hashes of more than 128, which take more."""
    usage_keys: float = 0
    running: float = 0
    recent_users: float = 0


def kept_by(demand: Demand) -> Kept:
    """In the busiest hour, when it has gone on for as long as anything is kept."""
    users = demand.users
    chats_a_day = users * demand.messages_per_hour * demand.hours_a_day
    sessions_a_day = max(users * demand.sessions_per_day, 1e-9)
    per_session = min(RECORDS_PER_SESSION, max(1.0, chats_a_day / sessions_a_day))
    rows = sessions_a_day * demand.usage_days
    return Kept(
        users=users,
        callers=0 if demand.one_caller else users,
        sessions=users * demand.sessions_at_once,
        tombstones=sessions_a_day,
        records=users * demand.sessions_at_once * per_session,
        logs=demand.chats_per_second * demand.result_hours * 3600,
        keys=chats_a_day * demand.keyed,
        conversations=sessions_a_day * demand.conversation_days,
        talkers=users,
        usage_rows=rows,
        usage_in_large=demand.one_caller and sessions_a_day / SHARDS > 128,
        usage_keys=0 if demand.one_caller else rows,
        running=demand.running,
        recent_users=min(users, demand.chats_per_second * 61),
    )


@dataclass(frozen=True)
class Bytes:
    """By what they are for; ``index`` lies in one slot."""

    index: float
    sessions: float
    records: float
    logs: float
    keys: float
    conversations: float
    usage: float
    running: float
    base: float

    @property
    def total(self) -> float:
        return math.fsum(vars(self).values())


def redis_bytes(
    costs: Costs, kept: Kept, *, deltas: float, answer_bytes: float, processes: float = 1
) -> Bytes:
    """``deltas``, ``answer_bytes``: of each chat."""
    each = costs.memory
    log = each["log"] + deltas * each["log_delta"] + answer_bytes * each["log_byte"]
    row = each["usage_row_in_large" if kept.usage_in_large else "usage_row"]
    return Bytes(
        index=kept.users * each["user"]
        + kept.sessions * each["session_index"]
        + kept.callers * each["caller"]
        + kept.recent_users * each["recent_user"],
        sessions=(kept.sessions + kept.tombstones) * each["session"],
        records=kept.sessions * each["records"]
        + kept.records * (each["record"] + answer_bytes * each["record_byte"]),
        logs=kept.logs * max(each["log_least"], log),
        keys=kept.keys * each["key"],
        conversations=kept.talkers * each["talker"] + kept.conversations * each["conversation"],
        usage=kept.usage_keys * each["usage_key"] + kept.usage_rows * row,
        running=kept.running * (each["running"] + deltas * each["running_delta"] / 2),
        base=each["base"] + processes * each["process"],
    )


# -- how many ---------------------------------------------------------------------------------------------


def flow_of(demand: Demand, processes: int) -> Flow:
    return Flow(
        chats=demand.chats_per_second / processes,
        deltas_per_chat=demand.deltas,
        answer_seconds=demand.answer_seconds,
        sessions=demand.sessions_per_second / processes,
        keyed=demand.keyed,
    )


def processes_for(costs: Costs, demand: Demand) -> int:
    """So many that each stays within its share of a core. More processes have fewer deltas each, which cost a
    little more: so it is looked for."""
    low, high = 0, 1
    while service_cores(costs, flow_of(demand, high)) > demand.share:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        fits = service_cores(costs, flow_of(demand, middle)) <= demand.share
        low, high = (low, middle) if fits else (middle, high)
    return high


def slot_of(tag: str) -> int:
    """Where Redis Cluster puts a hash tag."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def usual_ranges(masters: int) -> list[range]:
    """As ``redis-cli --cluster create`` deals the slots out."""
    ends = [0, *(round(number * SLOTS / masters - 1) + 1 for number in range(1, masters)), SLOTS]
    return [range(begin, end) for begin, end in itertools.pairwise(ends)]


def fair_ranges(masters: int) -> list[range]:
    """Ranges that deal the shards out as evenly as can be, the master that has {index} among those with
    fewer where that is possible. For at most 32 masters."""
    places = sorted(slot_of(f"{shard:02d}") for shard in range(SHARDS))
    least, more = divmod(SHARDS, masters)
    takes = [least + 1] * more + [least] * (masters - more)
    for _ in range(masters):
        if takes[_owner(places, takes, slot_of("index"))] == least:
            break
        takes = [takes[-1], *takes[:-1]]
    ranges, begin, taken = [], 0, 0
    for number, many in enumerate(takes):
        taken += many
        end = SLOTS if number == masters - 1 else places[taken - 1] + 1
        ranges.append(range(begin, end))
        begin = end
    return ranges


def _owner(places: list[int], takes: list[int], slot: int) -> int:
    taken = 0
    for number, many in enumerate(takes):
        taken += many
        if slot <= places[taken - 1]:
            return number
    return len(takes) - 1


def dealt(ranges: list[range]) -> list[tuple[int, bool]]:
    """Of each master: how many of the 32 shards it has, and whether {index}."""
    index = slot_of("index")
    slots = [slot_of(f"{shard:02d}") for shard in range(SHARDS)]
    return [(sum(slot in part for slot in slots), index in part) for part in ranges]


def cluster_for(cpu: RedisCpu, memory: Bytes, demand: Demand) -> list[range] | None:
    """The slots of the fewest masters of which the busiest and the fullest stays within its share: one Redis,
    or three and more; as redis-cli deals the slots out where that will do, else so that the shards are dealt
    out evenly. None where no number does, since {index} is one slot and each shard is another."""
    for masters in (1, *range(3, SHARDS + 1)):
        for ranges in (usual_ranges(masters), fair_ranges(masters)):
            if all(_fits(part, cpu, memory, demand) for part in ranges):
                return ranges
    return None


def _fits(part: range, cpu: RedisCpu, memory: Bytes, demand: Demand) -> bool:
    """Whether a master with these slots has room. Conversations lie in slots of their own, by chance."""
    [(shards, has_index)] = dealt([part])
    in_shards = memory.total - memory.index - memory.base - memory.conversations
    used = (
        shards / SHARDS * in_shards
        + len(part) / SLOTS * memory.conversations
        + has_index * memory.index
        + memory.base
    )
    busy = shards / SHARDS * cpu.shards + has_index * cpu.index
    return busy <= demand.share and used <= demand.redis_gib * 2**30 * demand.share
