"""The newest chats of each root that failed, for its admins: what went wrong, and no word of what was said.

Who ends a chat writes its entry behind the end, by a command of its own: it may be lost, and the end may not
wait for it. The chat's record says the same for as long as that is kept.
"""

from collections.abc import Collection
from typing import Final

import orjson

from app.models import Identity
from app.models.chats import Chat
from app.redis_client import Key, Keys, Number, RedisGate, Texts
from app.stores.index import owner_key
from app.stores.scripts import failure_note
from app.stores.sessions import SessionRecord
from app.utils import iso

KEPT: Final = 100
"""Entries of a root."""
_KEPT_MS: Final = 7 * 86_400_000
"""How long a list lives after its last entry."""

Entry = dict[str, str | int | None]


class FailureStore:
    def __init__(self, redis: RedisGate, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def note(self, session: SessionRecord, chat: Chat) -> None:
        """``chat``: one that has failed."""
        if (error := chat.error) is None:
            return
        entry: Entry = {
            "at": chat.completed_at or iso(),
            "chat_id": chat.chat_id,
            "session_id": chat.session_id,
            "bot_id": session.bot_id,
            "code": error.code,
            "coze_code": error.coze_code,
            "hint": error.hint,
            "logid": error.logid,
        }
        root = session.owner.partition("|")[0]
        await self._redis.run(
            failure_note(failures=self._of(root), most=KEPT, ttl=_KEPT_MS, entry=orjson.dumps(entry))
        )

    async def newest(self, identity: Identity, limit: int) -> list[Entry]:
        """Those of the caller's root, newest first."""
        found = await self._redis.run(Texts("LRANGE", self._of(identity.root), 0, limit - 1))
        return [orjson.loads(entry) for entry in found]

    async def forget(self, identity: Identity, sessions: Collection[str]) -> None:
        """Takes out what failed in these sessions of the caller's root."""
        failures = self._of(identity.root)
        entries = await self._redis.run(Texts("LRANGE", failures, 0, -1))
        gone = [entry for entry in entries if orjson.loads(entry)["session_id"] in sessions]
        await self._redis.pipeline([Number("LREM", failures, 0, entry) for entry in gone])

    def _of(self, root: str) -> Key:
        return self._keys.failures(owner_key(root))
