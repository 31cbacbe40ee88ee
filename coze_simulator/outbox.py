"""The pipe between a running chat and the one response that streams it."""

from __future__ import annotations

import asyncio


class Outbox:
    """Bytes wait here for the response. The chat never waits for the reader, as Coze does not."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._finished = False
        self._wake = asyncio.Event()
        self.gone = False

    def put(self, data: bytes) -> None:
        """Adds bytes; dropped when the reader has gone."""
        if not self.gone and not self._finished:
            self._parts.append(data)
            self._wake.set()

    def finish(self) -> None:
        """Nothing will follow."""
        self._finished = True
        self._wake.set()

    def leave(self) -> None:
        """The reader has gone."""
        self.gone = True
        self._parts.clear()
        self._wake.set()

    async def take(self) -> bytes | None:
        """All that waits, or None at the end or when the reader has gone."""
        while not self._parts:
            if self._finished or self.gone:
                return None
            self._wake.clear()
            await self._wake.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        return data
