"""What people ask who operate the service: its numbers, its processes, and what failed in their own root."""

import asyncio
from collections.abc import Callable
from typing import Final

from attrs import define

from app import __version__
from app.models import Identity
from app.redis_client import RedisGate
from app.stores.failures import FailureStore
from app.stores.loops import forever
from app.stores.replicas import ReplicaStore
from app.stores.usage import UsageStore
from app.stores.users import UserStore
from app.tasks.places import Places
from app.tasks.running import RunningChats
from app.tasks.shutdown import Shutdown
from app.utils import iso

_CLEANED_PER_CALL: Final = 200
SAYS_EVERY: Final = 20.0
"""Seconds; three times in the life of what a process says of itself."""


@define(eq=False, repr=False, kw_only=True)
class OperatorService:
    """Whoever is an admin may ask; that he is one is looked at where he comes in. ``started_ms``: when this
    process started. ``says_every``: seconds."""

    _users: UserStore
    _failures: FailureStore
    _replicas: ReplicaStore
    _usage: UsageStore
    _streams: Places
    _running: RunningChats
    _shutdown: Shutdown
    _credentials: Callable[[], list[dict[str, object]]]
    _started_ms: int
    _says_every: float = SAYS_EVERY

    async def stats(self) -> dict[str, object]:
        """Numbers of the whole service, no ids of sessions, chats or users: they may cross roots."""
        replicas = await self._replicas.all()
        # What this process says of itself now counts before what it said some seconds ago.
        others = [each for each in replicas if each["process"] != self._replicas.process]
        mine = {"process": self._replicas.process, "seen_at": iso(), **self._about()}
        return {
            **await self._users.counts(),
            "redis": await self._users.memory(),
            "credentials": self._credentials(),
            "process": self._shutdown.view(),
            "replicas": [mine, *others],
        }

    async def clean_up(self) -> dict[str, object]:
        return (await self._users.clean_up(_CLEANED_PER_CALL)).model_dump()

    async def failures(self, identity: Identity, limit: int) -> dict[str, object]:
        """The newest chats that failed in the caller's root."""
        return {"failures": await self._failures.newest(identity, limit)}

    def start(self, redis: RedisGate) -> None:
        """From now on this process says from time to time that it is there."""
        self._running.spawn(forever(self._say, redis), "replica")

    async def _say(self) -> None:
        self._usage.shared_by(await self._replicas.say(self._about()))
        await asyncio.sleep(self._says_every)

    def _about(self) -> dict[str, object]:
        return {
            "version": __version__,
            "started_at": iso(self._started_ms),
            "running_chats": len(self._running),
            "open_streams": self._streams.kept,
        }
