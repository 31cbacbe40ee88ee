"""A request's JSON body: bounded in size and time, and read only when the caller is known."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.exceptions import BodyTooLarge, UnsupportedMediaType, ValidationFailed

_M = TypeVar("_M", bound=BaseModel)
_BODY_SECONDS: Final = 30.0
_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 2.0
CLOSE: Final = {"Connection": "close"}
"""With an answer that comes before the end of the body: the rest would be read for nothing."""


async def read_json(request: Request, model: type[_M], limit: int) -> _M:
    """The body as ``model``.

    Args:
        limit: bytes.

    Raises:
        UnsupportedMediaType: it is not called JSON.
        BodyTooLarge: it is longer than ``limit``.
        ValidationFailed: it did not arrive in time.
        RequestValidationError: it does not fit ``model``.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType
    too_large = BodyTooLarge(f"The request body is larger than {limit} bytes", headers=CLOSE)
    if int(request.headers.get("content-length") or 0) > limit + _LINGER_BYTES:
        raise too_large
    body, chunks = bytearray(), request.stream()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    body.clear()
                    if await ends_soon(chunks):
                        too_large.headers = {}
                    raise too_large
    except TimeoutError:
        text = f"The body did not arrive within {_BODY_SECONDS:g} s"
        raise ValidationFailed(text, headers=CLOSE) from None
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as exc:
        faults = exc.errors(include_input=False, include_url=False, include_context=False)
        raise RequestValidationError([{**f, "loc": ("body", *f["loc"])} for f in faults]) from None


async def ends_soon(chunks: AsyncIterator[bytes]) -> bool:
    """Reads on for a bounded while: who is still sending when the connection closes never sees the answer."""
    left = _LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return False
            return True
    return False
