"""A request's JSON body: bounded in size and time, and read only when the caller is known."""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.exceptions import BodyTooLarge, Overloaded, UnsupportedMediaType, ValidationFailed, wrong_field
from app.http.json_shape import holds_more_than, marks, size_of
from app.utils.big_bodies import SMALL_BYTES, BigBodies, Room

_M = TypeVar("_M", bound=BaseModel)
MOST_VALUES: Final = 10_000
"""Arrays, objects and values of them in a body, where its model says no other number (``MOST_VALUES``)."""
_MOST_FAULTS: Final = 1000
_FEW: Final = 2000
"""So many values take a millisecond or two; bodies with more, and large ones, take turns."""
_BODY_SECONDS: Final = 30.0
_LINGER_BYTES: Final = 16 * 1024 * 1024
_LINGER_SECONDS: Final = 2.0
_MAX_SHOWN: Final = 60
_PLAIN: Final = frozenset({"identity", ""})
CLOSE: Final = {"Connection": "close"}
"""With an answer that comes before the end of the body: the rest would be read for nothing."""


async def read_json(request: Request, model: type[_M], limit: int, bodies: BigBodies) -> _M:
    """The body as ``model``.

    Args:
        limit: bytes.
        bodies: what all requests share.

    Raises:
        UnsupportedMediaType: it is not called JSON, or is compressed.
        BodyTooLarge: it is longer than ``limit``.
        ValidationFailed: it did not arrive in time, or holds too many values.
        RequestValidationError: it does not fit ``model``, or is no JSON.
        Overloaded: the bodies that are being read take all the room that there is for them.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        given = f"`{kind[:_MAX_SHOWN]}`" if kind else "no Content-Type"
        raise UnsupportedMediaType(f"{UnsupportedMediaType.default_message}; this came with {given}")
    refuse_encoded(request)
    with bodies.room() as room:
        data = await _read(request, limit, room)
        if data.startswith(codecs.BOM_UTF8):  # RFC 8259, 8.1: ignored
            del data[: len(codecs.BOM_UTF8)]
        if len(data) <= SMALL_BYTES and marks(data, _FEW) <= _FEW:
            return _parsed(data, model)
        body = await bodies.work(_parsed, data, model)
        if len(data) > SMALL_BYTES:
            # Its texts, which may take four bytes for a letter, and as much again for files that are in them.
            if not room.hold(size_of(body) + len(data)):
                raise _overloaded()
            bodies.keep(room, body)
        return body


async def _read(request: Request, limit: int, room: Room) -> bytearray:
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
                if len(body) > SMALL_BYTES and not room.hold(len(body)):
                    raise _overloaded()
    except TimeoutError:
        text = f"The body did not arrive within {_BODY_SECONDS:g} s"
        raise ValidationFailed(text, headers=CLOSE) from None
    return body


def _overloaded() -> Overloaded:
    return Overloaded("Too many large bodies arrive at once; try again shortly", headers=CLOSE)


def _parsed(data: bytearray, model: type[_M]) -> _M:
    most = getattr(model, "MOST_VALUES", MOST_VALUES)
    if holds_more_than(data, most):
        raise wrong_field("body", f"holds more than {most} values")
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        if (fault := _undecodable(data)) is not None:
            raise wrong_field("body", fault) from None
        if exc.error_count() > _MOST_FAULTS:  # to build them all would take longer than to find them
            text = f"has {exc.error_count()} faults, which are too many to name"
            raise wrong_field("body", text) from None
        faults = exc.errors(include_input=False, include_url=False)
        raise RequestValidationError([{**f, "loc": ("body", *f["loc"])} for f in faults]) from None


def refuse_encoded(request: Request) -> None:
    """Raises ``UnsupportedMediaType`` for a body that is compressed, by whichever header says so."""
    for name, plain in (("content-encoding", _PLAIN), ("transfer-encoding", _PLAIN | {"chunked"})):
        for value in request.headers.getlist(name):
            if coded := {each.strip().lower() for each in value.split(",")} - plain:
                text = f"{name.title()} {min(coded)[:_MAX_SHOWN]} is not taken; send the body as it is"
                raise UnsupportedMediaType(text, headers={"Accept-Encoding": "identity"} | CLOSE)


def _undecodable(body: bytearray) -> str | None:
    """Why these bytes are no UTF-8 text; None where they are."""
    if not body:
        return "is empty"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 0 in body[:2]:
        return "is UTF-16 or UTF-32 (by its byte order mark or its zeros); send UTF-8"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}; send UTF-8"
    return None


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
