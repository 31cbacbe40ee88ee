"""Clients that do not take what waits for them."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.http.connections import (
    GO_ON,
    HIGH_WATER,
    SLOWEST_BYTES,
    UNREAD,
    UNSENT_SECONDS,
    Connection,
    Kept,
    Together,
    unsent_bytes,
)
from app.utils.signals import Portions


class UnsentWatch(HttpToolsProtocol):
    """The part of a connection that gives a client up who lets its answer wait for too long."""

    __slots__ = ("_goes_on", "_loss", "_unsent", "_unsent_timer", "is_due", "paused_at")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unsent = 0
        self._unsent_timer: asyncio.TimerHandle | None = None
        self.paused_at: float | None = None
        """Since when more waits for the client than it should."""
        self._goes_on = self.is_due = False
        self._loss: tuple[Exception | None, bool] = None, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
        self._is_read()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # at once: nothing more is written
        self._loss = exc, True
        self._come_in_a_portion()

    @property
    def is_waiting(self) -> bool:
        raise NotImplementedError

    @property
    def order(self) -> tuple[bool, float]:
        raise NotImplementedError

    head: Kept
    """Of a head that has not ended."""

    @property
    def unread(self) -> Kept:
        return Kept(self.paused_at or 0.0, self.transport.get_write_buffer_size())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._goes_on = False
        self.paused_at = self.loop.time()
        self.watch_unsent()
        unread: Together[Connection] | None = self.app_state.get(UNREAD)
        for each in unread.add(self) if unread is not None else ():
            each.give_up()

    def give_up(self) -> None:
        """The loop closes it a little later."""
        self.transport.abort()
        self.paused_at = None

    def _is_read(self) -> None:
        if self.paused_at is not None and (unread := self.app_state.get(UNREAD)) is not None:
            unread.discard(self)
        self.paused_at = None

    def resume_writing(self) -> None:
        self._goes_on = True
        self._come_in_a_portion()
        self._is_read()
        if self._unsent_timer is not None and not self.transport.is_closing():
            self._unsent_timer.cancel()
            self._unsent_timer = None

    def _come_in_a_portion(self) -> None:
        """Whoever writes the answer goes on, or hears that nobody is there, in a portion: in one turn of the
        event loop thousands of clients may have taken what waited for them, or have gone."""
        portions: Portions | None = self.app_state.get(GO_ON)
        if portions is not None:
            portions.put(self)
        else:
            self.come()

    def come(self) -> None:
        exc, is_lost = self._loss
        if is_lost:
            super().connection_lost(exc)
        elif self._goes_on:  # else more waits again
            super().resume_writing()

    def watch_unsent(self) -> None:
        """Looks from time to time whether the client still takes what waits for it."""
        self._unsent = unsent_bytes(self.transport)
        if self.transport.get_write_buffer_size() and self._unsent_timer is None:
            self._unsent_timer = self.loop.call_later(UNSENT_SECONDS, self._look_at_unsent)

    def _look_at_unsent(self) -> None:
        self._unsent_timer = None
        taken = self._unsent - unsent_bytes(self.transport)
        if taken < min(self._unsent, SLOWEST_BYTES):
            self.transport.abort()
        else:
            self.watch_unsent()
