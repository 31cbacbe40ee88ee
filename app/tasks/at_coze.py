"""Coze's ids of a chat of ours: known once Coze has begun it, and told to a caller once Redis has them."""

import asyncio
from dataclasses import dataclass
from typing import Final

import orjson
from attrs import define

from app.exceptions import ChatState, ShuttingDown
from app.models import Identity
from app.models.chats import SETTLED_STATUSES
from app.stores.chats import ChatStore
from app.stores.leases import LeaseStore
from app.tasks.frames import error_of
from app.tasks.job import Job
from app.tasks.running import RunningChats
from app.tasks.shutdown import Shutdown
from app.utils.signals import InterruptWhen, until

_AGAIN_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class AtCoze:
    """``credential``: whose the conversation is there; ``logid``: of the call that began the chat."""

    chat_id: str
    conversation_id: str
    credential: str = ""
    logid: str | None = None


@define(eq=False, repr=False, kw_only=True)
class ChatsAtCoze:
    _running: RunningChats
    _records: ChatStore
    _leases: LeaseStore
    _shutdown: Shutdown

    async def begun(self, identity: Identity, chat_id: str) -> AtCoze:
        """Returns once any replica finds the chat by Coze's ids; whoever is told them earlier could come back
        with ids that nobody knows. Where Redis is away it waits for that, or for the chat's end.

        Raises the error of a chat that ended before Coze had begun it, ``ShuttingDown``.
        """
        leaving = InterruptWhen(lambda: self._shutdown.streams_end, self._shutdown.changed)
        async with leaving:
            while True:
                job = self._running.get(chat_id)
                found = await (self._of_job(job) if job is not None else self._of_others(identity, chat_id))
                if found is not None:
                    return found
                await asyncio.sleep(_AGAIN_SECONDS)
        raise ShuttingDown

    @staticmethod
    async def _of_job(job: Job) -> AtCoze | None:
        """None: another process owns the chat now."""
        log, fold = job.log, job.fold
        await until(lambda: log.ids_stored or log.state != "open", log.grown)
        if log.state == "fenced":
            return None
        if job.fold.coze_chat_id and job.fold.conversation_id:
            credential = log.known_ids[2] if log.known_ids is not None else job.credential
            return AtCoze(job.fold.coze_chat_id, job.fold.conversation_id, credential, fold.logid)
        assert log.end is not None  # noqa: S101  # it is over, and had no ids
        raise _failure(orjson.loads(log.end.record))

    async def _of_others(self, identity: Identity, chat_id: str) -> AtCoze | None:
        record = orjson.loads(await self._records.record(chat_id, identity))
        if record["status"] not in SETTLED_STATUSES:
            known = await self._leases.ids_at_coze(chat_id)
            return AtCoze(*known) if all(known[:2]) else None
        ids = record["metadata"]
        if "coze_chat_id" not in ids or "conversation_id" not in ids:
            raise _failure(record)
        return AtCoze(ids["coze_chat_id"], ids["conversation_id"], logid=ids.get("logid"))


def _failure(record: dict[str, object]) -> Exception:
    return error_of(record) if record["status"] == "failed" else ChatState("The chat was cancelled")
