"""Uploaded files: a record each, and an index by user so that erasing finds them."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from app.exceptions import FileNotFound
from app.models import Identity
from app.models.bodies import FileType
from app.redis_client import Command, Key, Keys, Number, RedisGate, Text, Texts
from app.stores.index import OPENING_MS, name_key, user_key
from app.stores.scripts import file_index, file_read, index_unwritten, uploaders_forget

_FILE_ID: Final = re.compile(r"coze_file_[0-9]{13}_[a-z2-7]{21}")
_ERASED_AT_ONCE: Final = 500
_ERASED_PER_CALL: Final = 10_000


def image_file_id(owner: str, user_id: str, credential: str, data: bytes) -> str:
    """The id of a picture that comes inside requests: the same one has the same id, for the same user alone.
    Who knows the picture and the user can work it out, but has to be the owner to use it."""
    return _id_of("\0".join((owner, user_id, credential, "")).encode(), data)


def coze_file_id(owner: str, coze_id: str) -> str:
    """The id of a file that its owner knows by Coze's id."""
    return _id_of("\0".join((owner, "coze", coze_id)).encode(errors="surrogatepass"))


def named_file_id(owner: str, named: str) -> str:
    """Our id of a file that its owner names by this, which is ours already or Coze's."""
    return named if _FILE_ID.fullmatch(named) else coze_file_id(owner, named)


def _id_of(named: bytes, data: bytes = b"") -> str:
    digest = hashlib.sha256(named)
    digest.update(data)
    token = base64.b32encode(digest.digest()).decode().lower()
    return f"coze_file_{0:013d}_{token[:21]}"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """``user``: the user's name in the indexes. ``user_id`` is empty for a file of the owner's own.
    ``coze_id`` and ``credential``: the file at Coze, and the identity that it belongs to there; ``logid``:
    Coze's name for the upload. Times are unix milliseconds. The first two are what ``file_read`` looks at."""

    file_id: str
    owner: str
    user: str
    user_id: str
    coze_id: str
    credential: str
    logid: str | None
    name: str
    mime: str
    type: FileType
    size: int
    created: int
    expires: int

    def pack(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def parse(cls, packed: bytes) -> "FileRecord":
        return cls(**orjson.loads(packed))


def _begins(file_id: str, owner: str) -> str:
    """What a packed record begins with, up to where the owner's name may go on."""
    return orjson.dumps({"file_id": file_id, "owner": owner}).decode()[:-2]


class FileStore:
    """``days``: how long a file is kept, here and at Coze."""

    def __init__(self, redis: RedisGate, keys: Keys, *, days: float) -> None:
        self._redis = redis
        self._keys = keys
        self.ttl_ms = int(days * 86_400_000)

    async def add(self, record: FileRecord) -> None:
        """The indexes come before the record: what is in Redis can always be found to be erased.

        Where a picture is sent twice at once, an erasure that finds the first one's record takes out what is
        the entry of both: the second one's is erased with it."""
        keys, file_id = self._keys, record.file_id
        index, file = keys.files(record.user), keys.file(file_id)
        await self._redis.run(
            file_index(
                files=index,
                uploaders=keys.uploaders(name_key(record.owner, record.user_id)),
                file_id=file_id,
                user=record.user,
                ttl=self.ttl_ms,
            )
        )
        await self._redis.run(Command[bytes]("SET", file, record.pack(), "PX", self.ttl_ms))
        if await self._redis.run(Text("ZSCORE", index, file_id)) is None:
            await self._redis.run(Number("DEL", file))

    async def find(self, file_ids: Sequence[str], identity: Identity) -> list[FileRecord]:
        """Raises ``FileNotFound`` for one that is unknown, expired or somebody else's."""
        if not all(_FILE_ID.fullmatch(file_id) for file_id in file_ids):
            raise FileNotFound
        replies = await self._redis.pipeline(
            [
                file_read(
                    file=self._keys.file(file_id),
                    mine=_begins(file_id, identity.owner) + '"',
                    roots=_begins(file_id, identity.admin_prefix) if identity.admin else "",
                )
                for file_id in file_ids
            ]
        )
        records = [FileRecord.parse(reply) for reply in replies if reply is not None]
        if len(records) < len(file_ids):
            raise FileNotFound
        return records

    async def forget(self, record: FileRecord) -> None:
        await self._redis.run(Number("DEL", self._keys.file(record.file_id)))
        await self._redis.run(Number("ZREM", self._keys.files(record.user), record.file_id))

    async def erase(self, identity: Identity, user_id: str) -> tuple[int, bool]:
        """Erases the records of a user's files; of everybody of that name in the root for an admin. Returns
        how many there were, and whether more may be left: a call looks at a bounded number of files and
        users, and leaves entries whose records may be about to be written."""
        keys, uploaders = self._keys, self._keys.uploaders(name_key(identity.owner, user_id))
        erased, uploading, left = 0, 0, _ERASED_PER_CALL
        while left > 0:
            users = [user_key(identity.owner, user_id).encode()]
            if identity.admin:
                some = Texts("ZRANGE", uploaders, uploading, uploading + _ERASED_AT_ONCE - 1)
                users = await self._redis.run(some)
            indexes = [keys.files(user.decode()) for user in users]
            counts = await self._redis.pipeline([Number("ZCARD", index) for index in indexes])
            for index, count in zip(indexes, counts, strict=True):
                if count:
                    gone, looked_at, unwritten = await self._erase_of(index, left)
                    erased, left, uploading = erased + gone, left - looked_at, uploading + (unwritten > 0)
                if left <= 0:
                    return erased, True
            await self._redis.run(uploaders_forget(uploaders=uploaders, files=keys.files(""), users=users))
            if not (identity.admin and users):
                return erased, uploading > 0
            left -= len(users)
        return erased, True

    async def _erase_of(self, index: Key, most: int) -> tuple[int, int, int]:
        """Of one user; how many there were, how many were looked at, and how many entries without a record
        are left in front."""
        erased = looked_at = left = 0
        while looked_at < most:
            ids = await self._redis.run(Texts("ZRANGE", index, left, left + _ERASED_AT_ONCE - 1))
            if not ids:
                break
            names = [file_id.decode() for file_id in ids]
            gone = await self._redis.pipeline([Number("DEL", self._keys.file(name)) for name in names])
            written = [name for name, one in zip(names, gone, strict=True) if one]
            if written:
                await self._redis.run(Number("ZREM", index, *written))
            if len(written) < len(names):
                unwritten = [name for name, one in zip(names, gone, strict=True) if not one]
                left += len(await self._redis.run(self._take_out(index, unwritten)))
            erased, looked_at = erased + len(written), looked_at + len(names)
        return erased, looked_at, left

    def _take_out(self, index: Key, unwritten: list[str]) -> Command[list[bytes]]:
        return index_unwritten(index=index, members=unwritten, life=self.ttl_ms, opening=OPENING_MS)
