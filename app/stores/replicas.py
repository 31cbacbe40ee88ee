"""The processes that are there, as each says of itself from time to time. Only people look at it."""

from typing import Final

import orjson

from app.redis_client import Keys, RedisGate, Texts, pairs
from app.stores.scripts import replica_seen
from app.utils import iso

LIFE_SECONDS: Final = 60
"""Who has been silent for so long is not there."""


class ReplicaStore:
    def __init__(self, redis: RedisGate, keys: Keys, process: str) -> None:
        self._redis = redis
        self._keys = keys
        self.process: Final = process

    async def say(self, about: dict[str, object]) -> int:
        """What this process says of itself; returns how many there are."""
        return await self._redis.run(
            replica_seen(
                replicas=self._keys.replicas,
                process=self.process,
                about=orjson.dumps(about).decode(),
                ttl=LIFE_SECONDS * 1000,
            )
        )

    async def all(self) -> list[dict[str, object]]:
        """What all say, the oldest first. A process that died, or ended, is among them for up to a minute
        more, or two where it was the last one that spoke."""
        flat = await self._redis.run(Texts("HGETALL", self._keys.replicas))
        replicas = []
        for process, said in pairs(flat):
            seen, _, about = said.partition(b" ")
            replicas.append({"process": process.decode(), "seen_at": iso(int(seen)), **orjson.loads(about)})
        return sorted(replicas, key=lambda replica: (replica["started_at"], replica["process"]))
