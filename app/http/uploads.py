"""A file out of a request's body, as it arrives: never the whole of it in memory, nothing on disk.

What reads it sets the pace: while Coze takes nothing, nothing is read from the caller either.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.exceptions import BodyTooLarge, ServiceError, ValidationFailed
from app.http.dependencies import CLOSE, RequestContext, ends_soon, refuse_encoded, room_for
from app.http.multipart import MAX_OVERHEAD, FormReader, broken


class Upload:
    """The one file of a form, to be read once. ``failure`` is what broke the reading off."""

    def __init__(self, request: Request, *, idle_timeout: float) -> None:
        """Raises ``UnsupportedMediaType`` and ``ValidationFailed``."""
        self._form = FormReader(request.headers.get("content-type", ""))
        self._body = request.stream()
        self._idle_timeout = idle_timeout
        self._first: list[bytes] = []
        self._over = False
        self.failure: Exception | None = None

    @property
    def name(self) -> str:
        return self._form.file_name or ""

    async def open(self) -> None:
        """Reads as far as the file's name, which comes with the first bytes or a little later: nothing is
        counted yet for whoever sends it. Raises what reading raises."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                while self._form.file_name is None and not self._over:
                    self._first = await self._read()
        except TimeoutError:
            raise ValidationFailed(
                f"The form's file did not begin within {self._idle_timeout:g} s (UPLOAD_IDLE_TIMEOUT)"
            ) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            for piece in self._first:
                yield piece
            if self._over:
                return
            self._first = await self._read()

    async def _read(self) -> list[bytes]:
        try:
            return await self._next()
        except (ServiceError, ClientDisconnect) as error:
            self.failure = error
            raise

    async def _next(self) -> list[bytes]:
        try:
            async with asyncio.timeout(self._idle_timeout):
                chunk = await anext(self._body, None)
        except TimeoutError:
            raise ValidationFailed(
                f"Nothing more of the body came for {self._idle_timeout:g} s (UPLOAD_IDLE_TIMEOUT)"
            ) from None
        if chunk is None:
            self._over = True
            self._form.finish()
            return []
        return self._form.feed(chunk)


@contextlib.asynccontextmanager
async def open_upload(context: RequestContext) -> AsyncIterator[Upload]:
    """The file of the request's body, to be read inside. Whoever is refused while still sending gets the
    answer if there is little left to send, and a closed connection behind it if not.

    Raises:
        UnsupportedMediaType: the body is no form.
        BodyTooLarge: the body says that it is longer than MAX_FILE_BYTES.
        Overloaded: as many bodies as may be are arriving.
        ValidationFailed: the form has no file with a name, or is not right.
    """
    request, settings = context.request, context.resources.settings
    limit = settings.max_file_bytes
    try:
        if int(request.headers.get("content-length") or 0) > limit + MAX_OVERHEAD:
            raise BodyTooLarge(f"The file is larger than {limit} bytes (MAX_FILE_BYTES)")
        refuse_encoded(request)
        upload = Upload(request, idle_timeout=settings.upload_idle_timeout)
        with room_for(context.resources.bodies, context.identity.owner):
            await upload.open()  # the place among the uploads is taken once it is known what this is
        if not upload.name and upload.failure is None:
            raise broken("the file has no name")
        yield upload
    except ServiceError as error:
        with contextlib.suppress(ClientDisconnect, RuntimeError):  # gone, or read to its end
            if not await ends_soon(request.stream()):
                error.headers = error.headers | CLOSE
        raise


_FILE: Final = {
    "type": "string",
    "format": "binary",
    "description": "The file, with a name; at most MAX_FILE_BYTES",
}
_FORM: Final = {"type": "object", "required": ["file"], "properties": {"file": _FILE}}
UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
"""``openapi_extra=`` of a route that takes a file."""
