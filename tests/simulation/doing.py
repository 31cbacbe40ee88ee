"""What all kinds of clients have: who they are, what they know, how they call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.book import Book, ChatNote, SessionNote
from tests.simulation.client import CALL_SECONDS, Answer, Caller
from tests.simulation.clock import CLOCK
from tests.simulation.exchange import Broken

PATIENCE: Final = 120.0
"""Seconds for which a client repeats a call that was refused for the moment or lost."""
_LOOK_FOR: Final = 30.0
"""Seconds for which a step waits for what an earlier step is still making."""


class Doing:
    """``settings``: the service's, for limits and lives. ``until``: when the scenario ends at the latest."""

    def __init__(self, caller: Caller, book: Book, settings: dict[str, str], until: float) -> None:
        self._caller = caller
        self._book = book
        self._until = until
        self._expire = float(settings.get("COZE_SESSION_EXPIRE", "3600"))
        self._patience = float(settings.get("COZE_TIMEOUT", "30"))
        self._most_sessions = int(settings.get("COZE_MAX_SESSIONS_PER_USER", "10"))
        self.files: dict[str, str] = {}

    # -- how -----------------------------------------------------------------------------------------------

    async def _session(self, label: str) -> SessionNote | None:
        for _ in range(int(_LOOK_FOR)):
            if label in self._book.sessions:
                return self._book.sessions[label]
            await asyncio.sleep(1.0)
        return None

    async def _chat(self, label: str) -> ChatNote | None:
        for _ in range(int(_LOOK_FOR)):
            if label in self._book.chats and self._book.chats[label].id:
                return self._book.chats[label]
            await asyncio.sleep(1.0)
        return None

    async def _once(
        self,
        method: str,
        path: str,
        who: str,
        body: Any,
        replica: int,
        query: str = "",
        seconds: float = CALL_SECONDS,
    ) -> Answer | None:
        target = await self._caller.some_replica(replica, CLOCK.now + PATIENCE)
        if target is None:
            return None
        try:
            request = self._caller.request(method, path, who, body, query=query)
            return await self._caller.call(target, request, seconds)
        except Broken:
            return None

    async def _repeated(
        self,
        method: str,
        path: str,
        who: str,
        body: Any,
        replica: int,
        *,
        headers: dict[str, str] | None = None,
        again: bool = True,
        unsure: Callable[[], None] = lambda: None,
    ) -> Answer | None:
        """The first answer that is no 5xx; None where there was none in time, or it may not be repeated.
        ``unsure`` is called for each try of which nobody knows what it did."""
        until = CLOCK.now + PATIENCE
        while CLOCK.now < until:
            target = await self._caller.some_replica(replica, until)
            if target is None:
                return None
            replica += 1
            try:
                request = self._caller.request(method, path, who, body, headers=headers)
                answer = await self._caller.call(target, request)
                if answer.status < 500:
                    return answer
                unsure()
            except Broken:
                unsure()
                if not again:
                    return None
            await asyncio.sleep(1.0)
        return None
