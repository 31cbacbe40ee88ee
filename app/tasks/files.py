"""Uploads: passed on to Coze while they arrive, and remembered under an id of our own."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from attrs import define

from app.coze.client import CozeClient
from app.exceptions import (
    BodyTooLarge,
    CozeApiError,
    FileNotFound,
    ServiceError,
    UnsupportedMediaType,
    UpstreamError,
    ValidationFailed,
    wrong_field,
)
from app.models import Identity
from app.stores.files import FileRecord, FileStore, coze_file_id, image_file_id
from app.stores.index import user_key
from app.stores.rates import RateStore
from app.tasks.file_types import HEAD_BYTES, clean_name, sniff
from app.tasks.places import Places
from app.tasks.sessions import SessionService
from app.tasks.shutdown import Shutdown
from app.utils import iso, new_id, now_ms

_REFUSALS: Final[dict[int, type[ServiceError]]] = {
    4300: ValidationFailed,
    4301: ValidationFailed,
    4302: BodyTooLarge,
    4303: UnsupportedMediaType,
    4304: UnsupportedMediaType,
}
"""What Coze does not like about the file itself is for the caller to change."""


class ArrivingFile(Protocol):
    """A file that is still arriving, to be read once. ``failure``: what broke the reading off, because behind
    the HTTP client it cannot be told from a failure of Coze's."""

    @property
    def name(self) -> str: ...

    @property
    def failure(self) -> Exception | None: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class FileInMemory:
    """Bytes that are here already, as a file that arrives."""

    name: str
    data: bytes
    failure: None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self.data), 65_536):
            yield self.data[begin : begin + 65_536]


@define(eq=False, repr=False, kw_only=True)
class FileService:
    """Uploads, of ``max_bytes`` and within ``seconds`` at most. Raises what ``FileStore`` raises.

    ``streams``: places of whatever keeps a connection to its caller for long; ``uploads``: of what keeps one
    to Coze at the pace of its caller.
    """

    _files: FileStore
    _rates: RateStore
    _sessions: SessionService
    _shutdown: Shutdown
    _streams: Places
    _uploads: Places
    _coze: CozeClient
    _max_bytes: int
    _seconds: float

    async def upload(
        self,
        identity: Identity,
        file: ArrivingFile,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> FileRecord:
        """Passes the file on and records it once Coze has all of it.

        A file belongs to the identity at Coze that uploaded it: with ``session_id`` that of the session's
        conversation. ``user_id`` (the session's, where there is one) is whose it is when users are erased.

        Raises ``SessionNotFound`` and its kin, ``RateLimited``, ``ValidationFailed``, ``BodyTooLarge``,
        ``UnsupportedMediaType``, ``UpstreamError``, ``ShuttingDown``, ``Overloaded``, and ``file.failure``.
        """
        self._shutdown.refuse_if_begun()
        owner, credential = identity.owner, ""
        if session_id is not None:
            session = await self._sessions.with_conversation(identity, session_id)
            if user_id not in (None, session.user_id):
                raise wrong_field("user_id", "is not the session's user")
            owner, user_id, credential = session.owner, session.user_id, session.credential
        with self._streams.taken(identity.owner), self._uploads.taken(identity.owner):
            return await self._pass_on(file, owner, user_id or "", credential, new_id("file"))

    async def upload_for_owner(self, identity: Identity, file: ArrivingFile) -> FileRecord:
        """A file of the owner's own, in the name at Coze that all of his conversations there have; he knows
        it by Coze's id. Raises as ``upload``."""
        owner = identity.owner
        with self._streams.taken(owner), self._uploads.taken(owner):
            return await self._pass_on(file, owner, "", self._coze.credential_of(owner), None)

    async def get_of_owner(self, identity: Identity, coze_id: str) -> FileRecord:
        """Raises ``FileNotFound``."""
        return await self.get(identity, coze_file_id(identity.owner, coze_id))

    async def enclosed(
        self, identity: Identity, files: Sequence[FileInMemory], *, session_id: str | None, user_id: str
    ) -> list[FileRecord]:
        """Files that came inside a request: each is uploaded once for its user, however often it is sent.

        All belong to one identity at Coze, that of the session where there is one. Raises as ``upload``.
        """
        owner, credential = identity.owner, ""
        if session_id is not None:
            session = await self._sessions.with_conversation(identity, session_id)
            owner, user_id, credential = session.owner, session.user_id, session.credential
        credential = credential or self._coze.using("", owner).credential
        records = []
        for file in files:
            file_id = image_file_id(owner, user_id, credential, file.data)
            try:
                [record] = await self._files.find([file_id], identity)
            except FileNotFound:
                record = await self._pass_on(file, owner, user_id, credential, file_id)
            # Where none was chosen yet, the first file's chooses: a message's files are one identity's.
            credential = credential or record.credential
            records.append(record)
        return records

    async def get(self, identity: Identity, file_id: str) -> FileRecord:
        """Raises ``FileNotFound``, also for what is somebody else's."""
        [record] = await self._files.find([file_id], identity)
        return record

    async def forget(self, identity: Identity, file_id: str) -> FileRecord:
        """Nobody can use the file from here any more. Coze itself offers no way to delete one."""
        record = await self.get(identity, file_id)
        await self._files.forget(record)
        return record

    async def _pass_on(
        self, source: ArrivingFile, owner: str, user_id: str, credential: str, file_id: str | None
    ) -> FileRecord:
        """``file_id`` None: it is made of Coze's."""
        self._shutdown.refuse_if_begun()
        user = user_key(owner, user_id)
        await self._rates.take("files", owner, user if file_id is not None else None)
        coze, begun = self._coze.using(credential, owner), time.monotonic()
        upload = await self._begin(source)
        left = max(1.0, self._seconds - (time.monotonic() - begun))
        try:
            file = await coze.upload_file(upload.name, upload.kind.mime, upload, seconds=left)
        except UpstreamError as error:
            if (failure := upload.failure or source.failure) is not None:
                raise failure from None
            raise _refusal(error) from error
        if file.bytes not in (None, upload.size):
            raise CozeApiError("Coze has another number of bytes than was sent", logid=file.logid)
        now = now_ms()
        record = FileRecord(
            file_id=file_id or coze_file_id(owner, file.id),
            owner=owner,
            user=user,
            user_id=user_id,
            coze_id=file.id,
            credential=coze.credential,
            logid=file.logid,
            name=upload.name,
            mime=upload.kind.mime,
            type=upload.kind.type,
            size=upload.size,
            created=now,
            expires=now + self._files.ttl_ms,
        )
        await self._files.add(record)
        return record

    async def _begin(self, source: ArrivingFile) -> "_OutgoingFile":
        """Reads as much of the file as is needed to tell what it is."""
        chunks, head = aiter(source), b""
        try:
            async with asyncio.timeout(self._seconds):
                while len(head) < HEAD_BYTES and (chunk := await anext(chunks, None)) is not None:
                    head += chunk
        except TimeoutError:
            raise ValidationFailed("The file did not arrive in time (UPLOAD_TIMEOUT)") from None
        if not head:
            raise wrong_field("file", "is empty", "The file is empty")
        return _OutgoingFile(source.name, head, chunks, self._max_bytes)


def file_view(record: FileRecord) -> dict[str, object]:
    """The file object of the contract."""
    return {
        "file_id": record.file_id,
        "file_name": record.name,
        "bytes": record.size,
        "type": record.type,
        "mime": record.mime,
        "created_at": iso(record.created),
        "expires_at": iso(record.expires),
    }


def coze_file_view(record: FileRecord) -> dict[str, object]:
    """The same as Coze has it, under its id."""
    return {
        "id": record.coze_id,
        "bytes": record.size,
        "created_at": record.created // 1000,
        "file_name": record.name,
    }


class _OutgoingFile:
    """A file on its way: what was read already and the rest, up to ``most`` bytes, counted."""

    def __init__(self, name: str, head: bytes, rest: AsyncIterator[bytes], most: int) -> None:
        self.kind = sniff(head)
        self.name = clean_name(name, self.kind)
        self.size = 0
        self.failure: BodyTooLarge | None = None
        self._head = head
        self._rest = rest
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._count(self._head)
        async for chunk in self._rest:
            yield self._count(chunk)

    def _count(self, chunk: bytes) -> bytes:
        self.size += len(chunk)
        if self.size > self._most:
            self.failure = BodyTooLarge(f"The file is larger than {self._most} bytes (MAX_FILE_BYTES)")
            raise self.failure
        return chunk


def _refusal(error: UpstreamError) -> ServiceError:
    refusal = _REFUSALS.get(error.coze_code or 0)
    return error if refusal is None else refusal(error.message, details=error.details)
