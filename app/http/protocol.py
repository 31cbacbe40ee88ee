"""uvicorn's HTTP/1 on httptools, and what that leaves out: Upgrade, HTTP/1.0, answers to what is no HTTP, and
all bounds (``app.http.connections`` has the figures).

uvicorn's own choice for these is h11, which costs more CPU for each piece of a stream.
"""

import asyncio
import contextvars
from functools import partial
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.exceptions import HeadersTooLarge, ServiceError, TargetTooLong, ValidationFailed
from app.http.connections import (
    BREAK_OFF,
    CYCLE,
    HEAD_SECONDS,
    LINGER_BYTES,
    MOST_COMMAS,
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    MOST_HELD,
    MOST_QUEUED,
    MOST_REST,
    MOST_SMALL_CHUNKS,
    MOST_TARGET_BYTES,
    MOST_WAITING,
    SMALL_CHUNK,
    HeldFlow,
    LingeringTransport,
    Pipeline,
    commas_in,
    most_connections,
    oldest_waiting,
)
from app.http.half_close import PROBE_SECONDS, PROBES, STILL_HERE, told_of_half_close
from app.http.heads import HeadWatch, behind_blank_lines
from app.http.http_1_0 import without_chunks
from app.http.turns import TURNS, Turns
from app.http.unfit import NOT_KNOWN, UnfitError, reason
from app.utils.signals import Wakeup

REFUSAL: Final = "refusal"
"""Key in a scope's ``state``: the ``ServiceError`` that is the answer, whatever the request asks for."""
_HEAD_END: Final = b"\r\n\r\n"
_NO_BODY: Final = -1
_UNKNOWN: Final = 1 << 62
_SOMEWHERE: Final = 1 << 61
_MOST_CUTS: Final = 64
_WITH_BODIES: Final = frozenset({"POST", "PUT", "PATCH"})
_SLICE: Final = 4096
"""Bytes of a body in chunks that the parser gets at once."""
_LONGEST_LENGTH: Final = 20
"""Digits of a Content-Length; Python reads no more than some thousands."""
_SHOWN_OF_TARGET: Final = 200
_LONGEST_OF_REFUSED: Final = 1000
"""Bytes of a header's value that whoever answers a refused request gets to see."""


class HttpProtocol(HeadWatch):
    """For ``uvicorn.run(http=...)``."""

    flow: HeldFlow
    # In slots: with more than 30 attributes a dictionary is no longer shared in part by all instances, and
    # takes 1,600 bytes for each connection.
    __slots__ = (
        *("_body", "_chunks", "_deadline", "_held", "_held_at", "_pending", "_probe_timer", "_read_of_body"),
        *("_refused", "_upgrading"),
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pipeline = Pipeline()  # type: ignore[assignment]  # a deque to uvicorn
        self._refused = self._upgrading = False
        self._body = _NO_BODY
        """Bytes that have arrived of a body that has not ended."""
        self._pending = 0
        """Bytes that the parser has had since something was whole: a head, a piece of a body, a message."""
        self._chunks = 0
        """Of the body, in how many pieces it came."""
        self._held = b""
        """What is not given to the parser yet, from ``_held_at``."""
        self._held_at = 0
        self._read_of_body = 0
        """How much of the body had come when its answer was over."""
        self._deadline: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None

    # -- bounds of the connection ---------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Nothing is being done here."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    @property
    def order(self) -> tuple[bool, float]:
        """First whoever has never sent a request; of those the first whose time is over."""
        timer = self._deadline or self.timeout_keep_alive_task
        return self.cycle is not None, timer.when() if timer is not None else 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)
        turns: Turns | None = self.app_state.get(TURNS)
        not_begun = turns.connection_came() if turns is not None else 0
        if len(self.connections) - len(self.tasks) - not_begun > MOST_WAITING:
            self._make_room()
        elif len(self.connections) > most_connections() and not self._make_room():
            self.transport.abort()

    def _make_room(self) -> bool:
        others = (each for each in self.connections if isinstance(each, HttpProtocol) and each is not self)
        oldest = oldest_waiting(others)
        for each in oldest:
            self.connections.discard(each)  # it is counted no longer, though the loop closes it later
            each.transport.abort()
        return bool(oldest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        for timer in (self._deadline, self._probe_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _too_late(self) -> None:
        """The head did not arrive in time, or the rest of a body that nobody reads."""
        self._deadline = None
        if self.is_waiting:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self.watch_unsent()

    # -- the client sends nothing more: it is gone, or it waits for what it has asked for (RFC 9112, 9.6) ----

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's: whether the connection stays
        cycle: RequestResponseCycle | None = self.cycle
        is_owed = cycle is not None and not cycle.response_complete
        if not is_owed or self._body != _NO_BODY or self._pending or self._refused:
            return False
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        last.keep_alive = False
        if not self.pipeline:  # else an answer may be under way, into which nothing can be written
            self.cycle.message_event.set()
            self._probe_timer = self.loop.call_later(PROBE_SECONDS, self._probe, PROBES)
        return True

    def _probe(self, left: int) -> None:
        """Else an answer that takes minutes would be made for nobody. A stream that has begun does it itself,
        by its heartbeat."""
        self._probe_timer = None
        if self.cycle.response_started or self.transport.is_closing():
            return
        if self.cycle.scope["http_version"] != "1.1":  # its clients know no such line
            self.transport.close()
            return
        self.transport.write(STILL_HERE)
        if left > 1:
            self._probe_timer = self.loop.call_later(PROBE_SECONDS, self._probe, left - 1)

    # -- what arrives ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes, at: int = 0) -> None:
        if self._refused:  # the connection closes behind the answer that is on its way
            self._pending += len(data)
            if self._pending > LINGER_BYTES:
                self.transport.abort()
            else:
                self._pause()
            return
        if self._held:
            data, at = self._held[self._held_at :] + data, 0
        self._unset_keepalive_if_required()
        try:
            self._take(data, at)
        except httptools.HttpParserError as error:
            wrong = ValidationFailed(f"The request is not valid HTTP/1.1: {reason(error)}")
            self._refuse(self._passed_bound() or wrong)
        if self._deadline is not None or self.is_waiting:
            self._set_deadline()
            self.head_has(self._pending)
        if self._body != _NO_BODY and not self._refused:
            if self.is_waiting and self._body - self._read_of_body > MOST_REST:
                self._refused, self._pending = True, -_UNKNOWN  # the time alone is bounded
                LingeringTransport(self.transport, self.loop, HEAD_SECONDS).close()
            self._pause()

    def _pause(self) -> None:
        """Until the next turn of the loop, which would read up to 8 MB of a body before anything else."""
        self.flow.hold()
        self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self.transport.is_closing() or (self._held and self._body == _NO_BODY):
            return  # or the next request waits for the answer to this one
        self.flow.held = False
        if self._held:
            held, self._held = self._held, b""
            self.data_received(held, self._held_at)
        if self._refused or self.is_waiting or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # else who reads the body does

    def _take(self, data: bytes, at: int) -> None:
        """Gives the parser what begins ``at``, one head at a time, and none while the request before has no
        answer yet: a chunk may hold thousands of requests, and reading on would make an object of each."""
        self._held = b""
        length, cuts, fed = len(data), 0, False
        while at < length:
            if self._body == _NO_BODY:
                cycle: RequestResponseCycle | None = self.cycle
                if cycle is not None and not cycle.response_complete:
                    self._hold(data, at)
                    return
                found = data.find(_HEAD_END, at)
                if found == at and self._pending == 0:
                    at = behind_blank_lines(data, at)
                    continue
                # A small body goes along, unless it may have another request behind it.
                is_small = length - found <= _SLICE and data.find(_HEAD_END, found + 4) < 0
                end = length if found < 0 or is_small else found + 4
            elif (left := self._body_left()) < _SOMEWHERE:
                end = min(at + left, length)
            else:  # chunks end like a head; where they are full of such ends they are not looked for
                if self._chunks > MOST_SMALL_CHUNKS and self._body < SMALL_CHUNK * self._chunks:
                    self._refuse(ValidationFailed("The chunks of the body are too small"))
                    return
                if fed:
                    self._held, self._held_at = data, at  # for the next turn
                    return
                found = data.find(_HEAD_END, at, at + _SLICE + 3) if cuts < _MOST_CUTS else -1
                cuts, fed = cuts + (found >= 0), found < 0
                end = min(at + _SLICE, length) if found < 0 else found + 4
            piece = data if end - at == length else data[at:end]
            at = end
            self._pending += len(piece)
            while piece:
                piece = self._feed(piece)
            if self._pending > MOST_HEAD_BYTES:
                text = f"The headers are too large: at most {MOST_HEAD_BYTES} bytes"
                self._refuse(self._passed_bound() or HeadersTooLarge(text))
                return

    def _set_deadline(self) -> None:
        """For what has to arrive by itself. A body that is read has its clock where it is read."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)
        elif not self.is_waiting:
            self._deadline.cancel()
            self._deadline = None

    def _hold(self, data: bytes, at: int) -> None:
        if self._pending == 0:
            at = behind_blank_lines(data, at)  # they mean nothing; without them reading goes on
        if at < len(data):
            self.flow.hold()
            if len(data) - at <= MOST_HELD:
                self._held, self._held_at = data, at
            else:  # their client finds that the connection ends, and sends them again
                self.cycle.keep_alive = False

    def _body_left(self) -> int:
        """Up to here nothing is a request; chunks end where the parser says."""
        headers = cast("list[tuple[bytes, bytes]]", self.scope["headers"])
        whole = next((int(value) for name, value in headers if name == b"content-length"), _UNKNOWN)
        return whole - self._body

    def _passed_bound(self) -> ServiceError | None:
        """Of those that are counted in parts."""
        if self._body == _NO_BODY and len(self.url or b"") > MOST_TARGET_BYTES:
            return TargetTooLong(f"The request's address is too long: at most {MOST_TARGET_BYTES} bytes")
        if len(self.headers or ()) > MOST_HEADERS:
            return HeadersTooLarge(f"There are too many headers: at most {MOST_HEADERS}")
        if commas_in(self.headers or ()) > MOST_COMMAS:
            return HeadersTooLarge(f"There are too many commas in the headers: at most {MOST_COMMAS}")
        return None

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            raise ValueError("too many headers")
        if len(value) > _LONGEST_LENGTH and name.lower() == b"content-length":
            raise UnfitError("its Content-Length has too many digits")

    def on_body(self, body: bytes) -> None:
        self._chunks += 1
        self._body += len(body)
        self._pending = 0
        if self.cycle.scope["method"] in _WITH_BODIES:  # else nobody reads it: it would stay with a stream
            super().on_body(body)

    def on_response_complete(self) -> None:
        """In a context of its own: that of the request leads to all of its head, and a timer keeps it."""
        contextvars.Context().run(self._response_complete)

    def _response_complete(self) -> None:
        super().on_response_complete()
        self._read_of_body = max(self._body, 0)
        if self.is_waiting:
            self.cycle.body = bytearray()  # what came and nobody read would stay as long as the connection
        if self.transport.is_closing():
            self.watch_unsent()
        elif self._held or self._pending or self._body != _NO_BODY:
            if self._held and self.is_waiting:
                held, self._held = self._held, b""
                self.flow.held = False
                self.data_received(held, self._held_at)
                self.flow.resume_reading()
            elif self._deadline is None:
                self._set_deadline()
        self._forget_request()

    # -- Upgrade: we speak nothing else, and then it is a request like any other (RFC 9110, 7.8) ------------

    def _feed(self, data: bytes) -> bytes:
        """Returns what is not parsed yet. Raises ``HttpParserError``."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # httptools takes all behind such a head for another protocol's. A new parser reads the head
            # again without the wish, and then the body.
            version = self.parser.get_http_version().encode()
            head = [b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)]
            head += [b"%s: %s\r\n" % line for line in self.headers if line[0] != b"upgrade"]
            self._upgrading = False
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self.parser.feed_data(b"".join([*head, b"\r\n"]))
            return data[upgrade.args[0] :]
        return b""

    def _should_upgrade(self) -> bool:
        return False

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise UnfitError("CONNECT is for proxies")
            self._upgrading = True
        else:
            if commas_in(self.headers) > MOST_COMMAS:
                raise UnfitError("its headers have too many commas")
            if len(self.pipeline) >= MOST_QUEUED:
                raise UnfitError("too many requests are sent ahead")
            super().on_headers_complete()
            self.cycle.message_event = Wakeup()  # type: ignore[assignment]  # its one reader has not begun
            self._body = self._pending = self._chunks = 0
            self.headers = []  # trailers go there, and nobody reads them

    def on_message_complete(self) -> None:
        if not self._upgrading:
            super().on_message_complete()
            self._body, self._pending = _NO_BODY, 0
            self._forget_request()

    def _forget_request(self) -> None:
        """Once it is answered and its body over: a connection that is kept would keep its head, too."""
        if self.is_waiting and self._body == _NO_BODY and not self._pending:
            self.scope = self.cycle.scope = None  # type: ignore[assignment]  # until the next begins
            self.url, self.headers = b"", []

    # -- a request is whole: it is begun when its turn comes ------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.scope["state"] |= {BREAK_OFF: partial(self._break_off, cycle), CYCLE: cycle}
        if cycle.scope["http_version"] != "1.1":
            cycle.waiting_for_100_continue = False
            app = without_chunks(cycle, app)  # its clients do not know them (RFC 9112, 6.1)
        begin = partial(self._begin, cycle, told_of_half_close(app))
        turns: Turns | None = self.app_state.get(TURNS)
        if turns is None:
            begin()
        else:
            turns.take(cycle.scope, begin, self.transport.abort)

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not cycle.disconnected:  # else nothing was begun, and nobody is there to hear of it
            super()._start_asgi_task(cycle, app)

    def _break_off(self, cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True  # so that uvicorn does not take it for a fault
        cycle.keep_alive = False
        self._close()

    # -- what cannot be parsed: answered by the app, so that it has an id, a log line and all headers -------

    def _refuse(self, error: ServiceError) -> None:
        self._refused = True
        current: RequestResponseCycle | None = self.cycle
        scope: HTTPScope | None = self.scope
        known: dict[str, Any] = {}
        if current is not None and not current.response_complete:
            if current.response_started or not current.more_body or self.pipeline:
                # An answer is under way, and nothing can be said before it is over: it is the last one here.
                current.keep_alive = False
                if current.more_body:
                    self.transport.close()
                return
            known = dict(current.scope)
            current.disconnected = True  # the rest of its body never comes
            current.message_event.set()
        elif scope is not None and (current is None or scope is not current.scope):
            known = dict(scope)
            if self.url.startswith(b"/"):
                known["raw_path"] = self.url[:_SHOWN_OF_TARGET].partition(b"?")[0]
                known["path"] = known["raw_path"].decode("ascii", "replace")
        short = [line for line in known.pop("headers", ()) if len(line[1]) <= _LONGEST_OF_REFUSED]
        self._answer({**NOT_KNOWN, **known, "headers": short}, error)
        # The connection closes a little later: what was too much must not stay so long.
        self.scope, self.url, self.headers, self.parser = None, b"", [], None  # type: ignore[assignment]

    def _answer(self, scope: dict[str, Any], error: ServiceError) -> None:
        scope |= {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "state": {**self.app_state, REFUSAL: error},
        }
        self.cycle = RequestResponseCycle(
            scope=scope,  # type: ignore[arg-type]  # a HTTPScope, made in two steps
            transport=LingeringTransport(self.transport, self.loop),  # type: ignore[arg-type]  # what is used
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self.cycle.more_body = False
        self._start_asgi_task(self.cycle, self.app)
