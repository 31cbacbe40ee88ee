"""uvicorn's HTTP/1 on httptools, and what that leaves out: Upgrade, HTTP/1.0, answers to what is not HTTP.

uvicorn's own choice for these is h11, which costs more CPU for each piece of a stream.
"""

import asyncio
from typing import Any, Final

import httptools
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.exceptions import ServiceError, ValidationFailed

REFUSAL: Final = "refusal"
"""Key in a scope's ``state``: the ``ServiceError`` that is the answer, whatever the request asks for."""
_NOT_KNOWN: Final[dict[str, Any]] = {
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [],
}


class HttpProtocol(HttpToolsProtocol):
    """For ``uvicorn.run(http=...)``."""

    _refused = False
    _upgrading = False

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # the connection closes behind the answer that is on its way
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(ValidationFailed(f"The request is not valid HTTP/1.1: {_reason(error)}"))

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
                raise ValueError("CONNECT")
            self._upgrading = True
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._upgrading:
            super().on_message_complete()

    # -- HTTP/1.0: its clients do not know chunks (RFC 9112, 6.1) -------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["http_version"] != "1.1":
            cycle.waiting_for_100_continue = False
            app = _without_chunks(cycle, app)
        super()._start_asgi_task(cycle, app)

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
                known["raw_path"] = self.url.partition(b"?")[0]
                known["path"] = known["raw_path"].decode("ascii", "replace")
        self._answer({**_NOT_KNOWN, **known}, error)

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
            transport=self.transport,
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


def _without_chunks(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """A body whose length nobody told ends with the connection."""

    async def run(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        is_measured = False

        async def send_plain(message: ASGISendEvent) -> None:
            nonlocal is_measured
            if message["type"] == "http.response.start":
                is_measured = any(name.lower() == b"content-length" for name, _ in message["headers"])
                if not is_measured:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and not is_measured:
                cycle.expected_content_length = len(message["body"])  # each piece is as long as it is
            await send(message)

        await app(scope, receive, send_plain)

    return run


def _reason(error: httptools.HttpParserError) -> str:
    """The parser's words; not those of a callback, which repeat what was sent."""
    if isinstance(error, httptools.HttpParserCallbackError):
        return "the request target cannot be used"
    return str(error) or "it cannot be parsed"
