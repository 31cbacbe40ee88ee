"""Uploads: passed on to Coze while they arrive, and remembered under an id of our own."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from app.coze import CozeClient
from app.exceptions import (
    BodyTooLarge,
    CozeApiError,
    FileNotFound,
    ServiceError,
    ShuttingDown,
    UnsupportedMediaType,
    UpstreamError,
    ValidationFailed,
)
from app.models import Identity
from app.stores.files import FileRecord, FileStore, image_file_id, new_file_id
from app.stores.index import user_key
from app.stores.rates import RateStore
from app.stores.sessions import SessionRecord, SessionStore
from app.tasks.file_types import HEAD_BYTES, Kind, clean_name, sniff
from app.tasks.service import TaskService
from app.utils import iso, now_ms

_REFUSALS: Final[dict[int, type[ServiceError]]] = {
    4300: ValidationFailed,
    4301: ValidationFailed,
    4302: BodyTooLarge,
    4303: UnsupportedMediaType,
    4304: UnsupportedMediaType,
}
"""What Coze does not like about the file itself is for the caller to change."""


class Source(Protocol):
    """A file that is still arriving, to be read once. ``failure``: what broke the reading off, because behind
    the HTTP client it cannot be told from a failure of Coze's."""

    @property
    def name(self) -> str: ...

    @property
    def failure(self) -> Exception | None: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that are here already, as a source."""

    name: str
    data: bytes
    failure: None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self.data), 65_536):
            yield self.data[begin : begin + 65_536]


@dataclass(frozen=True, slots=True)
class FileOptions:
    """``max_bytes`` of one file; ``seconds`` for a whole upload."""

    max_bytes: int
    seconds: float


class FileService:
    def __init__(
        self,
        files: FileStore,
        sessions: SessionStore,
        rates: RateStore,
        tasks: TaskService,
        coze: CozeClient,
        options: FileOptions,
    ) -> None:
        self._files = files
        self._sessions = sessions
        self._rates = rates
        self._tasks = tasks
        self._coze = coze
        self._options = options

    async def upload(
        self, identity: Identity, source: Source, *, session_id: str | None = None, user_id: str | None = None
    ) -> FileRecord:
        """Passes the file on and records it once Coze has all of it.

        A file belongs to the identity at Coze that uploaded it: with ``session_id`` that of the session's
        conversation. ``user_id`` (the session's, where there is one) is whose it is when users are erased.

        Raises ``SessionNotFound`` and its kin, ``RateLimited``, ``ValidationFailed``, ``BodyTooLarge``,
        ``UnsupportedMediaType``, ``UpstreamError``, and ``source.failure``.
        """
        if self._tasks.draining.is_set():
            raise ShuttingDown
        owner, credential = identity.owner, ""
        if session_id is not None:
            session = await self._session(identity, session_id)
            if user_id not in (None, session.user_id):
                fault = {"field": "user_id", "message": "is not the session's user"}
                raise ValidationFailed(details={"fields": [fault]})
            owner, user_id, credential = session.owner, session.user_id, session.credential
        return await self._keep(source, owner, user_id or "", credential, new_file_id())

    async def images(
        self, identity: Identity, images: Sequence[bytes], *, session_id: str | None, user_id: str
    ) -> list[FileRecord]:
        """Pictures that came inside a request: each is uploaded once for its user, however often it is sent.

        All belong to one identity at Coze, that of the session where there is one. Raises as ``upload``.
        """
        owner, credential = identity.owner, ""
        if session_id is not None:
            session = await self._session(identity, session_id)
            owner, user_id, credential = session.owner, session.user_id, session.credential
        credential = credential or self._coze.using("").credential
        records = []
        for data in images:
            file_id = image_file_id(owner, user_id, credential, data)
            try:
                [record] = await self._files.find([file_id], identity)
            except FileNotFound:
                record = await self._keep(Held("image", data), owner, user_id, credential, file_id)
            # Where none was chosen yet, the first picture's chooses: a message's files are one identity's.
            credential = credential or record.credential
            records.append(record)
        return records

    async def _keep(
        self, source: Source, owner: str, user_id: str, credential: str, file_id: str
    ) -> FileRecord:
        if self._tasks.draining.is_set():
            raise ShuttingDown
        user = user_key(owner, user_id)
        await self._rates.take("files", user)
        sent = await self._send(source, self._coze.using(credential))
        now = now_ms()
        record = FileRecord(
            file_id=file_id,
            owner=owner,
            user=user,
            user_id=user_id,
            coze_id=sent.coze_id,
            credential=sent.credential,
            logid=sent.logid,
            name=sent.name,
            mime=sent.kind.mime,
            type=sent.kind.type,
            size=sent.size,
            created=now,
            expires=now + self._files.ttl_ms,
        )
        await self._files.add(record)
        return record

    async def _session(self, identity: Identity, session_id: str) -> SessionRecord:
        """The session once it is known whose its conversation is; a stranger does not wait for that."""
        session, _, _ = await self._sessions.read(session_id, identity, history=0, touch=False)
        if session.conversation_id is None:
            await self._tasks.opened(session_id)
            session, _, _ = await self._sessions.read(session_id, identity, history=0, touch=False)
        return session

    async def _send(self, source: Source, coze: CozeClient) -> "_Sent":
        chunks = aiter(source)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._options.seconds):
                head = await _head(chunks)
        except TimeoutError:
            raise ValidationFailed("The file did not arrive in time (UPLOAD_TIMEOUT)") from None
        if not head:
            raise _nothing()
        kind = sniff(head)
        name = clean_name(source.name, kind)
        counted = _Counted(head, chunks, self._options.max_bytes)
        left = max(1.0, self._options.seconds - (time.monotonic() - begun))
        try:
            file = await coze.upload_file(name, kind.mime, counted, seconds=left)
        except UpstreamError as error:
            if (failure := counted.failure or source.failure) is not None:
                raise failure from None
            raise _refusal(error) from error
        if file.bytes not in (None, counted.size):
            raise CozeApiError("Coze has another number of bytes than was sent", logid=file.logid)
        return _Sent(file.id, coze.credential, file.logid, name, kind, counted.size)

    async def get(self, identity: Identity, file_id: str) -> FileRecord:
        [record] = await self._files.find([file_id], identity)
        return record

    async def forget(self, identity: Identity, file_id: str) -> FileRecord:
        """Nobody can use the file from here any more. Coze itself offers no way to delete one."""
        record = await self.get(identity, file_id)
        await self._files.forget(record)
        return record


def file_view(record: FileRecord) -> dict[str, Any]:
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


class _Sent(NamedTuple):
    """What Coze has now. ``credential``: the identity that it belongs to there."""

    coze_id: str
    credential: str
    logid: str | None
    name: str
    kind: Kind
    size: int


class _Counted:
    """What was read already and the rest, up to ``most`` bytes."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes], most: int) -> None:
        self._head = head
        self._rest = rest
        self._most = most
        self.size = 0
        self.failure: BodyTooLarge | None = None

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


async def _head(chunks: AsyncIterator[bytes]) -> bytes:
    """As much of the file as is needed to tell what it is."""
    head = b""
    while len(head) < HEAD_BYTES:
        chunk = await anext(chunks, None)
        if chunk is None:
            break
        head += chunk
    return head


def _nothing() -> ValidationFailed:
    return ValidationFailed(
        "The file is empty", details={"fields": [{"field": "file", "message": "is empty"}]}
    )


def _refusal(error: UpstreamError) -> ServiceError:
    refusal = _REFUSALS.get(error.coze_code or 0)
    return error if refusal is None else refusal(error.message, details=error.details)
