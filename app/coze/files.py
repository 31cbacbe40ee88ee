"""An upload on Coze's wire: one multipart part that is written while it is read. No I/O of its own.

Source: Coze's page "Upload file" (POST /v1/files/upload).
"""

import secrets
from collections.abc import AsyncIterable, AsyncIterator

import msgspec

from app.coze.replies import Reply
from app.coze.wire import identifier, integer
from app.exceptions import CozeApiError


class CozeFile(msgspec.Struct, frozen=True):
    """What Coze keeps. ``bytes`` as Coze counts them, None if it does not say."""

    id: str
    bytes: int | None = None
    logid: str | None = None

    @classmethod
    def parse(cls, reply: Reply) -> "CozeFile":
        """Raises ``CozeApiError`` where the answer names no file."""
        data = reply.data if isinstance(reply.data, dict) else {}
        found = identifier(data.get("id"))
        if not found:
            raise CozeApiError("Coze's answer is not a file", logid=reply.logid)
        return cls(found, integer(data.get("bytes")), reply.logid)


class FilePart:
    """The body of an upload: one part named ``file`` around ``chunks``."""

    def __init__(self, name: str, mime: str, chunks: AsyncIterable[bytes]) -> None:
        self._boundary = f"coze-fastapi-{secrets.token_hex(16)}"
        self._name = name
        self._mime = mime
        self._chunks = chunks

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self._boundary}"

    async def body(self) -> AsyncIterator[bytes]:
        """The end is only written after the end of ``chunks``: an upload that breaks off stays incomplete,
        and Coze keeps nothing of it."""
        # Quoted as browsers do it (WHATWG, multipart/form-data encoding algorithm).
        name = self._name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        yield (
            f'--{self._boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: {self._mime}\r\n\r\n"
        ).encode()
        async for chunk in self._chunks:
            yield chunk
        yield f"\r\n--{self._boundary}--\r\n".encode()
