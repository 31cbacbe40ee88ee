"""What users cost: the figures that scripts/capacity.py computes with, each from small runs of two sizes.

Memory of Redis is what its own census says of each kind of key; CPU is the kernel's account. All of it goes
into ``results/capacity.json``.
"""

import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from benchmarks.bench import Bench, Contestant, caller_headers
from benchmarks.census import Kind, census
from benchmarks.fit import fit
from benchmarks.options import Options
from benchmarks.parts.capacity_load import KEY_HEADER, PATIENT, chat_job, load, open_for, sound, waves
from benchmarks.report import RESULTS
from benchmarks.results import Results, about_this_machine

MARK_BYTES: Final = 20
"""Of each delta, in front of its text."""
CHAR_BYTES: Final = 3
_INDEX: Final = ("user", "kept", "names", "sessions", "sessions:", "users", "users:")
_CONVERSATION: Final = ("conversation", "conversation.about", "conversations", "listed")
_KEYED: Final = ("idem", "used")


def capacity(bench: Bench, results: Results, options: Options) -> None:
    found: dict[str, dict[str, float]] = {}
    for part in (_memory, _many_usage_rows, load, waves):
        with bench.scope():
            for name, values in part(bench).items():
                found.setdefault(name, {}).update(values)
                bench.say(f"   {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    results.note("capacity: what users cost is in benchmarks/results/capacity.json")
    if bench.save:
        with bench.redis_client() as client:
            version = client.info("server")["redis_version"]
        about: dict[str, Any] = about_this_machine() | {
            "redis": version,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "load_average": round(os.getloadavg()[0], 1),
        }
        rounded = {name: {k: float(f"{v:.4g}") for k, v in values.items()} for name, values in found.items()}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "capacity.json").write_text(json.dumps({"about": about, **rounded}, indent=1) + "\n")


# -- what lies in Redis -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Users with the same number of sessions, whose chats are all of one shape."""

    label: str
    users: int
    sessions: int
    chats: int
    deltas: int
    chars: int
    keyed: bool = False

    @property
    def answer_bytes(self) -> int:
        return self.deltas * (MARK_BYTES + CHAR_BYTES * self.chars)


GROUPS: Final = (
    Group("a", 150, 1, 300, 10, 4),
    Group("b", 60, 3, 360, 60, 12, keyed=True),
    Group("c", 60, 2, 240, 60, 3),
    Group("d", 60, 1, 60, 150, 6),
)


@dataclass
class Grown:
    """What a group has added, by kind; ``over``: what Redis needs for each key's name in its tables."""

    group: Group
    by_kind: dict[str, Kind] = field(default_factory=dict)
    over: float = 0.0

    def of(self, *kinds: str) -> float:
        known = [self.by_kind[kind] for kind in kinds if kind in self.by_kind]
        return sum(kind.bytes + kind.keys * self.over for kind in known)


def _grow(bench: Bench, ours: Contestant, client: redis.Redis, group: Group) -> Grown:
    before = census(client)
    sessions = open_for(bench, ours, group.label, group.users, group.sessions)
    bench.set_upstream(group.deltas, 0.01, group.chars)
    headers = ours.headers | ({KEY_HEADER: f"{group.label}-{{i}}"} if group.keyed else {})
    sound(bench.drive(chat_job(bench, ours, sessions, 40, group.chats, headers=headers)))
    time.sleep(1)
    after = census(client)
    grown = Grown(group)
    for name, kind in after.items():
        old = before.get(name, Kind())
        grown.by_kind[name] = Kind(kind.keys - old.keys, kind.bytes - old.bytes)
    total = grown.by_kind.pop("total")
    grown.over = (total.bytes - sum(kind.bytes for kind in grown.by_kind.values())) / total.keys
    return grown


def _memory(bench: Bench) -> dict[str, dict[str, float]]:
    store = bench.start_redis("redis-memory")
    with bench.redis_client(store[1]) as client:
        empty = client.info("memory")["used_memory"]
        ours = bench.ours("ours, memory", redis=store, env=PATIENT)
        bench.set_upstream(5)
        open_for(bench, ours, "warm", 20)
        sound(bench.drive(chat_job(bench, ours, ours.sessions, 20, 60)))
        grown = [_grow(bench, ours, client, group) for group in GROUPS]
        over = sum(each.over for each in grown) / len(grown)
        for each in grown:
            each.over = over
        lone = _lone_callers(bench, ours, client, over)
        found = client.memory_stats()
        extra = found["total.allocated"] - found["startup.allocated"] - found["dataset.bytes"]
    costs = _costs_of(grown) | {"base": float(empty), "over_per_key": over, "not_data": float(extra)}
    costs |= lone | {"process": 200_000.0}
    costs["caller"] = max(0.0, costs.pop("lone_index") - costs["user"] - costs["session_index"])
    return {"memory": costs}


def _costs_of(grown: list[Grown]) -> dict[str, float]:
    sessions = [each.group.users * each.group.sessions for each in grown]
    users = [[each.group.users, count] for each, count in zip(grown, sessions, strict=True)]
    user, session_index = fit(users, [each.of(*_INDEX) for each in grown])
    talker, conversation = fit(users, [each.of(*_CONVERSATION) for each in grown])
    each_record = [
        [count, each.group.chats, each.group.chats * each.group.answer_bytes]
        for each, count in zip(grown, sessions, strict=True)
    ]
    records, record, record_byte = fit(each_record, [each.of("chats", "order") for each in grown])
    # A log has room for 4 KiB from the start, so a short one tells only that.
    long = [each for each in grown if each.group.deltas > 20]
    sizes = [[1, each.group.deltas, each.group.answer_bytes] for each in long]
    log, log_delta, log_byte = fit(sizes, [each.of("log") / each.group.chats for each in long])
    keyed = next(each for each in grown if each.group.keyed)
    return {
        "user": user,
        "session_index": session_index,
        "session": sum(each.of("session") for each in grown) / sum(sessions),
        "records": records,
        "record": record,
        "record_byte": record_byte,
        "log_least": grown[0].of("log") / grown[0].group.chats,
        "log": log,
        "log_delta": log_delta,
        "log_byte": log_byte,
        "key": keyed.of(*_KEYED) / keyed.group.chats,
        "talker": talker,
        "conversation": conversation,
        "usage_row": sum(each.of("usage", "owners") for each in grown[1:]) / sum(sessions[1:]),
        "recent_user": sum(each.of("rate") for each in grown) / sum(each.group.users for each in grown),
    }


_LONE: Final = 60


def _lone_callers(bench: Bench, ours: Contestant, client: redis.Redis, over: float) -> dict[str, float]:
    """Users who come with a token of their own: sets and usage of their own, too."""
    before = census(client)

    def come(number: int) -> None:
        headers = caller_headers(f"lone-{number}") | {"content-type": "application/json"}
        url = f"http://127.0.0.1:{ours.port}/coze/sessions"
        made = _post(url, {"user_id": f"lone-{number}"}, headers)["data"]
        session = made["task_result"]["data"]["session_id"]
        _post(f"{url}/{session}/messages", {"message": "hello"}, headers)

    bench.set_upstream(5)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come, range(_LONE)))
    after = census(client)

    def grown(*kinds: str) -> float:
        pairs = [(after.get(kind, Kind()), before.get(kind, Kind())) for kind in kinds]
        return sum(new.bytes - old.bytes + (new.keys - old.keys) * over for new, old in pairs) / _LONE

    return {"lone_index": grown(*_INDEX), "usage_key": grown("usage", "owners")}


def _post(url: str, body: dict[str, str], headers: dict[str, str]) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with opener.open(request, timeout=60) as answer:
        return json.load(answer)


def _many_usage_rows(bench: Bench) -> dict[str, dict[str, float]]:
    """A row among more than 128 of one day, owner and shard: Redis keeps such a hash in another way."""
    rows = {f"user-{number:012d}\x1f7380000000000000009": "12 4800 1200 3600" for number in range(5000)}
    with bench.redis_client(bench.start_redis("redis-rows")[1]) as client:
        client.hset("usage", mapping=rows)
        return {"memory": {"usage_row_in_large": client.memory_usage("usage", samples=0) / len(rows)}}
