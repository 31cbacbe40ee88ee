"""aiohttp's pool of connections, without those on which something has come that nobody asked for.

aiohttp takes what comes on an idle connection for the beginning of the answer to the next request: another
chat would get it.
"""

import functools
import select
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey


class _Handler(ResponseHandler):
    """aiohttp's protocol of one connection."""

    is_idle = False
    """The answer is over, and nobody has the connection."""
    _is_reading = False

    def data_received(self, data: bytes) -> None:
        """b"" is aiohttp's own: it goes on with what it had put aside."""
        if self.is_idle and data:
            self.close()
            return
        self._is_reading = True
        try:
            super().data_received(data)
        finally:
            self._is_reading = False
        if self.is_idle and (self.should_close or self.has_more()):  # the answer ended in ``data``
            self.close()

    def has_more(self) -> bool:
        """Whether a part of another head stands behind the end of the answer. Not in the middle of a piece,
        whose end looks again."""
        if self._is_reading or self.should_close or self._parser is None:
            return False
        try:
            return self._parser.feed_eof() is not None  # does nothing where no answer has begun
        except HttpProcessingError:
            return True


class Connector(aiohttp.TCPConnector):
    """Call it inside the event loop."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Handler, loop=self._loop)  # type: ignore[assignment]  # a narrower one

    async def _get(self, key: "ConnectionKey", traces: list[Any]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            _set_idle(connection.protocol, False)
            if not _has_come(connection):
                return connection
            connection.close()
        return None

    def _release(
        self, key: "ConnectionKey", protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        handler = _set_idle(protocol, True)
        super()._release(key, protocol, should_close=should_close or handler.has_more())


def _set_idle(protocol: ResponseHandler | None, is_idle: bool) -> _Handler:
    assert isinstance(protocol, _Handler)  # noqa: S101  # the connector makes no other
    protocol.is_idle = is_idle
    return protocol


def _has_come(connection: Connection) -> bool:
    """Whether the system has something, or the end, that the event loop has not read yet."""
    transport = connection.transport
    socket = transport.get_extra_info("socket") if transport is not None else None
    if socket is None:
        return False
    looked = select.poll()
    looked.register(socket.fileno(), select.POLLIN)
    return bool(looked.poll(0))
