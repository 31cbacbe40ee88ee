"""What lies in Redis, and what it was asked for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import redis

_KIND: Final = re.compile(r"(?:[^{]*\{[^}]*\}:|[a-z-]+:)([a-z_]+)(:?)")
_TOGETHER: Final = 500


@dataclass
class Kind:
    """Keys of one kind, and the bytes that Redis says they take."""

    keys: int = 0
    bytes: int = 0


def kind_of(key: str) -> str:
    """What a key is, without whose: ``log``, ``usage``; ``sessions`` (all) is not ``sessions:`` (an owner's),
    and what is told of a conversation is ``conversation.about``."""
    match = _KIND.match(key)
    assert match is not None, key
    name = match[1] + (match[2] if match[1] in ("sessions", "users") else "")
    return name + ".about" if key.endswith(".about") else name


def census(client: redis.Redis) -> dict[str, Kind]:
    """All keys by kind; ``total``: what Redis has allocated for data in all, and how many keys."""
    found: dict[str, Kind] = {}
    for keys in _in_portions(client.scan_iter(count=1000)):
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.memory_usage(key, samples=0)
            for key, size in zip(keys, pipe.execute(), strict=True):
                kind = found.setdefault(kind_of(key.decode()), Kind())
                kind.keys += 1
                kind.bytes += size or 0
    stats = client.memory_stats()
    found["total"] = Kind(client.dbsize(), int(stats["total.allocated"]) - int(stats["startup.allocated"]))
    return found


def _in_portions(keys: Iterator[bytes]) -> Iterator[tuple[bytes, ...]]:
    portion: list[bytes] = []
    for key in keys:
        portion.append(key)
        if len(portion) == _TOGETHER:
            yield tuple(portion)
            portion = []
    if portion:
        yield tuple(portion)


@dataclass
class Asked:
    """Of a Redis, so far: commands (those inside scripts count, too), XADDs among them."""

    commands: float
    xadds: float

    def __sub__(self, other: "Asked") -> "Asked":
        return Asked(self.commands - other.commands, self.xadds - other.xadds)


def asked(client: redis.Redis) -> Asked:
    calls = client.info("commandstats").get("cmdstat_xadd", {"calls": 0})["calls"]
    return Asked(float(client.info("stats")["total_commands_processed"]), float(calls))


class TimedByTag:
    """With ``with``: which share of Redis' time went to each hash tag (``{index}`` is ``index``; what is of
    a shard is its number). Redis' slow log takes every command meanwhile."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.microseconds: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._client.config_set("slowlog-max-len", 200_000)
        self._client.config_set("slowlog-log-slower-than", 0)
        self._client.slowlog_reset()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.config_set("slowlog-log-slower-than", 10_000)
        for entry in self._client.slowlog_get(200_000):
            tag = re.search(rb"\{([0-9a-z]+)\}", entry["command"])
            name = tag[1].decode() if tag else ""
            self.microseconds[name] = self.microseconds.get(name, 0) + int(entry["duration"])
        self._client.slowlog_reset()

    @property
    def index_share(self) -> float:
        """Of what belongs to a slot."""
        known = sum(spent for tag, spent in self.microseconds.items() if tag)
        return self.microseconds.get("index", 0) / max(1, known)
