"""A client that closed its sending half is gone, or it waits for what it has asked for (RFC 9112, 9.6)."""

from typing import Any, Final

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

HALF_CLOSED: Final = "http.half_closed"
"""Type of a message that ``receive`` brings besides those of ASGI, which others read over: the client sends
nothing more, and may be gone altogether. Whoever writes finds out which."""
PROBES: Final = 2
"""How often a half-closed client is asked whether it still reads: the first piece that a client who is gone
gets makes its system refuse all others, and the second one finds that out."""
PROBE_SECONDS: Final = 0.5
STILL_HERE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def told_of_half_close(app: ASGI3Application) -> ASGI3Application:
    async def run(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        is_over = False

        async def receive_told() -> Any:
            nonlocal is_over
            message = await receive()
            if message["type"] == "http.request":
                if is_over:  # behind the end of a body nothing but ``eof_received`` brings another piece
                    return {"type": HALF_CLOSED}
                is_over = not message["more_body"]
            return message

        await app(scope, receive_told, send)

    return run
