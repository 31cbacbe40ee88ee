"""The network between replicas and Coze, with the project's own simulator at its other end."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from coze_simulator import Simulator, SimulatorOptions, create_simulator
from tests.simulation.clock import Owner, later
from tests.simulation.exchange import Broken, Exchange, Request
from tests.simulation.spoiling import Spoiler

FAULTS: Final = ("refuse", "lost", "cut", "stall", "bad_gateway", "slow", "late", "refusal", "spoiled")
"""refuse: no connection. lost: the request arrives, its answer breaks off before the first byte. cut: after
some bytes. stall: silence after some bytes, for minutes. bad_gateway: a 502 that did not reach Coze. refusal:
Coze says no and does nothing, where a stream was asked for by the first event of one. spoiled: see
``spoiling``."""

_REFUSALS: Final = (4013, 4013, 4016, 4009, 700012006)
"""Too many requests, the conversation is busy, Coze is busy, the token is not known."""


@dataclass
class Weather:
    """A fault that comes with probability ``chance`` to each call whose path begins with ``path``."""

    kind: str
    chance: float
    path: str = ""


class CozeNetwork:
    def __init__(self, options: SimulatorOptions, dice: random.Random, trace: Callable[..., None]) -> None:
        self.simulator: Simulator = create_simulator(options)
        self.weather: list[Weather] = []
        self.counts: Counter[str] = Counter()
        self.dice = dice
        self._trace = trace
        self._open: dict[Exchange, str] = {}

    @property
    def store(self) -> Any:
        """All that Coze remembers."""
        return self.simulator.core.store

    def delay(self) -> float:
        return self.dice.uniform(0.001, 0.01)

    def fault_of(self, path: str) -> str:
        for weather in self.weather:
            if path.startswith(weather.path) and self.dice.random() < weather.chance:
                self.counts[weather.kind] += 1
                return weather.kind
        return ""

    def break_streams(self, replica: str | None = None) -> None:
        """All that is open breaks."""
        for exchange, owner in list(self._open.items()):
            if replica in (None, owner):
                exchange.break_off()

    def transport(self, replica: Owner) -> httpx.AsyncBaseTransport:
        return _Transport(self, replica)

    async def call(self, replica: Owner, request: httpx.Request) -> httpx.Response:
        if replica.cut:
            raise httpx.ConnectError("cut off")
        body = [part async for part in request.stream]  # type: ignore[union-attr]
        path = request.url.path
        self._trace(replica.name, "coze", request.method, path, request.url.query, *body)
        fault = self.fault_of(path)
        await asyncio.sleep(self.delay())
        if fault == "refuse" or replica.cut:
            raise httpx.ConnectError("refused")
        if fault == "bad_gateway":
            return httpx.Response(502, headers={"content-type": "text/html"}, content=b"<html>502</html>")
        if fault == "refusal":
            return self._refusal(path, streams=b'"stream":true' in b"".join(body))
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        exchange = Exchange(
            self.simulator,
            Request(request.method, path, request.url.query, headers, body),
            self.delay,
            name=f"coze {request.method} {path}",
        )
        self._open[exchange] = replica.name
        exchange.task.add_done_callback(lambda _: self._open.pop(exchange, None))
        if fault == "lost":
            later(self.dice.uniform(0.0, 0.5), exchange.break_off)
        try:
            if fault in ("slow", "late"):  # late: no call of ours has given up by then
                await asyncio.sleep(self.dice.uniform(0.5, 5.0 if fault == "slow" else 3.5))
            status, answered = await asyncio.shield(exchange.head)
        except Broken:
            raise httpx.ReadError("the connection broke") from None
        except asyncio.CancelledError:
            exchange.hang_up()
            raise
        left = int(10 ** self.dice.uniform(0.0, 4.0)) if fault in ("cut", "stall") else None
        body_of = _Body(exchange, left, stalls=fault == "stall")
        if fault == "spoiled":
            body_of.spoil = self._spoiling(answered)
        return httpx.Response(status, headers=answered, stream=body_of)

    def _refusal(self, path: str, *, streams: bool) -> httpx.Response:
        """A chat that was not begun, or any other call, once too often."""
        code = self.dice.choice(_REFUSALS) if path == "/v3/chat" else 4013
        body = json.dumps({"code": code, "msg": "no", "detail": {"logid": "0"}}).encode()
        if not streams:
            return httpx.Response(200, headers={"content-type": "application/json"}, content=body)
        end = b'event:done\ndata:"[DONE]"\n\n' if self.dice.random() < 0.5 else b""
        event = b"event:error\ndata:" + body + b"\n\n" + end
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=event)

    def _spoiling(self, headers: dict[str, str]) -> Callable[[bytes], bytes]:
        headers.pop("content-length", None)
        spoiler = Spoiler(self.dice, self.counts)
        return spoiler.stream if "event-stream" in headers.get("content-type", "") else spoiler.body


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, network: CozeNetwork, replica: Owner) -> None:
        self._network = network
        self._replica = replica

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._network.call(self._replica, request)


class _Body(httpx.AsyncByteStream):
    """``left``: bytes until the fault, None without one. ``spoil``: what becomes of each piece."""

    spoil: Callable[[bytes], bytes] | None = None

    def __init__(self, exchange: Exchange, left: int | None, *, stalls: bool) -> None:
        self._exchange = exchange
        self._left = left
        self._stalls = stalls

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._left
        try:
            async for sent in self._exchange.pieces():
                piece = sent if self.spoil is None else self.spoil(sent)
                if left is not None and len(piece) >= left:
                    if left:
                        yield piece[:left]
                    if self._stalls:
                        await asyncio.sleep(86_400)  # the reader's own deadline ends this
                    self._exchange.break_off()
                    raise httpx.ReadError("cut")
                if left is not None:
                    left -= len(piece)
                yield piece
        except Broken:
            raise httpx.ReadError("the connection broke") from None

    async def aclose(self) -> None:
        if not self._exchange.ended or not self._exchange.gone.is_set():
            self._exchange.hang_up()


def make_options(seed: int, *, on_disconnect: str, speed: float) -> SimulatorOptions:
    return SimulatorOptions(
        seed=seed,
        id_seed=seed,
        speed=speed,
        on_disconnect="stop" if on_disconnect == "stop" else "continue",
    )
