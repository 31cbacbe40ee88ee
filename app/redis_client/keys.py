"""Key names and scripts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.utils import SHARDS, group_of, shard_of

_LUA_DIR: Final = Path(__file__).parents[1] / "stores" / "lua"

Arg = str | bytes | int


class Keys:
    """Every key name, in one place.

    A session, its chats, their logs, its queue and the shard's leases carry the shard as hash tag, so
    they share a slot. Indexes have a tag of their own.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def _shard(self, shard: int) -> str:
        return f"{self.prefix}{{{shard:02d}}}:"

    def session(self, session_id: str) -> str:
        return f"{self._shard(shard_of(session_id))}session:{session_id}"

    def order(self, session_id: str) -> str:
        """List of the session's chat ids, newest first."""
        return f"{self._shard(shard_of(session_id))}order:{session_id}"

    def queue(self, session_id: str) -> str:
        return f"{self._shard(shard_of(session_id))}queue:{session_id}"

    def chats(self, any_id: str) -> str:
        """Hash of a session's chat records, ``owner`` among them; a chat's id leads there too."""
        return f"{self._shard(shard_of(any_id))}chats:{group_of(any_id)}"

    def run_prefix(self, any_id: str) -> str:
        return f"{self._shard(shard_of(any_id))}run:"

    def run(self, chat_id: str) -> str:
        """What the owner of a chat that is not over needs: epoch, ids at Coze, the request."""
        return self.run_prefix(chat_id) + chat_id

    def log(self, chat_id: str) -> str:
        return self.log_prefix(chat_id) + chat_id

    def leases(self, shard: int) -> str:
        return f"{self._shard(shard)}leases"

    def leases_of(self, any_id: str) -> str:
        return self.leases(shard_of(any_id))

    def idempotency(self, session_id: str, digest: str) -> str:
        return f"{self._shard(shard_of(session_id))}idem:{digest}"

    def session_idempotency(self, digest: str) -> str:
        return f"{self.prefix}{{index}}:idem:{digest}"

    def bell(self, shard: int, process: str) -> str:
        """Stream that wakes this process' own blocking read of a shard."""
        return f"{self._shard(shard)}bell:{process}"

    def inbox(self, process: str) -> str:
        """Stream of what other processes ask this one to do."""
        return f"{self.prefix}inbox:{process}"

    def user_sessions(self, user: str) -> str:
        return f"{self.prefix}{{index}}:user:{user}"

    def kept_sessions(self, user: str) -> str:
        """Also those that are over, until nothing is left of them."""
        return f"{self.prefix}{{index}}:kept:{user}"

    def namesakes(self, name: str) -> str:
        """Users of one name in one root, whoever owns them."""
        return f"{self.prefix}{{index}}:names:{name}"

    def file(self, file_id: str) -> str:
        return f"{self._shard(shard_of(file_id))}file:{file_id}"

    def files(self, user: str) -> str:
        """A user's uploads by expiry; written before the record, so that erasing finds all."""
        return f"{self.prefix}{{index}}:files:{user}"

    def uploaders(self, name: str) -> str:
        """Users of one name in one root who have uploaded something."""
        return f"{self.prefix}{{index}}:uploaders:{name}"

    def conversation(self, name: str, digest: str) -> str:
        """Whose a conversation is. ``name``: users of one name in one root, who share a slot."""
        return self.conversation_prefix(name) + digest

    def conversation_prefix(self, name: str) -> str:
        return f"{self.prefix}{{{name}}}:conversation:"

    def conversations(self, name: str) -> str:
        """The same conversations by user and expiry, so that they can be erased."""
        return f"{self.prefix}{{{name}}}:conversations"

    def usage(self, shard: int, owner: str = "") -> str:
        """Prefix of what an owner has used in this shard's chats; a day's number completes it."""
        return f"{self._shard(shard)}usage:{owner}{':' if owner else ''}"

    def usage_owners(self, shard: int, root: str = "") -> str:
        """Prefix of the owners of a root who have used anything; a day's number completes it."""
        return f"{self._shard(shard)}owners:{root}{':' if root else ''}"

    def spent(self, shard: int, user: str) -> str:
        """Prefix of a user's tokens where there is a quota; a day's number completes it."""
        return f"{self._shard(shard)}spent:{user}:"

    def rate(self, kind: str, user: str) -> str:
        return f"{self.prefix}rate:{kind}:{user}"

    def keys_used(self, session_id: str) -> str:
        """Set of the session's Idempotency-Keys, so that they can be erased."""
        return f"{self._shard(shard_of(session_id))}used:{session_id}"

    def erased(self, session_id: str) -> str:
        return f"{self._shard(shard_of(session_id))}erased:{session_id}"

    def waiting(self, shard: int) -> str:
        """Chats that wait for tool outputs; a score is the time after which it is forgotten."""
        return f"{self._shard(shard)}waiting"

    def queued(self, shard: int) -> str:
        return f"{self._shard(shard)}queued"

    def log_prefix(self, any_id: str) -> str:
        return f"{self._shard(shard_of(any_id))}log:"

    @property
    def probes(self) -> tuple[str, ...]:
        """A key in each shard's slot. They are only ever deleted: to see whether writing works everywhere."""
        return tuple(f"{self._shard(shard)}probe" for shard in self.shards)

    @property
    def all_sessions(self) -> str:
        return f"{self.prefix}{{index}}:sessions"

    @property
    def all_users(self) -> str:
        return f"{self.prefix}{{index}}:users"

    @property
    def shards(self) -> range:
        return range(SHARDS)


class Script:
    """A Lua script by the name of its file; its digest is what travels."""

    def __init__(self, name: str) -> None:
        prelude = (_LUA_DIR / "prelude.lua").read_text(encoding="utf-8")
        self.name = name
        self.source = prelude + (_LUA_DIR / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], args: Sequence[Arg]) -> tuple[Arg, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *args)
