"""Keeps this process' leases, claims what others have lost, and reads what they ask this process."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from loguru import logger

from app.redis_client import RedisGate
from app.stores.leases import LeaseStore
from app.stores.loops import forever
from app.tasks.running import RunningChats
from app.utils.signals import until

_RENEWALS_PER_LEASE: Final = 3
_INBOX_SECONDS: Final = 20.0
_CLAIMS_AT_ONCE: Final = 8


def scan_seconds() -> float:
    """Between two looks for leases that have run out."""
    return 0.7


class LeaseKeeper:
    """Three loops that survive an outage of Redis.

    After an outage every lease may have run out while its owner lives: own leases are renewed first, and
    nothing is claimed for the length of a lease. ``scan_seconds``: says how long to wait between two looks
    for leases that have run out.
    """

    def __init__(
        self,
        redis: RedisGate,
        leases: LeaseStore,
        running: RunningChats,
        *,
        scan_seconds: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._scan_seconds = scan_seconds
        self._leases = leases
        self._running = running
        self._claim_after = 0.0
        self._trouble = redis.trouble

    def start(self) -> None:
        for name, step in (("renew", self._renew), ("claim", self._claim), ("inbox", self._inbox)):
            self._running.spawn(forever(step, self._redis), f"leases:{name}")

    async def _renew(self) -> None:
        await self._until_busy()
        lost = await self._leases.renew(self._running.held())
        for chat_id, epoch in lost:
            job = self._running.get(chat_id)
            if job is not None and job.log.epoch == epoch and job.log.end is None:
                logger.warning("lease or run of {} is gone", chat_id)
                self._running.lease_is_gone(job)
        await asyncio.sleep(self._leases.lease_seconds / _RENEWALS_PER_LEASE)

    async def _until_busy(self) -> None:
        """A process without chats costs nothing."""
        await until(lambda: not self._running.idle, self._running.changed)

    async def _claim(self) -> None:
        loop = asyncio.get_running_loop()
        if self._trouble != self._redis.trouble:
            await self._redis.wait_open()  # owners can only renew once it is there
            self._trouble = self._redis.trouble
            self._claim_after = loop.time() + self._leases.lease_seconds
            await self._leases.renew(self._running.held())
        if loop.time() >= self._claim_after and not self._running.leaving:
            await self._claim_all(await self._leases.expired())
        await asyncio.sleep(self._scan_seconds() * random.uniform(0.8, 1.2))  # noqa: S311  # pacing, not secrecy

    async def _claim_all(self, expired: list[tuple[str, int]]) -> None:
        """A few at once: a whole process' chats are to run again within two seconds. One that cannot be
        claimed does not keep the others waiting."""
        for begin in range(0, len(expired), _CLAIMS_AT_ONCE):
            some = expired[begin : begin + _CLAIMS_AT_ONCE]
            claims = (self._claim_one(chat_id, epoch) for chat_id, epoch in some)
            for outcome in await asyncio.gather(*claims, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _claim_one(self, chat_id: str, epoch: int) -> None:
        session_id = await self._leases.session_of(chat_id) or await self._leases.restore(chat_id, epoch)
        if session_id is None:
            # The chat is over or Redis lost all of it: the lease is all that is left.
            await self._leases.drop(chat_id, epoch)
            return
        job = self._running.get(chat_id)
        if job is not None and job.log.epoch == epoch:
            return  # ours, and only late: the next renewal keeps it
        await self._running.take_over(chat_id, session_id, epoch=epoch)

    async def _inbox(self) -> None:
        await self._until_busy()  # only chats that run here are cancelled; what came before is read then
        for chat_id in await self._leases.read_inbox(_INBOX_SECONDS):
            job = self._running.get(chat_id)
            if job is not None:
                job.cancel()
