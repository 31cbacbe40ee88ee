"""Clients of HTTP/1.0 do not know chunks (RFC 9112, 6.1)."""

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def without_chunks(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
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
