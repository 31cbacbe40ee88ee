"""Sends one request to Coze, and tells from the beginning of the response what it is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import httpx
import msgspec

from app.coze.deadline import deadline
from app.coze.options import Bearer, CozeOptions
from app.coze.replies import looks_like
from app.coze.stream import CozeResponse, CozeStream, no_first_byte
from app.coze.transport import NETWORK_ERRORS, PooledClient, network_error
from app.coze.wire import ChatState
from app.exceptions import CozeApiError

USER_AGENT: Final = "coze-fastapi"
_SNIFF_BYTES: Final = 1024


class ApiCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call to Coze, as often as it takes.

    Attributes:
        content: the body; an iterator is sent as it comes, and once.
        seconds: from the request to the whole response, where that is not ``first_byte_timeout``.
        conversation_id: of what the call is about; None where there is no conversation yet.
        safe: it may be repeated whatever happened to it.
        existing: it is about a chat that exists.
        stream: the response is to be an event stream.
        retries: at most, where that is not ``max_retries``.
    """

    method: str
    url: str
    params: dict[str, str] | None = None
    content: bytes | AsyncIterator[bytes] | None = None
    content_type: str = "application/json"
    seconds: float | None = None
    conversation_id: str | None = None
    safe: bool = False
    existing: bool = False
    stream: bool = False
    retries: int | None = None

    @property
    def repeatable(self) -> bool:
        """A body that is sent as it comes cannot be sent again."""
        return self.content is None or isinstance(self.content, bytes)

    def __repr__(self) -> str:
        return f"{self.method} {self.url}"  # the content is what a user wrote


async def send(http: PooledClient, options: CozeOptions, call: ApiCall, bearer: Bearer) -> CozeResponse:
    """Sends the request and waits for the headers of the response.

    Returns:
        The response, to be closed.

    Raises:
        CozeTimeout: they are late.
        CozeApiError: there was no connection, or it broke.
    """
    request = _request(options, call, bearer)
    late_at = asyncio.get_running_loop().time() + (call.seconds or options.first_byte_timeout)
    async with deadline(late_at, lambda: no_first_byte(options)):
        try:
            response = await http.exchange(request)
        except NETWORK_ERRORS as error:
            raise network_error(error, options.connect_timeout) from error
    return CozeResponse(response, options, late_at)


def _request(options: CozeOptions, call: ApiCall, bearer: Bearer) -> httpx.Request:
    # httpx.Headers, not a dict: its repr hides the token from any traceback that shows variables.
    headers = httpx.Headers(
        {
            "authorization": bearer.header(),
            "accept": "text/event-stream, application/json" if call.stream else "application/json",
            "user-agent": USER_AGENT,
            # Compressing proxies hold deltas back.
            "accept-encoding": "identity" if call.stream else "gzip, deflate",
        }
    )
    if call.content is not None:
        headers["content-type"] = call.content_type
    timeout = httpx.Timeout(None, connect=options.connect_timeout, pool=options.connect_timeout)
    try:
        return httpx.Request(
            call.method,
            call.url,
            params=call.params or None,
            content=call.content,
            headers=headers,
            extensions={"timeout": timeout.as_dict()},
        )
    except httpx.InvalidURL as error:
        raise network_error(error, options.connect_timeout) from error


async def begin_stream(response: CozeResponse) -> CozeStream:
    """Decides what an answer to ``stream=true`` is, after its headers.

    By content type; where that does not tell, by the first byte. Raises the error of a JSON or HTML answer,
    and of a stream that begins with one.
    """
    head, first = response.head, b""
    if head.is_event_stream:
        return await CozeStream(response).begin()
    if head.is_success and head.content_type != "application/json":
        async with deadline(response.late_at, response.no_first_byte):
            while looks_like(first) == "unknown" and len(first) <= _SNIFF_BYTES:
                chunk = await response.read()
                if chunk is None:
                    break
                first += chunk
        if looks_like(first) in ("stream", "unknown"):
            return await CozeStream(response, first=first).begin()
    reply = await response.read_json(first)
    chat = ChatState.parse(reply.data, logid=reply.logid)
    if not chat.id:
        raise CozeApiError("Coze's answer is neither a stream nor a chat", logid=reply.logid)
    return CozeStream(response, chat=chat)
