"""An app that calls the service: one HTTP call with its deadline, and following a chat to its end."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.simulation.book import Book, ChatNote
from tests.simulation.clock import CLOCK, EPOCH, outside
from tests.simulation.exchange import Broken, Exchange, Request
from tests.simulation.reading import Decoder, Reading
from tests.simulation.replica import Replica
from tests.simulation.shares import Shares, name_of

JWT_KEY: Final = "a key of the simulated world, 32 bytes and more"
CALL_SECONDS: Final = 45.0
"""Within this every call that waits for no answer of Coze's is answered: its longest waits are a cancel's (11
s for the owner) and those for Redis (2 s each) and for a conversation that is being made (5 s)."""
COZE_SECONDS: Final = 350.0
"""For what waits for an answer of Coze's: an upload, or a list that is asked for four times."""


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@functools.cache
def token_of(who: str) -> bytes:
    """A token of the auth service's, good for three years."""
    roles = [{"role_key": "ADMIN"}] if who == "admin" else []
    sub = json.dumps({"hty_id": name_of(who)[0], "roles": roles})
    payload = json.dumps({"sub": sub, "exp": EPOCH + 3 * 365 * 86_400}).encode()
    head = _b64(b'{"alg":"HS256","typ":"JWT"}') + b"." + _b64(payload)
    return head + b"." + _b64(hmac.new(JWT_KEY.encode(), head, hashlib.sha256).digest())


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    asked_at: float = 0.0
    """What it tells may be as old as that."""

    @property
    def data(self) -> Any:
        """The innermost ``data`` of a success."""
        return self.body["data"]["task_result"]["data"]

    @property
    def resumable(self) -> bool:
        """False: Redis does not have yet what this tells of a chat, from its owner's memory."""
        return bool(self.body["data"].get("resumable", True))

    @property
    def code(self) -> str:
        error = self.body.get("error") or {}
        return str(error.get("code"))

    @property
    def details(self) -> dict[str, Any]:
        error = self.body.get("error") or {}
        return dict(error.get("details") or {})


@dataclass
class Caller:
    """Clients of one scenario. ``chat_timeout``: seconds after which the service ends a chat."""

    replicas: Callable[[], Sequence[Replica]]
    book: Book
    dice: random.Random
    shares: Shares
    chat_timeout: float

    async def some_replica(self, number: int, until: float) -> Replica | None:
        """That of the number if it is up, else another; waits for one. A frozen one may be met, too."""
        while CLOCK.now < until:
            replicas = self.replicas()
            for step in range(len(replicas)):
                replica = replicas[(number + step) % len(replicas)]
                if replica.state == "up":
                    return replica
            await asyncio.sleep(0.5)
        return None

    def request(
        self,
        method: str,
        path: str,
        who: str,
        body: Any = None,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
        raw: tuple[str, list[bytes]] | None = None,
    ) -> Request:
        sent = [(b"htysudoertoken", token_of(who)), (b"htyhost", f"music.{name_of(who)[1]}".encode())]
        sent.append((b"host", b"localhost"))
        sent += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        pieces: list[bytes] = []
        if raw is not None:
            sent.append((b"content-type", raw[0].encode()))
            pieces = raw[1]
        elif body is not None:
            pieces = [json.dumps(body, ensure_ascii=False).encode()]
            sent += [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(pieces[0])).encode()),
            ]
        asked = self.shares.about(method, path, who, body)
        return Request(method, path, query.encode(), sent, pieces, asked)

    async def call(self, replica: Replica, request: Request, seconds: float = CALL_SECONDS) -> Answer:
        """The whole answer. Raises ``Broken``, also where none came in ``seconds``: that is a violation,
        unless the replica was frozen or died meanwhile."""
        begun = CLOCK.now
        exchange, status, headers = await self.begin(replica, request, seconds)
        raw = await self._within(exchange, exchange.read(), replica, seconds)
        if status >= 500 or status == 409:
            self.book.trace("answer", request.method, request.path, status, raw)
        body = json.loads(raw) if raw else {}
        if status != 504 or CLOCK.now - begun < self.chat_timeout - 1.0:  # else it is the bot who is slow
            self._check_status(status, request, body, begun)
        if status == 429:
            self.shares.refused(request.asked, body)
        return Answer(status, headers, body, begun)

    async def begin(
        self, replica: Replica, request: Request, seconds: float = CALL_SECONDS
    ) -> tuple[Exchange, int, dict[str, str]]:
        """The exchange, once its head is there."""
        self.shares.ask(request.asked)
        exchange = replica.call(request)
        status, headers = await self._within(exchange, exchange.head, replica, seconds)
        self.book.trace("client", request.method, request.path, status)
        return exchange, status, headers

    async def _within(self, exchange: Exchange, work: Any, replica: Replica, seconds: float) -> Any:
        trouble, was_frozen = replica.troubles, replica.frozen
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            exchange.hang_up()
            if replica.troubles == trouble and not (was_frozen or replica.frozen):
                self.book.violated(
                    "deadline", f"{exchange.name} {exchange.path}: no answer within {seconds:g} s"
                )
            raise Broken("no answer in time") from None

    def _check_status(self, status: int, request: Request, body: dict[str, Any], since: float) -> None:
        """5xx have causes: Redis or a replica for 503, Coze for 502 and 504, something odd for 500."""
        if status < 500:
            return
        causes = {
            500: ("odd",),
            503: ("redis", "replica", "coze", "odd"),
            502: ("coze", "replica", "redis", "odd"),
        }
        causes[504] = ("coze", "redis", "replica")
        caused = self.book.troubled(*causes.get(status, ()), since=since)
        if not caused and not _coze_asked_for_it(request, body):
            error = body.get("error") or body
            self.book.violated("refused", f"{request.method} {request.path}: {status} {error}")

    # -- following ---------------------------------------------------------------------------------------

    async def read(self, exchange: Exchange, reading: Reading, *, hang_up: float | None = None) -> bool:
        """Takes events until the stream ends or breaks. True: the client hung up by itself after ``hang_up``
        seconds."""
        decoder = Decoder()

        async def take() -> None:
            async for piece in exchange.pieces():
                for event in decoder.feed(piece):
                    reading.take(event)

        try:
            async with asyncio.timeout(hang_up):
                await take()
        except Broken:
            return False
        except TimeoutError:
            exchange.hang_up()
            return True
        return False

    async def look(self, replica: Replica, who: str, path: str, query: str = "") -> Answer | None:
        """GET when all faults are over: then there has to be an answer."""
        try:
            return await self.call(replica, self.request("GET", path, who, query=query))
        except Broken:
            self.book.violated("stuck", f"GET {path} on {replica.name}: no answer, and all is calm")
            return None

    async def follow(self, chat: ChatNote, reading: Reading, number: int, until: float) -> None:
        """Reads on where ``reading`` is, on whichever replica, until the end. Ends early where the chat is
        not to be found any more: whether that may be is the oracle's affair."""
        while not reading.done and CLOCK.now < until:
            replica = await self.some_replica(number, until)
            if replica is None:
                return
            number += 1
            headers = {"Last-Event-ID": reading.last_id} if reading.last_id else {}
            request = self.request("GET", f"/coze/chats/{chat.id}/events", chat.session.who, headers=headers)
            try:
                exchange, status, _ = await self.begin(replica, request)
            except Broken:
                await asyncio.sleep(0.5)
                continue
            if status == 200:
                watch = outside(self._let_go_of(exchange, replica), "watch")
                try:
                    await self.read(exchange, reading)
                finally:
                    watch.cancel()
                if reading.done and not reading.results and not _is_gone(reading.error):
                    reading.done = False  # only the reading failed
            elif status in (404, 410):
                reading.error = {"status": status}
                return
            elif status == 400:
                self.book.violated("cursor", f"{chat.id} behind {reading.last_id}: 400")
                return
            await asyncio.sleep(0.5)
        if reading.results:
            chat.see("events", reading.results[-1], resumable=reading.resumable)

    async def _let_go_of(self, exchange: Exchange, replica: Replica) -> None:
        """A heartbeat that stays out tells a client that its server is frozen."""
        while True:
            await asyncio.sleep(20.0)
            if replica.frozen or replica.cut:
                exchange.break_off()
                return


def _is_gone(error: dict[str, Any] | None) -> bool:
    code = ((error or {}).get("error") or error or {}).get("code", "")
    return code in ("COZE_CHAT_NOT_FOUND", "COZE_SESSION_NOT_FOUND", "COZE_CHAT_EXPIRED")


def _coze_asked_for_it(request: Request, body: dict[str, Any]) -> bool:
    """The bot itself failed, or Coze never shows its answer, as the message's knobs wanted."""
    sent, error = b"".join(request.body), body.get("error") or {}
    if b";http=" in sent or (b"empty_list=99" in sent and error.get("code") == "COZE_API_ERROR"):
        return True
    return (error.get("details") or {}).get("coze_code") is not None
